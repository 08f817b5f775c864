"""The chat screen against a scripted server."""

import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from textual.pilot import Pilot
from textual.widgets import Input

import irm_lite_tui.watch.children
from irm_lite.base.fingerprint import Fingerprint
from irm_lite.steering.control_vector import ControlVector
from irm_lite.steering.shipped_vectors import shipped_vectors
from irm_lite_tui.chat.choose_sources import ChatSourcesScreen
from irm_lite_tui.chat.served import _together
from irm_lite_tui.chat.server import Serve
from irm_lite_tui.chat.widgets.answer_column import AnswerColumn
from irm_lite_tui.chat.widgets.layer_range import LayerRange
from irm_lite_tui.chat.widgets.slider import StrengthSlider
from irm_lite_tui.chat.widgets.token_map import TokenMap
from irm_lite_tui.shared.ask import AskScreen
from irm_lite_tui.watch.chat_sources import Sources
from support.chat_app import ChatApp, app, ask, ready
from support.tui_helpers import SIZES, check_snapshot, screen_text, until

__all__ = ["app"]


def notified(bare: ChatApp) -> list[str]:
    return [each.message for each in bare._notifications]


@pytest.mark.slow
@pytest.mark.parametrize("size", SIZES)
async def test_three_columns_answer_and_remember(app: Callable[..., ChatApp], size: tuple[int, int]) -> None:
    bare = app()
    async with bare.run_test(size=size) as pilot:
        await ready(pilot, bare)
        await ask(pilot, bare, "Why [red]?[/red]")
        assert "Why [red]?[/red]" in bare.said("irm")
        for name in ("base", "vector", "irm"):
            assert f"{name} turn 1 at 1 [b]x[/b]\\x1b[31m" in bare.said(name)
        await ask(pilot, bare, "And then?")
        assert "irm turn 3 at 1" in bare.said("irm")  # its own answer stands in between
        await until(pilot, lambda: "GB held" in screen_text(bare), "the server's memory")
        await check_snapshot(pilot, "chat")
        await pilot.press("ctrl+n")
        await until(pilot, lambda: isinstance(bare.screen, AskScreen), "the question")
        assert "was not saved since its last answer" in screen_text(bare)
        await pilot.press("n")
        assert len(bare.chat.turns) == 2
        await pilot.press("f3", "ctrl+n")  # saved: nothing to ask
        await until(pilot, lambda: not bare.chat.turns and "turn" not in screen_text(bare), "an empty screen")
        await ask(pilot, bare, "Again?")
        assert "irm turn 1 at 1" in bare.said("irm")


@pytest.mark.slow
async def test_enter_alone_asks_a_shipped_vector_its_question(app: Callable[..., ChatApp]) -> None:
    bare = app(vector="demo-anger", irm="")
    question = shipped_vectors()["demo-anger"].question
    async with bare.run_test(size=(140, 45)) as pilot:
        assert bare.chat.query_one("#prompt", Input).placeholder == f"ask both; enter alone asks: {question}"
        await pilot.press("enter")  # before all is loaded
        await until(pilot, lambda: bare.chat.turns and bare.chat.turns[-1].over, "a steered answer")
        assert bare.chat.turns[-1].prompt == question
        await until(pilot, lambda: "demo-anger ships with irm-lite" in bare.state(), "where it comes from")
        assert "vector demo-anger, ships with irm-lite" in screen_text(bare)
        await pilot.press("enter")  # it is asked once
        await pilot.pause()
        assert len(bare.chat.turns) == 1
        assert bare.chat.query_one("#prompt", Input).placeholder == "ask both; enter sends"


