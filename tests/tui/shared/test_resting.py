"""Screens that nobody sees look at nothing, and look at once when they are seen again."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from textual.app import App
from textual.screen import ModalScreen, Screen

import irm_lite_tui.watch.children
from irm_lite_tui.chat.screen import ChatScreen
from irm_lite_tui.dashboard.screen import DashboardScreen
from irm_lite_tui.runs.screen import RunsScreen
from irm_lite_tui.watch.chat_sources import Sources
from support.tui_helpers import Script, own_place, plant_run, script, training, until

__all__ = ["own_place", "script"]
pytestmark = pytest.mark.usefixtures("own_place")


class Counting(Screen[None]):
    """A screen that counts tenths of a second."""

    ticks = 0

    def on_mount(self) -> None:
        self.set_interval(0.1, self.count)

    def count(self) -> None:
        self.ticks += 1


class Window(ModalScreen[None]):
    """A window over it."""


@pytest.fixture(params=[(RunsScreen, "look"), (DashboardScreen, "_look"), (ChatScreen, "_follow"), (ChatScreen, "_weigh")])
def counted(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[Callable[[], Screen[Any]], list[None]]:
    """What makes a screen that looks ten times a second or more, and its looks."""
    kind, name = request.param
    looks: list[None] = []
    look = getattr(kind, name)

    def count(screen: Screen[Any]) -> None:
        looks.append(None)
        look(screen)

    monkeypatch.setattr(kind, name, count)
    monkeypatch.setattr("irm_lite_tui.chat.screen.MEMORY_SECONDS", 0.1)
    monkeypatch.setattr("irm_lite_tui.chat.served.sources_of", lambda path: Sources("model.gguf"))
    monkeypatch.setattr(
        irm_lite_tui.watch.children, "PROGRAM", (sys.executable, str(Path(__file__).parents[2] / "support" / "scripted_serve.py"))
    )
    run = plant_run(tmp_path / "runs" / "one", training(3, 40))
    return lambda: kind(run.path if kind is DashboardScreen else run.path.parent), looks


@pytest.mark.slow
async def test_a_screen_that_is_not_seen_rests(counted: tuple[Callable[[], Screen[Any]], list[None]]) -> None:
    make, looks = counted
    app: App[None] = App()
    async with app.run_test(size=(100, 30)) as pilot:
        await app.push_screen(make())
        await until(pilot, lambda: len(looks) > 3, "looks")
        other = Counting()
        await app.push_screen(other)
        await until(pilot, lambda: other.ticks > 1, "the pause")
        before, ticks = len(looks), other.ticks
        await until(pilot, lambda: other.ticks > ticks + 4, "half a second")
        assert len(looks) == before
        await app.pop_screen()
        await until(pilot, lambda: len(looks) > before + 3, "looks again")
        await app.push_screen(Window())
        before = len(looks)
        await until(pilot, lambda: len(looks) > before + 3, "looks behind a window, where it is seen")


@pytest.mark.slow
async def test_it_looks_at_once_when_it_is_seen_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("runs", "dashboard"):
        monkeypatch.setattr(f"irm_lite_tui.{module}.screen.EVERY_SECONDS", 3600)
    run = plant_run(tmp_path / "runs" / "one", training(3, 40))
    runs, dashboard = RunsScreen(run.path.parent), DashboardScreen(run.path)
    app: App[None] = App()
    async with app.run_test(size=(100, 30)) as pilot:
        await app.push_screen(runs)
        await until(pilot, lambda: runs.query_one("RunTable").display, "the first look")
        await app.push_screen(dashboard)
        await until(pilot, lambda: dashboard.reading is not None, "the first look")
        await app.push_screen(Counting())
        run.events.append("end", reason="done", step=3, best_nll=2.0, best_step=3, seconds=1.0)
        plant_run(tmp_path / "runs" / "two")
        await app.pop_screen()
        await until(pilot, lambda: dashboard.reading is not None and dashboard.reading.view.state == "done", "the end")
        await app.pop_screen()
        await until(pilot, lambda: len(runs._readers) == 2, "the other run")


@pytest.mark.parametrize(("code", "said"), [(1, "new: irm-lite: memory ran out: smaller"), (0, "new: the training has ended")])
async def test_a_trainings_end_is_told_while_its_dashboard_rests(
    tmp_path: Path, script: Callable[[Script], None], code: int, said: str
) -> None:
    go = tmp_path / "go"
    script([["until", str(go)], *([["err", "irm-lite: memory ran out: smaller"]] if code else []), ["exit", code]])
    dashboard = DashboardScreen(tmp_path / "new", ["train"])
    app: App[None] = App()
    async with app.run_test(size=(100, 30)) as pilot:
        await app.push_screen(dashboard)
        await app.push_screen(Counting())
        go.touch()
        await until(pilot, lambda: [each.message for each in app._notifications] == [said], "the end")
