"""The line that opens with `:`."""

from typing import ClassVar

from textual import events
from textual.binding import Binding, BindingType
from textual.widget import Widget
from textual.widgets import Input

from irm_lite_tui.heatmap.messages import JumpGiven


class JumpPrompt(Input):
    """Enter posts JumpGiven and closes it; Escape only closes it."""

    DEFAULT_CSS = """
    JumpPrompt, JumpPrompt:focus { height: 1; border: none; padding: 0 1; display: none; background: $panel; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "leave", "Back", show=False, id="prompt.back")]

    def __init__(self) -> None:
        super().__init__(placeholder="1512 an index, l12 a layer, p0 a prompt, t7 a token", max_length=80, compact=True)
        self._before: Widget | None = None  # what had the focus

    def open(self) -> None:
        self.value, self._before = "", self.screen.focused
        self.display = True
        self.screen.set_focus(self)  # at once, where focus() waits for its turn

    def action_leave(self) -> None:
        self.display = False
        self.screen.set_focus(self._before)

    def on_input_submitted(self, message: Input.Submitted) -> None:
        message.stop()
        self.display = False
        self.post_message(JumpGiven(message.value))

    def on_blur(self, event: events.Blur) -> None:
        self.display = False
