"""Damage as it happens and as it is made: inputs a few edits away from a sound one."""

import struct

from hypothesis import strategies as st

NUMBERS = [0, 1, 2, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1, 2**53, 2**62, 2**63 - 1, 2**63, 2**64 - 1]
WORDS = [
    *(b"null", b"true", b"NaN", b"Infinity", b"1e999", b"-1", b"[]", b"{}", b'""', b"9" * 5000, b"[" * 3000, b'{"a":' * 1500),
    *(b"\\ud800", b"\x00", b"\xff", b"\xef\xbb\xbf", b"\n", b"\r", b'"', b"'", b",", b"../../etc/passwd", b"\x1b[31m", b"."),
    *(b"a." * 300, b"\xf0\x9f\x98\x80", b"[[x]]\n", b"1979-99-99", b"direction.", b"GGUF", b"PAR1", b"F32", b"BF16", b"\\u0000"),
]


@st.composite
def damaged(draw: st.DrawFn, sound: bytes) -> bytes:
    """The input after one to six edits."""
    data = bytearray(sound)
    for _ in range(draw(st.integers(1, 6))):
        at = draw(st.integers(0, len(data)))
        match draw(st.sampled_from(["put", "insert", "number", "cut", "end", "copy"])):
            case "put":
                new = draw(st.binary(min_size=1, max_size=8) | st.sampled_from(WORDS))
                data[at : at + len(new)] = new
            case "insert":
                data[at:at] = draw(st.binary(max_size=8) | st.sampled_from(WORDS))
            case "number":
                form = draw(st.sampled_from(["<B", "<H", "<I", "<Q"]))
                new = struct.pack(form, draw(st.sampled_from(NUMBERS)) % 256 ** struct.calcsize(form))
                data[at : at + len(new)] = new
            case "cut":
                del data[at : at + draw(st.integers(1, 64))]
            case "end":
                del data[at:]
            case "copy":
                piece = data[at : at + draw(st.integers(1, 256))]
                data[at:at] = piece * draw(st.sampled_from([1, 2, 50]))
    return bytes(data)
