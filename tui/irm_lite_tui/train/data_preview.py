"""The first rows of the chosen data."""

from rich.text import Text
from textual.app import ComposeResult
from textual.containers import VerticalScroll
from textual.widgets import Static

from irm_lite_tui.shared.text import line
from irm_lite_tui.train.messages import DataRead


class DataPreview(VerticalScroll):
    """How many rows there are, then questions and answers; or what is wrong."""

    DEFAULT_CSS = """
    DataPreview { border: round $border-blurred; border-title-color: $text-muted; padding: 0 1; }
    DataPreview:focus { border: round $border; }
    DataPreview Static { height: auto; }
    DataPreview .failed { color: $text-error; }
    """

    def __init__(self, id: str | None = None) -> None:
        super().__init__(id=id)
        self.border_title = "data"

    def compose(self) -> ComposeResult:
        yield Static("reading ...", id="rows")

    def show(self, message: DataRead) -> None:
        rows = self.query_one("#rows", Static)
        rows.set_class(message.failed, "failed")
        text = Text(line(message.about).plain)
        for example in message.rows:
            if example.question:
                text.append("\n\n").append_text(line(example.question, "bold"))
            text.append("\n" if example.question else "\n\n").append_text(line(example.answer))
        text.no_wrap = False
        rows.update(text)