def test_what_is_noted_of_several_columns_is_said_once() -> None:
    """The columns are of one base, and the server's notes differ in what they are about alone."""
    made, now = (Fingerprint("llama", 4, 8, "w", quantised) for quantised in ("nf4", "Q4_1"))
    of = {"vector": "the control vector", "irm": "the run x", "adapter": "the adapter"}
    notes = {name: now.match(made, what, "m.gguf").note or "" for name, what in of.items()}
    assert all(what in notes[name] for name, what in of.items())
    assert _together(notes) == ["vector, irm, adapter: made on nf4 weights, m.gguf has Q4_1 ones: its effect may differ a little"]
    assert _together({"irm": "another thing"}) == ["another thing"]


@pytest.mark.slow
async def test_strength_and_layers_move_while_it_writes(app: Callable[..., ChatApp]) -> None:
    bare = app("slow")
    async with bare.run_test(size=(100, 30)) as pilot:
        await ready(pilot, bare)
        bare.chat.query_one("#prompt", Input).value = "go"
        await pilot.press("enter")
        await until(pilot, lambda: "[31m" in bare.said("irm"), "the beginning")
        await pilot.press("enter")
        assert len(bare.chat.turns) == 1
        bare.chat.query_one(StrengthSlider).focus()
        await pilot.press("right", "pageup", "end")  # 1.05, 1.55, 1
        await until(pilot, lambda: "<1.05|> <1.55|> <1.0|>" in bare.said("vector"), "the strengths")
        bare.chat.query_one(LayerRange).focus()
        await pilot.press("right", "right", "right", "right", "space", "left", "home")
        await until(pilot, lambda: "<|1-3> <|2-3> <|3-3> <|all>" in bare.said("irm"), "the layers")
        assert await pilot.click(StrengthSlider, offset=(9, 0))
        await until(pilot, lambda: "<-2.0|>" in bare.said("irm"), "the click")
        await pilot.press("escape")
        await until(pilot, lambda: bare.chat.turns[-1].over, "the end")
        assert bare.state().startswith("ready")
        bare.chat.query_one("#prompt").focus()
        await pilot.press("f3")
        (saved,) = Path().glob("chat-*.md")
        strengths = "; strength 1, from token 7: 1.05, from token 8: 1.55, from token 9: 1, from token 14: -2;"
        layers = "; layers 1-3, from token 11: 2-3, from token 12: 3-3, from token 13: all\n"
        assert saved.read_text().count(strengths) == saved.read_text().count(layers) == 2  # vector and IRM, not base


@pytest.mark.slow
@pytest.mark.parametrize("size", SIZES)
async def test_an_adapter_is_a_fourth_column_with_a_strength_and_no_layers(
    app: Callable[..., ChatApp], size: tuple[int, int]
) -> None:
    bare = app("slow", adapter="runs/anger/export/adapter.gguf")
    async with bare.run_test(size=size) as pilot:
        await until(pilot, lambda: bare.state().startswith("ready: base, vector, irm, adapter on"), "the server")
        bare.chat.query_one("#prompt", Input).value = "go"
        await pilot.press("enter")
        await until(pilot, lambda: "[31m" in bare.said("adapter"), "the beginning")
        bare.chat.query_one(StrengthSlider).focus()
        await pilot.press("home")
        await until(pilot, lambda: "<0.0|>" in bare.said("adapter"), "the strength")
        await pilot.press("escape")
        await until(pilot, lambda: bare.chat.turns[-1].over, "the end")
        await until(pilot, lambda: "GB held" in screen_text(bare), "the server's memory")
        await check_snapshot(pilot, "chat-adapter")
        await pilot.press("f3")
        (saved,) = Path().glob("chat-*.md")
        assert saved.read_text().count("; strength 1, from token 7: 0\n") == 3  # not the base's
        assert "- adapter: `runs/anger/export/adapter.gguf`" in saved.read_text()


