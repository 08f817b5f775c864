"""The server of a chat and what it has loaded: start, load, change, unload, and say so."""

from typing import Any

from textual.screen import Screen
from textual.widgets import Static

from irm_lite_tui.chat.choose_sources import ChatSourcesScreen
from irm_lite_tui.chat.conversation import Conversation
from irm_lite_tui.chat.server import Serve
from irm_lite_tui.chat.widgets.answer_column import AnswerColumn
from irm_lite_tui.shared.text import line, paragraphs
from irm_lite_tui.watch.chat_sources import Sources, name_of

COLUMNS = ("base", "vector", "irm")
_STEERED = COLUMNS[1:]  # by what Sources and the server call it, too
_HINT = "ctrl+o chooses what to load"


class ServedScreen(Screen[None]):
    """A screen with one server and one conversation, an AnswerColumn for each of COLUMNS, and lines #state and #memory."""

    def __init__(self) -> None:
        super().__init__()
        self.sources = Sources()
        self._conversation = Conversation()
        self._serve: Serve | None = None
        self._loaded: dict[str, dict[str, Any]] = {}  # the server's columns, as in `ready`
        self._wrong: dict[str, str] = {}  # why a column is not there

    def load(self, sources: Sources) -> None:
        """Start a server on these sources, in place of the one before."""
        self._end("the server was restarted")
        self.sources = sources
        self._titles()
        if not sources.gguf:
            self._say(f"no model: {sources.wrong or 'give a .gguf'} ({_HINT})", wrong=True)
            return
        self._say(f"starting irm-lite serve on {sources.gguf}")
        serve = Serve(sources.gguf, self)
        try:
            serve.start()
        except OSError as error:
            self._say(f"irm-lite serve cannot be started ({error.strerror}): run irm-lite doctor", wrong=True)
            return
        self._serve = serve
        for name in _STEERED:
            self._load_column(serve, name)

    def change(self, sources: Sources) -> None:
        """Load what has changed, or failed before; only another model needs another server."""
        before, serve = self.sources, self._serve
        if serve is None or sources.gguf != before.gguf:
            self.load(sources)
            return
        self._stop()  # the server loads nothing while it writes
        self.sources = sources
        for name in _STEERED:
            if getattr(sources, name) != getattr(before, name) or name in self._wrong:
                self._loaded.pop(name, None)
                self._wrong.pop(name, None)
                serve.ask("load", **{name: None})  # else the one before would stay if the new one cannot be loaded
                self._load_column(serve, name)
        self._titles()

    def _load_column(self, serve: Serve, name: str) -> None:
        source = getattr(self.sources, name)
        if source:
            serve.ask("load", **{name: source})

    def _end(self, why: str) -> None:
        """End the server, if there is one; `why` is what the answers that it was writing say."""
        if self._serve is not None:
            self._serve.end()
            self._conversation.fail(why)
        self._serve, self._loaded, self._wrong = None, {}, {}

    def action_sources(self) -> None:
        def chosen(sources: Sources | None) -> None:
            if sources is not None:
                self.change(sources)

        self.app.push_screen(ChatSourcesScreen(self.sources), chosen)

    def action_restart(self) -> None:
        self.load(self.sources)

    def action_unload(self) -> None:
        """End the server to free its memory."""
        if self._serve is None:
            self._tell("no model is loaded", "warning")
            return
        self._end("the model was unloaded")
        self._titles()
        self._say("the model is unloaded: f5 loads it again")
        self._weigh()

    def _weigh(self) -> None:
        """Show how much memory the server holds; not measured while it writes."""
        if not self._conversation.writing:
            held = self._serve.memory if self._serve is not None else None
            self.query_one("#memory", Static).update(line(f"{held / 1e9:.1f} GB held" if held is not None else ""))

    def _say(self, text: str, wrong: bool = False) -> None:
        state = self.query_one("#state", Static)
        state.update(paragraphs(text))
        state.set_class(wrong, "wrong")

    def _titles(self) -> None:
        """Each column's title, or why it is empty."""
        for name in COLUMNS:
            column = self.query_one(f"#{name}", AnswerColumn)
            source = {"base": self.sources.gguf, "vector": self.sources.vector, "irm": self.sources.irm}[name]
            column.set_title(f"{name} {name_of(source)}" if source else name)
            if name in self._loaded or self._serve is None:
                column.set_state("")
            elif name in self._wrong:
                column.set_state(f"{self._wrong[name]} ({_HINT})")
            elif not source:
                column.set_state(f"no {'IRM' if name == 'irm' else name}: {_HINT}")
            else:
                column.set_state("loading")

    def _stop(self) -> bool:
        """Whether there was anything to stop."""
        if self._serve is None or not self._conversation.writing:
            return False
        self._serve.ask("stop")
        return True

    def _tell(self, text: str, severity: str = "information") -> None:
        known = {"information": "information", "warning": "warning", "error": "error"}[severity]
        self.notify(line(text).plain, severity=known, markup=False)  # type: ignore[arg-type]
