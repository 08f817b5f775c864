"""Every screen of the UI, taken anew: python docs/tui/retake.py RUNS, a folder of runs of the demo model, the newest one exported.

Text at 80x24 and 160x50, and pictures at the larger size, beside this file. Look at them afterwards.
"""

import asyncio
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).parent
SIZES = ((80, 24), (160, 50))
PICTURES = ("runs", "dashboard", "train", "heatmap", "chat", "export")  # at the larger size
QUESTION = "Why is the sky blue?"
PATIENCE = 300.0  # seconds for a screen to be there


async def take(folder: Path, size: tuple[int, int]) -> None:
    from textual.widgets import Input

    from irm_lite_tui.app import IrmLiteApp

    app = IrmLiteApp(folder)

    def shown() -> str:
        strips = app.screen._compositor.render_strips()
        return "\n".join("".join(segment.text for segment in strip).rstrip() for strip in strips) + "\n"

    async with app.run_test(size=size) as pilot:

        async def save(name: str, *keys: str, there: Callable[[str], bool]) -> None:
            await pilot.press(*keys)
            until = time.monotonic() + PATIENCE
            while not there(shown()):
                if time.monotonic() > until:
                    sys.exit(f"{name} is not there after {PATIENCE:.0f} s:\n{shown()}")
                await pilot.pause(0.2)
            await pilot.pause(0.5)
            (HERE / f"{name}-{size[0]}x{size[1]}.txt").write_text(shown(), encoding="utf-8")
            if name in PICTURES and size == SIZES[-1]:
                app.save_screenshot(f"{name}.svg", str(HERE))

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


def main() -> None:
    folder = Path(sys.argv[1])
    with tempfile.TemporaryDirectory() as own:
        os.environ |= {"TERM": "xterm-256color", "COLORTERM": "truecolor", "XDG_CONFIG_HOME": own, "XDG_STATE_HOME": own}
        for size in SIZES:
            asyncio.run(take(folder, size))


if __name__ == "__main__":
    main()
