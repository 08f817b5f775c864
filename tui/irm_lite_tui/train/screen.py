"""The form of a training: settings, their help, the data, the memory; start."""

import tempfile
from pathlib import Path
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.screen import Screen
from textual.timer import Timer
from textual.widgets import Button, Collapsible, Footer, Static
from textual.worker import get_current_worker

from irm_lite.base.presets import presets
from irm_lite.config import TrainConfig
from irm_lite.core.errors import IrmLiteError
from irm_lite.core.files.paths import expanded
from irm_lite.data.dataset import tones
from irm_lite.runs.directory import RunDirectory, default_run
from irm_lite_tui.settings.keys import key_label, shown_key
from irm_lite_tui.shared.mode_bar import ModeBar
from irm_lite_tui.shared.text import line, paragraphs
from irm_lite_tui.train.data_head import read_head
from irm_lite_tui.train.data_preview import DataPreview
from irm_lite_tui.train.fields import BASIC, Field, form_fields, preset_settings, read_form
from irm_lite_tui.train.memory import memory_line
from irm_lite_tui.train.messages import DataRead, SettingChanged, SettingFocused
from irm_lite_tui.train.setting_row import SettingRow

_OUT = Field("out", str, "", (), "The run directory to make; empty: runs/DATA-IRM, with a number where that is taken.")
_PAUSE_SECONDS = 0.3  # after the last key, before the data is read


