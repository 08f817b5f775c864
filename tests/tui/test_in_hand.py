"""The run in hand: the screens open on it, one key changes it, and an empty folder is filled by one key."""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import irm_lite_tui.watch.children
from irm_lite.runs.directory import RunDirectory
from irm_lite.steering.control_vector import ControlVector
from irm_lite_tui.app import IrmLiteApp
from irm_lite_tui.chat.screen import ChatScreen
from irm_lite_tui.dashboard.screen import DashboardScreen
from irm_lite_tui.export.screen import ExportScreen
from irm_lite_tui.heatmap.screen import HeatmapScreen
from irm_lite_tui.runs.screen import RunsScreen
from irm_lite_tui.runs.table import RunTable
from support.tui_helpers import Script, check_snapshot, own_place, plant_live, plant_run, screen_text, script, training, until

__all__ = ["own_place", "script"]
pytestmark = pytest.mark.usefixtures("own_place")


def trained(path: Path, created: str, monkeypatch: pytest.MonkeyPatch) -> RunDirectory:
    """A run that is done, with an IRM, a vector and a snapshot."""
    monkeypatch.setattr("irm_lite.runs.directory.now", lambda: created)
    run = plant_run(path, training(10, 10, ended="done"), model="demo")
    (run.path / "irm.safetensors").write_bytes(b"")
    ControlVector({1: np.ones(8, np.float32)}, "llama").save(run.default_vector)
    plant_live(run, 3, 8)
    return run


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two finished runs: `older`, and `newer`; and a server that answers by a script."""
    import os

    for day, name in enumerate(("older", "newer"), 1):
        run = trained(tmp_path / "runs" / name, f"2026-11-0{day}T00:00:00+00:00", monkeypatch)
        os.utime(run.path / "run.toml", (day, day))
    serve = Path(__file__).parents[1] / "support" / "scripted_serve.py"
    monkeypatch.setattr(irm_lite_tui.watch.children, "PROGRAM", (sys.executable, str(serve)))
    return tmp_path / "runs"


@pytest.mark.slow
async def test_two_keys_lead_from_the_start_to_a_steered_answer(folder: Path) -> None:
    app = IrmLiteApp(folder)
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("4")
        await until(pilot, lambda: isinstance(app.screen, ChatScreen) and app.screen.is_mounted, "the chat")
        await pilot.press(*"Why?", "enter")  # before all is loaded
        await until(pilot, lambda: "vector turn 1" in screen_text(app), "a steered answer")
        assert screen_text(app).splitlines()[0].endswith(" f4 newer")
        await until(pilot, lambda: isinstance(app.screen, ChatScreen) and app.screen.turns[-1].over, "its end")
        assert isinstance(app.screen, ChatScreen)
        assert list(app.screen.turns[-1].answers) == ["base", "vector", "irm"]
        await pilot.press("escape", "1")
        await until(pilot, lambda: isinstance(app.screen, RunsScreen), "the runs")
        await pilot.press("down")
        await until(pilot, lambda: app.in_hand == folder / "older", "the other run in hand")
        await pilot.press("4")
        assert isinstance(app.screen, ChatScreen)
        assert app.screen.taken == folder / "newer"  # a conversation is not turned over unasked
        assert any("f4 goes on to older" in each.message for each in app._notifications)
        await pilot.press("f4")
        await until(pilot, lambda: "older" in str(app.screen.query_one("#vector").border_title), "the other vector")
        assert app.in_hand == app.screen.taken == folder / "older"
        assert len(app.screen.turns) == 1


@pytest.mark.slow
async def test_every_screen_opens_on_the_run_and_follows_it(folder: Path) -> None:
    app = IrmLiteApp(folder)
    async with app.run_test(size=(100, 30)) as pilot:
        await until(pilot, lambda: app.screen.query_one(RunTable).row_count == 2, "the runs")
        await pilot.press("3")
        await until(pilot, lambda: "newer, vector" in screen_text(app), "its heatmap")
        await pilot.press("f4")
        await until(pilot, lambda: "older, vector" in screen_text(app), "the next one's")
        assert screen_text(app).splitlines()[0].endswith(" f4 older")
        await pilot.press("5")
        await until(pilot, lambda: isinstance(app.screen, ExportScreen) and "runs/older" in screen_text(app), "its export")
        await pilot.press("f4")  # behind the oldest comes the newest
        await until(pilot, lambda: "runs/newer" in screen_text(app), "the newest one's export")
        await pilot.press("1")
        await until(pilot, lambda: isinstance(app.screen, RunsScreen), "the runs")
        current = app.screen.query_one(RunTable).current
        assert current is not None
        assert current.name == "newer"
        await pilot.press("f4")
        await until(pilot, lambda: (run := app.screen.query_one(RunTable).current) and run.name == "older", "the cursor")
        await pilot.press("3")
        await until(pilot, lambda: isinstance(app.screen, HeatmapScreen) and "older, vector" in screen_text(app), "the heatmap")


@pytest.mark.slow
async def test_a_run_is_drawn_once_it_has_something(tmp_path: Path) -> None:
    run = plant_run(tmp_path / "begun")
    app = IrmLiteApp(tmp_path)
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("3")
        await until(pilot, lambda: "It is drawn once there is something. 5 goes to its export." in screen_text(app), "why not")
        plant_live(run, 3, 8)
        await until(pilot, lambda: "begun, live" in screen_text(app), "its snapshot")


@pytest.mark.slow
async def test_one_key_fills_an_empty_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: Callable[[Script], None]
) -> None:
    monkeypatch.chdir(tmp_path)
    steps: Script = [["begin"], *(["event", kind, values] for kind, values in training(10, 10, ended="done"))]
    script([*steps, ["release"], ["err", "exporting a control vector"], ["until", "go"], ["out", "{}"]])
    app = IrmLiteApp(Path("runs"))
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: "No runs in runs yet" in screen_text(app), "the hint")
        await check_snapshot(pilot, "runs-first")
        await pilot.press("3")
        await until(pilot, lambda: "Press f4 to train the demo's tone" in screen_text(app), "the heatmap's hint")
        await pilot.press("1", "enter")
        await until(pilot, lambda: isinstance(app.screen, DashboardScreen), "the demo")
        await until(pilot, lambda: app.in_hand == Path("runs/anger-static"), "the run in hand")
        await until(pilot, lambda: "exporting a control vector" in screen_text(app), "what the demo does after the training")
        await pilot.press("f4")
        assert len(app.screen_stack) == 2
        Path("go").touch()
        await until(pilot, lambda: "done: h looks at it, t talks to it, e exports it" in screen_text(app), "how to go on")


@pytest.mark.slow
async def test_the_keys_that_an_empty_folder_names_work_at_once(folder: Path, tmp_path: Path) -> None:
    app = IrmLiteApp(tmp_path / "none")
    async with app.run_test(size=(80, 24)) as pilot:
        for key, what in (("h", "Nothing is drawn yet"), ("t", "no IRM: f4 trains"), ("e", "give the run to export")):
            await until(pilot, lambda: "ask now" in screen_text(app), "the hint")
            await pilot.press(key)
            await until(pilot, lambda what=what: what in screen_text(app), what)  # type: ignore[misc]
            await pilot.press("escape", "1")  # no field holds the digit


@pytest.mark.slow
async def test_a_digit_leads_on_from_an_export_without_a_run(tmp_path: Path) -> None:
    app = IrmLiteApp(tmp_path)
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("5")
        await until(pilot, lambda: "give the run to export" in screen_text(app), "the export")
        await pilot.press("1")
        await until(pilot, lambda: isinstance(app.screen, RunsScreen), "the runs")


@pytest.mark.slow
async def test_who_comes_back_to_the_chat_can_type(folder: Path) -> None:
    app = IrmLiteApp(folder)
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("4")
        await until(pilot, lambda: isinstance(app.screen, ChatScreen) and app.screen.is_mounted, "the chat")
        await pilot.press("escape", "5")
        await until(pilot, lambda: isinstance(app.screen, ExportScreen), "the export")
        await pilot.press("4")
        await until(pilot, lambda: isinstance(app.screen, ChatScreen), "the chat again")
        await pilot.press(*"Why?", "enter")
        await until(pilot, lambda: "vector turn 1" in screen_text(app), "a steered answer")
        await until(pilot, lambda: isinstance(app.screen, ChatScreen) and app.screen.turns[-1].over, "its end")


@pytest.mark.slow
async def test_the_demo_is_trained_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: Callable[[Script], None]) -> None:
    monkeypatch.chdir(tmp_path)
    script([["err", "loading the base"], ["until", "go"], ["out", "{}"]])
    app = IrmLiteApp(Path("runs"))
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("f4")
        await until(pilot, lambda: "loading the base" in screen_text(app), "the demo")
        await pilot.press("f4")
        assert len(app.screen_stack) == 2
        await pilot.press("escape", "f4")  # the run is not there yet
        await until(pilot, lambda: "starting" in screen_text(app), "the demo again")
        assert len(irm_lite_tui.watch.children.running_children()) == 1
        Path("go").touch()
        await until(pilot, lambda: not irm_lite_tui.watch.children.running_children(), "its end")
