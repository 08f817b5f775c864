"""The heatmap as an instrument: which neurons carry the effect."""

from dataclasses import replace
from pathlib import Path
from time import monotonic
from typing import ClassVar

from rich.text import Text
from textual import work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.screen import Screen
from textual.timer import Timer
from textual.types import CSSPathType
from textual.widgets import Footer, Static
from textual.worker import get_current_worker

from irm_lite.core.errors import InputError, IrmLiteError
from irm_lite.core.visible_text import visible
from irm_lite_tui.heatmap.choosing import choose_token, next_mode, next_phase, next_prompt, next_token
from irm_lite_tui.heatmap.dialogs.choose_file import ChooseFile
from irm_lite_tui.heatmap.dialogs.choose_source import ChooseSource
from irm_lite_tui.heatmap.jump import parse_jump
from irm_lite_tui.heatmap.messages import (
    JumpGiven,
    NeuronChosen,
    NeuronHovered,
    PaintChanged,
    PictureNotSaved,
    PictureSaved,
    SliderMoved,
    SourceFailed,
    SourceLoaded,
    WindowMoved,
)
from irm_lite_tui.heatmap.readout import readout_line, title_line
from irm_lite_tui.heatmap.saving.picture_file import picture_name, save
from irm_lite_tui.heatmap.source import Choice, Picture, Source, load_source, subtract
from irm_lite_tui.heatmap.widgets.colour_maps import COLOUR_MAPS
from irm_lite_tui.heatmap.widgets.panel import HeatmapPanel
from irm_lite_tui.heatmap.widgets.prompt import JumpPrompt
from irm_lite_tui.heatmap.widgets.tokens import TokenSlider
from irm_lite_tui.heatmap.widgets.top import TopNeurons
from irm_lite_tui.settings.keys import shown_key
from irm_lite_tui.settings.preferences import Preferences
from irm_lite_tui.shared.mode_bar import ModeBar

_TELL_SECONDS = 1.0  # between updates of what surrounds a live picture: nobody reads numbers faster
_POLL_SECONDS = 0.1  # between looks at a live snapshot's date
_WIDE, _HIGH = 110, 18  # cells from which the list, and the tokens, have room
_NOTHING = """Nothing is drawn yet.

Press {demo} to train the demo's tone, or {open} to choose: a vector that ships with irm-lite is there already."""
_HERE = Path(__file__).parent


