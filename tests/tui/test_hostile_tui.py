"""What a hostile or unlucky user did to the terminal UI once: it ended, or said what was not so."""

import json
import os
import signal
import threading
from codecs import getincrementaldecoder
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from filelock import FileLock
from safetensors.numpy import save_file
from textual import events
from textual.drivers import linux_driver
from textual.widgets import Input

from irm_lite.core.errors import InputError, RunError
from irm_lite.core.files.paths import expanded
from irm_lite_tui.app import IrmLiteApp
from irm_lite_tui.chat.server import read_event
from irm_lite_tui.dashboard.screen import DashboardScreen
from irm_lite_tui.export.fidelity import load_measured
from irm_lite_tui.heatmap.source import load_source
from irm_lite_tui.runs.screen import RunsScreen
from irm_lite_tui.runs.table import RunTable
from irm_lite_tui.settings.lenient_input import forgive_bytes
from irm_lite_tui.shared.ask import AskScreen, NameScreen
from irm_lite_tui.watch import run_actions
from irm_lite_tui.watch.children import Child, child_of, running_children
from irm_lite_tui.watch.run_log import RunLog
from irm_lite_tui.watch.run_state import RunReader, find_run_folders
from support.chat_app import ChatApp, ready
from support.chat_app import app as chat_app
from support.dashboard_app import DashboardApp
from support.export_app import ExportApp
from support.heatmap_app import TEXTS, HeatmapApp, drawn
from support.recordings import write_recording
from support.runs_app import RunsApp, headless_training, listed, notified
from support.train_app import TrainApp
from support.tui_helpers import Script, own_place, plant_run, screen_text, script, training, until

__all__ = ["chat_app", "own_place", "script"]
pytestmark = pytest.mark.usefixtures("own_place")

NOBODY = "~nobody-of-that-name"
EVIL = "a\x1b[2J\u202eb"


def test_a_home_that_is_none_is_a_line() -> None:
    assert expanded("~/x") == Path.home() / "x"
    with pytest.raises(InputError, match="there is no home folder of that user: write the whole path"):
        expanded(f"{NOBODY}/x")


@pytest.mark.slow
async def test_half_a_home_in_a_field_is_no_end(tmp_path: Path) -> None:
    bare = ExportApp(None)
    async with bare.run_test(size=(100, 40)) as pilot:
        for field in ("run", "out", "gguf", "baked"):
            bare.screen.query_one(f"#{field}", Input).value = NOBODY
            await pilot.pause()
        await pilot.press("f6")
        await until(pilot, lambda: "there is no home folder" in bare.line("export"), "the line")
    train = TrainApp()
    async with train.run_test(size=(140, 45)) as pilot:
        await until(pilot, lambda: list(train.screen.query(Input)), "the form")
        for each in train.screen.query(Input):
            each.value = NOBODY
        await until(pilot, lambda: "there is no home folder" in screen_text(train), "the line")


@pytest.mark.parametrize("text", ['[keys]\n"quit" = f10\n', 'theme = "irm-light" # mine\nmy_own = 1\n'])
async def test_the_users_own_preferences_are_not_written_over(tmp_path: Path, own_place: Path, text: str) -> None:
    own_place.mkdir()
    file = own_place / "tui.toml"
    file.write_text(text)
    plant_run(tmp_path / "runs" / "one", training(3, 40))
    app = IrmLiteApp(tmp_path / "runs")
    async with app.run_test(size=(100, 30)) as pilot:
        await until(pilot, lambda: app.screen.query_one(RunTable).row_count)
        await pilot.press("s")
        app.theme = "irm-dark" if app.theme == "irm-light" else "irm-light"
        await until(pilot, lambda: app.preferences.theme == app.theme, "the theme to be kept")
    assert file.read_text() == text
    assert (own_place / "state.toml").exists()


