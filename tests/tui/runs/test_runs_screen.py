"""The screen of runs, in an app with nothing else."""

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from textual.binding import Binding
from textual.widgets import DataTable, Input, Static

import irm_lite_tui.runs.table
from irm_lite.runs.lock import Holder
from irm_lite_tui.dashboard.screen import DashboardScreen
from irm_lite_tui.runs import commands as run_commands
from irm_lite_tui.runs.compare import CompareScreen
from irm_lite_tui.runs.screen import RunsScreen
from irm_lite_tui.runs.table import RunTable
from irm_lite_tui.shared.ask import AskScreen, NameScreen
from support.runs_app import RunsApp, headless_training, listed, notified, rows, select
from support.tui_helpers import (
    SIZES,
    Script,
    check_snapshot,
    own_place,
    plant_run,
    screen_text,
    script,
    step_event,
    training,
    until,
)

__all__ = ["own_place", "script"]
pytestmark = pytest.mark.usefixtures("own_place")


async def test_states_and_figures(tmp_path: Path) -> None:
    done = plant_run(tmp_path / "angry", training(40, 40, ended="done"))
    done.fidelity.parent.mkdir()
    done.fidelity.write_text('{"fidelity": 0.9821, "score": {"vector": {"value": 0.8412}}, "adapter": {"fidelity": 0.9712}}')
    done.default_adapter.write_bytes(b"")
    plant_run(tmp_path / "half", training(13, 40), data="joy", irm="static")
    plant_run(tmp_path / "asked to stop", training(13, 40, ended="interrupted"))
    plant_run(tmp_path / "burst", training(13, 40, ended="out of memory"))
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "run.toml").write_text("format = ")
    newer = plant_run(tmp_path / "newer")
    toml = newer.path / "run.toml"
    toml.write_text(toml.read_text().replace("format = 1", "format = 99"))
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / "events.jsonl").write_text('{"kind": "st')
    (tmp_path / "notes").mkdir()
    app = RunsApp(tmp_path)
    async with app.run_test(size=(160, 30)) as pilot:
        await listed(pilot, 7)
        found = rows(app)
        assert found["angry"][1] == "✓ done"
        assert found["angry"][2][0] == "█"
        assert found["angry"][2][-1] == "▁"
        assert found["angry"][3:7] == ["40/40", "2.500", "0.982", "0.84"]
        assert found["angry"][8:] == ["lite", "anger", "demo"]
        assert found["half"][1] == "■ stopped"
        assert found["half"][8:] == ["static", "joy", "demo"]
        assert [found[name][1] for name in ("asked to stop", "burst")] == ["■ stopped", "✗ failed"]
        assert [found[name][1] for name in ("broken", "newer", "torn")] == ["! damaged"] * 3
        for name, problem in {
            "burst": "out of memory",
            "broken": "the run is damaged",
            "newer": "was written by a newer irm-lite: pip install -U irm-lite",
            "torn": "no run.toml",
        }.items():
            select(app, name)
            await pilot.pause()
            assert problem in str(app.screen.query_one("#problem", Static).render())
        select(app, "angry")
        await pilot.pause()
        assert "angry   adapter 0.971   anger on demo" in str(app.screen.query_one("#settings", Static).render())


async def test_text_from_files_is_shown_as_text(tmp_path: Path) -> None:
    plant_run(tmp_path / "[red]angry", model="[bold]m\x1b[2J", data="x\u202ey.jsonl")
    app = RunsApp(tmp_path)
    async with app.run_test(size=(160, 24)) as pilot:
        await listed(pilot, 1)
        shown = screen_text(app)
        assert "[red]angry" in shown
        assert "[bold]m\\x1b[2J" in shown
        assert "x\\u202ey.jsonl" in shown
        assert "\x1b" not in shown


async def test_an_empty_folder_says_how_to_begin(tmp_path: Path) -> None:
    app = RunsApp(tmp_path / "none")
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: "Press enter" in screen_text(app), "the hint")
        plant_run(tmp_path / "none" / "first")
        await listed(pilot, 1)


async def test_the_table_follows_what_others_do(tmp_path: Path) -> None:
    run = plant_run(tmp_path / "live", training(3, 40))
    plant_run(tmp_path / "other")
    app = RunsApp(tmp_path)
    async with app.run_test(size=(160, 24)) as pilot:
        await listed(pilot, 2)
        select(app, "live")
        with headless_training(run):
            await until(pilot, lambda: rows(app)["live"][1] == "● running", "the lock to be seen")
            run.events.append("step", **step_event(4, 40))
            await until(pilot, lambda: rows(app)["live"][3] == "4/40", "the step")
            plant_run(tmp_path / "a third")
            await listed(pilot, 3)
            current = app.screen.query_one(RunTable).current
            assert current is not None
            assert current.name == "live"
            app.screen.query_one(RunTable).go_to(tmp_path / "later")
            select(app, "other")
            plant_run(tmp_path / "later")
            await listed(pilot, 4)
            current = app.screen.query_one(RunTable).current
            assert current is not None
            assert current.name == "other"  # it was moved meanwhile
        await until(pilot, lambda: rows(app)["live"][1] == "■ stopped", "the end")
        shutil.rmtree(run.path)
        await listed(pilot, 3)