class HeatmapScreen(Screen[None]):
    """What `path` holds, a run, a recording or a vector: layers down, neuron index across."""

    CSS_PATH: ClassVar[CSSPathType | None] = [_HERE / "screen.tcss", _HERE / "dialogs" / "dialog.tcss"]
    AUTO_FOCUS = "HeatmapGrid"
    BINDINGS: ClassVar[list[BindingType]] = [
        # before the keys that follow it in one burst are sent to the grid
        Binding("colon", "jump", "Go to", key_display=":", priority=True, id="heatmap.jump"),
        Binding("m", "next_mode", "Mode", tooltip="Mean, mean |v|, deviation or a single token", id="heatmap.next-mode"),
        Binding("p", "next_phase", "Phase", tooltip="Prompt or generated tokens", id="heatmap.next-phase"),
        Binding("left_square_bracket", "token(-1)", "Token", key_display="[]", tooltip="Previous token", id="heatmap.token-back"),
        Binding("right_square_bracket", "token(1)", "Next token", show=False, id="heatmap.token-on"),
        Binding("left_curly_bracket", "prompt(-1)", "Previous prompt", show=False, id="heatmap.prompt-back"),
        Binding("right_curly_bracket", "prompt(1)", "Next prompt", show=False, id="heatmap.prompt-on"),
        Binding("d", "difference", "Diff", tooltip="Subtract another picture", id="heatmap.difference"),
        Binding("t", "top", "Top", tooltip="List the strongest indices", id="heatmap.top"),
        Binding("s", "scale", "Scale", tooltip="Full colour at the 99.5th percentile or at the largest |v|", id="heatmap.scale"),
        Binding("c", "next_colours", "Hue", tooltip="Next colour map", id="heatmap.next-colours"),
        Binding("w", "save", "Save", id="heatmap.save"),
        Binding("o", "open", "Open", id="heatmap.open"),
    ]

    def __init__(self, path: Path | None = None) -> None:
        super().__init__()
        self._path = self.taken = path
        self._source: Source | None = None
        self._other: Source | None = None
        self._picture: Picture | None = None
        self._choice = Choice()
        self._robust, self._colours = True, next(iter(COLOUR_MAPS))
        self._list_wanted: bool | None = None  # None: where there is room
        self._hovered: tuple[int, int] | None = None
        self._readout = Text()
        self._told = 0.0  # when what surrounds the picture was last updated
        self._telling: Timer | None = None  # the next update
        self._failed = 0.0  # when the run in hand had nothing to draw
        self._seen = 0  # modification time in ns of the snapshot that is drawn

    def compose(self) -> ComposeResult:
        yield ModeBar()
        yield Static(id="title", markup=False)
        yield Static(id="readout", markup=False)
        yield JumpPrompt()
        yield Static(self._nothing(), id="state", markup=False)
        with Horizontal(id="body"):
            yield HeatmapPanel()
            yield TopNeurons()
        yield TokenSlider()
        yield Footer(compact=True, show_command_palette=False)

    def _nothing(self) -> str:
        return _NOTHING.format(demo=shown_key(self.app, "run.next", "f4"), open=shown_key(self.app, "heatmap.open", "o"))

    def on_mount(self) -> None:
        kept = getattr(self.app, "preferences", Preferences())
        self._robust = kept.robust
        if self.app.no_color:
            self._colours = "grey |v|"
        elif kept.colours in COLOUR_MAPS:
            self._colours = kept.colours
        self.set_interval(_POLL_SECONDS, self._poll)
        self._arrange()
        if self._path is not None:
            self.show(self._path)

    def take_run(self, path: Path) -> None:
        """See shared/in_hand.py."""
        if path != self.taken or self._source is None:
            self.taken = path
            self.show(path)

    def keeps(self) -> str:
        """See shared/in_hand.py: a picture is drawn again at any time."""
        return ""

    def show(self, path: Path) -> None:
        """Draw what this path holds, in place of what is drawn."""
        self._path, self._other = path, None
        self.query_one("#state", Static).update(Text(f"Reading {visible(str(path))} ..."))
        self._load(path)

    @work(thread=True, exclusive=True, group="source")
    def _load(self, path: Path) -> None:
        self._read(path, compared=False)

    @work(thread=True, exclusive=True, group="compared")
    def _load_other(self, path: Path) -> None:
        self._read(path, compared=True)

    def _read(self, path: Path, compared: bool) -> None:
        message: SourceLoaded | SourceFailed
        try:
            message = SourceLoaded(load_source(path), compared)
        except IrmLiteError as error:
            message = SourceFailed(path, str(error), compared)
        except OSError as error:
            message = SourceFailed(path, f"{path} cannot be read ({error.strerror or error})", compared)
        if not get_current_worker().is_cancelled:  # another one was asked for meanwhile
            self.post_message(message)

    def on_source_loaded(self, message: SourceLoaded) -> None:
        fresh = not message.compared and (self._source is None or self._source.path != message.source.path)
        if message.compared:
            self._other = message.source
        else:
            self._source = message.source
            if fresh and (kept := self._source.prompts):
                self._choice = replace(self._choice, prompt=0, token=kept[0].n_prompt)
        self._draw(again=message.source.live and not fresh)
        if fresh and self._picture is not None:
            self.query_one(HeatmapPanel).grid.go(*self._picture.top(1)[0])
        if self.focused is None:
            self.query_one(HeatmapPanel).grid.focus()

    def on_source_failed(self, message: SourceFailed) -> None:
        if message.compared or (self._source is not None and self._source.path == message.path):  # what is drawn stays
            self.notify(visible(message.why), severity="error", markup=False)
            return
        self._source = self._picture = None
        self._failed = monotonic()
        export = shown_key(self.app, "mode.export", "5")
        later = f"It is drawn once there is something. {export} goes to its export. " if self._path == self.taken else ""
        self.query_one("#state", Static).update(Text(f"{visible(message.why)}\n\n{later}Press o to choose another."))
        self._arrange()

    def _poll(self) -> None:
        """Read a live snapshot again when it was rewritten, and the run in hand until there is something to draw."""
        if self._source is None and self.taken is not None and self._path == self.taken and self.is_current:
            if self._failed and monotonic() - self._failed > _TELL_SECONDS:
                self._failed = 0.0
                self._load(self.taken)
            return
        if self._source is None or not self._source.live or not self.is_current:
            return
        try:
            written = self._source.path.stat().st_mtime_ns
        except OSError:
            return  # the run was deleted; what was drawn stays
        if written != self._seen:
            self._seen = written
            self._load(self._source.path)

    def _draw(self, again: bool = False) -> None:
        """Draw the picture that source, choice and difference give, then what surrounds it.

        `again`: a live picture that keeps changing; what surrounds it follows once a second.
        """
        if self._source is None:
            return
        self._choice = self._source.nearest(self._choice)
        try:
            self._picture = subtract(self._source, self._other, self._choice) if self._other else self._source.picture(self._choice)
        except InputError as error:
            self.notify(f"{visible(str(error))}. Shown without it.", severity="warning", markup=False)
            self._other = None
            self._picture = self._source.picture(self._choice)
        grid = self.query_one(HeatmapPanel).grid
        grid.paint(self._colours, self._robust)
        grid.show(self._picture)
        wait = self._told + _TELL_SECONDS - monotonic()
        if not again or wait <= 0:
            self._tell()
        elif self._telling is None:
            self._telling = self.set_timer(wait, self._tell)

    def _tell(self) -> None:
        """Bring up to date what surrounds the picture: margins, title, readout, list, tokens."""
        if self._telling is not None:
            self._telling.stop()
            self._telling = None
        if self._source is None or self._picture is None:  # another source failed meanwhile
            return
        self._told = monotonic()
        self.query_one(HeatmapPanel).follow()
        self.query_one(TopNeurons).show(self._picture)
        if prompts := self._source.prompts:
            choice = self._choice
            self.query_one(TokenSlider).show(
                prompts[choice.prompt], choice.prompt, len(prompts), choice.token, choice.mode == "token"
            )
        self._title()
        self._read_out()
        self._arrange()

    def _title(self) -> None:
        if self._source is None or self._picture is None:
            return
        line = title_line(self._source, self._picture, self._robust, self._colours)
        self.query_one("#title", Static).update(line, layout=False)

    def _read_out(self) -> None:
        """Show the numbers under the crosshair and the pointer."""
        grid = self.query_one(HeatmapPanel).grid
        if self._picture is None or grid.picture is not self._picture:
            return
        line = readout_line(self._picture, grid.window, self._hovered)
        if line != self._readout:
            self._readout = line
            self.query_one("#readout", Static).update(line, layout=False)

    def _arrange(self) -> None:
        """Show the parts that have room and something to show."""
        drawn = self._picture is not None
        width, height = self.app.size
        self.query_one("#state").display = not drawn
        for name in ("#title", "#readout", "#body"):
            self.query_one(name).display = drawn
        wanted = width >= _WIDE if self._list_wanted is None else self._list_wanted
        self.query_one(TopNeurons).display = drawn and wanted
        self.query_one(TokenSlider).display = drawn and bool(self._source and self._source.prompts) and height >= _HIGH

    def on_resize(self) -> None:
        self._arrange()

    def on_window_moved(self, message: WindowMoved) -> None:
        self._read_out()

    def on_neuron_hovered(self, message: NeuronHovered) -> None:
        if message.neuron != self._hovered:
            self._hovered = message.neuron
            self._read_out()

    def on_neuron_chosen(self, message: NeuronChosen) -> None:
        self.query_one(HeatmapPanel).grid.go(message.row, message.index)

    def on_slider_moved(self, message: SliderMoved) -> None:
        self._choose(replace(self._choice, mode="token", token=message.token))

    def on_jump_given(self, message: JumpGiven) -> None:
        grid = self.query_one(HeatmapPanel).grid
        grid.focus()
        try:
            self._jump(message.text)
        except InputError as error:
            self.notify(visible(str(error)), severity="warning", markup=False)

    def _jump(self, text: str) -> None:
        """Raises InputError where there is no such place."""
        picture, source = self._picture, self._source
        if picture is None or source is None:
            return
        jump = parse_jump(text)
        jump.require_in(picture)
        if jump.prompt is not None or jump.token is not None:
            self._choose(choose_token(source, self._choice, jump.prompt, jump.token))
        window = self.query_one(HeatmapPanel).grid.window
        row = window.row if jump.layer is None else picture.layers.index(jump.layer)
        self.query_one(HeatmapPanel).grid.go(row, window.index if jump.index is None else jump.index)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        return action != "jump" or not isinstance(self.focused, JumpPrompt)  # there it is text

    def action_jump(self) -> None:
        if self._picture is not None:
            self.query_one(JumpPrompt).open()

    def _choose(self, choice: Choice) -> None:
        self._choice = choice
        self._draw()

    def action_next_mode(self) -> None:
        if self._source is not None:
            self._choose(next_mode(self._source, self._choice))

    def action_next_phase(self) -> None:
        if self._source is not None and self._source.phases:
            self._choose(next_phase(self._source, self._choice))

    def action_token(self, step: int) -> None:
        if self._source is not None and self._source.prompts:
            self._choose(next_token(self._source, self._choice, step))

    def action_prompt(self, step: int) -> None:
        if self._source is not None and self._source.prompts:
            self._choose(next_prompt(self._source, self._choice, step))

    def action_scale(self) -> None:
        self._robust = not self._robust
        self._paint()

    def action_next_colours(self) -> None:
        names = list(COLOUR_MAPS)
        self._colours = names[(names.index(self._colours) + 1) % len(names)]
        self._paint()

    def _paint(self) -> None:
        self._draw()
        self.post_message(PaintChanged(self._colours, self._robust))

    def action_top(self) -> None:
        """Show the list and go into it, or hide it."""
        if self._picture is None:
            return
        found = self.query_one(TopNeurons)
        self._list_wanted = not (found.display and found.has_focus) if found.display else True
        self._arrange()
        (found if self._list_wanted else self.query_one(HeatmapPanel).grid).focus()

    def action_difference(self) -> None:
        """Choose what to subtract; the second time, subtract nothing."""
        if self._source is None:
            return
        if self._other is not None:
            self._other = None
            self._draw()
            return
        self.app.push_screen(ChooseSource("Subtract from what is shown", self._source.path), self._subtract)

    def _subtract(self, path: Path | None) -> None:
        if path is not None:
            self._load_other(path)

    def action_open(self) -> None:
        self.app.push_screen(ChooseSource("Draw", self._path), lambda path: self.show(path) if path else None)

    def action_save(self) -> None:
        if self._source is None or self._picture is None:
            return
        beside = self._source.path if self._source.path.is_dir() else self._source.path.parent
        name = f"{picture_name(self._source, self._other, self._choice)}.png"
        picture, title = self._picture, f"{self._source.name}\n{self._picture.what}"
        marks = (self.query_one(HeatmapPanel).grid.window.index,)

        def answered(path: Path | None) -> None:
            if path is not None:
                self._save(picture, path, title, marks)

        self.app.push_screen(ChooseFile("Save as .png, .svg or .csv", beside / "figures" / name), answered)

    @work(thread=True, group="save")
    def _save(self, picture: Picture, path: Path, title: str, marks: tuple[int, ...]) -> None:
        try:
            written = save(picture, path, title, marks)
        except IrmLiteError as error:
            self.post_message(PictureNotSaved(str(error)))
        else:
            self.post_message(PictureSaved(written))

    def on_picture_saved(self, message: PictureSaved) -> None:
        self.notify(f"Saved {visible(str(message.path))}", markup=False)

    def on_picture_not_saved(self, message: PictureNotSaved) -> None:
        self.notify(visible(message.why), severity="error", markup=False)
