"""The application around the screens: modes, keys, themes, the end."""

import subprocess
import sys
import tomllib
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from textual.command import CommandPalette
from textual.pilot import Pilot
from textual.widgets import HelpPanel

import irm_lite_tui.app
from irm_lite.core.errors import InputError, RunError
from irm_lite_tui.app import IrmLiteApp, main
from irm_lite_tui.runs.screen import RunsScreen
from irm_lite_tui.runs.table import RunTable
from irm_lite_tui.shared.ask import AskScreen
from irm_lite_tui.shared.messages import OpenIn
from irm_lite_tui.shared.mode_bar import ModeBar
from irm_lite_tui.train.screen import TrainScreen
from irm_lite_tui.train.setting_row import SettingRow
from irm_lite_tui.watch.children import Child, running_children
from support.heatmap_app import TEXTS
from support.recordings import write_recording
from support.tui_helpers import Script, own_place, plant_run, screen_text, script, until

__all__ = ["own_place", "script"]
pytestmark = pytest.mark.usefixtures("own_place")


@pytest.mark.slow
async def test_modes_by_key_and_by_mouse(tmp_path: Path) -> None:
    app = IrmLiteApp(tmp_path)
    async with app.run_test(size=(100, 30)) as pilot:
        assert isinstance(app.screen, RunsScreen)
        assert app.screen.folder == tmp_path
        await pilot.press("2")
        await until(pilot, lambda: isinstance(app.screen, TrainScreen))
        await pilot.press("tab", "1")  # into the field, not to the runs
        assert isinstance(app.screen, TrainScreen)
        await pilot.press("escape", "1")
        await until(pilot, lambda: isinstance(app.screen, RunsScreen))
        await pilot.click(ModeBar, offset=(22, 0))
        await until(pilot, lambda: isinstance(app.screen, TrainScreen))


@pytest.mark.slow
async def test_a_run_opens_in_another_mode(tmp_path: Path) -> None:
    run = plant_run(tmp_path / "run", irm="paper")
    app = IrmLiteApp(tmp_path)
    async with app.run_test(size=(100, 30)) as pilot:
        await pilot.press("2")
        await until(pilot, lambda: isinstance(app.screen, TrainScreen))
        before = app.screen
        await pilot.press("1")
        await until(pilot, lambda: isinstance(app.screen, RunsScreen) and app.screen.query_one(RunTable).row_count)
        await pilot.press("w")
        await until(pilot, lambda: isinstance(app.screen, TrainScreen) and app.screen is not before)
        assert isinstance(app.screen, TrainScreen)
        assert app.screen.path == run.path
        app.post_message(OpenIn("train", tmp_path))
        await pilot.pause()
        assert app.screen.path == run.path  # it is open


async def asked(pilot: Pilot[Any], detail: str) -> None:
    await until(
        pilot, lambda: isinstance(pilot.app.screen, AskScreen) and detail in screen_text(pilot.app), f"a question: {detail}"
    )


@pytest.mark.slow
async def test_an_edited_form_is_not_closed_unasked(tmp_path: Path) -> None:
    plant_run(tmp_path / "run", irm="paper")
    app = IrmLiteApp(tmp_path)
    async with app.run_test(size=(100, 30)) as pilot:
        await until(pilot, lambda: app.screen.query_one(RunTable).row_count, "the run")
        await pilot.press("w")
        await until(pilot, lambda: isinstance(app.screen, TrainScreen), "the form")
        form = app.screen
        assert isinstance(form, TrainScreen)
        await until(pilot, lambda: form.texts["irm"] == "paper", "the run's settings")
        assert not form.would_lose()  # they are the run's
        form.query_one("#row-irm", SettingRow).text = "static"
        await until(pilot, form.would_lose, "the edit")
        await pilot.press("1", "w")
        await asked(pilot, "was not started")
        await pilot.press("n")
        assert isinstance(app.screen, RunsScreen)
        assert app.get_screen_stack("train") == [form]
        await pilot.press("q")
        await asked(pilot, "was not started")
        assert "will go on" not in screen_text(app)
        await pilot.press("n", "w")
        await asked(pilot, "was not started")
        await pilot.press("y")
        await until(pilot, lambda: isinstance(app.screen, TrainScreen), "the run's settings anew")
        assert app.get_screen_stack("train") != [form]
        await pilot.press("q")
        await until(pilot, lambda: app._exit, "the end")


