"""The terminal UI's pace: a frame of the heatmap, the first frame of `irm-lite`, and what a live heatmap costs.

python benchmarks/tui.py [--layers 32] [--hidden-size 4096] [--columns 200] [--rows 50] [--frames 200] [--json FILE]

A frame is what Textual does for it: render every line of the panel (grid and margins), compose, encode as bytes for a truecolour
terminal. Warm: a step to the side at full zoom or at all-but-full, styles known. Cold: other values, nothing known but the code.
The first frame and the live heatmap are timed from outside, on a pseudo-terminal.
"""

import argparse
import asyncio
import fcntl
import gc
import json
import os
import platform
import pty
import select
import signal
import statistics
import struct
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psutil
from safetensors.numpy import save_file
from textual.app import App, ComposeResult

from irm_lite.core.files.atomic import atomic_path
from irm_lite.core.types import FloatArray
from irm_lite_tui.heatmap.source import Picture
from irm_lite_tui.heatmap.widgets.margins import BESIDE, Margin
from irm_lite_tui.heatmap.widgets.panel import HeatmapPanel
from this_machine import this_machine

GOALS = {"warm_ms": 8.0, "cold_ms": 20.0, "first_frame_s": 0.5, "live_share_of_a_core": 0.15}
_LIVE_SECONDS, _HERTZ = 8.0, 10.0
_FIRST_FRAMES = 5
_UI = "from irm_lite_tui.app import main; main()"
_LIVE_UI = """
import sys
from pathlib import Path
from textual.app import App
from irm_lite_tui.heatmap.screen import HeatmapScreen
class Live(App):
    def on_mount(self):
        self.push_screen(HeatmapScreen(Path(sys.argv[1])))
Live().run()
"""


class PanelApp(App[None]):
    """The panel alone."""

    def compose(self) -> ComposeResult:
        yield HeatmapPanel()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=32)
    parser.add_argument("--hidden-size", type=int, default=4096)
    parser.add_argument("--columns", type=int, default=200)
    parser.add_argument("--rows", type=int, default=50)
    parser.add_argument("--frames", type=int, default=200)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    os.environ["COLORTERM"] = "truecolor"
    shape, size = (options.layers, options.hidden_size), (options.columns, options.rows)
    share, live_frames = live_share(shape, size)
    result = {
        "machine": this_machine(),
        "python": platform.python_version(),
        "shape": list(shape),
        "size": list(size),
        "frames": options.frames,
        "load_average": round(os.getloadavg()[0], 2),
        **asyncio.run(frames(shape, size, options.frames)),
        "first_frame_s": round(statistics.median(first_frame() for _ in range(_FIRST_FRAMES)), 3),
        "torch_at_first_frame": torch_is_loaded(),
        "live_share_of_a_core": round(share, 3),
        "live_frames_a_second": round(live_frames, 1),
        "goals": GOALS,
    }
    for name, goal in GOALS.items():
        print(f"{name:<22}{result[name]:>9}   goal {goal:g} or less")
    for name in ("warm", "cold"):
        wall, cpu, least = (result[f"{name}_{each}"] for each in ("ms_p90", "cpu_ms", "cpu_ms_least"))
        print(f"{name}: 90th percentile {wall} ms; of the processor {cpu} ms, the least {least} ms")
    print(f"live: {result['live_frames_a_second']} of {_HERTZ:g} snapshots a second were drawn")
    print(f"{result['frame_bytes']} bytes a frame; load average {result['load_average']} of {os.cpu_count()} cores")
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n")
    if missed := [name for name, goal in GOALS.items() if result[name] > goal]:
        sys.exit(f"missed: {', '.join(missed)}")


def striations(shape: tuple[int, int], seed: int) -> FloatArray:
    """Values (L, H) as an IRM's are: an index has a part of its own in every layer, the deeper layers are stronger."""
    random = np.random.default_rng(seed)
    depth = np.linspace(0.2, 1, shape[0])[:, None]
    return ((random.standard_normal(shape[1]) + random.standard_normal(shape)) * depth).astype(np.float32)


