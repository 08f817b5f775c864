"""Child processes: their lines, their end, and that the end of the UI is not theirs."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
from textual.app import App

from irm_lite_tui.watch.children import Child, ChildEnded, ChildLine, running_children
from support.tui_helpers import Script, script, until

__all__ = ["script"]


class Listener(App[None]):
    """Keeps what children say."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[tuple[str, str]] = []
        self.ends: list[ChildEnded] = []

    def on_child_line(self, message: ChildLine) -> None:
        self.lines.append((message.stream, message.text))

    def on_child_ended(self, message: ChildEnded) -> None:
        self.ends.append(message)


async def test_lines_then_the_document(script: Callable[[Script], None]) -> None:
    script([["err", "loading"], ["out", '{"run": "runs/x",'], ["out", ' "steps": 3}']])
    app = Listener()
    async with app.run_test() as pilot:
        child = Child(["train"], app)
        child.start()
        await until(pilot, lambda: app.ends, "the end")
        assert [line for line in app.lines if line[0] == "err"] == [("err", "loading")]
        assert [text for stream, text in app.lines if stream == "out"] == ['{"run": "runs/x",', ' "steps": 3}']
        assert (app.ends[0].code, app.ends[0].document) == (0, {"run": "runs/x", "steps": 3})
        assert not running_children()


async def test_a_failure_carries_its_last_line(script: Callable[[Script], None]) -> None:
    script([["err", "loading"], ["err", "irm-lite: there is no model 'x': check --model"], ["err", ""], ["exit", 2]])
    app = Listener()
    async with app.run_test() as pilot:
        Child(["train"], app).start()
        await until(pilot, lambda: app.ends, "the end")
        assert (app.ends[0].code, app.ends[0].document) == (2, None)
        assert app.ends[0].last == "irm-lite: there is no model 'x': check --model"


async def test_rubbish_and_a_sudden_death(script: Callable[[Script], None]) -> None:
    script([["rubbish"], ["die"]])
    app = Listener()
    async with app.run_test() as pilot:
        Child(["train"], app).start()
        await until(pilot, lambda: app.ends, "the end")
        assert (app.ends[0].code, app.ends[0].document) == (-signal.SIGKILL, None)
        assert any("not json" in text for _, text in app.lines)


async def test_stop_is_a_request_to_finish(script: Callable[[Script], None]) -> None:
    script([["err", "working"], ["until interrupted"], ["out", '{"saved": true}'], ["exit", 130]])
    app = Listener()
    async with app.run_test() as pilot:
        child = Child(["train"], app)
        child.start()
        await until(pilot, lambda: app.lines, "work")
        assert running_children() == [child]
        child.stop()
        await until(pilot, lambda: app.ends, "the end")
        assert (app.ends[0].code, app.ends[0].document) == (130, {"saved": True})


UI = """
import sys
from textual.app import App
from irm_lite_tui.watch import children

class Bare(App[None]):
    def on_mount(self):
        children.PROGRAM = sys.argv[1:]
        child = children.Child([], self)
        child.start()
        print(child.pid, file=sys.stderr, flush=True)

Bare().run(headless=True)
"""


def test_a_killed_ui_leaves_its_child_at_work(tmp_path: Path, script: Callable[[Script], None]) -> None:
    script([["err", "x" * 100], ["until", str(tmp_path / "ui is dead")], ["err", "still here"], ["out", str(tmp_path)]])
    child_program = [sys.executable, str(Path(__file__).parents[2] / "support" / "scripted_child.py")]
    with subprocess.Popen([sys.executable, "-c", UI, *child_program], stderr=subprocess.PIPE, text=True) as ui:
        assert ui.stderr is not None
        pid = int(ui.stderr.readline())
        child = psutil.Process(pid)
        assert os.getsid(pid) == pid  # no hang-up of the UI's terminal reaches it
        ui.kill()
        ui.wait()
    assert child.is_running()
    assert child.status() != psutil.STATUS_ZOMBIE
    (tmp_path / "ui is dead").touch()
    child.wait(timeout=30)  # it wrote to where nobody reads, and came to its end
