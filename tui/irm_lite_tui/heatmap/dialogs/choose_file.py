"""Ask for the name of a picture's file."""

from pathlib import Path
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Label

from irm_lite.core.errors import InputError
from irm_lite.core.files.paths import expanded
from irm_lite.core.visible_text import visible
from irm_lite_tui.shared.text import line
from irm_lite_tui.shared.text_field import TextField


class ChooseFile(ModalScreen[Path | None]):
    """The path as it was typed, None where the question was left."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "dismiss(None)", "Back", id="dialog.back")]

    def __init__(self, title: str, proposed: Path) -> None:
        super().__init__()
        self._title, self._proposed = title, proposed

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog"):
            yield Label(line(self._title))
            yield TextField(str(self._proposed), select_on_focus=False)

    def on_mount(self) -> None:
        self.query_one(TextField).focus()

    def on_input_submitted(self) -> None:
        typed = self.query_one(TextField).text.strip()
        if not typed:
            return
        try:
            self.dismiss(expanded(typed))
        except InputError as error:
            self.notify(visible(str(error)), severity="error", markup=False)
