"""What `build_irm` is given of each kind where nothing is trained."""

from typing import Any

from irm_lite.config import KINDS, Kind
from irm_lite.steering.irm import Site


def sites_of(kind: Kind) -> tuple[Site, ...]:
    return ("block",) if KINDS[kind].reads == "maps" else ("attn", "block")


def read_by(kind: Kind, width: int) -> dict[str, Any]:
    """The width of what a block's last map reads, where the kind reads that."""
    return {"inner": width} if KINDS[kind].reads == "maps" else {}
