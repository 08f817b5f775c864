"""The heatmap's screen alone, and small sources for it."""

from pathlib import Path

import numpy as np
from safetensors.numpy import save_file
from textual.app import App
from textual.pilot import Pilot
from textual.widgets import Static

from irm_lite.base.fingerprint import Fingerprint
from irm_lite.config import TrainConfig
from irm_lite.runs.directory import RunDirectory
from irm_lite_tui.heatmap.screen import HeatmapScreen
from irm_lite_tui.heatmap.widgets.grid import HeatmapGrid
from support.recordings import HIDDEN
from support.tui_helpers import until


class HeatmapApp(App[None]):
    """The screen alone."""

    def __init__(self, path: Path | None) -> None:
        super().__init__()
        self.heatmap = HeatmapScreen(path)

    def on_mount(self) -> None:
        self.push_screen(self.heatmap)

    def text(self, name: str) -> str:
        return str(self.heatmap.query_one(name, Static).render())

    @property
    def grid(self) -> HeatmapGrid:
        return self.heatmap.query_one(HeatmapGrid)

    def lines(self) -> list[str]:
        return ["".join(segment.text for segment in strip).rstrip() for strip in self.screen._compositor.render_strips()]


async def drawn(pilot: Pilot[None], app: HeatmapApp) -> None:
    await until(pilot, lambda: app.grid.picture is not None and app.heatmap.query_one("#readout").display)


TEXTS = [["<s>", "Why", " rude", "!"], ["<s>", "How", " so", "?", " go"]]


def a_run(folder: Path) -> RunDirectory:
    run = RunDirectory(folder)
    run.create(TrainConfig(data="anger"), Fingerprint("llama", 8, HIDDEN, "0" * 64), {})
    return run


def a_snapshot(path: Path, layers: str = "2-4", scale: float = 1.0, rows: int = 3) -> None:
    values = scale * np.arange(rows * HIDDEN, dtype=np.float32).reshape(rows, HIDDEN)
    save_file({"mean_abs": values}, path, {"layers": layers})