@pytest.mark.slow
async def test_a_request_that_is_refused_can_be_asked_again(app: Callable[..., ChatApp]) -> None:
    bare = app()
    async with bare.run_test(size=(80, 24)) as pilot:
        await ready(pilot, bare)
        for name, value in {"tokens": "0", "seed": "9" * 400, "temperature": "1e999"}.items():
            bare.chat.query_one(f"#{name}", Input).value = value
        bare.chat.query_one("#prompt", Input).value = "Why?"
        await pilot.press("enter")
        await until(pilot, lambda: "is out of range" in bare.state(), "the refusal")
        assert bare.chat.turns[-1].over
        assert (bare.chat.turns[-1].seed, bare.chat.turns[-1].temperature) == (0, 0.0)
        bare.chat.query_one("#tokens", Input).value = ""
        await ask(pilot, bare, "Why?")
        assert "irm turn 1" in bare.said("irm")


@pytest.mark.slow
async def test_the_cursor_shows_what_steered_a_token(app: Callable[..., ChatApp]) -> None:
    bare = app()
    async with bare.run_test(size=(100, 30)) as pilot:
        await ready(pilot, bare)
        await ask(pilot, bare, "?")
        assert not bare.chat.query_one(TokenMap).display
        column = bare.chat.query_one("#irm", AnswerColumn)
        column.strip.focus()
        await pilot.press("home", "right", "right")
        await until(pilot, lambda: bare.chat.query_one(TokenMap).display, "the heatmap")
        await until(pilot, lambda: "index 2 at layer 1 +2.5" in screen_text(bare), "token 2's outputs times the strength")
        assert "token 3/6  3" in str(column.border_subtitle)
        bare.chat.query_one("#base", AnswerColumn).strip.focus()
        await pilot.press("left")
        await until(pilot, lambda: not bare.chat.query_one(TokenMap).display, "no heatmap of the base")


@pytest.mark.slow
async def test_copy_and_save(app: Callable[..., ChatApp]) -> None:
    bare = app()
    async with bare.run_test(size=(100, 30)) as pilot:
        await ready(pilot, bare)
        await ask(pilot, bare, "Why?")
        bare.chat.query_one("#vector", AnswerColumn).strip.focus()
        await pilot.press("f2")
        assert bare.clipboard == "vector turn 1 at 1 [b]x[/b]\x1b[31m"
        assert notified(bare) == ["sent to the terminal's clipboard: vector's answer"]  # nobody knows whether it took it
        bare.chat.query_one("#prompt").focus()
        await pilot.press("f2", "f3")
        (saved,) = Path().glob("chat-*.md")
        assert saved.read_text() == bare.clipboard
        assert "### irm" in bare.clipboard


@pytest.mark.slow
async def test_what_is_missing_is_a_state(app: Callable[..., ChatApp]) -> None:
    bare = app(gguf="", vector="", irm="")
    async with bare.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: "no model" in bare.state(), "the state")
        await pilot.press("x", "enter")
        assert not bare.chat.turns
        await pilot.press("ctrl+o")
        assert isinstance(bare.screen, ChatSourcesScreen)
        bare.screen.query_one("#gguf", Input).value = "model.gguf"
        bare.screen.query_one("#irm", Input).value = "broken"
        await pilot.press("enter")
        await until(pilot, lambda: "broken is damaged" in bare.state(), "the IRM's error")
        assert "no vector: f4 trains the demo's tone, ctrl+o chooses" in bare.said("vector")
        assert "make it again" in bare.said("irm")
        bare.chat.query_one("#prompt", Input).focus()
        await pilot.press("enter")
        await until(pilot, lambda: "base turn 1" in bare.said("base"), "the base alone answers")
        await pilot.press("ctrl+o", "escape")
        assert not isinstance(bare.app.screen, ChatSourcesScreen)


@pytest.mark.slow
@pytest.mark.parametrize("size", SIZES)
async def test_the_window_of_what_is_loaded(app: Callable[..., ChatApp], size: tuple[int, int]) -> None:
    bare = app()
    async with bare.run_test(size=size) as pilot:
        await ready(pilot, bare)
        await until(pilot, lambda: "GB held" in screen_text(bare), "the server's memory")
        await pilot.press("ctrl+o")
        await until(pilot, lambda: isinstance(bare.screen, ChatSourcesScreen) and "enter: load" in screen_text(bare), "the window")
        await check_snapshot(pilot, "chat-sources")