@pytest.mark.slow
async def test_help_and_palette(tmp_path: Path) -> None:
    app = IrmLiteApp(tmp_path)
    async with app.run_test(size=(100, 40)) as pilot:
        await pilot.press("question_mark")
        await until(pilot, lambda: len(app.screen.query(HelpPanel)) == 1)
        await until(pilot, lambda: "Rename" in screen_text(app), "keys that the footer leaves out")
        await pilot.press("question_mark")
        await until(pilot, lambda: not app.screen.query(HelpPanel))
        await pilot.press("ctrl+p")
        await until(pilot, lambda: isinstance(app.screen, CommandPalette))
        await pilot.press(*"train")
        await until(pilot, lambda: "Go to Train" in screen_text(app), "the command")
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, TrainScreen))


@pytest.mark.slow
async def test_the_palette_unloads_the_chats_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "irm_lite_tui.watch.children.PROGRAM", (sys.executable, str(Path(__file__).parents[1] / "support" / "scripted_serve.py"))
    )
    app = IrmLiteApp(tmp_path)
    async with app.run_test(size=(100, 40)) as pilot:
        assert "Unload" not in {each.title for each in app.get_system_commands(app.screen)}
        await pilot.press("4")
        await until(pilot, lambda: "ready: base, vector on demo" in screen_text(app), "the model")
        await pilot.press("ctrl+p")
        await until(pilot, lambda: isinstance(app.screen, CommandPalette), "the palette")
        await pilot.press(*"unload")
        await until(pilot, lambda: "End the chat's server" in screen_text(app), "the command")
        await pilot.press("enter")
        await until(pilot, lambda: "the model is unloaded" in screen_text(app), "the unloading")


@pytest.mark.slow
async def test_preferences_are_kept(tmp_path: Path, own_place: Path) -> None:
    plant_run(tmp_path / "runs" / "run")
    app = IrmLiteApp(tmp_path / "runs")
    async with app.run_test(size=(100, 30)) as pilot:
        assert app.theme == "irm-dark"
        await until(pilot, lambda: app.screen.query_one(RunTable).row_count)
        app.theme = "irm-light"
        await until(pilot, lambda: app.preferences.theme == "irm-light")
        await pilot.press("s", "S")
        await pilot.pause()
    again = IrmLiteApp(tmp_path / "runs")
    async with again.run_test(size=(100, 30)) as pilot:
        await until(pilot, lambda: again.screen.query_one(RunTable).row_count)
        assert again.theme == "irm-light"
        assert again.screen.query_one(RunTable).sort_by == app.preferences.sort != "age"
        assert again.screen.query_one(RunTable).descending
    assert tomllib.loads((own_place / "state.toml").read_text())["theme"] == "irm-light"


@pytest.mark.slow
async def test_the_heatmaps_colours_are_kept(tmp_path: Path, own_place: Path) -> None:
    write_recording(tmp_path / "one", TEXTS)

    async def title_after(*keys: str) -> str:
        app = IrmLiteApp(tmp_path)
        async with app.run_test(size=(100, 30)) as pilot:
            app.post_message(OpenIn("heatmap", tmp_path / "one"))
            await until(pilot, lambda: "full colour" in screen_text(app), "the picture")
            await pilot.press(*keys)
            await until(pilot, lambda: "purple-green" in screen_text(app), "the third colour map")
            return screen_text(app).split("\n")[1]

    title = await title_after("c", "c", "s")
    assert "(largest), purple-green" in title
    assert await title_after() == title
    kept = tomllib.loads((own_place / "state.toml").read_text())
    assert (kept["colours"], kept["robust"]) == ("purple-green", False)


@pytest.mark.slow
async def test_keys_of_ones_own(tmp_path: Path, own_place: Path) -> None:
    own_place.mkdir()
    (own_place / "tui.toml").write_text('theme = "gone"\n[keys]\n"mode.train" = "f2,9"\n')
    app = IrmLiteApp(tmp_path)
    async with app.run_test(size=(100, 30)) as pilot:
        assert any("there is no theme 'gone'" in each.message for each in app._notifications)
        assert app.theme == "irm-dark"
        await pilot.press("2")
        assert isinstance(app.screen, RunsScreen)
        await pilot.press("9")
        await until(pilot, lambda: isinstance(app.screen, TrainScreen))


