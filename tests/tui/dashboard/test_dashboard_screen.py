"""The dashboard: of a training that it starts, and of one started anywhere else."""

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from irm_lite.runs.directory import RunDirectory
from irm_lite_tui.dashboard.reader import DashboardReader
from irm_lite_tui.dashboard.screen import DashboardScreen
from support.dashboard_app import DashboardApp
from support.runs_app import headless_training
from support.tui_helpers import (
    SIZES,
    Script,
    check_snapshot,
    own_place,
    plant_live,
    plant_run,
    screen_text,
    script,
    step_event,
    training,
    until,
)

__all__ = ["own_place", "script"]
pytestmark = pytest.mark.usefixtures("own_place")


async def test_a_training_started_elsewhere_is_followed(tmp_path: Path) -> None:
    run = plant_run(tmp_path / "run", training(20, 40))
    plant_live(run)
    app = DashboardApp(DashboardScreen(run.path))
    with run.lock.held():
        async with app.run_test(size=(120, 40)) as pilot:
            await until(pilot, lambda: app.state == "running", "the lock to be seen")
            assert "20/40" in app.numbers
            assert "3.000" in app.numbers  # loss of step 20
            assert "3.250" in app.numbers  # validation NLL
            assert "0:40" in app.numbers  # 20 steps of 2 s
            assert "1.5 GB" in app.numbers
            shown = screen_text(app)
            assert "Because of step 10!" in shown
            assert "Because of step 20!" in shown
            assert "29 layers x 576 indices" in shown
            assert "Why is the sky blue?" in shown
            run.events.append("step", **step_event(21, 40))
            run.events.append("sample", step=21, prompt="Why is the sky blue?", text="The newest words.")
            await until(pilot, lambda: "21/40" in app.numbers, "the step")
            await until(pilot, lambda: "The newest words." in screen_text(app), "the sample")


@pytest.mark.slow
async def test_start_watch_stop_resume(tmp_path: Path, script: Callable[[Script], None]) -> None:
    out = tmp_path / "runs" / "new"
    go = tmp_path / "go"
    script(
        [
            ["err", "loading the base"],
            ["until", str(go)],
            ["begin"],
            *(["event", kind, values] for kind, values in training(12, 40)),
            ["live", 29, 576],
            ["until interrupted"],
            ["event", "end", {"reason": "interrupted", "step": 12}],
            ["err", "irm-lite: stopped after step 12"],
            ["exit", 130],
        ]
    )
    app = DashboardApp(DashboardScreen(out, ["train", "--out", str(out), "--json"]))
    async with app.run_test(size=(100, 30)) as pilot:
        await until(pilot, lambda: app.note == "loading the base", "the child's line")
        assert app.state == "starting"
        go.touch()
        await until(pilot, lambda: app.state == "running" and "12/40" in app.numbers, "the training")
        assert app.note == ""
        await pilot.press("x")
        await until(pilot, lambda: app.state == "stopped", "the stop")
        script([["begin"], ["event", "start", {"max_steps": 40}], ["event", "end", {"reason": "done", "best_nll": 2.5}]])
        await until(pilot, lambda: app.dashboard._child is None, "the end of the child")
        await pilot.press("r")
        await until(pilot, lambda: app.state == "done", "the resumed end")
        assert "2.500" in app.numbers


async def test_before_the_first_validation_the_samples_say_when_one_comes(tmp_path: Path) -> None:
    run = plant_run(tmp_path / "run", [event for event in training(5, 40) if event[0] != "sample"])
    app = DashboardApp(DashboardScreen(run.path))
    with run.lock.held():
        async with app.run_test(size=(80, 24)) as pilot:
            await until(pilot, lambda: "none yet: one is written at each validation" in screen_text(app), "when")
            run.events.append("sample", step=5, prompt="Why?", text="Because!")
            await until(pilot, lambda: "Because!" in screen_text(app), "the first sample")
            assert "none yet" not in screen_text(app)
            told = "step 20 writes babble: 3 of 8 answers go round in circles or say nothing, of the base's 1, and so on to here"
            run.events.append("warning", text=told, of="text")
            await until(pilot, lambda: "and so on to here" in screen_text(app), "all of a warning that takes two lines")


async def test_a_training_that_fails_to_start(tmp_path: Path, script: Callable[[Script], None]) -> None:
    script([["err", "irm-lite: there is no model [red]'x'\x1b[2J: check --model"], ["exit", 2]])
    app = DashboardApp(DashboardScreen(tmp_path / "never", ["train"]))
    async with app.run_test(size=(100, 24)) as pilot:
        await until(pilot, lambda: "check --model" in app.note, "the error")
        assert "[red]'x'\\x1b[2J" in screen_text(app)
        await pilot.press("x", "h", "r", "o")
        assert not app.opened


