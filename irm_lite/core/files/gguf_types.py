"""GGUF's numbers for the types of metadata values and of tensors (ggml's docs/gguf.md and ggml.h). Imports nothing heavy.

The library `gguf` has them too, and takes 0.2 s to import.
"""

import struct
from enum import IntEnum


class ValueType(IntEnum):
    """Types of metadata values, and of an array's items."""

    UINT8, INT8, UINT16, INT16, UINT32, INT32, FLOAT32, BOOL, STRING, ARRAY, UINT64, INT64, FLOAT64 = range(13)


FORMATS: dict[int, str] = {  # of scalars, as struct has them
    ValueType.UINT8: "<B",
    ValueType.INT8: "<b",
    ValueType.UINT16: "<H",
    ValueType.INT16: "<h",
    ValueType.UINT32: "<I",
    ValueType.INT32: "<i",
    ValueType.FLOAT32: "<f",
    ValueType.BOOL: "<?",
    ValueType.UINT64: "<Q",
    ValueType.INT64: "<q",
    ValueType.FLOAT64: "<d",
}

# Types of tensors.
F32 = 0
Q8_1, Q8_K, I8, I16, I32, I64, F64 = 9, 15, 24, 25, 26, 27, 28


def packed_string(text: str) -> bytes:
    """A string as it stands in a file: its length in bytes, then UTF-8."""
    data = text.encode()
    return struct.pack("<Q", len(data)) + data
