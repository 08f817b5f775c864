"""The form: made from TrainConfig, checked by it, started as a child."""

import json
import tempfile
import tomllib
from collections import namedtuple
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import get_args

import psutil
import pytest
from textual.widgets import Select

from irm_lite.config import Kind, TrainConfig
from irm_lite_tui.dashboard.screen import DashboardScreen
from irm_lite_tui.shared.text_field import TextField
from irm_lite_tui.train.fields import BASIC, form_fields, read_form
from irm_lite_tui.train.memory import memory_line, needed
from irm_lite_tui.train.screen import TrainScreen
from support.train_app import TrainApp
from support.tui_helpers import SIZES, Script, check_snapshot, own_place, plant_run, screen_text, script, step_event, until

__all__ = ["own_place", "script"]
pytestmark = pytest.mark.usefixtures("own_place")

Memory = namedtuple("Memory", "available")


# Fields


def test_every_setting_is_in_the_form_with_its_default_and_its_help() -> None:
    assert set(form_fields()) == {each.name for each in fields(TrainConfig)}
    assert set(BASIC) <= set(form_fields())
    assert all(field.help for field in form_fields().values())
    assert form_fields()["irm"].choices == get_args(Kind)
    assert form_fields()["seed"].help == "Seed of initialisation and data order."
    config, errors = read_form({})
    assert (config, errors) == (TrainConfig(), {})


@pytest.mark.parametrize(
    ("texts", "blamed", "message"),
    [
        ({"rank": "x"}, "rank", "'x' is not a whole number"),
        ({"rank": ""}, "rank", "this is empty"),
        ({"rank": "-1"}, "rank", "--rank -1 makes no sense: give at least 0"),
        ({"learning_rate": "nan"}, "learning_rate", "makes no sense"),
        ({"learning_rate": "200"}, "learning_rate", "only diverges"),
        ({"num_train_epochs": "-1"}, "max_steps", "there is nothing to train"),
        ({"max_length": "3"}, "max_length", "holds no sample"),
        ({"layers": "0-99"}, "layers", "leave this model's range"),
        ({"layers": "first"}, "layers", "is not a layer or a range"),
        ({"irm": "huge"}, "", "irm cannot be 'huge'"),
        ({"seed": "9" * 5000}, "seed", "is not a whole number"),
    ],
)
def test_what_is_wrong_is_said_where_it_is_wrong(texts: dict[str, str], blamed: str, message: str) -> None:
    config, errors = read_form(texts)
    assert config is None
    assert list(errors) == [blamed]
    assert message in errors[blamed]


# Memory


def test_what_is_needed_is_of_the_right_size() -> None:
    """A run on the demo model was measured at 1.3 to 1.5 GB (docs/log.md); 7 B in 4 bits is 3.5 to 5 GB before anything else."""
    assert 1.0e9 < needed(TrainConfig(irm="lite", width=576, rank=32), 0) < 2.2e9
    seven = needed(TrainConfig(model="llama-2-7b-chat", gradient_checkpointing=True), 0)
    assert 4.5e9 < seven < 9e9
    assert needed(TrainConfig(model="llama-2-7b-chat", irm="paper"), 0) > seven + 30e9


def test_the_line_about_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil, "virtual_memory", lambda: Memory(3e9))
    assert memory_line(TrainConfig(device="cpu"))[1]
    text, fits = memory_line(TrainConfig(model="llama-2-7b-chat", device="cpu"))
    assert not fits
    assert "of 3.0 GB free here. Probably too little." in text
    assert "not known" in memory_line(TrainConfig(model="mine.gguf"))[0]


# The screen


@pytest.mark.slow
async def test_fields_help_and_errors() -> None:
    app = TrainApp()
    async with app.run_test(size=(120, 40)) as pilot:
        assert app.text("num_train_epochs") == "4"  # the demo preset's
        await pilot.press("tab", "tab")
        await until(pilot, lambda: "data: A shipped tone" in screen_text(app), "the help")
        assert screen_text(app).count("GPUs") == 1  # that they are not looked at
        app.set("batch_size", "0")
        await until(pilot, lambda: "--batch-size 0 makes no sense" in app.error("batch_size"), "the error")
        await pilot.press("ctrl+r")
        assert isinstance(app.screen, TrainScreen)
        app.set("batch_size", "4")
        await until(pilot, lambda: not app.error("batch_size"), "the fixed field")
        assert app.form.query_one("#row-batch_size").has_class("changed")


@pytest.mark.slow
async def test_a_preset_fills_in_what_suits_it() -> None:
    app = TrainApp()
    async with app.run_test(size=(120, 40)) as pilot:
        await until(pilot, lambda: app.text("num_train_epochs") == "4", "the demo model's preset")
        assert not app.form.would_lose()
        app.set("model", "llama-2-7b-chat")
        await until(pilot, lambda: app.text("gradient_checkpointing") == "yes", "the preset")
        assert app.form.would_lose() == "The training that was set up here was not started."
        assert app.text("num_train_epochs") == "3"
        app.set("num_train_epochs", "7")
        await pilot.pause()
        app.set("model", "demo")
        await until(pilot, lambda: app.text("gradient_checkpointing") == "no", "the other preset")
        assert app.text("num_train_epochs") == "7"  # one's own stays
        assert app.form.would_lose()
        app.set("num_train_epochs", "3")
        await until(pilot, lambda: not app.form.would_lose(), "nothing but what the preset has put in")
        app.set("num_train_epochs", "7")
        await until(pilot, app.form.would_lose, "the edit")
        await pilot.press("ctrl+l")
        await until(pilot, lambda: app.text("num_train_epochs") == "4", "the defaults")
        assert not app.form.would_lose()


