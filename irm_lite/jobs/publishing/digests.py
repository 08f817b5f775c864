"""The identity of a vector or an adapter: what it adds, whatever else its file says."""

import hashlib

import numpy as np

from irm_lite.steering.adapter import Adapter
from irm_lite.steering.control_vector import ControlVector


def digest_of(vector: ControlVector) -> str:
    """SHA-256 of the directions and their blocks: each block's number (int64), then its direction (float32), little-endian."""
    hashed = hashlib.sha256()
    for block in sorted(vector.directions):
        hashed.update(np.array([block], dtype="<i8").tobytes())
        hashed.update(np.ascontiguousarray(vector.directions[block], dtype="<f4").tobytes())
    return hashed.hexdigest()


def digest_of_adapter(adapter: Adapter) -> str:
    """SHA-256 of alpha (float32), then of each map in the order of their names: its name, its rank (int64), A and B by rows
    (float32), little-endian."""
    hashed = hashlib.sha256(np.array([adapter.alpha], dtype="<f4").tobytes())
    for name in sorted(adapter.factors):
        factors = adapter.factors[name]
        hashed.update(name.encode())
        hashed.update(np.array([factors.rank], dtype="<i8").tobytes())
        for each in (factors.a, factors.b):
            hashed.update(np.ascontiguousarray(each, dtype="<f4").tobytes())
    return hashed.hexdigest()
