"""What a hostile or unlucky user did to the terminal UI once: it ended, or said what was not so."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file
from textual.widgets import Input

from irm_lite.errors import InputError, RunError
from irm_lite.paths import expanded
from irm_lite_tui import run_actions
from irm_lite_tui.app import IrmLiteApp
from irm_lite_tui.children import child_of
from irm_lite_tui.screens.ask import AskScreen, NameScreen
from irm_lite_tui.screens.dashboard import DashboardScreen
from irm_lite_tui.screens.runs import RunsScreen
from irm_lite_tui.serving import read_event
from irm_lite_tui.widgets.run_table import RunTable
from recordings import write_recording
from test_heatmap_screen import Bare as HeatmapApp
from test_heatmap_screen import drawn
from test_heatmap_source import TEXTS
from test_tui_chat import Bare as ChatApp
from test_tui_chat import app as chat_app
from test_tui_chat import ready
from test_tui_dashboard import Bare as DashboardApp
from test_tui_export import Bare as ExportApp
from test_tui_runs import Bare as RunsApp
from test_tui_runs import headless_training, listed, notified
from test_tui_train import Bare as TrainApp
from tui_helpers import Script, own_place, plant_run, screen_text, script, training, until

__all__ = ["chat_app", "own_place", "script"]
pytestmark = pytest.mark.usefixtures("own_place")

NOBODY = "~nobody-of-that-name"
EVIL = "a\x1b[2J\u202eb"


def test_a_home_that_is_none_is_a_line() -> None:
    assert expanded("~/x") == Path.home() / "x"
    with pytest.raises(InputError, match="there is no home folder of that user: write the whole path"):
        expanded(f"{NOBODY}/x")


async def test_half_a_home_in_a_field_is_no_end(tmp_path: Path) -> None:
    bare = ExportApp(None)
    async with bare.run_test(size=(100, 40)) as pilot:
        for field in ("run", "out", "gguf", "baked"):
            bare.screen.query_one(f"#{field}", Input).value = NOBODY
            await pilot.pause()
        await pilot.press("f6")
        await until(pilot, lambda: "there is no home folder" in bare.line("export"), "the line")
    train = TrainApp()
    async with train.run_test(size=(140, 45)) as pilot:
        await until(pilot, lambda: list(train.screen.query(Input)), "the form")
        for each in train.screen.query(Input):
            each.value = NOBODY
        await until(pilot, lambda: "there is no home folder" in screen_text(train), "the line")


@pytest.mark.parametrize("text", ['[keys]\n"quit" = f10\n', 'theme = "irm-light" # mine\nmy_own = 1\n'])
async def test_the_users_own_preferences_are_not_written_over(tmp_path: Path, own_place: Path, text: str) -> None:
    own_place.mkdir()
    file = own_place / "tui.toml"
    file.write_text(text)
    plant_run(tmp_path / "runs" / "one", training(3, 40))
    app = IrmLiteApp(tmp_path / "runs")
    async with app.run_test(size=(100, 30)) as pilot:
        await until(pilot, lambda: app.screen.query_one(RunTable).row_count)
        await pilot.press("s")
        app.theme = "irm-dark" if app.theme == "irm-light" else "irm-light"
        await until(pilot, lambda: app.preferences.theme == app.theme, "the theme to be kept")
    assert file.read_text() == text
    assert (own_place / "state.toml").exists()


async def test_the_heatmap_has_the_keys_again_after_an_escape(tmp_path: Path) -> None:
    write_recording(tmp_path / "one", TEXTS)
    app = HeatmapApp(tmp_path / "one")
    async with app.run_test(size=(100, 30)) as pilot:
        await drawn(pilot, app)
        await pilot.press("colon", "7", "escape")
        assert app.focused is app.grid
        before = app.grid.window.index
        await pilot.press("right")
        assert app.grid.window.index != before


async def test_names_of_folders_act_nowhere(tmp_path: Path) -> None:
    for name in (EVIL, f"{EVIL}2"):
        plant_run(tmp_path / name, training(3, 40))
    app = RunsApp(tmp_path)
    async with app.run_test(size=(140, 40)) as pilot:
        await listed(pilot, 2)
        for key in ("d", "n"):
            await pilot.press(key)
            await until(pilot, lambda: isinstance(app.screen, AskScreen | NameScreen), "the window")
            shown = screen_text(app)
            assert not {"\x1b", "\u202e"} & set(shown)
            assert "\\x1b[2J\\u202eb" in shown
            await pilot.press("escape")
            await until(pilot, lambda: isinstance(app.screen, RunsScreen), "the runs")
        await pilot.press("space", "down", "space", "c")
        await until(pilot, lambda: "loss" in screen_text(app) and not isinstance(app.screen, RunsScreen), "the comparison")
        await pilot.pause()
        assert not {"\x1b", "\u202e"} & set(screen_text(app))


async def test_a_new_chat_in_mid_answer_is_ready(chat_app: Callable[..., ChatApp]) -> None:
    bare = chat_app("slow.gguf")
    async with bare.run_test(size=(140, 45)) as pilot:
        await ready(pilot, bare)
        field = bare.chat.query_one("#prompt", Input)
        field.value = "Why?"
        field.focus()
        await pilot.press("enter")
        await until(pilot, lambda: "writing" in bare.state(), "the answers")
        await pilot.press("ctrl+n", "y")
        await until(pilot, lambda: bare.state().startswith("ready"), "the idle line")


async def test_a_live_snapshot_with_nan_is_not_drawn(tmp_path: Path) -> None:
    run = plant_run(tmp_path / "run", training(3, 40))
    save_file({"mean_abs": np.full((3, 40), np.nan, np.float32)}, run.live, metadata={"layers": "0-2"})
    app = DashboardApp(DashboardScreen(run.path))
    async with app.run_test(size=(140, 45)) as pilot:
        await until(pilot, lambda: "3/40" in screen_text(app), "the run")
        assert "no snapshot yet" in screen_text(app)


def test_nan_in_an_event_is_no_event() -> None:
    found = read_event(b'{"kind": "token", "column": "irm", "token": 0, "text": "x", "norm": NaN}')
    assert found is not None
    assert found["kind"] == "error"


def test_a_name_that_is_too_long_is_a_line(tmp_path: Path) -> None:
    run = plant_run(tmp_path / "one")
    with pytest.raises(RunError, match="cannot be renamed"):
        run_actions.rename(run.path, "x" * 300)


def test_a_holder_of_an_impossible_number_is_none(tmp_path: Path) -> None:
    run = plant_run(tmp_path / "one")
    (run.path / "lock.holder").write_text("process 9999999999 since 2026-11-22T00:00:00+00:00\n")
    assert run.holder() is None


async def test_a_training_is_not_started_twice(tmp_path: Path, script: Callable[[Script], None]) -> None:
    plant_run(tmp_path / "half", training(3, 40, ended="interrupted"))
    script([["until interrupted"], ["exit", 130]])
    app = RunsApp(tmp_path)
    async with app.run_test(size=(160, 24)) as pilot:
        await listed(pilot, 1)
        await pilot.press("r")
        await until(pilot, lambda: "resuming half" in notified(app), "the start")
        await pilot.press("r")
        await until(pilot, lambda: "half is starting already" in notified(app), "the refusal")
        child = child_of(tmp_path / "half")
        assert child is not None
        child.stop()
        await until(pilot, lambda: child_of(tmp_path / "half") is None, "the end")


async def test_ending_at_once_is_asked_first(tmp_path: Path) -> None:
    """A second x is a question, since it costs what came after the last checkpoint."""
    run = plant_run(tmp_path / "live", training(3, 40))
    app = RunsApp(tmp_path)
    async with app.run_test(size=(160, 24)) as pilot:
        await listed(pilot, 1)
        with headless_training(run) as process:
            holder = run.holder()
            assert holder is not None
            run_actions._asked[run.path] = holder  # as if it were still at its step
            await pilot.press("x")
            await until(pilot, lambda: isinstance(app.screen, AskScreen), "the question")
            assert "End live without saving?" in screen_text(app)
            await pilot.press("n")
            await until(pilot, lambda: isinstance(app.screen, RunsScreen), "the runs")
            assert process.poll() is None
            await pilot.press("x", "y")
            assert process.wait(30) == 0
