"""Layer specifications: `all`, `0-29`, `0,3,7-12`, `odd`, `even`. Layers are 0-based decoder blocks."""

import re
from collections.abc import Iterable

from irm_lite.errors import LayerError

WORDS = ("all", "odd", "even")
_MEND = "write layers as 0-29, 0,3,7-12, odd, even or all"


def parse_layers(spec: str, n_layers: int, first: int = 0) -> tuple[int, ...]:
    """The layers that `spec` names, ascending, each once, all within first..n_layers-1.

    Raises LayerError where the text is malformed, names no layer, or leaves the range.
    """
    words = {"all": range(first, n_layers), "odd": range(1, n_layers, 2), "even": range(0, n_layers, 2)}
    spec = spec.strip().lower()
    if spec in words:
        named = tuple(layer for layer in words[spec] if layer >= first)
        if not named:
            raise LayerError(f"layers {spec!r} names no layer here", f"this model's are {first}-{n_layers - 1}")
        return named
    chosen: set[int] = set()
    for part in spec.split(","):
        match = re.fullmatch(r"\s*(\d{1,6})(?:\s*-\s*(\d{1,6}))?\s*", part, re.ASCII)
        if not match:
            raise LayerError(f"layers {spec!r}: {part.strip()!r} is not a layer or a range", _MEND)
        low = int(match[1])
        high = int(match[2]) if match[2] else low
        if low > high:
            raise LayerError(f"layers {spec!r}: the range {part.strip()} runs backwards", f"write {high}-{low}")
        if low < first or high >= n_layers:
            raise LayerError(f"layers {spec!r} leave this model's range", f"its layers are {first}-{n_layers - 1}")
        chosen.update(range(low, high + 1))
    return tuple(sorted(chosen))


def format_layers(layers: Iterable[int]) -> str:
    """The shortest specification of these layers: (0, 1, 2, 5) -> '0-2,5'."""
    runs: list[list[int]] = []
    for layer in sorted(set(layers)):
        if runs and layer == runs[-1][1] + 1:
            runs[-1][1] = layer
        else:
            runs.append([layer, layer])
    return ",".join(str(low) if low == high else f"{low}-{high}" for low, high in runs)