async def load(pilot: Pilot[Any], bare: ChatApp, **texts: str) -> None:
    await pilot.press("ctrl+o")
    await until(pilot, lambda: isinstance(bare.screen, ChatSourcesScreen) and bare.screen.query(Input), "the window")
    for name, text in texts.items():
        bare.screen.query_one(f"#{name}", Input).value = text
    await pilot.press("enter")
    await until(pilot, lambda: bare.screen is bare.chat, "the chat")


@pytest.mark.slow
async def test_only_another_model_takes_another_server(app: Callable[..., ChatApp]) -> None:
    bare = app()
    async with bare.run_test(size=(100, 30)) as pilot:
        await ready(pilot, bare)
        server = bare.chat._serve
        await ask(pilot, bare, "One?")
        await load(pilot, bare, vector="joy.gguf:0.5", irm="")
        await until(pilot, lambda: bare.state().startswith("ready: base, vector on"), "the other vector")
        assert bare.chat._serve is server
        await ask(pilot, bare, "Two?")
        await load(pilot, bare, vector="broken.gguf")
        await until(pilot, lambda: "broken.gguf is damaged" in bare.state(), "the failure")
        await ask(pilot, bare, "Three?")
        assert list(bare.chat.turns[-1].answers) == ["base"]  # the vector before is not what this column is called
        await load(pilot, bare, vector="broken.gguf", irm="runs/joy")
        await until(pilot, lambda: "irm" in bare.chat._loaded and "vector" in bare.chat._wrong, "another attempt")
        assert bare.chat._serve is server
        await pilot.press("f3")
        (saved,) = Path().glob("chat-*.md")
        turns = saved.read_text().split("\n## ")[1:]
        assert [re.findall("^- (.*)$", turn, re.MULTILINE) for turn in turns] == [
            ["model: `model.gguf`", "vector: `anger.gguf`", "irm: `runs/anger`"],
            ["model: `model.gguf`", "vector: `joy.gguf:0.5`"],
            ["model: `model.gguf`"],
        ]
        await load(pilot, bare, gguf="other.gguf", vector="", irm="")
        await until(pilot, lambda: bare.state() == "ready: base on other.gguf", "the other model")
        assert bare.chat._serve is not server


@pytest.mark.slow
async def test_another_vector_in_mid_answer(app: Callable[..., ChatApp]) -> None:
    bare = app("slow.gguf")
    async with bare.run_test(size=(100, 30)) as pilot:
        await ready(pilot, bare)
        bare.chat.query_one("#prompt", Input).value = "go"
        await pilot.press("enter")
        await until(pilot, lambda: "[31m" in bare.said("irm"), "the beginning")
        await load(pilot, bare, vector="joy.gguf")
        await until(pilot, lambda: bare.chat._files().get("vector") == "joy.gguf", "the other vector")
        answers = bare.chat.turns[-1].answers.values()
        assert all(answer.whole and not answer.error for answer in answers)


@pytest.mark.slow
async def test_a_question_waits_for_all_of_several_new_sources(app: Callable[..., ChatApp]) -> None:
    bare = app()
    async with bare.run_test(size=(100, 30)) as pilot:
        await ready(pilot, bare)
        bare.chat.change(Sources("model.gguf", "joy.gguf", "runs/joy"))
        first = min(bare.chat._asked.values()) - 1
        old = {"base": {}, "irm": {"sources": ["runs/anger"], "warning": None, "layers": "1-3"}}
        bare.chat._ready({"id": first, "protocol": 1, "model": {"n_layers": 4}, "columns": old})
        assert bare.chat._loading
        await ask(pilot, bare, "Why?")
        assert bare.chat.turns[-1].sources == {"model": "model.gguf", "vector": "joy.gguf", "irm": "runs/joy"}
        assert list(bare.chat.turns[-1].answers) == ["base", "vector", "irm"]


