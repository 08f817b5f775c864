"""A vector's identity: what it adds, whatever else its file says."""

import hashlib

import numpy as np

from irm_lite.steering.control_vector import ControlVector


def digest_of(vector: ControlVector) -> str:
    """SHA-256 of the directions and their blocks: each block's number (int64), then its direction (float32), little-endian."""
    hashed = hashlib.sha256()
    for block in sorted(vector.directions):
        hashed.update(np.array([block], dtype="<i8").tobytes())
        hashed.update(np.ascontiguousarray(vector.directions[block], dtype="<f4").tobytes())
    return hashed.hexdigest()
