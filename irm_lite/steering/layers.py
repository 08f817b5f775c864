"""Layer specifications: `all`, `0-29`, `0,3,7-12`, `odd`, `even`, `2/4`, `every 4`. Layers are 0-based decoder blocks."""

import re
from collections.abc import Iterable

from irm_lite.core.errors import LayerError

_HINT = "write layers as 0-29, 0,3,7-12, odd, even, all, 2/4 (the second of four parts) or every 4"


def parse_layers(spec: str, n_layers: int, first: int = 0) -> tuple[int, ...]:
    """The layers that `spec` names, ascending, each once, all within first..n_layers-1.

    `2/4` is the second of four parts, cut where they are equal or differ by one; `every 4` is each fourth: 3, 7, 11 ...
    Raises LayerError where the text is malformed, names no layer, or leaves the range.
    """
    spec = spec.strip().lower()
    by_depth = _by_depth(spec, n_layers)
    if by_depth is not None:
        named = tuple(layer for layer in by_depth if layer >= first)
        if not named:
            raise LayerError(f"layers {spec!r} names no layer here", f"this model's are {first}-{n_layers - 1}")
        return named
    chosen: set[int] = set()
    for part in spec.split(","):
        match = re.fullmatch(r"\s*(\d{1,6})(?:\s*-\s*(\d{1,6}))?\s*", part, re.ASCII)
        if not match:
            raise LayerError(f"layers {spec!r}: {part.strip()!r} is not a layer or a range", _HINT)
        low = int(match[1])
        high = int(match[2]) if match[2] else low
        if low > high:
            raise LayerError(f"layers {spec!r}: the range {part.strip()} runs backwards", f"write {high}-{low}")
        if low < first or high >= n_layers:
            raise LayerError(f"layers {spec!r} leave this model's range", f"its layers are {first}-{n_layers - 1}")
        chosen.update(range(low, high + 1))
    return tuple(sorted(chosen))


def choose_layers(spec: str, n_layers: int, among: tuple[int, ...], whose: str, first: int = 0) -> tuple[int, ...]:
    """Those among these layers that `spec` names. Raises LayerError where it is malformed, or names none of them."""
    named = set(parse_layers(spec, n_layers, first))
    chosen = tuple(layer for layer in among if layer in named)
    if among and not chosen:
        raise LayerError(f"layers {spec!r} name none of {whose}'s", f"it has {format_layers(among)}")
    return chosen


def injected_layers(spec: str, site: str, n_layers: int) -> tuple[int, ...]:
    """`parse_layers`; at block outputs layer 0 is left out unless it is named: llama.cpp has no direction there."""
    return parse_layers(spec, n_layers, 1 if site == "block" and needs_depth(spec) else 0)


def needs_depth(spec: str) -> bool:
    """Whether the specification depends on how many layers there are, rather than naming them by number."""
    return _by_depth(spec.strip().lower(), 1) is not None


def _by_depth(spec: str, n_layers: int) -> range | None:
    """The layers of a word, a part or a step; None for numbers."""
    words = {"all": range(n_layers), "odd": range(1, n_layers, 2), "even": range(0, n_layers, 2)}
    if spec in words:
        return words[spec]
    if match := re.fullmatch(r"(\d{1,6})/(\d{1,6})", spec, re.ASCII):
        part, parts = int(match[1]), int(match[2])
        if not 1 <= part <= parts:
            raise LayerError(f"layers {spec!r}: there is no part {part} of {parts}", "write 1/4, 2/4, 3/4 or 4/4")
        return range((part - 1) * n_layers // parts, part * n_layers // parts)
    if match := re.fullmatch(r"every\s+(\d{1,6})", spec, re.ASCII):
        step = int(match[1])
        if step < 1:
            raise LayerError(f"layers {spec!r}: a step of {step} goes nowhere", "write every 2, every 4 ...")
        return range(step - 1, n_layers, step)
    return None


def format_layers(layers: Iterable[int]) -> str:
    """The shortest specification of these layers: (0, 1, 2, 5) -> '0-2,5'."""
    runs: list[list[int]] = []
    for layer in sorted(set(layers)):
        if runs and layer == runs[-1][1] + 1:
            runs[-1][1] = layer
        else:
            runs.append([layer, layer])
    return ",".join(str(low) if low == high else f"{low}-{high}" for low, high in runs)
