"""Tells oneDNN, which computes on CPUs, to keep little."""

import os


def keep_few_kernels() -> None:
    """To be called before the first product. oneDNN, and torch around it, keep the code of their newest 1024, each for one length
    of row: a training whose rows differ would grow by 2 to 5 MB a step (docs/log.md). The user's own settings stand."""
    for name in ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY"):
        os.environ.setdefault(name, "24")