@pytest.mark.slow
async def test_filter_and_order(tmp_path: Path) -> None:
    plant_run(tmp_path / "a", training(40, 40, ended="done"), data="joy")
    plant_run(tmp_path / "b", training(20, 40), irm="static")
    plant_run(tmp_path / "c", training(30, 40))
    app = RunsApp(tmp_path)
    async with app.run_test(size=(160, 24)) as pilot:
        await listed(pilot, 3)
        table = app.screen.query_one(RunTable)
        await pilot.press("slash", *"static stop", "enter")
        assert list(rows(app)) == ["b"]
        await pilot.press("slash", *"xyz")
        assert "No run matches" in screen_text(app)
        await pilot.press("escape")
        assert len(rows(app)) == 3
        for _ in range(10):
            if table.sort_by == "NLL":
                break
            await pilot.press("s")
        assert list(rows(app)) == ["a", "c", "b"]
        await pilot.press("S")
        assert list(rows(app)) == ["b", "c", "a"]


@pytest.mark.slow
async def test_rename(tmp_path: Path) -> None:
    plant_run(tmp_path / "old")
    plant_run(tmp_path / "taken")
    app = RunsApp(tmp_path)
    async with app.run_test(size=(80, 24)) as pilot:
        await listed(pilot, 2)
        select(app, "old")
        await pilot.press("n")
        await until(pilot, lambda: isinstance(app.screen, NameScreen))
        for wrong, why in {
            "taken": "exists: choose another name",
            "../up": "is not a name for a folder",
            " ": "is not a name",
        }.items():
            app.screen.query_one(Input).value = wrong
            await pilot.press("enter")
            assert why in str(app.screen.query_one("#detail", Static).render())
        app.screen.query_one(Input).value = "new"
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, RunsScreen) and "new" in rows(app), "the new name")
        assert (tmp_path / "new" / "run.toml").exists()
        assert not (tmp_path / "old").exists()


@pytest.mark.slow
async def test_delete_asks_first(tmp_path: Path) -> None:
    run = plant_run(tmp_path / "old", training(3, 9))
    app = RunsApp(tmp_path)
    async with app.run_test(size=(80, 24)) as pilot:
        await listed(pilot, 1)
        for no in ("n", "escape", "enter"):  # no is what has the focus
            await pilot.press("d")
            await until(pilot, lambda: isinstance(app.screen, AskScreen))
            await pilot.press(no)
            await until(pilot, lambda: isinstance(app.screen, RunsScreen))
        assert run.started()
        with headless_training(run):
            await pilot.press("d", "y")
            await until(pilot, lambda: "is being written by process" in notified(app), "the refusal")
        assert run.started()
        await pilot.press("d", "y")
        await until(pilot, lambda: not run.path.exists(), "the deletion")
        await until(pilot, lambda: "No runs" in screen_text(app), "the empty table")


@pytest.mark.slow
@pytest.mark.parametrize("shell_script", [False, True])
async def test_stop_reaches_a_training_started_elsewhere(tmp_path: Path, shell_script: bool) -> None:
    run = plant_run(tmp_path / "live", training(3, 40))
    app = RunsApp(tmp_path)
    async with app.run_test(size=(160, 24)) as pilot:
        await listed(pilot, 1)
        await pilot.press("x")
        await until(pilot, lambda: "nothing writes live" in notified(app), "the refusal")
        with headless_training(run, shell_script) as process:
            await pilot.press("x")
            assert process.wait(30) == 0
        assert list(run.events.read())[-1]["reason"] == "interrupted"


def test_a_training_on_another_machine_is_not_stopped_from_here(tmp_path: Path) -> None:
    run = plant_run(tmp_path / "far")
    (run.path / "lock.holder").write_text("process 1 since 2026-01-01T00:00:00+00:00 on elsewhere\n")
    holder = run.lock.holder()
    assert holder == Holder(1, "2026-01-01T00:00:00+00:00", "elsewhere")
    with pytest.raises(Exception, match="the training runs on elsewhere: stop process 1 there"):
        holder.interrupt()