@pytest.mark.slow
async def test_the_heatmap_has_the_keys_again_after_an_escape(tmp_path: Path) -> None:
    write_recording(tmp_path / "one", TEXTS)
    app = HeatmapApp(tmp_path / "one")
    async with app.run_test(size=(100, 30)) as pilot:
        await drawn(pilot, app)
        await pilot.press("colon", "7", "escape")
        assert app.focused is app.grid
        before = app.grid.window.index
        await pilot.press("right")
        assert app.grid.window.index != before


@pytest.mark.slow
async def test_names_of_folders_act_nowhere(tmp_path: Path) -> None:
    for name in (EVIL, f"{EVIL}2"):
        plant_run(tmp_path / name, training(3, 40))
    app = RunsApp(tmp_path)
    async with app.run_test(size=(140, 40)) as pilot:
        await listed(pilot, 2)
        for key in ("d", "n"):
            await pilot.press(key)
            await until(pilot, lambda: isinstance(app.screen, AskScreen | NameScreen), "the window")
            shown = screen_text(app)
            assert not {"\x1b", "\u202e"} & set(shown)
            assert "\\x1b[2J\\u202eb" in shown
            await pilot.press("escape")
            await until(pilot, lambda: isinstance(app.screen, RunsScreen), "the runs")
        await pilot.press("space", "down", "space", "c")
        await until(pilot, lambda: "loss" in screen_text(app) and not isinstance(app.screen, RunsScreen), "the comparison")
        await pilot.pause()
        assert not {"\x1b", "\u202e"} & set(screen_text(app))


@pytest.mark.slow
async def test_a_new_chat_in_mid_answer_is_ready(chat_app: Callable[..., ChatApp]) -> None:
    bare = chat_app("slow.gguf")
    async with bare.run_test(size=(140, 45)) as pilot:
        await ready(pilot, bare)
        field = bare.chat.query_one("#prompt", Input)
        field.value = "Why?"
        field.focus()
        await pilot.press("enter")
        await until(pilot, lambda: "writing" in bare.state(), "the answers")
        await pilot.press("ctrl+n", "y")
        await until(pilot, lambda: bare.state().startswith("ready"), "the idle line")


async def test_a_live_snapshot_with_nan_is_not_drawn(tmp_path: Path) -> None:
    run = plant_run(tmp_path / "run", training(3, 40))
    save_file({"mean_abs": np.full((3, 40), np.nan, np.float32)}, run.live, metadata={"layers": "0-2"})
    app = DashboardApp(DashboardScreen(run.path))
    async with app.run_test(size=(140, 45)) as pilot:
        await until(pilot, lambda: "3/40" in screen_text(app), "the run")
        assert "no snapshot yet" in screen_text(app)


def test_nan_in_an_event_is_no_event() -> None:
    found = read_event(b'{"kind": "token", "column": "irm", "token": 0, "text": "x", "norm": NaN}')
    assert found is not None
    assert found["kind"] == "error"


def test_a_name_that_is_too_long_is_a_line(tmp_path: Path) -> None:
    run = plant_run(tmp_path / "one")
    with pytest.raises(RunError, match="cannot be renamed"):
        run_actions.rename(run.path, "x" * 300)


def test_a_holder_of_an_impossible_number_is_none(tmp_path: Path) -> None:
    run = plant_run(tmp_path / "one")
    (run.path / "lock.holder").write_text("process 9999999999 since 2026-11-22T00:00:00+00:00\n")
    assert run.lock.holder() is None


async def test_a_training_is_not_started_twice(tmp_path: Path, script: Callable[[Script], None]) -> None:
    plant_run(tmp_path / "half", training(3, 40, ended="interrupted"))
    script([["until interrupted"], ["exit", 130]])
    app = RunsApp(tmp_path)
    async with app.run_test(size=(160, 24)) as pilot:
        await listed(pilot, 1)
        await pilot.press("r")
        await until(pilot, lambda: "resuming half" in notified(app), "the start")
        await pilot.press("r")
        await until(pilot, lambda: "half is starting already" in notified(app), "the refusal")
        child = child_of(tmp_path / "half")
        assert child is not None
        child.stop()
        await until(pilot, lambda: child_of(tmp_path / "half") is None, "the end")


