"""The heatmap as a person uses it: keys, mouse, prompt, dialogs, states."""

import csv
import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image
from rich.color import Color, ColorType
from safetensors.numpy import save_file
from textual import events
from textual.geometry import Region
from textual.widgets import Input, OptionList

from irm_lite.analysis.pictures.pooling import pool_signed_max
from irm_lite.core.files.atomic import atomic_path
from irm_lite.steering.control_vector import ControlVector
from irm_lite_tui.app import IrmLiteApp
from irm_lite_tui.heatmap.dialogs.choose_file import ChooseFile
from irm_lite_tui.heatmap.screen import HeatmapScreen
from irm_lite_tui.heatmap.source import Choice, Picture, load_source
from irm_lite_tui.heatmap.widgets.grid import HeatmapGrid
from irm_lite_tui.heatmap.widgets.margins import LayerMargin
from irm_lite_tui.heatmap.widgets.panel import HeatmapPanel
from irm_lite_tui.heatmap.widgets.prompt import JumpPrompt
from irm_lite_tui.heatmap.widgets.tokens import TokenSlider
from irm_lite_tui.heatmap.widgets.top import TopNeurons
from irm_lite_tui.heatmap.widgets.window import column_of
from irm_lite_tui.shared.messages import OpenIn
from support.heatmap_app import TEXTS, HeatmapApp, a_run, a_snapshot, drawn
from support.recordings import HIDDEN, LAYERS, write_recording
from support.tui_helpers import SIZES, check_snapshot, own_place, screen_text, until

__all__ = ["own_place"]


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    run = a_run(tmp_path / "runs" / "angry")
    write_recording(run.recordings / "held-out", TEXTS)
    return run.recordings / "held-out"


@pytest.mark.slow
async def test_the_crosshair_reads_what_the_recording_holds(recording: Path) -> None:
    picture = load_source(recording).picture(Choice())
    app = HeatmapApp(recording)
    async with app.run_test(size=(100, 30)) as pilot:
        await drawn(pilot, app)
        row, index = picture.top(1)[0]
        assert (app.grid.window.row, app.grid.window.index) == (row, index)  # it begins where most is
        await pilot.press("colon", *"l3 17", "enter")
        await pilot.pause()
        value = picture.values[LAYERS.index(3), 17]
        rank = 1 + int((np.abs(picture.values[1]) > abs(value)).sum())
        assert f"layer 3  index 17  value {value:+.4g}  rank {rank} of {HIDDEN} in its layer" in app.text("#readout")
        assert app.focused is app.grid
        await pilot.press("right", "down")
        assert "layer 5  index 18" in app.text("#readout")
        await pilot.press("end", "up", "up")
        assert f"layer 2  index {HIDDEN - 1}" in app.text("#readout")
        await pilot.press("home")
        assert "layer 2  index 0 " in app.text("#readout")


async def test_keys_that_come_in_one_burst_go_to_the_prompt(recording: Path) -> None:
    app = HeatmapApp(recording)
    async with app.run_test(size=(100, 30)) as pilot:
        await drawn(pilot, app)
        before = app.text("#title")
        for key, character in [("colon", ":"), *((each, each) for each in "t3l5"), ("colon", ":"), ("m", "m")]:
            app.post_message(events.Key(key, character))
        prompt = app.heatmap.query_one(JumpPrompt)
        await until(pilot, lambda: prompt.value == "t3l5:m", "a second : is text")
        assert app.text("#title") == before
        await pilot.press("escape")
        for key, character in [("colon", ":"), *((each, each) for each in "l3"), ("space", " "), ("9", "9"), ("enter", "\r")]:
            app.post_message(events.Key(key, character))
        await until(pilot, lambda: "layer 3  index 9 " in app.text("#readout"))
        assert app.focused is app.grid


@pytest.mark.slow
@pytest.mark.parametrize(
    ("typed", "said"),
    [("99", "there is no index 99"), ("l4", "layer 4 is not here"), ("t9", "no token 9"), ("p2", "prompt 2"), ("x", "'x'")],
)
async def test_a_jump_to_nowhere_says_so_and_stays(recording: Path, typed: str, said: str) -> None:
    app = HeatmapApp(recording)
    async with app.run_test(size=(100, 30)) as pilot:
        await drawn(pilot, app)
        before = app.grid.window
        await pilot.press("colon", *typed, "enter")
        await pilot.pause()
        assert any(said in each.message for each in app._notifications)
        assert app.grid.window == before
        await pilot.press("colon", "7", "escape")
        assert not app.heatmap.query_one(JumpPrompt).display


