"""Limits the caches of oneDNN, which computes on CPUs."""

import os


def keep_few_kernels() -> None:
    """Call it before the first matrix product. oneDNN, and torch around it, cache their newest 1024 kernels, one for each row
    length: a training with rows of many lengths would grow by 2 to 5 MB a step (docs/log.md). The user's own settings stay."""
    for name in ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY"):
        os.environ.setdefault(name, "24")