@pytest.mark.slow
async def test_ending_at_once_is_asked_first(tmp_path: Path) -> None:
    """A second x is a question, since it costs what came after the last checkpoint."""
    run = plant_run(tmp_path / "live", training(3, 40))
    app = RunsApp(tmp_path)
    async with app.run_test(size=(160, 24)) as pilot:
        await listed(pilot, 1)
        with headless_training(run) as process:
            holder = run.lock.holder()
            assert holder is not None
            run_actions._asked[run.path] = holder  # as if it were still at its step
            await pilot.press("x")
            await until(pilot, lambda: isinstance(app.screen, AskScreen), "the question")
            assert "End live without saving?" in screen_text(app)
            await pilot.press("n")
            await until(pilot, lambda: isinstance(app.screen, RunsScreen), "the runs")
            assert process.poll() is None
            await pilot.press("x", "y")
            assert process.wait(30) == 0


def test_a_byte_that_is_no_text_is_no_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a terminal sends an e with an accent in Latin-1, and two of them as its input ends."""
    monkeypatch.setattr(linux_driver, "getincrementaldecoder", getincrementaldecoder)
    forgive_bytes()
    reading, writing = os.pipe()
    driver: Any = object.__new__(linux_driver.LinuxDriver)
    driver.fileno, driver.exit_event, driver._debug = reading, threading.Event(), False
    typed: list[str] = []

    def take(event: events.Key) -> None:
        typed.append(event.key)
        if event.key == "q":
            driver.exit_event.set()

    driver.process_message = take
    os.write(writing, b"a\xe9bq")
    driver.run_input_thread()
    os.close(reading)
    os.close(writing)
    assert [typed[0], *typed[2:]] == ["a", "b", "q"]


async def test_a_filter_that_is_typed_in_one_burst_deletes_no_run(tmp_path: Path) -> None:
    for name in ("holiday", "other"):
        plant_run(tmp_path / name, training(3, 40))
    app = RunsApp(tmp_path)
    async with app.run_test(size=(160, 24)) as pilot:
        await listed(pilot, 2)
        for key, character in [("slash", "/"), *((each, each) for each in "day"), ("slash", "/")]:
            app.post_message(events.Key(key, character))
        await until(pilot, lambda: app.screen.query_one("#filter", Input).value == "day/", "the filter")
        await pilot.press("backspace")
        await listed(pilot, 1)
    assert (tmp_path / "holiday").is_dir()
    assert (tmp_path / "other").is_dir()


@pytest.mark.parametrize("losses", [[1.7e308] * 40, [1.7e308, -1.7e308]])
async def test_a_loss_beyond_all_measure_is_no_end(tmp_path: Path, losses: list[float]) -> None:
    run = plant_run(tmp_path / "one", training(3, 40))
    for step, loss in enumerate(losses, 4):
        run.events.append("step", step=step, max_steps=50, loss=loss)
    run.events.append("step", step=1e308, max_steps=1e308)
    app = RunsApp(tmp_path)
    async with app.run_test(size=(160, 24)) as pilot:
        await listed(pilot, 1)
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, DashboardScreen) and "loss" in screen_text(app), "the dashboard")


def test_figures_that_no_float_holds_are_a_line(tmp_path: Path) -> None:
    for samples, fidelity in (("1e999", "1"), ("1", "1" + 400 * "0")):
        names = ("nll_base", "nll_irm", "nll_vector", "kl_irm_base", "kl_irm_vector", "top1_agreement", "fidelity")
        document = {"vector": "v", "method": "m", "measured_in": "t", "tokens": 1, "intervals_95": {name: [0, 1] for name in names}}
        numbers = dict.fromkeys(names, 1.0) | {"samples": 0.5, "fidelity": 0.25}
        text = json.dumps(document | numbers).replace('"samples": 0.5', f'"samples": {samples}')
        (tmp_path / "fidelity.json").write_text(text.replace('"fidelity": 0.25', f'"fidelity": {fidelity}'))
        with pytest.raises(RunError, match="figures cannot be read"):
            load_measured(tmp_path / "fidelity.json")


async def test_the_path_of_a_name_that_is_no_utf8_is_copied(tmp_path: Path) -> None:
    plant_run(tmp_path / os.fsdecode(b"r\xff"), training(3, 40))
    app = RunsApp(tmp_path)
    async with app.run_test(size=(160, 24)) as pilot:
        await listed(pilot, 1)
        await pilot.press("o")
        await until(pilot, lambda: "clipboard" in notified(app), "the copy")
        assert app.copied.endswith("r\\udcff")


@pytest.mark.slow
async def test_a_chat_with_half_a_character_is_saved(chat_app: Callable[..., ChatApp], tmp_path: Path) -> None:
    bare = chat_app(irm=os.fsdecode(b"runs/r\xff"))
    async with bare.run_test(size=(140, 45)) as pilot:
        await ready(pilot, bare)
        bare.chat.query_one("#prompt", Input).value = "Why?"
        await pilot.press("enter")
        await until(pilot, lambda: bare.chat.turns and bare.chat.turns[-1].over, "the answers")
        bare.chat.turns[-1].answers["irm"].whole = "half \ud800 a character"
        await pilot.press("f3", "f2")
        await until(pilot, lambda: "saved" in notified(bare), "the file")
        assert "half \\ud800 a character" in next(tmp_path.glob("chat-*.md")).read_text(encoding="utf-8")


@pytest.mark.slow
async def test_a_chat_in_a_folder_that_is_gone_is_not_lost(
    chat_app: Callable[..., ChatApp], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bare = chat_app()
    async with bare.run_test(size=(140, 45)) as pilot:
        await ready(pilot, bare)
        (tmp_path / "place").mkdir()
        monkeypatch.chdir(tmp_path / "place")
        (tmp_path / "place").rmdir()
        await pilot.press("f3")
        await until(pilot, lambda: "cannot be written (No such file or directory)" in notified(bare), "the line")
        monkeypatch.chdir(tmp_path)


@pytest.mark.slow
async def test_nothing_is_loading_once_the_server_was_killed(chat_app: Callable[..., ChatApp]) -> None:
    bare = chat_app()
    async with bare.run_test(size=(140, 45)) as pilot:
        await ready(pilot, bare)
        del bare.chat._loaded["irm"]  # as if it were still at it
        bare.chat._titles()
        assert "loading" in bare.said("irm")
        assert bare.chat._serve is not None
        bare.chat._serve._process.kill()  # type: ignore[union-attr]
        await until(pilot, lambda: "has ended" in bare.state(), "the end")
        assert "loading" not in bare.said("irm")


@pytest.mark.parametrize("norm", ["1e999", "1" + 400 * "0", "-1e999"])
def test_a_norm_that_no_float_holds_is_no_event(norm: str) -> None:
    found = read_event(f'{{"kind": "token", "column": "irm", "token": 0, "text": "x", "norm": {norm}}}'.encode())
    assert found is not None
    assert found["kind"] == "error"


@pytest.mark.filterwarnings("ignore:overflow encountered in cast")
@pytest.mark.parametrize("kind", ["F8_E4M3", "F64"])
async def test_a_live_snapshot_of_a_type_of_tomorrow_is_not_drawn(tmp_path: Path, kind: str) -> None:
    """NumPy has no numbers of 8 bits; what is beyond float32 would be drawn as infinite."""
    run = plant_run(tmp_path / "run", training(3, 40))
    data = np.full((3, 40), 1e300).tobytes() if kind == "F64" else bytes(120)
    about = {"dtype": kind, "shape": [3, 40], "data_offsets": [0, len(data)]}
    head = json.dumps({"__metadata__": {"layers": "0-2"}, "mean_abs": about}).encode()
    run.live.write_bytes(len(head).to_bytes(8, "little") + head + data)
    with pytest.raises(RunError, match="is damaged"):
        load_source(run.live)
    app = DashboardApp(DashboardScreen(run.path))
    async with app.run_test(size=(140, 45)) as pilot:
        await until(pilot, lambda: "3/40" in screen_text(app), "the run")
        assert "no snapshot yet" in screen_text(app)


async def test_a_folder_that_may_not_be_looked_into_hides_no_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = plant_run(tmp_path / "runs" / "one", training(3, 40))
    (tmp_path / "runs" / "lost+found").mkdir()
    is_file = Path.is_file

    def guarded(path: Path) -> bool:
        if path.parent.name == "lost+found":
            raise PermissionError(13, "Permission denied", str(path))
        return is_file(path)

    monkeypatch.setattr(Path, "is_file", guarded)
    assert find_run_folders(tmp_path / "runs") == [run.path]
    (tmp_path / "no-folder").write_text("")
    app = RunsApp(tmp_path / "no-folder")
    async with app.run_test(size=(160, 24)) as pilot:
        await until(pilot, lambda: "no-folder cannot be read (Not a directory)" in screen_text(app), "the line")


def test_a_training_in_a_folder_that_may_only_be_read_is_running(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = plant_run(tmp_path / "live", training(3, 40))

    def refused(_lock: FileLock) -> None:
        raise PermissionError(13, "Permission denied")

    with headless_training(run) as process:
        monkeypatch.setattr(FileLock, "_acquire", refused)
        view = RunReader(run.path).look()
        assert view.state == "running"
        assert view.holder is not None
        assert view.holder.pid == process.pid


@pytest.mark.usefixtures("interruptible")
async def test_an_export_is_not_taken_for_a_training(
    tmp_path: Path, script: Callable[[Script], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    script([["until interrupted"], ["exit", 130]])
    path = tmp_path / "half"
    app = RunsApp(tmp_path)
    async with app.run_test(size=(160, 24)) as pilot:
        for verb, found in (("export", False), ("train", True)):
            child = Child([verb, "--", str(path)], app)
            child.start()
            assert (child_of(path) is child) == found
            child.stop()
            await until(pilot, lambda: not running_children(), "the end")


@pytest.mark.slow
async def test_data_with_a_name_too_long_for_a_run_is_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    app = TrainApp()
    async with app.run_test(size=(140, 45)) as pilot:
        await until(pilot, lambda: list(app.screen.query(Input)), "the form")
        app.screen.query_one("#row-data Input", Input).value = "x" * 300
        await pilot.pause()
        await pilot.press("ctrl+r")
        await until(pilot, lambda: "File name too long" in notified(app), "the line")


async def test_values_whose_sum_no_float32_holds_are_drawn(tmp_path: Path) -> None:
    run = plant_run(tmp_path / "run", training(3, 40))
    save_file({"mean_abs": np.full((3, 40), 3e38, np.float32)}, run.live, metadata={"layers": "0-2"})
    app = HeatmapApp(run.live)
    async with app.run_test(size=(100, 30)) as pilot:
        await drawn(pilot, app)
        await pilot.press("s", "plus", "t", "end", "c")
        assert "value +3e+38" in app.text("#readout")


def test_a_pipe_in_the_place_of_the_events_holds_nothing_up(tmp_path: Path) -> None:
    run = plant_run(tmp_path / "one")
    os.mkfifo(run.events.path)
    assert not RunLog(run.events.path).read()


async def test_a_request_to_end_leaves_the_terminal_as_it_was(tmp_path: Path) -> None:
    app = IrmLiteApp(tmp_path)
    async with app.run_test(size=(100, 30)) as pilot:
        assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
        os.kill(os.getpid(), signal.SIGTERM)
        await until(pilot, lambda: app._exit, "the end")
    assert app.return_code == 0
