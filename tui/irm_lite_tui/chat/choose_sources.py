"""A small window: the model, the vector, the run and the adapter of a chat."""

from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Label, Static

from irm_lite_tui.shared.text_field import TextField
from irm_lite_tui.watch.chat_sources import Sources

_FIELDS = {
    "gguf": ("model", "a .gguf file, or demo"),
    "vector": ("control vector", "PATH or PATH:SCALE; empty: none"),
    "irm": ("IRM", "a run directory; empty: none"),
    "adapter": ("LoRA adapter", "PATH or PATH:SCALE; empty: none"),
}


class ChatSourcesScreen(ModalScreen[Sources | None]):
    """What was typed, None where the window was left."""

    CSS_PATH = "screen.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "dismiss(None)", "Back", id="dialog.back")]

    def __init__(self, sources: Sources) -> None:
        super().__init__()
        self.sources = sources

    def compose(self) -> ComposeResult:
        with Vertical(id="window"):
            for name, (label, help_text) in _FIELDS.items():
                yield Label(label)
                yield TextField(getattr(self.sources, name), placeholder=help_text, id=name, compact=True)
            yield Static(Text("enter: load   escape: leave it as it is"), id="hint")

    def on_input_submitted(self) -> None:
        texts = {name: self.query_one(f"#{name}", TextField).text.strip() for name in _FIELDS}
        template = self.sources.template if texts["gguf"] == self.sources.gguf else ""
        self.dismiss(Sources(**texts, template=template))
