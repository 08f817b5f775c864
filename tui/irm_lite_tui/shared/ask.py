"""Small windows: a question to answer yes or no, and a text to edit."""

from collections.abc import Callable
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.screen import ModalScreen
from textual.widgets import Button, Static

from irm_lite.core.errors import IrmLiteError
from irm_lite_tui.settings.keys import key_label
from irm_lite_tui.shared.text import paragraphs
from irm_lite_tui.shared.text_field import TextField


class AskScreen(ModalScreen[bool]):
    """A question to confirm: its button, or y, answers yes."""

    CSS_PATH = "ask.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y", "answer(True)", "Yes", id="ask.yes"),
        Binding("n,escape", "answer(False)", "No", id="ask.no"),
        Binding("left,right", "app.focus_next", "The other button", show=False, id="ask.other"),
    ]

    def __init__(self, question: str, yes: str, detail: str = "") -> None:
        super().__init__()
        self.question, self.yes, self.detail = question, yes, detail

    def compose(self) -> ComposeResult:
        with Vertical(id="window"):
            yield Static(paragraphs(self.question), id="question")
            yield Static(paragraphs(self.detail), id="detail")
            with Horizontal(id="buttons"):
                yield Button(key_label(self.app, "No", "ask.no", "n"), id="no")
                yield Button(key_label(self.app, self.yes, "ask.yes", "y"), id="yes", variant="error")

    def on_button_pressed(self, event: Button.Pressed) -> None:
        self.dismiss(event.button.id == "yes")

    def action_answer(self, answer: bool) -> None:
        self.dismiss(answer)


class NameScreen(ModalScreen[str | None]):
    """A text to edit, which Enter hands to `attempt`; an IrmLiteError it raises is shown in the window, which stays open."""

    CSS_PATH = "ask.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "dismiss(None)", "Back", id="dialog.back")]

    def __init__(self, title: str, text: str, attempt: Callable[[str], object]) -> None:
        super().__init__()
        self.question, self.text, self.attempt = title, text, attempt

    def compose(self) -> ComposeResult:
        with Vertical(id="window"):
            yield Static(paragraphs(self.question), id="question")
            yield TextField(self.text)
            yield Static("", id="detail")

    def on_input_submitted(self) -> None:
        given = self.query_one(TextField).text
        try:
            self.attempt(given)
        except IrmLiteError as error:
            self.query_one("#detail", Static).update(paragraphs(str(error)))
        else:
            self.dismiss(given)