@pytest.mark.slow
async def test_modes_phases_and_tokens_draw_their_pictures(recording: Path) -> None:
    source = load_source(recording)
    app = HeatmapApp(recording)
    async with app.run_test(size=(100, 30)) as pilot:
        await drawn(pilot, app)

        def shows(choice: Choice) -> None:
            assert app.grid.picture is not None
            np.testing.assert_array_equal(app.grid.picture.values, source.picture(choice).values)

        shows(Choice())
        await pilot.press("m")
        shows(Choice("mean |v|"))
        await pilot.press("m", "p")
        shows(Choice("deviation", "prompt"))
        await pilot.press("m")
        shows(Choice("token", "prompt", 0, 2))  # the first that was generated
        assert "generated token 2 of prompt 0: ' rude'" in app.text("#title")
        await pilot.press("right_square_bracket", "right_square_bracket")
        shows(Choice("token", "prompt", 0, 3))  # the last
        await pilot.press("right_curly_bracket", "left_square_bracket")
        shows(Choice("token", "prompt", 1, 1))
        await pilot.press("colon", *"p0 t1", "enter")
        shows(Choice("token", "prompt", 0, 1))
        slider = app.heatmap.query_one(TokenSlider)
        slider.focus()
        await pilot.press("left")
        shows(Choice("token", "prompt", 0, 0))
        await pilot.click(slider, offset=(6, 1))  # "<s>" has three cells after the padding, then "Why"
        shows(Choice("token", "prompt", 0, 1))
        await pilot.press("p")
        shows(Choice("mean", "generated"))


@pytest.mark.slow
async def test_a_difference_and_back(recording: Path, tmp_path: Path) -> None:
    other = a_run(tmp_path / "runs" / "sad")
    write_recording(other.recordings / "held-out", TEXTS, seed=9, run="sad")
    first, second = (load_source(each).picture(Choice()).values for each in (recording, other.recordings / "held-out"))
    app = HeatmapApp(recording)
    async with app.run_test(size=(100, 30)) as pilot:
        await drawn(pilot, app)
        await pilot.press("d")
        await until(pilot, lambda: app.screen.query(OptionList) and app.screen.query_one(OptionList).option_count)
        await pilot.press("enter")
        await until(pilot, lambda: "minus sad, held-out" in app.text("#title"))
        assert app.grid.picture is not None
        np.testing.assert_array_equal(app.grid.picture.values, first - second)
        await pilot.press("d")
        np.testing.assert_array_equal(app.grid.picture.values, first)
        await pilot.press("d")
        await pilot.pause()
        app.screen.query_one(Input).value = str(tmp_path / "none")
        app.screen.query_one(Input).focus()
        await pilot.press("enter")
        await until(pilot, lambda: any("not a run directory" in each.message for each in app._notifications))
        np.testing.assert_array_equal(app.grid.picture.values, first)