async def test_a_training_on_another_machine_is_said_not_to_be_checked(tmp_path: Path) -> None:
    run = plant_run(tmp_path / "far", training(3, 40))
    (run.path / "lock.holder").write_text("process 7 since 2026-01-01T00:00:00+00:00 on [b]gpu\x1b[2J\n")
    app = RunsApp(tmp_path)
    async with app.run_test(size=(160, 24)) as pilot:
        await listed(pilot, 1)
        shown = screen_text(app)
        assert "● running on [b]gpu\\x1b" in shown
        assert "[b]gpu\\x1b[2J, not checked: if process 7 has ended there, remove" in shown
        await pilot.press("enter")
        await until(pilot, lambda: "● running on [b]gpu\\x1b[2J, not checked  far" in screen_text(app), "the dashboard")
        (run.path / "lock.holder").unlink()
        await until(pilot, lambda: "■ stopped  far" in screen_text(app), "the fix")


@pytest.mark.parametrize("line", ["", "process x", "process 1 since", "process 0 since 2026 on a b", "\x00" * 50])
def test_a_holder_that_cannot_be_read_is_none(tmp_path: Path, line: str) -> None:
    run = plant_run(tmp_path / "run")
    (run.path / "lock.holder").write_text(line)
    assert run.lock.holder() is None


def test_looking_for_the_holder_takes_no_lock(tmp_path: Path) -> None:
    run = plant_run(tmp_path / "run")
    with run.lock.held():
        assert run.lock.holder() is not None
    assert run.lock.holder() is None
    with run.lock.held():
        pass


async def test_resume_starts_the_command_line(tmp_path: Path, script: Callable[[Script], None]) -> None:
    run = plant_run(tmp_path / "runs" / "half", training(3, 40, ended="interrupted"))
    script(
        [
            ["begin"],
            ["event", "start", {"max_steps": 40}],
            ["event", "step", step_event(4, 40)],
            ["until interrupted"],
            ["exit", 130],
        ]
    )
    app = RunsApp(tmp_path / "runs")
    async with app.run_test(size=(160, 24)) as pilot:
        await listed(pilot, 1)
        await pilot.press("r")
        await until(pilot, lambda: rows(app)["half"][1:4:2] == ["● running", "4/40"], "the training")
        await pilot.press("r")
        await until(pilot, lambda: "half is running: there is nothing to resume" in notified(app))
        await pilot.press("x")
        await until(pilot, lambda: rows(app)["half"][1] == "■ stopped", "the stop")
        assert run.lock.holder() is None


@pytest.mark.slow
async def test_a_failed_resume_says_why(tmp_path: Path, script: Callable[[Script], None]) -> None:
    plant_run(tmp_path / "runs" / "half", training(3, 40, ended="interrupted"))
    script([["err", "irm-lite: half has no checkpoint yet: remove it and train again"], ["exit", 2]])
    app = RunsApp(tmp_path / "runs")
    async with app.run_test(size=(80, 24)) as pilot:
        await listed(pilot, 1)
        await pilot.press("r")
        await until(pilot, lambda: "has no checkpoint yet" in notified(app), "the child's last line")


@pytest.mark.slow
async def test_the_palette_offers_what_the_keys_do(tmp_path: Path) -> None:
    plant_run(tmp_path / "half", training(3, 40))
    app = RunsApp(tmp_path)
    async with app.run_test(size=(100, 40)) as pilot:
        await listed(pilot, 1)
        for words, opened in (("run rename", NameScreen), ("run delete", AskScreen), ("run open", DashboardScreen)):
            await pilot.press("ctrl+p", *words)
            await until(pilot, lambda words=words: words in screen_text(app).lower().replace("run: ", "run "), "the command")  # type: ignore[misc]
            await pilot.press("enter")
            await until(pilot, lambda opened=opened: isinstance(app.screen, opened), words)  # type: ignore[misc]
            await pilot.press("escape")
            await until(pilot, lambda: isinstance(app.screen, RunsScreen), "the runs")


def test_the_palettes_commands_are_bindings_of_the_screen() -> None:
    ids = {binding.id for binding in RunsScreen.BINDINGS if isinstance(binding, Binding)}
    assert {f"runs.{name}" for name in run_commands._ABOUT_A_RUN} <= ids


