"""A small heatmap of what steered one token: layers down, neuron index across."""

from typing import Any

import numpy as np
from rich.text import Text
from textual.widget import Widget

from irm_lite.analysis.pictures.heatmap import terminal_heatmap
from irm_lite_tui.shared.text import line

HalfArray = np.ndarray[Any, np.dtype[np.float16]]


class TokenMap(Widget):
    """Hidden until there is something to show, and where the screen is small (chat/screen.tcss)."""

    def __init__(self) -> None:
        super().__init__()
        self._values: np.ndarray[Any, np.dtype[np.float32]] = np.zeros((0, 0), dtype=np.float32)
        self._title = Text()

    def show(self, column: str, token: str, outputs: HalfArray, layers: list[int], strength: float) -> None:
        """Unscaled outputs (L, H) at these L layers, for this token's text."""
        self._values = outputs.astype(np.float32)
        row, index = np.unravel_index(int(np.abs(self._values).argmax()), self._values.shape)
        value = float(self._values[row, index]) * strength
        self._title = line(f"{column} {token!r}  layers {layers[0]}-{layers[-1]}  largest: index {index} at layer {layers[row]}")
        self._title.append(f" {value:+.3g}", "bold")
        self.add_class("shown")
        self.refresh()

    def hide(self) -> None:
        """Show nothing."""
        self.remove_class("shown")

    def render(self) -> Text:
        width, rows = self.size.width, self.size.height - 1
        if not self._values.size or width < 1 or rows < 1:
            return self._title
        return Text("\n").join([self._title, *terminal_heatmap(self._values, width, rows, self.app.console.color_system)])
