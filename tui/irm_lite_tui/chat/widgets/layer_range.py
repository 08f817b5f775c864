"""A slider with two ends: the layers that are steered."""

from typing import ClassVar

from rich.style import Style
from rich.text import Text
from textual.binding import Binding, BindingType
from textual.events import MouseDown, MouseMove, MouseUp
from textual.geometry import clamp
from textual.reactive import reactive
from textual.widget import Widget

from irm_lite_tui.chat.messages import LayersMoved

_LABEL, _VALUE = 7, 8  # cells beside the track


class LayerRange(Widget, can_focus=True):
    """Both ends belong to the range. The keys move one end; space changes to the other."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {"slider--on", "slider--off"}
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("left,down", "move(-1)", "Lower", id="layers.lower"),
        Binding("right,up", "move(1)", "Higher", id="layers.higher"),
        Binding("space", "other_end", "Other end", id="layers.other-end"),
        Binding("home", "all", "All", id="layers.all"),
    ]
    ends = reactive((0, 0))
    n_layers = reactive(1)
    at_high = reactive(False)

    def set_depth(self, n_layers: int) -> None:
        """The model's layers; the range is all of them."""
        self.n_layers, self.ends = n_layers, (0, n_layers - 1)

    @property
    def spec(self) -> str:
        """As irm_lite.steering.layers reads it."""
        low, high = self.ends
        return "all" if (low, high) == (0, self.n_layers - 1) else f"{low}-{high}"

    def render(self) -> Text:
        width = max(self.size.width - _LABEL - _VALUE, 1)
        accent, dim = self.get_component_rich_style("slider--on"), self.get_component_rich_style("slider--off")
        low, high = (self._cell(end, width) for end in self.ends)
        text = Text("layers ", no_wrap=True)
        for at in range(width):
            if at in (low, high):
                active = at == (high if self.at_high else low) and self.has_focus
                text.append("●" if active else "○", accent + Style(bold=True))
            else:
                text.append("━" if low < at < high else "─", accent if low < at < high else dim)
        return text.append(f" {self.ends[0]}-{self.ends[1]}", "bold" if self.has_focus else "")

    def action_move(self, by: int) -> None:
        low, high = self.ends
        last = self.n_layers - 1
        self._put((low, clamp(high + by, low, last)) if self.at_high else (clamp(low + by, 0, high), high))

    def action_other_end(self) -> None:
        self.at_high = not self.at_high

    def action_all(self) -> None:
        self._put((0, self.n_layers - 1))

    def _put(self, ends: tuple[int, int]) -> None:
        if ends != self.ends:
            self.ends = ends
            self.post_message(LayersMoved())

    def _cell(self, layer: int, width: int) -> int:
        return round(layer / max(self.n_layers - 1, 1) * (width - 1))

    def _layer(self, x: int) -> int:
        width = max(self.size.width - _LABEL - _VALUE, 2)
        return round(clamp((x - _LABEL) / (width - 1), 0.0, 1.0) * (self.n_layers - 1))

    def on_mouse_down(self, event: MouseDown) -> None:
        self.capture_mouse()
        layer = self._layer(event.x)
        self.at_high = abs(layer - self.ends[1]) < abs(layer - self.ends[0])
        self._to(layer)

    def on_mouse_move(self, event: MouseMove) -> None:
        if self.app.mouse_captured is self:
            self._to(self._layer(event.x))

    def on_mouse_up(self, _event: MouseUp) -> None:
        self.release_mouse()

    def _to(self, layer: int) -> None:
        low, high = self.ends
        self._put((low, max(layer, low)) if self.at_high else (min(layer, high), high))