@pytest.mark.slow
async def test_what_is_made_of_the_run_meanwhile_undoes_nothing(
    app: Callable[..., ChatApp], monkeypatch: pytest.MonkeyPatch
) -> None:
    bare = app("slow.gguf")
    async with bare.run_test(size=(100, 30)) as pilot:
        await ready(pilot, bare)
        bare.chat.taken = Path("runs/anger")
        await load(pilot, bare, vector="joy.gguf")
        await until(pilot, lambda: bare.chat._files().get("vector") == "joy.gguf", "the vector chosen by hand")
        bare.chat.query_one("#prompt", Input).value = "go"
        await pilot.press("enter")
        await until(pilot, lambda: "[31m" in bare.said("irm"), "the beginning")
        made = Sources("slow.gguf", "new.gguf", "runs/anger", "new-adapter.gguf")
        monkeypatch.setattr("irm_lite_tui.chat.served.sources_of", lambda path: made)
        bare.chat.take_run(Path("runs/anger"))
        assert bare.chat.turns[-1].answers["base"].whole is None
        assert not bare.chat.sources.adapter
        await pilot.press("escape")
        await until(pilot, lambda: bare.chat._files().get("adapter") == "new-adapter.gguf", "the new adapter")
        assert bare.chat._files()["vector"] == "joy.gguf"


@pytest.mark.slow
async def test_the_model_is_unloaded_and_loaded_again(app: Callable[..., ChatApp]) -> None:
    bare = app()
    async with bare.run_test(size=(100, 30)) as pilot:
        await ready(pilot, bare)
        await until(pilot, lambda: "GB held" in screen_text(bare), "the server's memory")
        server = bare.chat._serve
        assert server is not None
        await pilot.press("f6")
        assert bare.state() == "the model is unloaded: f5 loads it again"
        assert "GB held" not in screen_text(bare)
        await until(pilot, lambda: not server.running, "the server's end")
        assert server.memory is None
        await pilot.press("x", "enter", "f6")
        assert notified(bare) == ["no model is loaded: f5 loads it", "no model is loaded"]
        await pilot.press("f5")
        await ready(pilot, bare)


@pytest.mark.parametrize(
    ("setting", "said", "lacks"),
    [
        ("on", "sent to the terminal's clipboard: the conversation", False),
        ("external", "kept by tmux (prefix ] pastes it)", False),
        ("off", "kept by tmux (prefix ] pastes it)", True),
        ("gone", "not copied", True),
    ],
)
async def test_inside_tmux_a_copy_says_what_it_could_not_do(
    app: Callable[..., ChatApp], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, setting: str, said: str, lacks: bool
) -> None:
    bare = app()
    monkeypatch.setenv("TMUX", "/tmp/tmux-0/default,1,0")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    tmux = tmp_path / "tmux"  # which keeps what it is given, and names this setting
    tmux.write_text(
        f"#!/bin/sh\n[ {setting} != gone ] || exit 1\n[ $1 = show-options ] && echo {setting} || cat > {tmp_path}/kept\n"
    )
    tmux.chmod(0o755)
    async with bare.run_test(size=(100, 30)) as pilot:
        await pilot.press("f2")
        await until(pilot, lambda: any(said in each for each in notified(bare)), said)
        assert any("set-clipboard on" in each for each in notified(bare)) == lacks
        assert (tmp_path / "kept").exists() == (setting in ("external", "off"))


