"""Choose what to draw, or what to subtract."""

from pathlib import Path
from typing import ClassVar

from rich.text import Text
from textual import work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Input, Label, OptionList

from irm_lite.core.errors import InputError
from irm_lite.core.files.paths import expanded
from irm_lite.core.visible_text import visible
from irm_lite_tui.heatmap.messages import SourcesFound
from irm_lite_tui.heatmap.source import drawables_near
from irm_lite_tui.shared.text import line


class ChooseSource(ModalScreen[Path | None]):
    """Recordings, vectors and live snapshots of the run at hand and of its neighbours, or of all runs; or a path."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "dismiss(None)", "Back", id="dialog.back")]

    def __init__(self, title: str, near: Path | None) -> None:
        super().__init__()
        self._title, self._near = title, near
        self._found: list[tuple[str, Path]] = []

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog"):
            yield Label(line(self._title))
            yield OptionList()
            yield Input(placeholder="or a path: a run, a recording, a .gguf")

    def on_mount(self) -> None:
        self.query_one(Input).focus()
        self._look()

    @work(thread=True)
    def _look(self) -> None:
        try:
            found = drawables_near(self._near, getattr(self.app, "folder", Path("runs")))
        except OSError:  # deleted while it is listed
            found = []
        self.post_message(SourcesFound(found))

    def on_sources_found(self, message: SourcesFound) -> None:
        self._found = [each for each in message.found if each[1] != self._near]
        options = self.query_one(OptionList)
        options.set_options(Text(visible(name)) for name, _ in self._found)
        options.display = bool(self._found)
        if self._found:
            options.highlighted = 0
            options.focus()

    def on_option_list_option_selected(self, message: OptionList.OptionSelected) -> None:
        self.dismiss(self._found[message.option_index][1])

    def on_input_submitted(self, message: Input.Submitted) -> None:
        if not message.value.strip():
            return
        try:
            self.dismiss(expanded(message.value.strip()))
        except InputError as error:
            self.notify(visible(str(error)), severity="error", markup=False)
