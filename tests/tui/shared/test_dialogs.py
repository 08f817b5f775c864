"""How the small windows and the comparison look."""

from pathlib import Path
from typing import Any

import pytest
from textual.app import App
from textual.pilot import Pilot
from textual.widgets import DataTable, Input

import irm_lite_tui.runs.table
from irm_lite_tui.heatmap.dialogs.choose_file import ChooseFile
from irm_lite_tui.heatmap.screen import HeatmapScreen
from irm_lite_tui.runs.compare import CompareScreen
from irm_lite_tui.shared.ask import AskScreen, NameScreen
from support.runs_app import RunsApp, listed, select
from support.tui_helpers import SIZES, check_snapshot, own_place, plant_run, screen_text, training, until

__all__ = ["own_place"]
pytestmark = pytest.mark.usefixtures("own_place")


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two runs, in a place that is called the same in every snapshot."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(irm_lite_tui.runs.table, "age", lambda created: "3 h")
    monkeypatch.setattr(
        "irm_lite.runs.directory.now", lambda: "2026-11-23T00:00:00+00:00"
    )  # else the later one may be a second younger
    plant_run(Path("runs/anger-lite"), training(40, 40, ended="done"), seed=3)
    plant_run(Path("runs/joy-static"), training(20, 60, ended="interrupted"), data="joy", irm="static")
    return Path("runs")


async def on_the_first(pilot: Pilot[None]) -> None:
    await listed(pilot, 2)
    select(pilot.app, "anger-lite")
    await pilot.pause()


@pytest.mark.slow
@pytest.mark.parametrize("size", SIZES)
async def test_the_question_before_a_run_is_deleted(runs: Path, size: tuple[int, int]) -> None:
    app = RunsApp(runs)
    async with app.run_test(size=size) as pilot:
        await on_the_first(pilot)
        await pilot.press("d")
        await until(pilot, lambda: isinstance(app.screen, AskScreen), "the question")
        await check_snapshot(pilot, "dialog-delete")


@pytest.mark.slow
@pytest.mark.parametrize("size", SIZES)
async def test_the_new_name_that_is_taken(runs: Path, size: tuple[int, int]) -> None:
    app = RunsApp(runs)
    async with app.run_test(size=size) as pilot:
        await on_the_first(pilot)
        await pilot.press("n")
        await until(pilot, lambda: isinstance(app.screen, NameScreen), "the window")
        app.screen.query_one(Input).value = "joy-static"
        await pilot.press("enter")
        await until(pilot, lambda: "choose another name" in screen_text(app), "the refusal")
        await check_snapshot(pilot, "dialog-name")


@pytest.mark.slow
@pytest.mark.parametrize("size", SIZES)
async def test_the_comparison(runs: Path, size: tuple[int, int]) -> None:
    app = RunsApp(runs)
    async with app.run_test(size=size) as pilot:
        await on_the_first(pilot)
        await pilot.press("space")
        select(app, "joy-static")
        await pilot.press("c")
        await until(pilot, lambda: isinstance(app.screen, CompareScreen), "the comparison")
        await until(pilot, lambda: app.screen.query_one(DataTable).row_count, "its rows")
        await check_snapshot(pilot, "compare")


class Heatmap(App[None]):
    """An app with the heatmap's screen, whose windows have its styles."""

    def on_mount(self) -> None:
        self.push_screen(HeatmapScreen())


@pytest.mark.slow
@pytest.mark.parametrize("size", SIZES)
async def test_the_name_of_a_picture(size: tuple[int, int]) -> None:
    app: App[Any] = Heatmap()
    async with app.run_test(size=size) as pilot:
        await until(pilot, lambda: isinstance(app.screen, HeatmapScreen), "the heatmap")
        app.push_screen(ChooseFile("Save as .png, .svg or .csv", Path("runs/anger-lite/recordings/held-out/figures/mean.png")))
        await until(pilot, lambda: isinstance(app.screen, ChooseFile), "the window")
        await check_snapshot(pilot, "dialog-file")
