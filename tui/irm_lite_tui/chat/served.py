"""The server of a chat and what it has loaded: start, load, change, unload, and say so."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from textual.screen import Screen
from textual.widgets import Input, Static

from irm_lite_tui.chat.choose_sources import ChatSourcesScreen
from irm_lite_tui.chat.conversation import Conversation, Turn
from irm_lite_tui.chat.server import Serve
from irm_lite_tui.chat.widgets.answer_column import AnswerColumn
from irm_lite_tui.settings.keys import shown_key
from irm_lite_tui.shared.messages import OpenIn
from irm_lite_tui.shared.text import line, paragraphs
from irm_lite_tui.watch.chat_sources import Sources, name_of, question_for, sources_of

COLUMNS = ("base", "vector", "irm", "adapter")
_STEERED = COLUMNS[1:]  # by what Sources and the server call it, too
_MADE = " was made "  # between what a note is about and what it says (base/fingerprint.py)
_LABELS = {"vector": "vector", "irm": "IRM", "adapter": "adapter"}


def _together(notes: dict[str, str]) -> list[str]:
    """The notes by column, in one where they say the same of several: on a small terminal there is no room for all."""
    by_what: dict[str, list[str]] = {}
    for name, note in notes.items():
        by_what.setdefault(note.partition(_MADE)[2] or note, []).append(name)
    return [what if what in notes.values() else f"{', '.join(names)}: made {what}" for what, names in by_what.items()]


class ServedScreen(Screen[None]):
    """A screen with one server, one conversation, an AnswerColumn for each of COLUMNS, lines #state and #memory, a field #prompt.

    The adapter's column is shown where there is one.
    """

    AUTO_FOCUS = "#prompt"  # where nothing else is in focus: at first, and when one comes back

    def __init__(self, path: Path | None = None) -> None:
        super().__init__()
        self.taken = path  # see shared/in_hand.py
        self.sources = self._found = Sources()  # what is loaded, and what belonged to the run when it was taken
        self._conversation = Conversation()
        self._serve: Serve | None = None
        self._loaded: dict[str, dict[str, Any]] = {}  # the server's columns, as in `ready`
        self._wrong: dict[str, str] = {}  # why a column is not there
        self._asked: dict[str, int] = {}  # the last load of each column that the server has not told the end of
        self._behind = False  # the run has new sources, which wait for the end of an answer

    @property
    def turns(self) -> list[Turn]:
        return self._conversation.turns

    @property
    def _loading(self) -> bool:
        """Whether something is still to come that was asked for."""
        return not self._loaded or bool(self._asked)

    def _files(self) -> dict[str, str]:
        """What the server has loaded, as it was asked for."""
        sources = {name: about.get("sources", []) for name, about in self._loaded.items()}
        return {"model": self.sources.gguf} | {name: ", ".join(map(str, files)) for name, files in sources.items() if files}

    def open(self, path: Path | None) -> None:
        """Start on what belongs to a run, a file or, of None, to the embedded model."""
        self.taken, self._found = path, sources_of(path)
        self.load(self._found)

    def take_run(self, path: Path) -> None:
        """See shared/in_hand.py; the conversation goes on."""
        found, before = sources_of(path), self._found
        if path != self.taken:
            self.taken, self._found = path, found
            self.change(found)
        elif found != before and self._conversation.writing:
            self._behind = True
        elif found != before:  # what was chosen by hand stays
            by_hand = {name: mine for name, mine in vars(self.sources).items() if mine != getattr(before, name)}
            self._found = found
            self.change(replace(found, **by_hand))

    def _catch_up(self) -> None:
        """Take what has been made of the run while an answer was being written."""
        if self._behind and self.taken is not None and not self._conversation.writing:
            self._behind = False
            self.take_run(self.taken)

    def keeps(self) -> str:
        """See shared/in_hand.py."""
        return f"the conversation with {self.taken.name} goes on" if self.turns and self.taken else ""

    def load(self, sources: Sources) -> None:
        """Start a server on these sources, in place of the one before."""
        self._end("the server was restarted")
        self.sources = sources
        self._titles()
        if not sources.gguf:
            self._say(f"no model: {sources.wrong or 'give a .gguf'} ({self._hint})", wrong=True)
            return
        self._say(f"starting irm-lite serve on {sources.gguf}")
        serve = Serve(sources.gguf, self, sources.template)
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
        if serve is None or (sources.gguf, sources.template) != (before.gguf, before.template):
            self.load(sources)
            return
        self._stop()  # the server loads nothing while it writes
        self.sources = sources
        for name in _STEERED:
            if getattr(sources, name) != getattr(before, name) or name in self._wrong:
                self._loaded.pop(name, None)
                self._wrong.pop(name, None)
                self._asked[name] = serve.ask("load", **{name: None})  # else the old one stays if it cannot be loaded
                self._load_column(serve, name)
        self._titles()

    @property
    def _hint(self) -> str:
        return f"{shown_key(self.app, 'chat.sources', 'ctrl+o')} chooses what to load"

    @property
    def _restart_key(self) -> str:
        return shown_key(self.app, "chat.restart", "f5")

    def _why_empty(self, name: str) -> str:
        """That a column has no source, and the one key that gives it one."""
        if self.taken is None:
            return f"no {_LABELS[name]}: {shown_key(self.app, 'run.next', 'f4')} trains the demo's tone, {self._hint}"
        if getattr(self._found, name):  # taken out by hand
            return f"no {_LABELS[name]}: {self._hint}"
        if name == "irm":
            return f"{self.taken.name} is not trained yet: come back when it is, {self._hint}"
        return f"{self.taken.name} is not exported yet: {shown_key(self.app, 'chat.export', 'f7')} exports it, {self._hint}"

    def _load_column(self, serve: Serve, name: str) -> None:
        source = getattr(self.sources, name)
        if source:
            self._asked[name] = serve.ask("load", **{name: source})

    def _answered(self, request: int | None) -> None:
        """That a column's load has ended, where the request is one."""
        self._asked = {name: asked for name, asked in self._asked.items() if asked != request}

    def _end(self, why: str) -> None:
        """End the server, if there is one; `why` is what the answers that it was writing say."""
        if self._serve is not None:
            self._serve.end()
            self._conversation.fail(why)
        self._serve, self._loaded, self._wrong, self._asked = None, {}, {}, {}

    def action_sources(self) -> None:
        def chosen(sources: Sources | None) -> None:
            if sources is not None:
                self.change(sources)

        self.app.push_screen(ChatSourcesScreen(self.sources), chosen)

    def action_export(self) -> None:
        """To Export, with this run."""
        if self.taken is None:
            self._tell("there is no run to export", "warning")
        else:
            self.post_message(OpenIn("export", self.taken))

    def action_restart(self) -> None:
        self.load(self.sources)

    def action_unload(self) -> None:
        """End the server to free its memory."""
        if self._serve is None:
            self._tell("no model is loaded", "warning")
            return
        self._end("the model was unloaded")
        self._titles()
        self._say(f"the model is unloaded: {self._restart_key} loads it again")
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

    def _say_idle(self) -> None:
        """Show what is loaded once nothing is being written; warnings come first."""
        if self._conversation.writing:
            return
        warnings = [str(about["warning"]) for about in self._loaded.values() if about.get("warning")]
        wrong = "" if question_for(self.sources) else self.sources.wrong  # a run without anything yet: the shipped vector answers
        if warnings or wrong:
            self._say(warnings[0] if warnings else wrong, wrong=True)
        else:
            notes = _together({name: str(about["note"]) for name, about in self._loaded.items() if about.get("note")})
            ready = f"ready: {', '.join(name for name in COLUMNS if name in self._loaded)} on {self.sources.gguf}"
            ships = [f"{self.sources.vector} ships with irm-lite"] if question_for(self.sources) else []
            self._say("; ".join([ready, *ships, *notes]))

    def _titles(self) -> None:
        """Each column's title, or why it is empty."""
        for name in COLUMNS:
            column = self.query_one(f"#{name}", AnswerColumn)
            source = self.sources.gguf if name == "base" else getattr(self.sources, name)
            column.set_title(f"{name} {name_of(source)}" if source else name)
            if name in self._loaded or self._serve is None:
                column.set_state("")
            elif name in self._wrong:
                column.set_state(f"{self._wrong[name]} ({self._hint})")
            elif not source:
                column.set_state(self._why_empty(name))
            else:
                column.set_state("loading")
        self.query_one("#adapter").display = bool(self.sources.adapter)
        self._invite()

    @property
    def _first_question(self) -> str:
        """What Enter alone asks, before anything was asked, where a shipped vector is loaded; empty: nothing."""
        return "" if self.turns else question_for(self.sources)

    def _invite(self) -> None:
        """Say what Enter does."""
        there = sum(bool(getattr(self.sources, name)) for name in _STEERED)
        asked = f"{('ask', 'ask both', 'ask all three', 'ask all four')[there]}; enter "
        first = self._first_question
        self.query_one("#prompt", Input).placeholder = f"{asked}alone asks: {first}" if first else f"{asked}sends"

    def _stop(self) -> bool:
        """Whether there was anything to stop."""
        if self._serve is None or not self._conversation.writing:
            return False
        self._serve.ask("stop")
        return True

    def _tell(self, text: str, severity: str = "information") -> None:
        known = {"information": "information", "warning": "warning", "error": "error"}[severity]
        self.notify(line(text).plain, severity=known, markup=False)  # type: ignore[arg-type]
