"""What is typed at the heatmap's prompt."""

import re
from dataclasses import dataclass

from irm_lite.core.errors import InputError
from irm_lite_tui.heatmap.source import Picture

_HINT = "type an index (1512), a layer (l12), a prompt (p0), a token (t7), or several of them"
_FIELDS = {"": "index", "l": "layer", "p": "prompt", "t": "token"}


@dataclass(frozen=True)
class Jump:
    """Where to go; None stays."""

    index: int | None = None
    layer: int | None = None
    prompt: int | None = None
    token: int | None = None

    def require_in(self, picture: Picture) -> None:
        """Raise InputError where the picture has no such index or layer."""
        hidden_size = picture.values.shape[1]
        if self.index is not None and self.index >= hidden_size:
            raise InputError(f"there is no index {self.index}", f"give 0-{hidden_size - 1}")
        if self.layer is not None and self.layer not in picture.layers:
            raise InputError(f"layer {self.layer} is not here", f"there are {picture.layers[0]}-{picture.layers[-1]}")


def parse_jump(text: str) -> Jump:
    """`1512`, `l12`, `l12 1512`, `p1 t7`. Raises InputError where the text is anything else."""
    found: dict[str, int] = {}
    for word in text.removeprefix(":").replace(",", " ").lower().split():
        match = re.fullmatch(r"([lpt]?)(\d{1,7})", word, re.ASCII)
        if not match or _FIELDS[match[1]] in found:
            raise InputError(f"{word!r} is not an index, layer, prompt or token", _HINT)
        found[_FIELDS[match[1]]] = int(match[2])
    if not found:
        raise InputError("there is nothing to go to", _HINT)
    return Jump(**found)