async def frames(shape: tuple[int, int], size: tuple[int, int], count: int) -> dict[str, float]:
    """Milliseconds a frame, warm and cold."""
    app, sizes = PanelApp(), []
    taken: dict[str, list[tuple[float, float]]] = {"warm": [], "cold": []}
    async with app.run_test(size=size) as pilot:
        panel = app.query_one(HeatmapPanel)
        layers = tuple(range(shape[0]))
        panel.show(Picture(striations(shape, 0), layers, ""))
        await pilot.pause()
        panel.grid.action_zoom(99)
        await pilot.pause()
        frame(app)
        gc.collect()
        for number in range(count):
            panel.grid.scroll_to(x=(number * 7) % (shape[1] - size[0]), animate=False, force=True)
            with timed(taken["warm"]):
                sizes.append(frame(app))
            await pilot.pause()
        panel.grid.action_zoom(-99)
        for number in range(count // 4):
            picture = Picture(striations(shape, number + 1), layers, "")
            panel.grid._cells = None  # every colour, style and segment is made anew
            with timed(taken["cold"]):
                panel.show(picture)
                frame(app)
            await pilot.pause()
    result: dict[str, float] = {"frame_bytes": int(statistics.median(sizes))}
    for name, pairs in taken.items():
        wall, cpu = zip(*pairs, strict=True)
        result |= {
            f"{name}_ms": in_ms(statistics.median(wall)),
            f"{name}_ms_p90": in_ms(statistics.quantiles(wall, n=10)[-1]),
            f"{name}_cpu_ms": in_ms(statistics.median(cpu)),
            f"{name}_cpu_ms_least": in_ms(min(cpu)),
        }
    return result


@contextmanager
def timed(into: list[tuple[float, float]]) -> Iterator[None]:
    """Add seconds by the clock, and of the processor: the first suffer more from whatever else the machine does."""
    wall, cpu = time.perf_counter(), time.process_time()
    yield
    into.append((time.perf_counter() - wall, time.process_time() - cpu))


def frame(app: PanelApp) -> int:
    """Render, compose and encode the whole screen; returns the number of bytes."""
    panel = app.query_one(HeatmapPanel)
    assert panel.grid.picture is not None
    for margin in panel.query(Margin):  # what the message does a moment later
        margin.follow(panel.grid.picture, panel.grid.window)
    return len(app.screen._compositor.render_full_update().render_segments(app.console).encode())


def in_ms(seconds: float) -> float:
    return round(1000 * seconds, 2)


def first_frame() -> float:
    """Seconds from the start of the process until the first screen has been written."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        process, master = on_terminal([sys.executable, "-c", _UI], (80, 24), folder)
        seen = b""
        while b"\x1b[24;" not in seen and time.perf_counter() - start < 30:  # the screen's last line
            seen += drained(master, 0.01)
        seconds = time.perf_counter() - start
        stop(process, master)
    return seconds


def torch_is_loaded() -> bool:
    """Whether importing the app brings torch with it."""
    program = "import sys, irm_lite_tui.app; print('torch' in sys.modules)"
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.strip() == "True"


def live_share(shape: tuple[int, int], size: tuple[int, int]) -> tuple[float, float]:
    """CPU seconds, and frames drawn, a second of a UI whose snapshot is written ten times a second.

    A busy machine draws fewer, which makes the share smaller than it is.
    """
    with tempfile.TemporaryDirectory() as folder:
        live = Path(folder) / "live.safetensors"
        snapshots = [np.abs(striations(shape, seed)) for seed in range(8)]

        def write(number: int) -> None:
            with atomic_path(live) as temporary:
                save_file({"mean_abs": snapshots[number % 8]}, temporary, {"layers": f"0-{shape[0] - 1}"})

        write(0)
        process, master = on_terminal([sys.executable, "-c", _LIVE_UI, str(live)], size, folder)
        until = time.perf_counter() + 4
        while time.perf_counter() < until:
            drained(master, 0.1)
        ui = psutil.Process(process.pid)
        before, start, number, written = sum(ui.cpu_times()[:2]), time.perf_counter(), 0, b""
        while time.perf_counter() - start < _LIVE_SECONDS:
            write(number := number + 1)
            until = start + number / _HERTZ
            while (left := until - time.perf_counter()) > 0:
                written += drained(master, left)
        seconds = time.perf_counter() - start
        share = (sum(ui.cpu_times()[:2]) - before) / seconds
        stop(process, master)
    middle = f"\x1b[{size[1] // 2};{BESIDE + 1}H".encode()  # a line of the grid begins
    return share, written.count(middle) / seconds


def on_terminal(command: list[str], size: tuple[int, int], folder: str) -> tuple[subprocess.Popen[bytes], int]:
    """A process on a pseudo-terminal of this size, and the end to read from."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", size[1], size[0], 0, 0))
    environment = os.environ | {"TERM": "xterm-256color", "COLORTERM": "truecolor"}
    process = subprocess.Popen(
        command, stdin=slave, stdout=slave, stderr=slave, cwd=folder, env=environment, start_new_session=True
    )
    os.close(slave)
    return process, master


def drained(master: int, seconds: float) -> bytes:
    """What comes within this time."""
    ready, _, _ = select.select([master], [], [], seconds)
    return os.read(master, 1 << 20) if ready else b""


def stop(process: subprocess.Popen[bytes], master: int) -> None:
    process.send_signal(signal.SIGKILL)
    process.wait()
    os.close(master)


if __name__ == "__main__":
    main()
