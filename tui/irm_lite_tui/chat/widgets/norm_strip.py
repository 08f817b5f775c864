"""A line of bars under an answer: how much was added for each of its tokens."""

from typing import ClassVar

from rich.style import Style
from rich.text import Text
from textual.binding import Binding, BindingType
from textual.events import Click
from textual.geometry import clamp
from textual.reactive import reactive
from textual.widget import Widget

from irm_lite_tui.chat.messages import TokenChosen

_BARS = " ▁▂▃▄▅▆▇█"


class NormStrip(Widget, can_focus=True):
    """A cell a token, full at `limit`. The cursor chooses a token; the part around it is shown where not all fit."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {"strip--on", "strip--off"}
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("left", "move(-1)", "Previous token", id="strip.token-before"),
        Binding("right", "move(1)", "Next token", id="strip.token-after"),
        Binding("pageup", "move(-10)", "Ten tokens back", show=False, id="strip.ten-tokens-back"),
        Binding("pagedown", "move(10)", "Ten tokens forward", show=False, id="strip.ten-tokens-on"),
        Binding("home", "put(0)", "First token", show=False, id="strip.first-token"),
        Binding("end", "put(-1)", "Last token", show=False, id="strip.last-token"),
    ]
    cursor: reactive[int | None] = reactive(None)
    limit = reactive(0.0)

    def __init__(self, column: str) -> None:
        super().__init__()
        self.column = column
        self.norms: list[float | None] = []

    def allow_focus(self) -> bool:
        """Only where there is a token to choose."""
        return bool(self.norms)

    def show(self, norms: list[float | None]) -> None:
        """The norms of an answer's tokens, None where nothing steers."""
        self.norms = norms
        if self.cursor is not None and self.cursor >= len(norms):
            self.cursor = None
        self.refresh()

    def render(self) -> Text:
        accent, dim = self.get_component_rich_style("strip--on"), self.get_component_rich_style("strip--off")
        text = Text(no_wrap=True)
        first = self._first()
        for at, norm in enumerate(self.norms[first : first + self.size.width], first):
            level = 0 if norm is None or self.limit <= 0 else clamp(round(norm / self.limit * 8), 0, 8)
            mark = "·" if norm is None else _BARS[level]
            text.append(mark, accent + Style(reverse=True) if at == self.cursor else dim if norm is None else accent)
        return text

    def action_move(self, by: int) -> None:
        last = len(self.norms) - 1
        self.action_put(last if self.cursor is None else clamp(self.cursor + by, 0, max(last, 0)))

    def action_put(self, token: int) -> None:
        """Put the cursor on a token, counted from the end where negative."""
        if self.norms:
            self.cursor = token % len(self.norms)
            self.post_message(TokenChosen(self.column, self.cursor))

    def on_click(self, event: Click) -> None:
        token = self._first() + event.x
        if token < len(self.norms):
            self.action_put(token)

    def _first(self) -> int:
        """The token in the first cell."""
        width, count = max(self.size.width, 1), len(self.norms)
        if self.cursor is None:
            return max(count - width, 0)
        return clamp(self.cursor - width // 2, 0, max(count - width, 0))