@pytest.mark.slow
async def test_the_data_is_shown_or_what_is_wrong_with_it(tmp_path: Path) -> None:
    rows = [{"question": f"[red]Question {n}\x1b[2J?", "answer": f"Answer {n}"} for n in range(40)]
    good = tmp_path / "mine.jsonl"
    good.write_text("\n".join(map(json.dumps, rows)))
    bad = tmp_path / "bad.csv"
    bad.write_bytes(b"question,answer\n\xff,x\n")
    app = TrainApp()
    async with app.run_test(size=(120, 40)) as pilot:
        await until(pilot, lambda: "200 to train on, 20 to validate, 45 to test" in app.preview, "the shipped data")
        app.set("data", str(good))
        await until(pilot, lambda: "[red]Question" in app.preview, "the file")
        assert "\\x1b[2J" in app.preview
        app.set("data", str(bad))
        await until(pilot, lambda: "is not UTF-8 text" in app.preview, "the damage")
        app.set("data", "nonsense")
        await until(pilot, lambda: "there is no tone or file 'nonsense'" in app.preview, "the error")


@pytest.mark.slow
async def test_start_runs_what_the_form_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: Callable[[Script], None]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    script([["begin"], ["event", "start", {"max_steps": 9}], ["event", "step", step_event(1, 9)], ["until interrupted"]])
    app = TrainApp()
    async with app.run_test(size=(120, 40)) as pilot:
        app.set("irm", "static")
        app.set("max_steps", "9")
        app.set("data", "joy")
        app.set("out", str(tmp_path))
        await until(pilot, lambda: "exists: choose another --out" in app.error("out"), "the taken place")
        await pilot.press("ctrl+r")
        assert isinstance(app.screen, TrainScreen)
        app.set("out", "")
        await pilot.pause()
        await pilot.press("ctrl+r")
        await until(pilot, lambda: isinstance(app.screen, DashboardScreen), "the dashboard")
        run = tmp_path / "runs" / "joy-static"
        await until(pilot, lambda: (run / "run.toml").exists() and "1/9" in screen_text(app), "the training")
        settings = tomllib.loads((run / "run.toml").read_text())["train"]
        assert settings == TrainConfig(irm="static", max_steps=9, data="joy", num_train_epochs=4.0).to_dict()
        assert len(list(tmp_path.glob("irm-lite-*.toml"))) == 1
        await pilot.press("x")
        await until(pilot, lambda: "stopped" in screen_text(app), "the stop")
        await until(pilot, lambda: not list(tmp_path.glob("irm-lite-*")), "the settings to be removed")
        await pilot.press("escape")
        await until(pilot, lambda: isinstance(app.screen, TrainScreen))
        assert app.text("data") == "joy"
        assert not app.form.would_lose()  # it was started


async def test_the_settings_of_a_run_taken_over(tmp_path: Path) -> None:
    run = plant_run(tmp_path / "run", irm="paper", layers="3-7", double_quant=True, l1=0.5)
    app = TrainApp(run.path)
    async with app.run_test(size=(120, 40)):
        assert [app.text(name) for name in ("irm", "layers", "double_quant", "l1")] == ["paper", "3-7", "yes", "0.5"]


async def test_a_damaged_run_leaves_the_defaults(tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text("?")
    app = TrainApp(tmp_path)
    async with app.run_test(size=(80, 24)):
        assert app.text("irm") == "static"
        assert any("the run is damaged" in each.message for each in app._notifications)


async def test_keys_of_the_form() -> None:
    app = TrainApp()
    async with app.run_test(size=(80, 24)) as pilot:
        focused = []
        for keys in ((), ("tab",), ("tab", "tab"), ("escape",)):
            await pilot.press(*keys)
            focused.append(type(app.screen.focused))
        assert focused == [type(None), TextField, Select, type(None)]
        await pilot.press("ctrl+o")
        await until(pilot, lambda: app.form.query_one("#row-seed").region.height > 0, "more settings")
        for size in ((20, 5), (1, 1), (80, 24)):
            await pilot.resize_terminal(*size)
            await pilot.pause()


@pytest.mark.parametrize("size", SIZES)
async def test_how_it_looks(monkeypatch: pytest.MonkeyPatch, size: tuple[int, int]) -> None:
    monkeypatch.setattr(psutil, "virtual_memory", lambda: Memory(16e9))
    app = TrainApp()
    async with app.run_test(size=size) as pilot:
        await until(pilot, lambda: "to train on" in app.preview, "the data")
        await pilot.press("tab", "tab", "tab", "tab")
        app.set("layers", "5-90")
        await pilot.pause()
        await until(pilot, lambda: app.error("layers"), "the error")
        await check_snapshot(pilot, "train")