@pytest.mark.parametrize(("gguf", "said"), [("dies", "the model [red]went[/red] away"), ("newer", "protocol 99")])
async def test_a_server_that_fails_is_a_state(
    app: Callable[..., ChatApp], gguf: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    bare = app(gguf, vector="", irm="")
    started: list[Serve] = []
    start = Serve.start

    def noted(serve: Serve) -> None:
        started.append(serve)
        start(serve)

    monkeypatch.setattr(Serve, "start", noted)
    async with bare.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: said in bare.state(), said)
        await pilot.press("x", "enter")
        assert not bare.chat.turns
        await pilot.press("f5")
        await until(pilot, lambda: len(started) == 2 and said in bare.state(), "the same again")


@pytest.mark.slow
async def test_rubbish_between_events_does_no_harm(app: Callable[..., ChatApp]) -> None:
    bare = app("rubbish", vector="", irm="")
    async with bare.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: "ready: base" in bare.state(), "the server")
        bare.chat.query_one("#prompt", Input).value = "?"
        await pilot.press("enter")
        await until(pilot, lambda: "base turn 1" in bare.said("base"), "the answer")


async def test_a_program_that_is_not_there(app: Callable[..., ChatApp], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(irm_lite_tui.watch.children, "PROGRAM", ("/no/such/program",))
    bare = app()
    async with bare.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: "cannot be started" in bare.state(), "the state")


@pytest.mark.slow
async def test_the_real_server_is_understood(
    app: Callable[..., ChatApp], monkeypatch: pytest.MonkeyPatch, llama_gguf: Path, tmp_path: Path
) -> None:
    monkeypatch.setattr(irm_lite_tui.watch.children, "PROGRAM", (sys.executable, "-m", "irm_lite"))
    directions = {layer: np.full(64, 0.25 * layer, np.float32) for layer in (1, 2)}
    ControlVector(directions, "llama").save(tmp_path / "v.gguf")
    bare = app(str(llama_gguf), str(tmp_path / "v.gguf"), str(tmp_path / "none"))
    async with bare.run_test(size=(100, 30)) as pilot:
        await until(pilot, lambda: "no run.toml" in bare.said("irm"), "the missing run", seconds=120)
        assert "vector" in bare.chat._loaded
        bare.chat.query_one("#tokens", Input).value = "4"
        bare.chat.query_one(StrengthSlider).action_put(0.5)
        bare.chat.query_one("#prompt", Input).value = "Which ocean is the biggest?"
        await pilot.press("enter")
        await until(pilot, lambda: bare.chat.turns and bare.chat.turns[-1].over, "the answers")
        answer = bare.chat.turns[-1].answers["vector"]
        assert answer.norms == pytest.approx([0.5 * 0.25 * (64 * (1 + 4)) ** 0.5] * len(answer.tokens))
        bare.chat.query_one("#vector", AnswerColumn).strip.focus()
        await pilot.press("home")
        await until(pilot, lambda: "at layer 2 +0.25" in screen_text(bare), "the heatmap")
        bare.chat.query_one("#prompt").focus()
        server = bare.chat._serve
        await load(pilot, bare, vector=f"{tmp_path / 'v.gguf'}:2", irm="")
        await until(pilot, lambda: bare.chat._files().get("vector") == f"{tmp_path / 'v.gguf'}:2", "the other scale")
        await load(pilot, bare, vector="")
        await until(pilot, lambda: list(bare.chat._loaded) == ["base"], "the base alone")
        assert bare.chat._serve is server
        assert bare.state().startswith("ready: base on")


@pytest.mark.slow
async def test_a_tiny_terminal_does_not_crash(app: Callable[..., ChatApp]) -> None:
    bare = app()
    async with bare.run_test(size=(80, 24)) as pilot:
        await ready(pilot, bare)
        await ask(pilot, bare, "Why?")
        bare.chat.query_one("#irm", AnswerColumn).strip.focus()
        await pilot.press("end")
        for size in ((20, 5), (1, 1), (59, 12), (80, 24)):
            await pilot.resize_terminal(*size)
            await pilot.press("left")
        assert "irm turn 1" in screen_text(bare)
