"""What the last training here found that its process holds beside base and IRM (setup/own_share.py), for each build of torch.

For `models fit` and the UI, which ask before anything is loaded. Imports no torch.
"""

import json
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version

from irm_lite.core.files.atomic import write_text
from irm_lite.core.files.paths import cache_folder
from irm_lite.core.files.reading import read_json
from irm_lite.training.memory_fit import OWN_SHARE, Room

_FILE = "own-share.json"
_LEAST, _MOST = 10**8, 10**11  # bytes that make sense


def keep_share(own: int) -> None:
    """Keep what was measured; where it cannot be written, those who ask go by what was measured once elsewhere."""
    with suppress(OSError):
        write_text(cache_folder() / _FILE, json.dumps({"torch": _torch(), "bytes": own}) + "\n")


def kept_share() -> int | None:
    """Bytes, with this build of torch; None where no training here has measured them."""
    with suppress(OSError, ValueError, AttributeError):
        known = read_json(cache_folder() / _FILE, 1 << 12)
        own = known.get("bytes")
        if known.get("torch") == _torch() and type(own) is int and _LEAST <= own <= _MOST:
            return own
    return None


def room(free: int) -> Room:
    """So many free bytes, beside a process like the last one that trained here."""
    return Room(free, kept_share() or OWN_SHARE)


def _torch() -> str:
    try:
        return version("torch")
    except PackageNotFoundError:
        return ""