@pytest.mark.slow
async def test_a_killed_training_is_stopped_and_can_be_resumed(tmp_path: Path, script: Callable[[Script], None]) -> None:
    out = tmp_path / "runs" / "new"
    script([["begin"], *(["event", kind, values] for kind, values in training(5, 40)), ["until", str(tmp_path / "never")]])
    app = DashboardApp(DashboardScreen(out, ["train", "--out", str(out)]))
    async with app.run_test(size=(100, 24)) as pilot:
        await until(pilot, lambda: app.state == "running", "the training")
        holder = RunDirectory(out).lock.holder()
        assert holder is not None
        os.kill(holder.pid, signal.SIGKILL)
        await until(pilot, lambda: app.state == "stopped", "the death to be seen")
        await until(pilot, lambda: "exit code -9" in app.note, "what happened")
        script([["begin"], ["event", "step", step_event(6, 40)], ["until interrupted"]])
        await pilot.press("r")
        await until(pilot, lambda: app.state == "running" and "6/40" in app.numbers, "the training to go on")
        await pilot.press("x")
        await until(pilot, lambda: app.state == "stopped", "the end")


@pytest.mark.slow
async def test_an_old_failure_is_gone_after_a_resume(tmp_path: Path, script: Callable[[Script], None]) -> None:
    run = plant_run(tmp_path / "run", training(3, 40, ended="memory ran out"))
    go = tmp_path / "go"
    begun: Script = [["begin"], ["event", "start", {"max_steps": 40}], ["until", str(tmp_path / "end")]]
    script([["err", "loading the base"], ["until", str(go)], *begun, ["err", "irm-lite: the disk is full"], ["exit", 1]])
    app = DashboardApp(DashboardScreen(run.path))
    async with app.run_test(size=(100, 24)) as pilot:
        await until(pilot, lambda: app.note == "memory ran out", "the failure")
        await pilot.press("r")
        await until(pilot, lambda: app.note == "loading the base", "the child's line in its place")
        assert app.state == "starting"
        await pilot.press("r")
        assert "it is starting already" in [each.message for each in app._notifications]
        go.touch()
        await until(pilot, lambda: app.state == "running", "the training")
        assert app.note == ""
        (tmp_path / "end").touch()
        await until(pilot, lambda: app.note == "irm-lite: the disk is full", "the other failure")
        with headless_training(run):
            await until(pilot, lambda: app.state == "running" and app.note == "", "a resume elsewhere")


async def test_a_run_that_is_deleted_under_the_screen(tmp_path: Path) -> None:
    run = plant_run(tmp_path / "run", training(3, 9))
    app = DashboardApp(DashboardScreen(run.path))
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: app.state == "stopped")
        run.path.rename(tmp_path / "moved")
        await until(pilot, lambda: "no longer exists" in app.note, "the loss to be seen")
        (tmp_path / "moved").rename(run.path)
        await until(pilot, lambda: app.state == "stopped", "its return")


@pytest.mark.parametrize("damage", ["events", "toml", "newer", "live", "base"])
async def test_damage_is_a_line(tmp_path: Path, damage: str) -> None:
    run = plant_run(tmp_path / "run", training(12, 40))
    plant_live(run)
    if damage == "events":
        with run.events.path.open("ab") as file:
            file.write(b"\xff\x00 rubbish\n" + b"[" * 100_000 + b"\n" + json.dumps({"kind": "step", **step_event(13, 40)}).encode())
            file.write(b'\n{"kind": "torn')
    elif damage == "toml":
        (run.path / "run.toml").write_bytes(b"\xff")
    elif damage == "newer":
        toml = run.path / "run.toml"
        toml.write_text(toml.read_text().replace("format = 1", "format = 2"))
    elif damage == "live":
        run.live.write_bytes(run.live.read_bytes()[:700])
    else:
        (run.path / "base.json").write_text("{")
    expected = {
        "events": "2 lines of events.jsonl cannot be read",
        "toml": "the run is damaged",
        "newer": "written by a newer irm-lite",
        "live": "",
        "base": "",
    }
    app = DashboardApp(DashboardScreen(run.path))
    async with app.run_test(size=(100, 24)) as pilot:
        await until(pilot, lambda: app.state in ("stopped", "damaged"))
        if expected[damage]:
            await until(pilot, lambda: expected[damage] in app.note, "the line")
        else:
            await until(pilot, lambda: "12/40" in app.numbers, "the run")
            assert app.note == ""
        assert ("13/40" if damage == "events" else "12/40") in app.numbers
        if damage == "live":
            assert "no snapshot yet" in screen_text(app)


