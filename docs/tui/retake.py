"""Every screen of the UI, taken anew: python docs/tui/retake.py RUNS, a folder of runs of the demo model, the newest one exported.

Text at 80x24 and 160x50, and pictures at the larger size, beside this file. Without RUNS: the first minute in an empty folder,
at 80x24 and 140x45. Look at them afterwards.
"""

import asyncio
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from textual.pilot import Pilot

    from irm_lite_tui.app import IrmLiteApp

HERE = Path(__file__).parent.resolve()
SIZES = ((80, 24), (160, 50))
FIRST_SIZES = ((80, 24), (140, 45))
PICTURES = ("runs", "dashboard", "train", "heatmap", "chat", "export")  # at the larger size
QUESTION = "Why is the sky blue?"
PATIENCE = 300.0  # seconds for a screen to be there


class Takes:
    """An application in a test's terminal; `save` presses keys, waits for what is to be there, and writes what is shown."""

    def __init__(self, app: "IrmLiteApp", pilot: "Pilot[None]", size: tuple[int, int]) -> None:
        self.app, self.pilot, self.size = app, pilot, size

    def shown(self) -> str:
        strips = self.app.screen._compositor.render_strips()
        return "\n".join("".join(segment.text for segment in strip).rstrip() for strip in strips) + "\n"

    async def save(self, name: str, *keys: str, there: Callable[[str], bool]) -> None:
        await self.pilot.press(*keys)
        until = time.monotonic() + PATIENCE
        while not there(self.shown()):
            if time.monotonic() > until:
                sys.exit(f"{name} is not there after {PATIENCE:.0f} s:\n{self.shown()}")
            await self.pilot.pause(0.2)
        await self.pilot.pause(0.5)
        (HERE / f"{name}-{self.size[0]}x{self.size[1]}.txt").write_text(self.shown(), encoding="utf-8")
        if name in PICTURES and self.size == SIZES[-1]:
            self.app.save_screenshot(f"{name}.svg", str(HERE))


async def take(folder: Path, size: tuple[int, int]) -> None:
    from textual.widgets import Input

    import irm_lite_tui.export.screen as export
    from irm_lite_tui.app import IrmLiteApp

    found = export.find_gguf
    export.find_gguf = lambda given: Path(found(given).name)  # no path of the machine that takes them
    app = IrmLiteApp(folder)
    async with app.run_test(size=size) as pilot:
        save = Takes(app, pilot, size).save
        await save("runs", there=lambda text: "done" in text)
        await save("dashboard", "enter", there=lambda text: "NLL" in text and "step" in text)
        await pilot.press("escape")
        await save("train", "2", there=lambda text: "model" in text)
        await save("heatmap", "3", there=lambda text: "layer" in text and "Nothing" not in text)
        await save("export", "5", there=lambda text: "fidelity" in text)
        await pilot.press("4")
        app.screen.query(Input).last().value = QUESTION
        await pilot.press("enter")
        await save("chat", there=lambda text: "ready: base" in text and text.count(QUESTION[:12]) > 1)


async def take_first(folder: Path, size: tuple[int, int]) -> None:
    """The first minute, without a run: what is offered, a steered answer by two keys, a look at what steered it."""
    from irm_lite_tui.app import IrmLiteApp

    os.chdir(folder)
    app = IrmLiteApp(Path("runs"))
    async with app.run_test(size=size) as pilot:
        takes = Takes(app, pilot, size)
        await takes.save("first", there=lambda text: "ask now" in text)
        began = time.monotonic()
        await pilot.press("4")
        await takes.save("first-answer", "enter", there=lambda text: "ready: base, vector" in text and "tokens" in text)
        print(f"{size[0]}x{size[1]}: both answers {time.monotonic() - began:.0f} s after the first key")
        await pilot.press("escape", "3", "o")
        await pilot.pause(1)
        await takes.save("first-look", "enter", there=lambda text: "demo-anger.gguf" in text and "layer" in text)


def main() -> None:
    with tempfile.TemporaryDirectory() as own:
        os.environ |= {"TERM": "xterm-256color", "COLORTERM": "truecolor", "XDG_CONFIG_HOME": own, "XDG_STATE_HOME": own}
        if len(sys.argv) > 1:
            for size in SIZES:
                asyncio.run(take(Path(sys.argv[1]), size))
        else:
            for size in FIRST_SIZES:
                asyncio.run(take_first(Path(own), size))


if __name__ == "__main__":
    main()
