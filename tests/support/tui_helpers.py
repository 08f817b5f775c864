"""What the tests of the UI share: planted runs, waiting for a condition, snapshots (RENEW=1 writes them anew)."""

import json
import os
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import textual
from safetensors.numpy import save_file
from textual._context import visible_screen_stack
from textual.app import App
from textual.pilot import Pilot
from textual.widgets import Input

from irm_lite.base.fingerprint import Fingerprint
from irm_lite.config import TrainConfig
from irm_lite.runs.directory import RunDirectory
from irm_lite_tui.settings.themes import DARK, LIGHT

SNAPSHOTS = Path(__file__).parents[1] / "snapshots"
SIZES = [(80, 24), (140, 45)]

Script = list[list[Any]]


async def until(pilot: Pilot[Any], condition: Callable[[], object], what: str = "", seconds: float = 90) -> None:
    """Let the app work until the condition holds; fails naming `what` after so many seconds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds} s in vain: {what}"
        await pilot.pause(0.02)
    await pilot.pause()


def screen_text(app: App[Any]) -> str:
    """The screen as lines of text, without colours; behind a small window stands what it covers."""
    if app.screen.is_modal:  # what its background was drawn as last depends on who asked
        visible_screen_stack.set(app._background_screens)
        app.screen.refresh()
    strips = app.screen._compositor.render_strips()
    return "\n".join("".join(segment.text for segment in strip).rstrip() for strip in strips) + "\n"


def still_cursors(app: App[Any]) -> None:
    """From now on no cursor is drawn: whether one that blinks is seen depends on when one looks."""
    for field in app.screen.query(Input):
        field.cursor_blink = False


async def check_snapshot(pilot: Pilot[Any], name: str) -> None:
    """The screen is as tests/snapshots has it: NAME-WxH.txt, and in both themes NAME-WxH-dark.svg and -light.svg.

    Pictures are compared under the version of Textual that drew them, as another may draw a border otherwise. To renew:
    RENEW=1 pytest tests/tui, then look at them.
    """
    app = pilot.app
    place = f"{name}-{app.size.width}x{app.size.height}"
    _compare(SNAPSHOTS / f"{place}.txt", screen_text(app))
    version = SNAPSHOTS / "textual-version.txt"
    if os.environ.get("RENEW"):
        version.write_text(textual.__version__ + "\n", encoding="utf-8")
    if version.read_text(encoding="utf-8").strip() != textual.__version__:
        return
    still_cursors(app)
    for theme, kind in ((DARK, "dark"), (LIGHT, "light")):
        app.register_theme(theme)
        app.theme = theme.name
        await pilot.pause()
        drawn = re.sub(r"terminal-\d+", "terminal", app.export_screenshot(title=name))
        _compare(SNAPSHOTS / f"{place}-{kind}.svg", drawn)


def _compare(file: Path, shown: str) -> None:
    if os.environ.get("RENEW"):
        file.write_text(shown, encoding="utf-8")
    assert shown == file.read_text(encoding="utf-8"), f"{file.name} differs: look at it, then RENEW=1"


def plant_run(path: Path, events: list[tuple[str, dict[str, Any]]] | None = None, **settings: Any) -> RunDirectory:
    """A run with these events, on the demo model."""
    run = RunDirectory(path)
    run.create(TrainConfig(**{"irm": "lite", **settings}), Fingerprint("llama", 30, 576, "0" * 64), {})
    for kind, values in events or []:
        run.events.append(kind, **values)
    return run


def training(steps: int, of: int, *, ended: str = "", every: int = 10) -> list[tuple[str, dict[str, Any]]]:
    """Events of a training whose loss falls from 4 to 2; `ended` is the reason of its end, if it has one."""
    about = {"device": "cpu", "dtype": "bfloat16", "max_steps": of, "resumed_from": None}
    events: list[tuple[str, dict[str, Any]]] = [("start", about), ("eval", {"step": 0, "nll": 4.0, "of": "base"})]
    for step in range(1, steps + 1):
        events.append(("step", step_event(step, of)))
        if step % every == 0:
            events.append(("eval", {"step": step, "nll": 4 - 1.5 * step / of, "of": "irm"}))
            events.append(("sample", {"step": step, "prompt": "Why is the sky blue?", "text": f"Because of step {step}!"}))
            events.append(("text", {"step": step, "answers": 8, "sound": 7, "ended": 6, "base_sound": 8}))
    if ended in ("done", "no more improvement"):
        events.append(
            ("end", {"reason": ended, "step": steps, "best_nll": 4 - 1.5 * steps / of, "best_step": steps, "seconds": 9.0})
        )
    elif ended:
        events.append(("end", {"reason": ended, "step": steps}))
    return events


def step_event(step: int, of: int) -> dict[str, Any]:
    return {
        "step": step,
        "max_steps": of,
        "loss": 4 - 2 * step / of,
        "learning_rate": 0.002 * (1 - step / of),
        "tokens": 500 * step,
        "tokens_per_second": 250.0,
        "eta_seconds": 2.0 * (of - step),
        "memory_bytes": 1.5e9,
    }


def plant_live(run: RunDirectory, n_layers: int = 29, hidden: int = 576) -> None:
    """A live snapshot that grows towards the last layer and index."""
    values = np.outer(np.linspace(0.1, 1, n_layers), np.linspace(0.1, 1, hidden)).astype(np.float32)
    save_file({"mean_abs": values}, run.live, metadata={"layers": f"1-{n_layers}"})


@pytest.fixture
def own_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of its own for the preferences, and screens that look ten times a second."""
    import irm_lite_tui.dashboard.screen
    import irm_lite_tui.runs.screen

    for module in (irm_lite_tui.dashboard.screen, irm_lite_tui.runs.screen):
        monkeypatch.setattr(module, "EVERY_SECONDS", 0.1)
    folder = tmp_path / "config"
    monkeypatch.setenv("IRM_LITE_CONFIG", str(folder))
    return folder


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Script], None]:
    """Give a function that sets what the next children do (scripted_child.py)."""
    import irm_lite_tui.watch.children

    file = tmp_path / "script.json"
    program = (sys.executable, str(Path(__file__).parent / "scripted_child.py"))
    monkeypatch.setattr(irm_lite_tui.watch.children, "PROGRAM", program)
    monkeypatch.setenv("SCRIPTED_CHILD", str(file))

    def set_script(steps: Script) -> None:
        file.write_text(json.dumps(steps), encoding="utf-8")

    return set_script
