"""The form alone."""

from pathlib import Path

from textual.app import App
from textual.widgets import Static

from irm_lite_tui.train.data_preview import DataPreview
from irm_lite_tui.train.screen import TrainScreen
from irm_lite_tui.train.setting_row import SettingRow


class TrainApp(App[None]):
    """An app with this screen alone."""

    def __init__(self, path: Path | None = None) -> None:
        super().__init__()
        self.form = TrainScreen(path)

    def on_mount(self) -> None:
        self.push_screen(self.form)

    def text(self, name: str) -> str:
        return self.form.texts[name]

    def set(self, name: str, text: str) -> None:
        """As if typed: where the row is there, its own message tells the form."""
        self.form.query_one(f"#row-{name}", SettingRow).text = text

    def error(self, name: str) -> str:
        shown = self.form.query_one(f"#row-{name} .error", Static)
        return str(shown.render()) if shown.display else ""

    @property
    def preview(self) -> str:
        return str(self.form.query_one(DataPreview).query_one("#rows", Static).render())
