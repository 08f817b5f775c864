"""The same texts on every screen of the UI: in its table, its form, its dialogs, its notifications, its palette."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from textual.app import App
from textual.widgets import Collapsible, Input

from irm_lite.core.errors import RunError
from irm_lite.core.visible_text import visible
from irm_lite.steering.control_vector import ControlVector
from irm_lite_tui.app import IrmLiteApp
from irm_lite_tui.chat.choose_sources import ChatSourcesScreen
from irm_lite_tui.chat.server import ServeSaid
from irm_lite_tui.dashboard.screen import DashboardScreen
from irm_lite_tui.export.fidelity import load_measured
from irm_lite_tui.heatmap.dialogs.choose_file import ChooseFile
from irm_lite_tui.heatmap.dialogs.choose_source import ChooseSource
from irm_lite_tui.heatmap.source import load_source
from irm_lite_tui.runs.table import RunTable
from irm_lite_tui.shared.ask import AskScreen, NameScreen
from irm_lite_tui.shared.text_field import TextField
from irm_lite_tui.watch import run_actions
from irm_lite_tui.watch.run_state import RunReader
from support.chat_app import ChatApp, ask, ready
from support.chat_app import app as chat_app
from support.dashboard_app import DashboardApp
from support.export_app import ExportApp
from support.heatmap_app import HeatmapApp, drawn
from support.hostile_texts import NAME, TEXT, acting
from support.recordings import write_recording
from support.runs_app import RunsApp, listed, notified
from support.train_app import TrainApp
from support.tui_helpers import own_place, plant_run, screen_text, training, until

__all__ = ["chat_app", "own_place"]
pytestmark = pytest.mark.usefixtures("own_place")

WIDE = (200, 60)
SHOWN = "\\x1b[2J\\x1b[31mred"  # how the worst text begins, as escapes


def shown(app: App[Any]) -> str:
    """The screen's text, notifications with it, once nothing in it acts."""
    text = screen_text(app)
    assert not acting(text), acting(text)
    assert not acting(notified(app))
    return text


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run with the worst name, settings and events."""
    settings = {"data": TEXT, "model": f"m{TEXT}", "answer_column": TEXT, "optim": TEXT, "layers": "all"}
    planted = plant_run(tmp_path / "runs" / NAME, training(12, 40), **settings)
    planted.events.append("start", device=TEXT, dtype=TEXT, max_steps=40)
    planted.events.append("sample", step=13, prompt=TEXT, text=TEXT)
    planted.events.append("warning", text=TEXT)
    return planted.path


@pytest.mark.slow
async def test_the_table_and_its_dialogs(run: Path) -> None:
    other = plant_run(run.parent / "other", training(12, 40, ended=TEXT))
    app = RunsApp(run.parent)
    async with app.run_test(size=WIDE) as pilot:
        await listed(pilot, 2)
        assert SHOWN in shown(app)
        for key in ("d", "n"):
            await pilot.press(key)
            await until(pilot, lambda: isinstance(app.screen, AskScreen | NameScreen), "the window")
            shown(app)
            await pilot.press("escape")
            await until(pilot, lambda: not isinstance(app.screen, AskScreen | NameScreen), "the runs")
        await pilot.press("x")  # nothing writes it: a notification names it
        await until(pilot, lambda: "nothing writes" in notified(app), "the line")
        shown(app)
        await pilot.press("slash", *"bold")
        await listed(pilot, 1)
        shown(app)
        await pilot.press("enter", "escape")
        await listed(pilot, 2)
        await pilot.press("space", "down", "space", "c")
        await until(pilot, lambda: "validation NLL" in screen_text(app), "the comparison")
        await pilot.pause()
        shown(app)
    assert other.started()


@pytest.mark.slow
async def test_a_name_that_is_left_as_it_is_stays(run: Path) -> None:
    app = RunsApp(run.parent)
    async with app.run_test(size=WIDE) as pilot:
        await listed(pilot, 1)
        await pilot.press("n")
        await until(pilot, lambda: isinstance(app.screen, NameScreen), "the window")
        await pilot.press("enter")
        await until(pilot, lambda: not isinstance(app.screen, NameScreen), "the runs")
    assert [each.name for each in run.parent.iterdir()] == [NAME]


async def test_the_dashboard(run: Path) -> None:
    app = DashboardApp(DashboardScreen(run))
    async with app.run_test(size=WIDE) as pilot:
        await until(pilot, lambda: "warning: " in screen_text(app), "the run")
        assert shown(app).count(SHOWN) >= 3  # head, sample, warning


@pytest.mark.slow
async def test_the_form_shows_a_runs_settings_and_keeps_them(run: Path) -> None:
    app = TrainApp(run)
    async with app.run_test(size=WIDE) as pilot:
        await until(pilot, lambda: list(app.screen.query(Input)), "the form")
        app.screen.query_one(Collapsible).collapsed = False
        await until(pilot, lambda: app.screen.query("#row-optim"), "more settings")
        for field in app.screen.query(Input):
            field.focus()
            await pilot.pause()
            shown(app)
        assert visible(TEXT)[:30] in shown(app)
        assert {name: app.form.texts[name] for name in ("data", "model", "optim")} == {
            "data": TEXT,
            "model": f"m{TEXT}",
            "optim": TEXT,
        }
        await pilot.press("ctrl+r")
        await pilot.pause()
        shown(app)


async def test_the_datas_head(tmp_path: Path) -> None:
    file = tmp_path / f"{NAME}.jsonl"
    file.write_text("".join(json.dumps({"question": f"{TEXT}{n}", "answer": f"{n} {TEXT}"}) + "\n" for n in range(30)))
    app = TrainApp()
    async with app.run_test(size=WIDE) as pilot:
        await until(pilot, lambda: list(app.screen.query(Input)), "the form")
        app.set("data", str(file))
        await until(pilot, lambda: SHOWN in screen_text(app), "the rows")
        shown(app)


@pytest.mark.slow
async def test_export(run: Path) -> None:
    app = ExportApp(run)
    async with app.run_test(size=WIDE) as pilot:
        await until(pilot, lambda: app.screen.query(TextField), "the form")
        shown(app)
        assert app.screen.query_one("#run", TextField).text == str(run)
        await pilot.press("f6", "f7")
        await pilot.pause()
        shown(app)


@pytest.mark.slow
async def test_heatmaps_and_their_dialogs(tmp_path: Path) -> None:
    write_recording(tmp_path / NAME / "recordings" / NAME, [["<s>", TEXT, TEXT, "!"]], run=TEXT)
    vector = tmp_path / f"v{NAME[1:]}.gguf"
    ControlVector({1: np.ones(40, np.float32)}, TEXT, {"data": TEXT}).save(vector)
    app = HeatmapApp(tmp_path / NAME / "recordings" / NAME)
    async with app.run_test(size=WIDE) as pilot:
        await drawn(pilot, app)
        await pilot.press("right_square_bracket")
        assert SHOWN in shown(app)
        app.heatmap.show(vector)
        await until(pilot, lambda: "vector" in app.text("#title") or ".gguf" in app.text("#title"), "the vector")
        shown(app)
        app.heatmap.show(tmp_path / NAME)
        await until(pilot, lambda: "choose another" in app.text("#state"), "the line: it is no run")
        assert SHOWN in shown(app)
        app.push_screen(ChooseFile(TEXT, tmp_path / NAME))
        await pilot.pause()
        assert SHOWN in shown(app)
        app.pop_screen()
        app.push_screen(ChooseSource(TEXT, tmp_path))
        await pilot.pause()
        shown(app)


@pytest.mark.slow
async def test_the_chat(chat_app: Callable[..., ChatApp]) -> None:
    bare = chat_app(gguf=f"{NAME}.gguf", vector=f"{NAME}.gguf", irm=f"runs/{NAME}")
    async with bare.run_test(size=WIDE) as pilot:
        await ready(pilot, bare)
        await ask(pilot, bare, TEXT)
        shown(bare)
        chat: Any = bare.chat
        about = {"sources": [TEXT], "layers": "1-3", "warning": None, "note": TEXT}
        model = {"path": TEXT, "n_layers": 4}
        answer = {"column": "irm", "token": 9, "text": TEXT, "norm": 1.0}
        for event in (
            {"kind": "ready", "protocol": 1, "model": model, "columns": dict.fromkeys(("base", "vector", "irm"), about)},
            {"kind": "loading", "what": TEXT},
            {"kind": "token", "id": chat._conversation.request, **answer},
            {"kind": "error", "id": None, "column": "vector", "text": TEXT},
            {"kind": "error", "id": None, "text": TEXT},
        ):
            chat.post_message(ServeSaid(chat._serve, event))
            await pilot.pause()
            shown(bare)
        await pilot.press("ctrl+o")
        await until(pilot, lambda: isinstance(bare.screen, ChatSourcesScreen), "the window")
        shown(bare)
        await pilot.press("enter")
        await until(pilot, lambda: not isinstance(bare.screen, ChatSourcesScreen), "the chat")
        assert bare.chat.sources.vector == f"{NAME}.gguf"


@pytest.mark.slow
async def test_the_app_its_palette_and_its_complaints(run: Path, own_place: Path) -> None:
    own_place.mkdir()
    (own_place / "tui.toml").write_text(f"theme = {json.dumps(TEXT.replace(chr(127), ''))}\n")
    app = IrmLiteApp(run.parent)
    async with app.run_test(size=WIDE) as pilot:
        await until(pilot, lambda: app.screen.query_one(RunTable).row_count, "the runs")
        shown(app)
        await pilot.press("ctrl+p")
        await pilot.press(*"run")
        await pilot.pause()
        shown(app)
        await pilot.press("escape")
        app._warn(TEXT)
        await pilot.pause()
        shown(app)


# Pipes in the place of files, folders that may only be read


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="named pipes are a POSIX thing")
@pytest.mark.parametrize(
    "name", ["run.toml", "lock.holder", "events.jsonl", "base.json", "export/fidelity.json", "live.safetensors"]
)
async def test_a_pipe_holds_no_reader_up(tmp_path: Path, name: str) -> None:
    run = plant_run(tmp_path / "runs" / "one", training(3, 40))
    run.export.mkdir()
    (run.path / name).unlink(missing_ok=True)
    os.mkfifo(run.path / name)
    view = RunReader(run.path).look()
    assert view.state == ("damaged" if name == "run.toml" else "stopped")
    app = DashboardApp(DashboardScreen(run.path))
    async with app.run_test(size=(140, 45)) as pilot:
        await until(pilot, lambda: app.dashboard.reading is not None, "a look")
    if name == "base.json":
        with pytest.raises(RunError, match="not an ordinary file"):
            run.fingerprint()
    if name == "export/fidelity.json":
        with pytest.raises(RunError, match="not an ordinary file"):
            load_measured(run.fidelity)
    if name == "live.safetensors":
        with pytest.raises(RunError, match="not an ordinary file"):
            load_source(run.live)


@pytest.mark.slow
async def test_a_folder_that_may_only_be_read_is_a_line_each_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chat_app: Callable[..., ChatApp]
) -> None:
    """As a mounted stick is: the tests' own user may write everywhere."""
    run = plant_run(tmp_path / "runs" / "one", training(3, 40, ended="interrupted"))

    def refused(*_: object, **__: object) -> None:
        raise OSError(30, "Read-only file system", str(run.path))

    with monkeypatch.context() as stick:
        stick.setattr(Path, "rename", refused)
        stick.setattr("shutil.rmtree", refused)
        for attempt in (lambda: run_actions.rename(run.path, "two"), lambda: run_actions.delete(run.path)):
            with pytest.raises(RunError, match="Read-only file system"):
                attempt()
        stick.setattr("tempfile.NamedTemporaryFile", refused)
        form = TrainApp(run.path)
        async with form.run_test(size=(140, 45)) as pilot:
            await until(pilot, lambda: list(form.screen.query(Input)), "the form")
            await pilot.press("ctrl+r")
            await until(pilot, lambda: "cannot be written (Read-only file system)" in notified(form), "the line")
        stick.setattr("irm_lite_tui.chat.screen.write_text", refused)
        bare = chat_app()
        async with bare.run_test(size=(140, 45)) as pilot:
            await ready(pilot, bare)
            await pilot.press("f3")
            await until(pilot, lambda: "cannot be written (Read-only file system)" in notified(bare), "the line")
    assert run.started()
