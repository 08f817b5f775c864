"""A change of theme reaches all that is drawn: each screen looks as one that was opened in that theme."""

import json
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from textual.app import App
from textual.pilot import Pilot
from textual.screen import Screen
from textual.widgets import DataTable

import irm_lite_tui.dashboard.screen
import irm_lite_tui.runs.screen
import irm_lite_tui.runs.table
from irm_lite_tui.chat.widgets.answer_column import AnswerColumn
from irm_lite_tui.dashboard.screen import DashboardScreen
from irm_lite_tui.export.screen import ExportScreen
from irm_lite_tui.heatmap.screen import HeatmapScreen
from irm_lite_tui.runs.compare import CompareScreen
from irm_lite_tui.runs.screen import RunsScreen
from irm_lite_tui.runs.table import RunTable
from irm_lite_tui.settings.themes import DARK, LIGHT
from support.chat_app import ChatApp, ask, ready
from support.chat_app import app as chat_app
from support.export_app import FIGURES
from support.heatmap_app import TEXTS
from support.recordings import write_recording
from support.tui_helpers import own_place, plant_live, plant_run, screen_text, still_cursors, training, until

__all__ = ["chat_app", "own_place"]

Ready = Callable[[Pilot[Any]], Awaitable[None]]


class Bare(App[None]):
    """An app with this screen alone."""

    def __init__(self, screen: Screen[Any]) -> None:
        super().__init__()
        self.only = screen

    def on_mount(self) -> None:
        self.push_screen(self.only)


def begun_in(theme: str, app: App[Any]) -> App[Any]:
    for each in (DARK, LIGHT):
        app.register_theme(each)
    app.set_reactive(App.theme, theme)
    app.stylesheet.set_variables(app.get_css_variables())
    return app


async def painted(app: App[Any], be_ready: Ready, change_to: str = "") -> str:
    """The screen as a picture, in the theme that the app was begun in or in another that is chosen later."""
    async with app.run_test(size=(140, 45)) as pilot:
        await be_ready(pilot)
        if change_to:
            app.theme = change_to
            await pilot.pause()
        still_cursors(app)
        await pilot.pause()
        return re.sub(r"terminal-\d+", "terminal", app.export_screenshot(title="x"))


async def check_change(make: Callable[[], App[Any]], be_ready: Ready) -> None:
    for before, after in ((DARK, LIGHT), (LIGHT, DARK)):
        changed = await painted(begun_in(before.name, make()), be_ready, after.name)
        assert changed == await painted(begun_in(after.name, make()), be_ready)


@pytest.fixture
def at_rest(own_place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Screens that look once, and times that stand still: only the theme makes anything be drawn anew."""
    for module in (irm_lite_tui.dashboard.screen, irm_lite_tui.runs.screen):
        monkeypatch.setattr(module, "EVERY_SECONDS", 3600)
    monkeypatch.setattr(irm_lite_tui.runs.table, "age", lambda created: "3 h")


async def rows_there(pilot: Pilot[Any]) -> None:
    await until(pilot, lambda: pilot.app.screen.query(DataTable) and pilot.app.screen.query_one(DataTable).row_count, "the rows")


@pytest.mark.slow
@pytest.mark.usefixtures("at_rest")
async def test_runs(tmp_path: Path) -> None:
    plant_run(tmp_path / "done", training(40, 40, ended="done"))
    plant_run(tmp_path / "failed", training(13, 40, ended="out of memory"))
    await check_change(lambda: Bare(RunsScreen(tmp_path)), rows_there)


@pytest.mark.slow
@pytest.mark.usefixtures("at_rest")
async def test_the_cells_of_the_table_have_the_themes_colours(tmp_path: Path) -> None:
    plant_run(tmp_path / "done", training(40, 40, ended="done"))
    app = begun_in(DARK.name, Bare(RunsScreen(tmp_path)))
    async with app.run_test(size=(140, 45)) as pilot:
        await rows_there(pilot)
        table = app.screen.query_one(RunTable)

        def colours() -> list[str]:
            """Of the state and of the sparkline."""
            return [str(table.get_row_at(0)[column].style).lower() for column in (1, 2)]

        assert colours() == [DARK.success, DARK.secondary]
        app.theme = LIGHT.name
        await until(pilot, lambda: colours() == [LIGHT.success, LIGHT.secondary], "the other theme's green and blue")


@pytest.mark.slow
@pytest.mark.usefixtures("at_rest")
async def test_comparison(tmp_path: Path) -> None:
    left = plant_run(tmp_path / "a", training(40, 40, ended="done"))
    right = plant_run(tmp_path / "b", training(30, 40), data="joy")
    await check_change(lambda: Bare(CompareScreen(left.path, right.path)), rows_there)


@pytest.mark.slow
@pytest.mark.usefixtures("at_rest")
async def test_dashboard(tmp_path: Path) -> None:
    run = plant_run(tmp_path / "run", training(40, 40, ended="out of memory"))
    plant_live(run)

    async def there(pilot: Pilot[Any]) -> None:
        await until(pilot, lambda: "Because of step 40!" in screen_text(pilot.app), "the run")

    await check_change(lambda: Bare(DashboardScreen(run.path)), there)


@pytest.mark.slow
async def test_heatmap(tmp_path: Path) -> None:
    write_recording(tmp_path / "one", TEXTS)

    async def there(pilot: Pilot[Any]) -> None:
        await until(pilot, lambda: "rank" in screen_text(pilot.app), "the picture")

    await check_change(lambda: Bare(HeatmapScreen(tmp_path / "one")), there)


@pytest.mark.slow
async def test_export(tmp_path: Path) -> None:
    run = plant_run(tmp_path / "run")
    run.export.mkdir()
    run.fidelity.write_text(json.dumps(FIGURES))

    async def there(pilot: Pilot[Any]) -> None:
        await until(pilot, lambda: "95%" in screen_text(pilot.app), "the figures")

    await check_change(lambda: Bare(ExportScreen(run.path)), there)


@pytest.mark.slow
async def test_chat(chat_app: Callable[..., ChatApp]) -> None:
    async def there(pilot: Pilot[Any]) -> None:
        bare = pilot.app
        assert isinstance(bare, ChatApp)
        await ready(pilot, bare)
        await ask(pilot, bare, "Why?")
        bare.chat.query_one("#irm", AnswerColumn).strip.focus()
        await pilot.press("left")
        await pilot.pause()

    await check_change(chat_app, there)
