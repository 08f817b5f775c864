"""Export: a run's effect as a control vector or an adapter, how much arrives, a baked file, and the lines to use them elsewhere."""

from pathlib import Path
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Grid, Horizontal, VerticalScroll
from textual.screen import Screen
from textual.widgets import Button, Footer, Input, Label, Select, Static

from irm_lite.base.presets import find_gguf
from irm_lite.config import KINDS, TrainConfig
from irm_lite.core.errors import IrmLiteError
from irm_lite.core.files.paths import expanded
from irm_lite.runs.directory import RunDirectory
from irm_lite_tui.export.adapter_figures import load_adapter, read_adapter
from irm_lite_tui.export.adapter_gauge import AdapterGauge
from irm_lite_tui.export.fidelity import load_measured, read_measured
from irm_lite_tui.export.fidelity_gauge import FidelityGauge
from irm_lite_tui.export.job_panel import JobPanel
from irm_lite_tui.export.line_list import LineList
from irm_lite_tui.export.messages import JobEnded
from irm_lite_tui.export.ready_lines import adapter_lines, baked_lines, name_problem, vector_lines
from irm_lite_tui.settings.keys import key_label, shown_key
from irm_lite_tui.shared.mode_bar import ModeBar
from irm_lite_tui.shared.text import line, paragraphs
from irm_lite_tui.shared.text_field import TextField
from irm_lite_tui.watch.chat_sources import sources_of
from irm_lite_tui.watch.run_state import written_at

_WIDTHS = [(0, "-narrow"), (110, "-wide")]
_KINDS = [("control vector, for llama.cpp", "vector"), ("LoRA adapter, for other engines too", "adapter")]
_METHODS = [
    ("auto: exact, or the mean if enough", "auto"),
    ("distil: fitted to the IRM", "distil"),
    ("mean: the IRM's mean output", "mean"),
    ("exact: copy of a static IRM", "exact"),
]