async def test_zoom_and_pan_show_what_they_say(tmp_path: Path) -> None:
    values = np.zeros((4, 1000), dtype=np.float32)
    values[2, 777] = -3.0  # one neuron among a thousand
    app = HeatmapApp(None)
    async with app.run_test(size=(100, 30)) as pilot:
        panel = app.heatmap.query_one(HeatmapPanel)
        app.heatmap.query_one("#body").display = True
        app.heatmap.query_one("#state").display = False
        await pilot.pause()
        panel.show(Picture(values, (0, 1, 2, 3), ""))
        await pilot.pause()
        panel.grid.focus()
        column = int(np.flatnonzero(pool_signed_max(values, panel.grid.window.columns)[2])[0])
        assert _painted(panel.grid) == [(column, 2)]  # seen from afar
        panel.grid.go(2, 776)
        await pilot.press(*["plus"] * 9)
        window = panel.grid.window
        assert window.columns == 1000
        assert window.left <= 776 < window.left + window.width
        assert _painted(panel.grid) == [(777 - window.left, 2)]
        await pilot.press("shift+right")
        assert panel.grid.window.left == min(window.left + window.width // 2, 1000 - window.width)
        assert panel.grid.window.index == 776
        await pilot.press("0")
        assert panel.grid.window.columns == window.width


def colours(grid: HeatmapGrid) -> list[Color]:
    """The map's, the crosshair's and the empty cell's."""
    grid.render_lines(Region(0, 0, 1, 1))
    assert grid._cells is not None
    return grid._cells.colours


def _painted(grid: HeatmapGrid) -> list[tuple[int, int]]:
    """Column and layer of the cells that are neither zero's colour nor the crosshair's."""
    window = grid.window
    found: set[tuple[int, int]] = set()
    assert grid.picture is not None
    zero, mark = colours(grid)[24], colours(grid)[49]
    for y, strip in enumerate(grid.render_lines(Region(0, 0, window.width, window.height))):
        x = 0
        for text, style, _ in strip:
            assert style is not None
            for half, colour in enumerate((style.color or style.bgcolor, style.bgcolor)):
                layer = (2 * y + half) // window.halves
                if layer < len(grid.picture.layers) and colour not in (zero, mark):
                    found.update((x + each, layer) for each in range(len(text)))
            x += len(text)
    return sorted(found)


async def test_click_hover_and_wheel(recording: Path) -> None:
    app = HeatmapApp(recording)
    async with app.run_test(size=(60, 20)) as pilot:
        await drawn(pilot, app)
        window = app.grid.window
        y = (2 * window.halves + window.halves // 2) // 2  # in the third layer
        await pilot.click(app.grid, offset=(13, y))
        assert (app.grid.window.row, app.grid.window.index) == (2, 13)  # at this zoom a column is an index
        await pilot.hover(app.grid, offset=(20, 0))
        assert "pointer: l2 20 " in app.text("#readout")
        await pilot.hover(app.grid, offset=(45, 0))  # beside the picture
        assert "pointer" not in app.text("#readout")


async def test_the_wheel_zooms_at_the_pointer_and_pans_with_shift(tmp_path: Path) -> None:
    ControlVector({4: np.arange(1000, dtype=np.float32)}, "llama").save(tmp_path / "v.gguf")
    app = HeatmapApp(tmp_path / "v.gguf")
    async with app.run_test(size=(60, 20)) as pilot:
        await drawn(pilot, app)
        under = app.grid.neuron_at(20, 1)
        await pilot._post_mouse_events([events.MouseScrollUp], app.grid, (20, 1), button=0)
        window = app.grid.window
        assert window.columns == 2 * window.width
        assert under is not None
        assert column_of(under[1], window.columns, 1000) - window.left == 20
        await pilot._post_mouse_events([events.MouseScrollUp], app.grid, (20, 1), button=0, shift=True)
        assert app.grid.window.left == max(0, window.left - window.width // 2)
        await pilot._post_mouse_events([events.MouseScrollDown], app.grid, (20, 1), button=0)
        assert app.grid.window.columns == window.width


async def test_more_layers_than_rows_scroll(tmp_path: Path) -> None:
    ControlVector({layer: np.ones(30, dtype=np.float32) for layer in range(1, 81)}, "llama").save(tmp_path / "v.gguf")
    app = HeatmapApp(tmp_path / "v.gguf")
    async with app.run_test(size=(80, 24)) as pilot:
        await drawn(pilot, app)
        assert app.grid.window.halves == 1
        await pilot.press("colon", *"l80", "enter")
        await pilot.pause()
        assert app.grid.window.top == 40 - app.grid.window.height
        last = app.grid.region.y + app.grid.window.height - 1
        assert app.lines()[last].startswith(" 80 ")
        assert app.lines()[last - 1].startswith(" 77 ")


@pytest.mark.slow
async def test_the_list_moves_the_crosshair(recording: Path) -> None:
    top = load_source(recording).picture(Choice()).top(4)
    app = HeatmapApp(recording)
    async with app.run_test(size=(80, 24)) as pilot:
        await drawn(pilot, app)
        found = app.heatmap.query_one(TopNeurons)
        assert not found.display
        await pilot.press("t", "down", "down")
        assert (app.grid.window.row, app.grid.window.index) == top[2]
        await pilot.click(found, offset=(5, 4))
        assert (app.grid.window.row, app.grid.window.index) == top[3]
        await pilot.press("t")
        assert not found.display
        assert app.focused is app.grid


async def test_scales_and_colours_change_what_is_drawn(recording: Path) -> None:
    app = HeatmapApp(recording)
    async with app.run_test(size=(100, 30)) as pilot:
        await drawn(pilot, app)
        seen = {tuple(str(each) for each in colours(app.grid)[:49])}
        robust = app.grid.render_line(0)
        await pilot.press("s")
        await pilot.pause()
        assert "largest" in app.text("#title")
        assert app.grid.render_line(0) != robust
        for _ in range(4):
            await pilot.press("c")
            await pilot.pause()
            seen.add(tuple(str(each) for each in colours(app.grid)[:49]))
        assert len(seen) == 5


async def test_another_theme_changes_the_margins_and_what_is_beside_the_picture(recording: Path) -> None:
    app = HeatmapApp(recording)
    async with app.run_test(size=(100, 30)) as pilot:
        await drawn(pilot, app)
        margin = app.heatmap.query_one(LayerMargin)

        def seen() -> tuple[Color, list[object]]:
            return colours(app.grid)[-1], [style for _, style, _ in margin.render_line(0)]

        dark = seen()
        app.theme = "textual-light"
        await until(pilot, lambda: seen()[0] != dark[0])
        assert seen()[1] != dark[1]
        for strip in app.grid.render_lines(Region(0, 0, 100, 1)):
            assert [style.bgcolor for _, style, _ in strip if style is not None][-1] == seen()[0]


@pytest.mark.parametrize(
    ("term", "kind"),
    [("truecolor", ColorType.TRUECOLOR), ("xterm-256color", ColorType.EIGHT_BIT), ("xterm-16color", ColorType.STANDARD)],
)
async def test_a_lesser_terminal_gets_colours_of_its_own(
    recording: Path, monkeypatch: pytest.MonkeyPatch, term: str, kind: ColorType
) -> None:
    monkeypatch.setenv("COLORTERM", term if term == "truecolor" else "")
    monkeypatch.setenv("TERM", term)
    app = HeatmapApp(recording)
    async with app.run_test(size=(100, 30)) as pilot:
        await drawn(pilot, app)
        line = app.grid.render_lines(Region(0, 0, app.grid.size.width, 1))[0]
        kinds = {style.bgcolor.type for _, style, _ in list(line)[:20] if style is not None and style.bgcolor is not None}
        assert kinds == {kind}


async def test_without_colour_the_map_is_grey(recording: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    app = HeatmapApp(recording)
    async with app.run_test(size=(100, 30)) as pilot:
        await drawn(pilot, app)
        for line in app.grid.render_lines(Region(0, 0, app.grid.size.width, 3)):
            for _, style, _ in line:
                assert style is not None
                assert style.bgcolor is not None
                assert len(set(style.bgcolor.get_truecolor())) == 1


@pytest.mark.slow
async def test_saving_csv_png_and_svg(recording: Path, tmp_path: Path) -> None:
    app = HeatmapApp(recording)
    async with app.run_test(size=(100, 30)) as pilot:
        await drawn(pilot, app)

        async def save(path: Path) -> None:
            await pilot.press("w")
            await pilot.pause()
            app.screen.query_one(Input).value = str(path)
            await pilot.press("enter")

        await save(tmp_path / "out" / "a.csv")
        await until(pilot, (tmp_path / "out" / "a.csv").exists)
        with (tmp_path / "out" / "a.csv").open() as file:
            head, *rows = list(csv.reader(file))
        assert head == ["layer", *(str(index) for index in range(HIDDEN))]
        assert [int(row[0]) for row in rows] == LAYERS
        assert app.grid.picture is not None
        np.testing.assert_array_equal(np.array([row[1:] for row in rows], dtype=np.float32), app.grid.picture.values)
        await save(tmp_path / "a.png")
        await until(pilot, (tmp_path / "a.png").exists)
        assert Image.open(tmp_path / "a.png").size[0] > 1000
        await save(tmp_path / "a.svg")
        await until(pilot, (tmp_path / "a.svg").exists)
        assert ElementTree.parse(tmp_path / "a.svg").getroot().tag.endswith("svg")
        await save(tmp_path / "a.jpg")
        await until(pilot, lambda: any("end it in .png, .svg or .csv" in each.message for each in app._notifications))
        (tmp_path / "file").write_text("")
        await save(tmp_path / "file" / "a.csv")
        await until(pilot, lambda: any("cannot be written" in each.message for each in app._notifications))


@pytest.mark.slow
async def test_the_proposed_name_tells_what_is_shown_and_nothing_is_overwritten(recording: Path, tmp_path: Path) -> None:
    other = a_run(tmp_path / "runs" / "sad")
    write_recording(other.recordings / "held-out", TEXTS, seed=9, run="sad")
    app = HeatmapApp(recording)
    async with app.run_test(size=(100, 30)) as pilot:
        await drawn(pilot, app)

        async def save_as_csv() -> Path:
            await pilot.press("w")
            await until(pilot, lambda: isinstance(app.screen, ChooseFile))
            proposed = app.screen.query_one(Input)
            proposed.value = str(Path(proposed.value).with_suffix(".csv"))
            before = len(app._notifications)
            await pilot.press("enter")
            await until(pilot, lambda: len(app._notifications) > before)
            return Path(list(app._notifications)[-1].message.removeprefix("Saved "))

        first = await save_as_csv()
        assert first == recording / "figures" / "angry-held-out-mean-generated.csv"
        held = first.read_bytes()
        await pilot.press("m", "p")
        assert (await save_as_csv()).name == "angry-held-out-mean-abs-prompt.csv"
        await pilot.press("m", "m")
        assert (await save_as_csv()).name == "angry-held-out-prompt-0-token-2.csv"
        await pilot.press("m", "p")
        app.heatmap._load_other(other.recordings / "held-out")
        await until(pilot, lambda: "minus" in app.text("#title"))
        assert (await save_as_csv()).name == "angry-held-out-mean-generated-minus-sad-held-out.csv"
        await pilot.press("d", "m", "m", "m", "m")  # shown again as at first
        first.write_bytes(b"kept")
        assert (await save_as_csv()).name == "angry-held-out-mean-generated-2.csv"
        assert (await save_as_csv()).name == "angry-held-out-mean-generated-3.csv"
        assert first.read_bytes() == b"kept"
        assert first.with_stem(f"{first.stem}-3").read_bytes() == held


@pytest.mark.slow
async def test_a_live_snapshot_is_followed(tmp_path: Path) -> None:
    run = a_run(tmp_path / "runs" / "angry")
    a_snapshot(run.live)
    app = HeatmapApp(run.path)
    async with app.run_test(size=(100, 30)) as pilot:
        await drawn(pilot, app)
        await pilot.press("colon", *"l3 7", "enter")
        a_snapshot(run.live, scale=-2.0)
        await until(pilot, lambda: f"value {-2.0 * (HIDDEN + 7):+.4g}" in app.text("#readout"))
        assert "layer 3  index 7" in app.text("#readout")  # the crosshair stays
        run.live.write_bytes(b"torn")
        await until(pilot, lambda: any("damaged" in each.message for each in app._notifications))
        run.live.unlink()
        app.heatmap._poll()
        await pilot.pause()
        assert f"value {-2.0 * (HIDDEN + 7):+.4g}" in app.text("#readout")  # what was drawn stays
        a_snapshot(run.live, scale=3.0)
        await until(pilot, lambda: f"value {3.0 * (HIDDEN + 7):+.4g}" in app.text("#readout"), "the next one")


@pytest.mark.slow
async def test_after_the_last_of_many_snapshots_all_that_is_shown_is_of_the_file(tmp_path: Path) -> None:
    run = a_run(tmp_path / "runs" / "angry")

    def seen(app: HeatmapApp) -> list[list[tuple[object, ...]]]:
        return [[tuple(segment) for segment in strip] for strip in app.screen._compositor.render_strips()]

    def write(seed: int) -> None:
        values = np.random.default_rng(seed).random((4, HIDDEN), dtype=np.float32)
        with atomic_path(run.live) as temporary:
            save_file({"mean_abs": values}, temporary, {"layers": "2-5"})

    write(9)
    fresh = HeatmapApp(run.path)
    async with fresh.run_test(size=(120, 30)) as pilot:
        await drawn(pilot, fresh)
        await pilot.press("colon", *"l3 17", "enter")
        await until(pilot, lambda: fresh.grid.window.index == 17)
        expected = seen(fresh)
    write(0)
    app = HeatmapApp(run.path)
    async with app.run_test(size=(120, 30)) as pilot:
        await drawn(pilot, app)
        await pilot.press("colon", *"l3 17", "enter")
        for seed in range(1, 10):
            write(seed)
            await pilot.pause()
        await until(pilot, lambda: seen(app) == expected, "margins, title, list and picture of the last snapshot")


@pytest.mark.slow
async def test_what_cannot_be_drawn_is_a_state_and_another_can_be_opened(recording: Path, tmp_path: Path) -> None:
    empty = a_run(tmp_path / "runs" / "new [red]run")
    app = HeatmapApp(empty.path)
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: "nothing to draw yet" in app.text("#state"))
        assert "new [red]run" in app.text("#state")
        assert app.grid.picture is None
        await pilot.press("m", "p", "s", "d", "w", "t", "colon", "left_square_bracket", "right_curly_bracket")  # nothing to do
        await pilot.press("o")
        await until(pilot, lambda: app.screen.query(OptionList) and app.screen.query_one(OptionList).option_count)
        await pilot.press("enter")
        await until(pilot, lambda: "angry, held-out" in app.text("#title"))
        (recording / "outputs.safetensors").write_bytes(b"torn")
        app.heatmap.show(recording.parent.parent)
        await until(pilot, lambda: "damaged" in app.text("#state") and app.heatmap.query_one("#state").display)


async def test_no_path_and_a_vector(tmp_path: Path) -> None:
    ControlVector({4: np.arange(HIDDEN, dtype=np.float32)}, "llama").save(tmp_path / "v.gguf")
    app = HeatmapApp(None)
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.pause()
        assert "o to choose" in app.text("#state")
        app.heatmap.show(tmp_path / "v.gguf")
        await drawn(pilot, app)
        assert f"layer 4  index {HIDDEN - 1}  value +{HIDDEN - 1}" in app.text("#readout")
        assert not app.heatmap.query_one(TokenSlider).display


async def test_text_of_a_model_does_not_act(tmp_path: Path) -> None:
    hostile = ["<s>", "[bold red]", "\x1b[2J", "\u202e", "猫" * 3, "", "\n", "e\u0301" * 9]
    write_recording(tmp_path / "r", [hostile], run="\x1b]0;x\x07[b]")
    app = HeatmapApp(tmp_path / "r")
    async with app.run_test(size=(80, 24)) as pilot:
        await drawn(pilot, app)
        for _ in hostile:
            await pilot.press("right_square_bracket")
        for _ in hostile:
            await pilot.press("left_square_bracket")
        shown = "\n".join(app.lines())
        assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f\u202e]", shown)
        assert "[bold red]" in shown
        assert "\\x1b[2J" in shown
        assert "\\x1b]0;x\\x07[b]" in app.text("#title")


@pytest.mark.slow
@pytest.mark.parametrize("size", [(20, 5), (1, 1), (10, 40), (300, 6)])
async def test_no_size_is_too_small(recording: Path, size: tuple[int, int]) -> None:
    app = HeatmapApp(recording)
    async with app.run_test(size=(80, 24)) as pilot:
        await drawn(pilot, app)
        await pilot.resize_terminal(*size)
        await pilot.press("right", "plus", "shift+right", "t", "down", "right_square_bracket", "minus", "c")
        await pilot.pause()
        assert len(app.lines()) == size[1]
        await pilot.resize_terminal(80, 24)
        assert app.grid.window.width > 40


@pytest.mark.slow
@pytest.mark.parametrize("size", SIZES)
async def test_the_screen_looks_as_it_did(recording: Path, size: tuple[int, int]) -> None:
    app = HeatmapApp(recording)
    async with app.run_test(size=size) as pilot:
        await drawn(pilot, app)
        await pilot.press("colon", *"l3 17", "enter")
        await pilot.press("right_square_bracket")
        await pilot.pause()
        await check_snapshot(pilot, "heatmap")


@pytest.mark.slow
@pytest.mark.parametrize("size", SIZES)
async def test_the_dialog_that_chooses_looks_as_it_did(recording: Path, size: tuple[int, int]) -> None:
    a_snapshot(a_run(recording.parents[2] / "sad [b]").live)
    app = HeatmapApp(recording)
    async with app.run_test(size=size) as pilot:
        await drawn(pilot, app)
        await pilot.press("d")
        await until(pilot, lambda: app.screen.query(OptionList) and app.screen.query_one(OptionList).has_focus)
        await check_snapshot(pilot, "heatmap-choose")


@pytest.mark.slow
@pytest.mark.parametrize("size", SIZES)
async def test_the_help_beside_the_heatmap_looks_as_it_did(recording: Path, size: tuple[int, int], own_place: Path) -> None:
    app = IrmLiteApp(recording.parents[2])
    async with app.run_test(size=size) as pilot:
        app.post_message(OpenIn("heatmap", recording))
        await until(pilot, lambda: isinstance(app.screen, HeatmapScreen) and app.screen.query_one("#readout").display)
        grid = app.screen.query_one(HeatmapGrid)
        await until(pilot, lambda: app.focused is grid)
        width = grid.size.width
        await pilot.press("question_mark")
        await until(pilot, lambda: "Zoom" in screen_text(app) and grid.size.width < width, "the keys, and the grid beside them")
        await check_snapshot(pilot, "heatmap-help")
