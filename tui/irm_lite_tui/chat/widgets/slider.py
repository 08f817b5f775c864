"""A slider for the strength of the steering."""

from typing import ClassVar

from rich.style import Style
from rich.text import Text
from textual.binding import Binding, BindingType
from textual.events import Click, MouseDown, MouseMove, MouseUp
from textual.geometry import clamp
from textual.reactive import reactive
from textual.widget import Widget

from irm_lite_tui.chat.messages import StrengthMoved

_LABEL, _VALUE = 9, 6  # cells beside the track


class StrengthSlider(Widget, can_focus=True):
    """From -2 to 2; 1 is the trained effect, 0 none, below it the opposite."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {"slider--on", "slider--off"}
    LOW, HIGH, STEP = -2.0, 2.0, 0.05
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("left,down,minus", "move(-1)", "Weaker", id="strength.weaker"),
        Binding("right,up,plus", "move(1)", "Stronger", id="strength.stronger"),
        Binding("pagedown", "move(-10)", "Much weaker", show=False, id="strength.much-weaker"),
        Binding("pageup", "move(10)", "Much stronger", show=False, id="strength.much-stronger"),
        Binding("home", "put(0)", "None", id="strength.none"),
        Binding("end", "put(1)", "Trained", id="strength.trained"),
    ]
    strength = reactive(1.0)

    def render(self) -> Text:
        width = max(self.size.width - _LABEL - _VALUE, 1)
        accent, dim = self.get_component_rich_style("slider--on"), self.get_component_rich_style("slider--off")
        handle, zero = self._cell(self.strength, width), self._cell(0.0, width)
        low, high = sorted((handle, zero))
        text = Text("strength ", no_wrap=True)
        for at in range(width):
            if at == handle:
                text.append("●", accent + Style(bold=True))
            elif at == zero:
                text.append("┼", dim)
            else:
                text.append("━" if low < at < high else "─", accent if low < at < high else dim)
        return text.append(f" {self.strength:5.2f}", "bold" if self.has_focus else "")

    def action_move(self, steps: int) -> None:
        self.action_put(self.strength + steps * self.STEP)

    def action_put(self, strength: float) -> None:
        """Move there; posts StrengthMoved where that is a change."""
        strength = round(clamp(round(strength / self.STEP) * self.STEP, self.LOW, self.HIGH), 2) + 0.0
        if strength != self.strength:
            self.strength = strength
            self.post_message(StrengthMoved(strength))

    def _cell(self, strength: float, width: int) -> int:
        return round((strength - self.LOW) / (self.HIGH - self.LOW) * (width - 1))

    def _to_pointer(self, x: int) -> None:
        width = max(self.size.width - _LABEL - _VALUE, 2)
        self.action_put(self.LOW + clamp((x - _LABEL) / (width - 1), 0.0, 1.0) * (self.HIGH - self.LOW))

    def on_mouse_down(self, event: MouseDown) -> None:
        self.capture_mouse()
        self._to_pointer(event.x)

    def on_mouse_move(self, event: MouseMove) -> None:
        if self.app.mouse_captured is self:
            self._to_pointer(event.x)

    def on_mouse_up(self, _event: MouseUp) -> None:
        self.release_mouse()

    def on_click(self, event: Click) -> None:
        if event.chain == 2:
            self.action_put(1.0)