class TrainScreen(Screen[None]):
    """`path`, if given, is a run whose settings fill the form at first."""

    AUTO_FOCUS = ""  # the keys of the modes work until a field is entered
    CSS_PATH = "screen.tcss"
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (110, "-wide")]  # noqa: RUF012 - as Textual declares it
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+r", "start", "Start", id="train.start"),
        Binding("tab", "app.focus_next", "Next field", id="train.next"),
        Binding("ctrl+o", "more", "More settings", id="train.more"),
        Binding("ctrl+l", "defaults", "Defaults", id="train.defaults"),
        Binding("escape", "leave_field", "Leave the field", show=False, id="train.leave"),
    ]

    def __init__(self, path: Path | None = None) -> None:
        super().__init__()
        self.path = path
        self._filled: dict[str, str] = {}  # what the model's preset has put into the form
        self._data: tuple[str, str] | None = None  # what the preview shows, or will
        self._soon: Timer | None = None
        self.texts = {name: field.shown(field.default) for name, field in form_fields().items()} | {"out": ""}
        self._begun = self.texts  # what stood in it before it was edited
        self._rows: dict[str, SettingRow] = {}  # those that are mounted
        self._checking = False  # a check is due once all that was typed is in

    def compose(self) -> ComposeResult:
        start = key_label(self.app, "Start", "train.start", "ctrl+r")
        yield ModeBar()
        with Vertical(id="body"):
            with VerticalScroll(id="form", can_focus=False):
                yield from (self._new_row(name) for name in (*BASIC, "out"))
                yield Static("", id="complaint")
                yield Button(start, id="start", variant="primary", compact=True)
                with Collapsible(title=key_label(self.app, "More settings", "train.more", "ctrl+o")):
                    yield Vertical(id="more")
            yield DataPreview()
        yield Static("", id="help")
        yield Static("", id="memory")
        yield Footer()

    def _new_row(self, name: str) -> SettingRow:
        field = _OUT if name == "out" else form_fields()[name]
        suggestions = {"model": tuple(presets()), "data": tones(), "chat_template": tuple(presets())}
        self._rows[name] = SettingRow(field, self.texts[name], suggestions.get(name, ()))
        return self._rows[name]

    async def on_collapsible_expanded(self) -> None:
        """Make the rows that few need only now: they take longer than the rest of the screen."""
        missing = [name for name in form_fields() if name not in self._rows]
        await self.query_one("#more").mount_all([self._new_row(name) for name in missing])
        self._check()

    def on_mount(self) -> None:
        start = shown_key(self.app, "train.start", "ctrl+r")
        self.query_one("#help", Static).update(line(f"tab goes to the first field, escape leaves a field, {start} starts"))
        if self.path is not None:
            self._fill_from_run(self.path)
        self._begun = dict(self.texts)
        self._check()

    def would_lose(self) -> str:
        """See settings/losing.py. What a preset filled in is not the user's work."""
        edited = (name for name, text in self.texts.items() if text not in (self._begun[name], self._filled.get(name)))
        return "The training that was set up here was not started." if any(edited) else ""

    def _fill_from_run(self, path: Path) -> None:
        run = RunDirectory(path)
        try:
            config = run.asked() or run.config()
        except IrmLiteError as error:
            self.notify(line(str(error)).plain, severity="error", markup=False)
            return
        self.fill({name: field.shown(getattr(config, name)) for name, field in form_fields().items()})

    def fill(self, texts: dict[str, str]) -> None:
        """Put texts into fields, by name."""
        self.texts |= texts
        for name in texts.keys() & self._rows.keys():
            self._rows[name].text = texts[name]

    # What is typed

    def on_setting_focused(self, message: SettingFocused) -> None:
        field = _OUT if message.name == "out" else form_fields()[message.name]
        self.query_one("#help", Static).update(paragraphs(f"{field.label}: {field.help}"))

    def on_setting_changed(self, message: SettingChanged) -> None:
        self.texts[message.name] = message.text
        if message.name == "model":
            self._follow_preset()
        if not self._checking:
            self._checking = True
            self.call_later(self._check)

    def _follow_preset(self) -> None:
        """Fill in what the model's preset sets, and undo what the preset before had set, unless it was edited since."""
        defaults = {name: field.shown(field.default) for name, field in form_fields().items()}
        self.fill({name: defaults[name] for name, text in self._filled.items() if self.texts[name] == text})
        wanted = preset_settings(self.texts["model"])
        self._filled = {name: text for name, text in wanted.items() if self.texts[name] == defaults[name]}
        self.fill(self._filled)

    def _check(self) -> TrainConfig | None:
        """Show each error below its field; returns the configuration where there is none."""
        self._checking = False
        config, errors = read_form(self.texts)
        errors |= {"out": wrong} if (wrong := self._wrong_out(self.texts["out"].strip())) else {}
        for name, row in self._rows.items():
            row.complain(errors.get(name, ""))
        complaint = self.query_one("#complaint", Static)
        elsewhere = "; ".join(f"{name}: {error}" if name else error for name, error in errors.items() if name not in self._rows)
        complaint.update(paragraphs(elsewhere))
        complaint.display = bool(elsewhere)
        memory = self.query_one("#memory", Static)
        if config is not None:
            text, fits = memory_line(config)
            memory.update(line(text))
            memory.set_class(not fits, "failed")
        self._read_data_soon(self.texts["data"].strip(), self.texts["answer_column"].strip())
        return None if errors else config

    def _wrong_out(self, out: str) -> str:
        try:
            if out:
                RunDirectory(expanded(out)).require_absent()
        except (IrmLiteError, OSError, ValueError) as error:
            return str(error)
        return ""

    # The data

    def _read_data_soon(self, spec: str, answer_column: str) -> None:
        if self._data == (spec, answer_column):
            return
        self._data = (spec, answer_column)
        if self._soon is not None:
            self._soon.stop()
        self._soon = self.set_timer(_PAUSE_SECONDS, self._read_data)

    def _read_data(self) -> None:
        if self._data is None:
            return
        spec, answer_column = self._data

        def read() -> None:
            rows, about, failed = read_head(spec, answer_column)
            if not get_current_worker().is_cancelled:
                self.post_message(DataRead(spec, rows, about, failed))

        self.run_worker(read, thread=True, exclusive=True, group="data")

    def on_data_read(self, message: DataRead) -> None:
        if self._data is not None and message.spec == self._data[0]:
            self.query_one(DataPreview).show(message)

    # What the keys do

    def on_button_pressed(self) -> None:
        self.action_start()

    def action_leave_field(self) -> None:
        self.set_focus(None)

    def action_more(self) -> None:
        more = self.query_one(Collapsible)
        more.collapsed = not more.collapsed

    def action_defaults(self) -> None:
        self._filled = {}
        self.fill({name: field.shown(field.default) for name, field in form_fields().items()} | {"out": ""})
        self._follow_preset()
        self._begun = dict(self.texts)

    def action_start(self) -> None:
        """Write the settings to a file and open the dashboard, which starts the training."""
        config = self._check()
        if config is None:
            self.notify("fix what is marked first", severity="error", markup=False)
            return
        from irm_lite_tui.dashboard.screen import DashboardScreen

        asked = self.texts["out"].strip()
        try:
            out = expanded(asked) if asked else default_run(config)
        except OSError as error:
            self.notify(f"no run can be named after the data ({error.strerror})", severity="error", markup=False)
            return
        try:
            settings = _write_settings(config)
        except OSError as error:
            self.notify(f"the settings cannot be written ({error.strerror})", severity="error", markup=False)
            return
        self._begun = dict(self.texts)
        self.app.push_screen(DashboardScreen(out, ["train", "--config", str(settings), "--out", str(out), "--json"], settings))


def _write_settings(config: TrainConfig) -> Path:
    """All settings in a temporary TOML file: what the form shows is what is trained with."""
    import tomli_w

    with tempfile.NamedTemporaryFile("wb", prefix="irm-lite-", suffix=".toml", delete=False) as file:
        tomli_w.dump(config.to_dict(), file)
    return Path(file.name)