async def test_the_folder_is_opened_where_there_is_a_desktop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = plant_run(tmp_path / "runs" / "-here; x")
    opener = tmp_path / "xdg-open"
    opener.write_text(f'#!/bin/sh\nprintf "%s" "$*" > "{tmp_path}/part"\nmv "{tmp_path}/part" "{tmp_path}/opened"\n')
    opener.chmod(0o755)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setenv("WAYLAND_DISPLAY", "wayland-0")
    app = RunsApp(tmp_path / "runs")
    async with app.run_test(size=(80, 24)) as pilot:
        await listed(pilot, 1)
        await pilot.press("o")
        await until(pilot, lambda: (tmp_path / "opened").exists(), "the program")
        assert (tmp_path / "opened").read_text() == str(run.path.resolve())
        assert f"opened: {run.path}" in notified(app)
        assert app.copied == ""
        opener.unlink()
        monkeypatch.setenv("PATH", str(tmp_path))
        await pilot.press("o")
        assert app.copied == str(run.path)


async def test_the_path_is_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "TMUX"):
        monkeypatch.delenv(name, raising=False)
    run = plant_run(tmp_path / "here")
    app = RunsApp(tmp_path)
    async with app.run_test(size=(80, 24)) as pilot:
        await listed(pilot, 1)
        await pilot.press("o")
        assert app.copied == str(run.path)
        assert notified(app) == f"sent to the terminal's clipboard: {run.path}"


@pytest.mark.slow
async def test_two_runs_compared(tmp_path: Path) -> None:
    plant_run(tmp_path / "a", training(40, 40, ended="done"), seed=3)
    plant_run(tmp_path / "b", training(20, 40, ended="interrupted"), data="joy")
    app = RunsApp(tmp_path)
    async with app.run_test(size=(140, 45)) as pilot:
        await listed(pilot, 2)
        await pilot.press("c")
        await until(pilot, lambda: "mark two runs" in notified(app))
        select(app, "a")
        await pilot.press("space")
        assert "◆ a" in rows(app)
        select(app, "b")
        await pilot.press("c")
        await until(pilot, lambda: isinstance(app.screen, CompareScreen))
        table = app.screen.query_one(DataTable)
        await until(pilot, lambda: table.row_count, "the settings")
        found = [[cell.plain for cell in table.get_row_at(row)] for row in range(table.row_count)]
        assert found[:5] == [
            ["state", "done", "stopped"],
            ["steps", "40/40", "20/40"],
            ["best NLL", "2.500", "3.250"],
            ["fidelity", "-", "-"],
            ["score of text", "-", "-"],
        ]
        assert found[5:7] == [["data", "anger", "joy"], ["seed", "3", "0"]]
        assert all(left == right for _, left, right in found[7:])
        await pilot.press("escape")
        await until(pilot, lambda: isinstance(app.screen, RunsScreen))


@pytest.mark.slow
async def test_enter_opens_the_dashboard_of_a_sound_run(tmp_path: Path) -> None:
    plant_run(tmp_path / "good", training(3, 9))
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "run.toml").write_text("?")
    app = RunsApp(tmp_path)
    async with app.run_test(size=(80, 24)) as pilot:
        await listed(pilot, 2)
        select(app, "bad")
        await pilot.press("enter")
        assert "the run is damaged" in notified(app)
        select(app, "good")
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, DashboardScreen))


@pytest.mark.slow
async def test_a_tiny_terminal(tmp_path: Path) -> None:
    plant_run(tmp_path / "a", training(40, 40, ended="done"))
    app = RunsApp(tmp_path)
    async with app.run_test(size=(80, 24)) as pilot:
        await listed(pilot, 1)
        for size in ((20, 5), (1, 1), (120, 40)):
            await pilot.resize_terminal(*size)
            await pilot.press("d")
            await until(pilot, lambda: isinstance(app.screen, AskScreen))
            await pilot.press("n")
            await until(pilot, lambda: isinstance(app.screen, RunsScreen))
        assert list(rows(app)) == ["a"]


@pytest.mark.slow
@pytest.mark.parametrize("size", SIZES)
async def test_how_it_looks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: tuple[int, int]) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(irm_lite_tui.runs.table, "age", lambda created: "3 h")
    done = plant_run(Path("runs/anger-lite"), training(40, 40, ended="done"))
    done.fidelity.parent.mkdir()
    done.fidelity.write_text('{"fidelity": 0.9821, "score": {"vector": {"value": 0.8412}}}')
    plant_run(Path("runs/joy-static"), training(13, 40, ended="out of memory"), data="joy", irm="static")
    plant_run(Path("runs/mine"), training(21, 40, ended="interrupted"), data="mine.jsonl", model="llama-2-7b-chat")
    app = RunsApp(Path("runs"))
    async with app.run_test(size=size) as pilot:
        await listed(pilot, 3)
        app.screen.query_one(RunTable).sort_by = "run"
        app.screen.query_one(RunTable).show()
        select(app, "joy-static")
        await pilot.pause()
        await check_snapshot(pilot, "runs")