async def test_quit_at_once_where_nothing_runs(tmp_path: Path) -> None:
    app = IrmLiteApp(tmp_path)
    async with app.run_test() as pilot:
        await pilot.press("q")
        await until(pilot, lambda: not app.is_running or app._exit)


@pytest.mark.slow
async def test_quit_asks_while_a_child_runs_and_leaves_it_running(tmp_path: Path, script: Callable[[Script], None]) -> None:
    script([["err", "at work"], ["until interrupted"], ["exit", 130]])
    app = IrmLiteApp(tmp_path)
    async with app.run_test() as pilot:
        child = Child(["train"], app)
        child.start()
        await pilot.press("q")
        await asked(pilot, "1 process that you started here will go on")
        await pilot.press("n")
        await until(pilot, lambda: isinstance(app.screen, RunsScreen))
        await pilot.press("q")
        await until(pilot, lambda: isinstance(app.screen, AskScreen))
        await pilot.press("y")
        await until(pilot, lambda: app._exit)
    assert running_children() == [child]
    child.stop()
    assert child._process is not None
    child._process.wait(30)


async def test_a_child_that_fails_after_its_screen_is_closed(tmp_path: Path, script: Callable[[Script], None]) -> None:
    script([["until", str(tmp_path / "go")], ["err", "irm-lite: memory ran out [red]: smaller"], ["exit", 1]])
    app = IrmLiteApp(tmp_path)
    async with app.run_test() as pilot:
        from irm_lite_tui.dashboard.screen import DashboardScreen

        app.push_screen(DashboardScreen(tmp_path / "run", ["train"]))
        await until(pilot, lambda: running_children())
        await pilot.press("escape")
        await until(pilot, lambda: isinstance(app.screen, RunsScreen))
        (tmp_path / "go").touch()
        said = "irm-lite: memory ran out [red]: smaller"
        await until(pilot, lambda: any(said in each.message for each in app._notifications), "the failure")


@pytest.mark.parametrize("theme", ["irm-dark", "irm-light"])
async def test_both_themes_colour_what_they_show(tmp_path: Path, theme: str) -> None:
    """The accent is in the picture, and the table's ground is the theme's."""
    plant_run(tmp_path / "run")
    app = IrmLiteApp(tmp_path)
    async with app.run_test(size=(80, 24)) as pilot:
        app.theme = theme
        await until(pilot, lambda: app.screen.query_one(RunTable).row_count)
        drawn = app.export_screenshot().lower()
        chosen = app.current_theme
        assert chosen.name == theme
        assert chosen.primary in drawn
        assert chosen.surface is not None
        assert chosen.surface in drawn


def test_a_dumb_terminal_gets_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    with pytest.raises(InputError, match="cannot show the application: use the verbs"):
        main()


def test_an_application_that_breaks_off_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    codes = {1: "the application crashed", 0: "", None: ""}
    for code, complaint in codes.items():
        monkeypatch.setattr(IrmLiteApp, "run", lambda app, code=code: setattr(app, "_return_code", code))
        with pytest.raises(RunError, match=complaint) if complaint else nullcontext():
            main()


async def test_no_colour(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    plant_run(tmp_path / "run")
    app = IrmLiteApp(tmp_path)
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: app.screen.query_one(RunTable).row_count)
        drawn = [segment for strip in app.screen._compositor.render_strips() for segment in strip]
        assert app.no_color
        shown = app._filters[0].apply(drawn, app.screen.styles.background)
        colours = [segment.style.color.triplet for segment in shown if segment.style and segment.style.color]
        assert len(colours) > 10
        assert all(each is not None and each.red == each.green == each.blue for each in colours)


@pytest.mark.slow
def test_the_application_loads_no_engine() -> None:
    program = (
        "import sys, irm_lite_tui.app, irm_lite_tui.runs.screen, irm_lite_tui.train.screen, irm_lite_tui.dashboard.screen\n"
        "import irm_lite_tui.runs.compare, irm_lite_tui.train.fields; irm_lite_tui.train.fields.form_fields()\n"
        "from irm_lite_tui.train.memory import memory_line; from irm_lite.config import TrainConfig; memory_line(TrainConfig())\n"
        "print(*sorted({'torch', 'transformers', 'bitsandbytes', 'llama_cpp', 'matplotlib', 'cyclopts'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_the_modes_are_those_of_the_messages() -> None:
    from typing import get_args

    from irm_lite_tui.shared.messages import Mode

    assert tuple(irm_lite_tui.app.IrmLiteApp.MODES) == get_args(Mode)