class ExportScreen(Screen[None]):
    """`path` is a run directory, or a vector to bake."""

    AUTO_FOCUS = ""  # the keys of the modes work until a field is entered
    CSS_PATH = "screen.tcss"
    HORIZONTAL_BREAKPOINTS = _WIDTHS
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("f6", "export", "Export", id="export.export"),
        Binding("f7", "bake", "Bake", id="export.bake"),
        Binding("escape", "stop", "Stop, leave", id="export.stop"),
    ]

    def __init__(self, path: Path | None = None) -> None:
        super().__init__()
        self._path = self.taken = path
        self._vector: Path | None = None
        self._adapter: Path | None = None
        self._baked: Path | None = None
        self._exporting = ""  # the run whose export was started last
        self._offered: Path | None = None  # the run that the form was set for
        self._read_at = 0.0  # when the figures that are shown were written

    def compose(self) -> ComposeResult:
        yield ModeBar()
        yield Static("", id="state")
        with Horizontal(id="body"):
            with VerticalScroll(id="forms", can_focus=False):
                yield Label("vector or adapter", classes="head")
                with Grid(classes="form"):
                    yield Label("run")
                    yield TextField(id="run", placeholder="a run directory", compact=True)
                    yield Label("as")
                    yield Select(_KINDS, value="vector", allow_blank=False, id="kind", compact=True)
                    yield Label("method")
                    yield Select(_METHODS, value="auto", allow_blank=False, id="method", compact=True)
                    yield Label("layers")
                    yield TextField("all", id="layers", placeholder="all, or 10-20", compact=True)
                    yield Label("file")
                    yield TextField(id="out", placeholder="RUN/export/vector.gguf", compact=True)
                    yield Label("if it is there")
                    yield Select(
                        [("keep it", False), ("overwrite it", True)], value=False, allow_blank=False, id="force", compact=True
                    )
                    yield Label("")
                    yield Button(key_label(self.app, "Export", "export.export", "f6"), id="export", variant="primary", compact=True)
                yield JobPanel("export")
                yield Label("baked file, for programs that take no control vector", classes="head")
                with Grid(classes="form"):
                    yield Label("model")
                    yield TextField(id="gguf", placeholder="the base's .gguf", compact=True)
                    yield Label("strength")
                    yield TextField("1", id="strength", type="number", compact=True)
                    yield Label("file")
                    yield TextField(id="baked", placeholder="a new .gguf", compact=True)
                    yield Label("")
                    yield Button(key_label(self.app, "Bake", "export.bake", "f7"), id="bake", compact=True)
                yield JobPanel("bake")
            with VerticalScroll(id="results", can_focus=False):
                yield FidelityGauge(id="fidelity")
                yield AdapterGauge(id="adapter-fidelity")
                yield Static("", id="lines-title")
                yield LineList("vector-lines")
                yield LineList("adapter-lines")
                yield LineList("baked-lines")
        yield Footer()

    def on_mount(self) -> None:
        self.query_one("#fidelity").border_title = "fidelity"
        self.query_one("#adapter-fidelity").border_title = "fidelity of the adapter"
        demo = shown_key(self.app, "run.next", "f4")
        self._say(f"give the run to export, or press {demo} to train the demo's tone where there is none")
        if self._path is not None:
            self._open(self._path)
        self._show_lines()
        self.set_interval(1.0, self._look)

    def _look(self) -> None:
        """Read the run again where something else exported it meanwhile: the demo, or a command in another terminal."""
        if self.is_current and not self.keeps() and self._value("run") and self._stamp() != self._read_at:
            self._read_run()
            self._show_lines()

    def _stamp(self) -> float:
        """When the run's figures were written; 0 where there are none."""
        try:
            return written_at(RunDirectory(expanded(self._value("run"))).fidelity)
        except IrmLiteError:
            return 0.0

    def _open(self, path: Path) -> None:
        """Fill the form with a run, or with a vector to bake."""
        sources = sources_of(path)
        self.query_one("#gguf", TextField).text = sources.gguf
        if sources.vector == str(path):
            self._vector = path
        else:
            self.query_one("#run", TextField).text = str(path)
        self._read_run()
        if sources.wrong:
            self._say(sources.wrong, wrong=True)

    def take_run(self, path: Path) -> None:
        """See shared/in_hand.py."""
        if path != self.taken:
            self._path = self.taken = path
            self.query_one("#out", TextField).text = ""  # both were meant for the other run
            self.query_one("#force", Select).value = False
            self._open(path)
        else:
            self._read_run()
        self._show_lines()

    def keeps(self) -> str:
        """See shared/in_hand.py."""
        running = any(panel.running for panel in self.query(JobPanel))
        return f"{self.taken.name if self.taken else 'a run'} is being exported here" if running else ""

    def _say(self, text: str, wrong: bool = False) -> None:
        state = self.query_one("#state", Static)
        state.update(paragraphs(text))
        state.set_class(wrong, "wrong")

    def _value(self, name: str) -> str:
        return self.query_one(f"#{name}", TextField).text.strip()

    @property
    def _figures(self) -> FidelityGauge:
        return self.query_one(FidelityGauge)

    # What is there already

    def on_select_changed(self, message: Select.Changed) -> None:
        if message.select.id == "kind":
            self.query_one("#out", TextField).placeholder = f"RUN/export/{message.value}.gguf"

    def on_input_changed(self, message: Input.Changed) -> None:
        if message.input.id == "run":
            self._read_run()
        if message.input.id in ("run", "gguf", "strength", "out"):
            self._show_lines()

    def _read_run(self) -> None:
        """Show what an earlier export of this run measured, in place of another run's figures."""
        if not self._value("run"):
            return
        self._read_at = self._stamp()
        adapter_figures = self.query_one(AdapterGauge)
        self._vector = self._adapter = self._baked = self._figures.measured = adapter_figures.measured = None
        try:
            run = RunDirectory(expanded(self._value("run")))
            self._offer(run, run.config())
            measured, of_adapter = load_measured(run.fidelity), load_adapter(run.fidelity)
        except (IrmLiteError, OSError) as error:
            self._say(str(error), wrong=True)
            return
        self._vector = run.default_vector if run.default_vector.is_file() else None
        self._adapter = run.default_adapter if run.default_adapter.is_file() else None
        before = "exported before: the figures of that export"
        if of_adapter is not None and of_adapter.path.name != run.default_adapter.name:
            before += f"; the adapter made last is {of_adapter.path.name}"
            of_adapter = None  # the lines are of another
        self._figures.measured, adapter_figures.measured = measured, of_adapter
        if self._adapter is not None and of_adapter is None:
            before += f"; {self._adapter.name} is of another one"
        key = shown_key(self.app, "export.export", "f6")
        self._say(before if measured or self._adapter else f"not exported yet: {key} exports it")

    def _offer(self, run: RunDirectory, config: TrainConfig) -> None:
        """Of a run that was not in the form before: as what it leaves whole, a lora as an adapter."""
        if run.path != self._offered:
            self._offered = run.path
            self.query_one("#kind", Select).value = KINDS[config.irm].leaves_as

    def _strength(self) -> float:
        try:
            return float(self._value("strength"))
        except ValueError:
            return 1.0

    def _show_lines(self) -> None:
        try:
            gguf = str(find_gguf(self._value("gguf") or "MODEL.gguf"))
        except IrmLiteError:
            gguf = "MODEL.gguf"
        vector = vector_lines(gguf, self._vector, self._strength()) if self._vector else []
        adapter = adapter_lines(gguf, self._adapter, self._strength()) if self._adapter else []
        self.query_one("#vector-lines", LineList).show(vector)
        self.query_one("#adapter-lines", LineList).show(adapter)
        self.query_one("#baked-lines", LineList).show(baked_lines(self._baked) if self._baked else [])
        title = (
            "enter copies a line"
            if vector or adapter or self._baked
            else "the lines for llama.cpp and Ollama appear here after the export"
        )
        named = self._vector or self._adapter
        problem = name_problem(named) if named else ""
        self.query_one("#lines-title", Static).update(line(problem or title))

    # Work

    def on_button_pressed(self, event: Button.Pressed) -> None:
        if event.button.id == "export":
            self.action_export()
        else:
            self.action_bake()

    def action_export(self) -> None:
        panel = self.query_one("#export-job", JobPanel)
        if panel.running:
            panel.say("it is running: escape stops it", "wrong")
            return
        if not self._value("run"):
            panel.say("no run is given: give its directory", "wrong")
            return
        arguments = ["export", "--json", "--method", str(self.query_one("#method", Select).value)]
        arguments += ["--layers", self._value("layers") or "all"]
        arguments += ["--as", "adapter"] if self.query_one("#kind", Select).value == "adapter" else []
        try:
            run = expanded(self._value("run"))
            arguments += ["--out", str(expanded(self._value("out")))] if self._value("out") else []
        except IrmLiteError as error:
            panel.say(str(error), "wrong")
            return
        force = ["--force"] if self.query_one("#force", Select).value is True else []
        self._exporting = self._value("run")
        panel.start([*arguments, *force, "--", str(run)])

    def action_bake(self) -> None:
        panel = self.query_one("#bake-job", JobPanel)
        if panel.running:
            panel.say("it is running: escape stops it", "wrong")
        elif self._vector is None:
            panel.say("there is no vector to bake: export one first", "wrong")
        elif not self._value("gguf") or not self._value("baked"):
            panel.say("give the model's .gguf, and a name for the baked file", "wrong")
        else:
            try:
                places = ["--gguf", self._value("gguf"), "--out", str(expanded(self._value("baked")))]
            except IrmLiteError as error:
                panel.say(str(error), "wrong")
                return
            arguments = ["bake", "--json", *places, f"--scale={self._strength():g}"]
            panel.start([*arguments, "--", str(self._vector)])

    def action_stop(self) -> None:
        """Stop the running jobs; where there are none, leave the field, so that the keys of the modes work."""
        running = [panel for panel in self.query(JobPanel) if panel.running]
        for panel in running:
            panel.stop()
        if not running:
            self.set_focus(None)

    def on_job_ended(self, message: JobEnded) -> None:
        if message.job == "export" and self._value("run") != self._exporting:  # another run is shown meanwhile
            return
        try:
            if message.job == "export" and "adapter" in message.document:
                of_adapter = read_adapter(message.document)
                self._read_run()  # its vector may have been made first
                self._adapter, self.query_one(AdapterGauge).measured = of_adapter.path, of_adapter
                carried = "the run's LoRA" if of_adapter.worst is None else "what the vector does, as a LoRA adapter"
                self._say(f"{of_adapter.path}: {carried}")
            elif message.job == "export":
                measured = read_measured(message.document)
                self._read_run()
                self._vector = measured.vector
                self._figures.measured = measured
                self._say(f"{measured.vector}: {measured.method}")
            else:
                self._baked = Path(str(message.document["gguf"]))
                self._say(f"{self._baked}: a copy of the model with the steering in it")
        except (IrmLiteError, KeyError) as error:
            self.query_one(f"#{message.job}-job", JobPanel).say(f"irm-lite {message.job} gave no figures ({error})", "wrong")
        self._show_lines()
