"""The chat's screen alone, against a scripted server."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from textual.app import App
from textual.containers import VerticalScroll
from textual.pilot import Pilot
from textual.widgets import Input, Static

import irm_lite_tui.watch.children
from irm_lite_tui.chat.screen import ChatScreen
from irm_lite_tui.chat.widgets.answer_column import AnswerColumn
from irm_lite_tui.shared.text import paragraphs
from irm_lite_tui.watch.chat_sources import Sources
from support.tui_helpers import until


class ChatApp(App[None]):
    """An app with this screen alone."""

    def on_mount(self) -> None:
        self.push_screen(ChatScreen())

    @property
    def chat(self) -> ChatScreen:
        return next(screen for screen in self.screen_stack if isinstance(screen, ChatScreen))

    def state(self) -> str:
        return str(self.chat.query_one("#state", Static).render())

    def said(self, column: str) -> str:
        """All that a column shows, its state too where it stands."""
        return "\n".join(str(each.render()) for each in self.chat.query(f"#{column} Static").results(Static) if each.display)


@pytest.fixture
def app(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., ChatApp]:
    """Give a function that makes an app on these sources, in a folder of its own."""

    def on(gguf: str = "model.gguf", vector: str = "anger.gguf", irm: str = "runs/anger", adapter: str = "") -> ChatApp:
        monkeypatch.setattr("irm_lite_tui.chat.served.sources_of", lambda path: Sources(gguf, vector, irm, adapter))
        return ChatApp()

    monkeypatch.setattr(irm_lite_tui.watch.children, "PROGRAM", (sys.executable, str(Path(__file__).parent / "scripted_serve.py")))
    monkeypatch.setattr("irm_lite_tui.chat.screen.MEMORY_SECONDS", 0.05)
    monkeypatch.delenv("TMUX", raising=False)
    monkeypatch.chdir(tmp_path)
    return on


async def ready(pilot: Pilot[Any], bare: ChatApp) -> None:
    await until(pilot, lambda: bare.state().startswith("ready: base, vector, irm"), "the server")


async def ask(pilot: Pilot[Any], bare: ChatApp, prompt: str) -> None:
    bare.chat.query_one("#prompt", Input).value = prompt
    bare.chat.query_one("#prompt", Input).focus()
    await pilot.press("enter")
    await until(pilot, lambda: not bare.chat.query_one("#prompt", Input).value, "the question")
    await until(pilot, lambda: bare.chat.turns and bare.chat.turns[-1].over, "the answers")
    await until(pilot, lambda: all_is_shown(bare), "the answers' text")


def all_is_shown(bare: ChatApp) -> bool:
    """The newest answers are, down to their last line."""
    columns = [bare.chat.query_one(f"#{name}", AnswerColumn) for name in bare.chat.turns[-1].answers]
    latest = {each.column: str(each.query_one(".latest", Static).render()) for each in columns}
    whole = all(latest[name] == paragraphs(answer.text).plain for name, answer in bare.chat.turns[-1].answers.items())
    return whole and all(each.query_one(VerticalScroll).is_vertical_scroll_end for each in columns)