async def test_text_of_models_does_not_act(tmp_path: Path) -> None:
    sample = {"step": 9, "prompt": "[red]why[/red] \x1b[2J", "text": "[blink]line\n\x1b]0;title\x07 two\u202e"}
    run = plant_run(tmp_path / "run", [*training(3, 9), ("sample", sample), ("warning", {"text": "[bold]w\x1b[31m"})])
    app = DashboardApp(DashboardScreen(run.path))
    async with app.run_test(size=(120, 30)) as pilot:
        await until(pilot, lambda: "[blink]line" in screen_text(app), "the sample")
        shown = screen_text(app)
        assert "[red]why[/red] \\x1b[2J" in shown
        assert "\\x1b]0;title\\x07 two\\u202e" in shown
        assert "[bold]w\\x1b[31m" in shown
        assert not {"\x1b", "\x07", "\u202e"} & set(shown)


async def test_other_modes_are_asked_for_with_the_run(tmp_path: Path) -> None:
    run = plant_run(tmp_path / "run", training(3, 9))
    app = DashboardApp(DashboardScreen(run.path))
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: app.state == "stopped")
        await pilot.press("h", "t", "e")
        await pilot.pause()
        assert [(each.mode, each.path) for each in app.opened] == [(mode, run.path) for mode in ("heatmap", "chat", "export")]


async def test_without_a_run(tmp_path: Path) -> None:
    app = DashboardApp(DashboardScreen())
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.pause()
        assert "No run chosen" in app.note
        await pilot.press("x", "r", "o", "h")
        assert not app.opened


@pytest.mark.slow
async def test_sizes_down_to_nothing(tmp_path: Path) -> None:
    run = plant_run(tmp_path / "run", training(20, 40))
    plant_live(run)
    app = DashboardApp(DashboardScreen(run.path))
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: app.state == "stopped")
        for size in ((20, 5), (1, 1), (60, 10), (200, 60)):
            await pilot.resize_terminal(*size)
            await pilot.pause()
        assert "20/40" in screen_text(app)


@pytest.mark.slow
@pytest.mark.parametrize("size", SIZES)
async def test_how_it_looks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: tuple[int, int]) -> None:
    monkeypatch.chdir(tmp_path)
    run = plant_run(Path("runs/anger-lite"), training(25, 40))
    plant_live(run)
    app = DashboardApp(DashboardScreen(run.path))
    with run.lock.held():
        async with app.run_test(size=size) as pilot:
            await until(pilot, lambda: app.state == "running" and "Because of step 20!" in screen_text(app), "the samples")
            await check_snapshot(pilot, "dashboard")


def test_a_reading_of_the_real_files(tmp_path: Path) -> None:
    """Against what the run directory itself gives."""
    run = plant_run(tmp_path / "run", training(30, 40, ended="done"), rank=4)
    plant_live(run, 5, 7)
    reading = DashboardReader(run.path).read()
    steps: list[Any] = [event for event in run.events.read() if event["kind"] == "step"]
    assert reading.view.config == run.config()
    assert reading.loss == [(event["step"], event["loss"]) for event in steps]
    assert (reading.learning_rate, reading.tokens_per_second) == (steps[-1]["learning_rate"], 250.0)
    assert reading.live is not None
    assert reading.live.values.shape == (5, 7)


async def test_that_the_runtimes_disagree_is_shown_whatever_is_told_later(tmp_path: Path) -> None:
    run = plant_run(tmp_path / "run", training(5, 40))
    told = "transformers and llama.cpp run base.gguf as two models: KL 0.29 nats a token"
    run.events.append("warning", text=told, of="runtimes")
    run.events.append("warning", text="memory ran out: each step is now computed in 2 rows")
    app = DashboardApp(DashboardScreen(run.path))
    with run.lock.held():
        async with app.run_test(size=(140, 40)) as pilot:
            await until(pilot, lambda: app.note == f"warning: {told}", "the warning")
            run.events.append("start", max_steps=40)  # resumed, on another file
            run.events.append("warning", text="the newest")
            await until(pilot, lambda: app.note == "warning: the newest", "the newest warning")


async def test_a_refused_start_says_why_with_the_figure(tmp_path: Path, script: Callable[[Script], None]) -> None:
    why = "irm-lite: transformers and llama.cpp run base.gguf as two models: KL 2.1 nats a token: say --allow-disagreement"
    script([["err", "loading"], ["err", why], ["exit", 2]])
    out = tmp_path / "runs" / "new"
    app = DashboardApp(DashboardScreen(out, ["train", "--out", str(out), "--json"]))
    async with app.run_test(size=(160, 30)) as pilot:
        await until(pilot, lambda: "KL 2.1" in app.note, "the refusal")
