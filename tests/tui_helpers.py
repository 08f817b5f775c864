"""What the tests of the UI share: waiting for a condition, text snapshots (RENEW=1 writes them anew), scripted children."""

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from textual.app import App
from textual.pilot import Pilot

SNAPSHOTS = Path(__file__).parent / "snapshots"
SIZES = [(80, 24), (140, 45)]

Script = list[list[Any]]


async def until(pilot: Pilot[Any], condition: Callable[[], object], what: str = "", seconds: float = 30) -> None:
    """Let the app work until the condition holds; fails naming `what` after so many seconds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds} s in vain: {what}"
        await pilot.pause(0.02)
    await pilot.pause()


def screen_text(app: App[Any]) -> str:
    """The screen as lines of text, without colours."""
    strips = app.screen._compositor.render_strips()
    return "\n".join("".join(segment.text for segment in strip).rstrip() for strip in strips) + "\n"


def check_snapshot(app: App[Any], name: str) -> None:
    """The screen is as tests/snapshots/NAME-WxH.txt has it. To renew them: RENEW=1 pytest tests/test_tui_*.py, then look."""
    file = SNAPSHOTS / f"{name}-{app.size.width}x{app.size.height}.txt"
    shown = screen_text(app)
    if os.environ.get("RENEW"):
        file.write_text(shown, encoding="utf-8")
    assert shown == file.read_text(encoding="utf-8"), f"{file.name} differs: look at it, then RENEW=1"


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Script], None]:
    """Give a function that sets what the next children do (scripted_child.py)."""
    import irm_lite_tui.children

    file = tmp_path / "script.json"
    program = (sys.executable, str(Path(__file__).parent / "scripted_child.py"))
    monkeypatch.setattr(irm_lite_tui.children, "PROGRAM", program)
    monkeypatch.setenv("SCRIPTED_CHILD", str(file))

    def set_script(steps: Script) -> None:
        file.write_text(json.dumps(steps), encoding="utf-8")

    return set_script
