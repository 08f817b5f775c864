"""The chat: one prompt answered side by side by the base, a control vector, the IRM and a LoRA adapter."""

import math
import time
from pathlib import Path
from typing import Any, ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.widgets import Footer, Input, Label, Static

from irm_lite.core.files.atomic import write_text
from irm_lite.serve.request import PROTOCOL
from irm_lite_tui.chat.conversation import Answer, Conversation, Turn, history
from irm_lite_tui.chat.markdown import markdown
from irm_lite_tui.chat.messages import StrengthMoved, TokenChosen
from irm_lite_tui.chat.served import COLUMNS, ServedScreen
from irm_lite_tui.chat.server import Serve, ServeEnded, ServeSaid, read_outputs
from irm_lite_tui.chat.widgets.answer_column import AnswerColumn
from irm_lite_tui.chat.widgets.layer_range import LayerRange
from irm_lite_tui.chat.widgets.slider import StrengthSlider
from irm_lite_tui.chat.widgets.token_map import TokenMap
from irm_lite_tui.shared.ask import AskScreen
from irm_lite_tui.shared.copying import copy
from irm_lite_tui.shared.mode_bar import ModeBar
from irm_lite_tui.shared.resting import is_seen
from irm_lite_tui.shared.text import encodable

_WIDTHS = [(0, "-narrow"), (60, "-middle"), (110, "-wide")]
_HEIGHTS = [(0, "-low"), (14, "-medium"), (30, "-high")]
_FRAMES = 1 / 20  # seconds between two redraws of growing answers
MEMORY_SECONDS = 2.0
_NUMBERS = (("seed", "0", "integer"), ("temperature", "0", "number"), ("tokens", "256", "integer"))


class ChatScreen(ServedScreen):
    """`path` is a run, a vector or a model; None: the embedded model."""

    CSS_PATH = "screen.tcss"
    HORIZONTAL_BREAKPOINTS = _WIDTHS
    VERTICAL_BREAKPOINTS = _HEIGHTS
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "stop", "Stop, leave", id="chat.stop"),
        Binding("ctrl+o", "sources", "Load", id="chat.sources"),
        Binding("ctrl+n", "new", "New", id="chat.new"),
        Binding("f2", "copy", "Copy", id="chat.copy"),
        Binding("f3", "save", "Save", id="chat.save"),
        Binding("f5", "restart", "Restart", id="chat.restart"),
        Binding("f6", "unload", "Unload the model", show=False, id="chat.unload"),
        Binding("f7", "export", "Export", show=False, tooltip="Go to Export with this run", id="chat.export"),
    ]

    def __init__(self, path: Path | None = None) -> None:
        super().__init__(path)
        self._early = ""  # the question that was sent before all was loaded
        self._saved = ""  # what was written to a file
        self._depth = 0

    def compose(self) -> ComposeResult:
        yield ModeBar()
        with Horizontal(id="top"):
            yield Static("", id="state")
            yield Static("", id="memory")
        with Horizontal(id="controls"):
            with Horizontal(id="sliders"):
                yield StrengthSlider()
                yield LayerRange()
            with Horizontal(id="numbers"):
                for name, value, kind in _NUMBERS:
                    yield Label(name)
                    yield Input(value, id=name, compact=True, type="integer" if kind == "integer" else "number")
        with Horizontal(id="columns"):
            for name in COLUMNS:
                yield AnswerColumn(name)
        yield TokenMap()
        yield Input(placeholder="ask all three; enter sends", id="prompt")
        yield Footer()

    def on_mount(self) -> None:
        self._clocks = (self.set_interval(_FRAMES, self._follow), self.set_interval(MEMORY_SECONDS, self._weigh))
        self.open(self.taken)

    def on_screen_suspend(self) -> None:
        if not is_seen(self):
            for timer in self._clocks:
                timer.pause()

    def on_screen_resume(self) -> None:
        for timer in self._clocks:
            timer.resume()
        self._follow()

    def on_unmount(self) -> None:
        if self._serve is not None:
            self._serve.end()

    # What the server says

    def on_serve_said(self, message: ServeSaid) -> None:
        if message.serve is not self._serve:
            return
        event = message.event
        match event["kind"]:
            case "loading":
                self._say(f"loading {event['what']}")
            case "ready":
                self._ready(event)
            case "start" | "set" | "token":
                self._conversation.take(event)
            case "end":
                awaited = self._conversation.open_answer(event.get("id"), event["column"]) is not None
                self._conversation.take(event)
                if awaited:
                    self._say_idle()
                    self._catch_up()
            case "outputs":
                self._outputs(event)
            case "error":
                self._error(event)

    def _ready(self, event: dict[str, Any]) -> None:
        if event["protocol"] != PROTOCOL:
            self._say(f"irm-lite serve speaks protocol {event['protocol']}, not {PROTOCOL}: pip install -U irm-lite", wrong=True)
            return
        self._answered(event.get("id"))
        self._loaded = {name: about for name, about in event["columns"].items() if name not in self._asked}  # others are of before
        if self._depth != event["model"]["n_layers"]:
            self._depth = event["model"]["n_layers"]
            self.query_one(LayerRange).set_depth(self._depth)
        self._titles()
        self._say_idle()
        self._ask_now()

    def _error(self, event: dict[str, Any]) -> None:
        column = event.get("column")
        self._answered(event.get("id"))
        if isinstance(column, str) and (answer := self._conversation.open_answer(event.get("id"), column)):
            answer.error = event["text"]
        elif column in COLUMNS:
            self._wrong[column] = event["text"]
            self._titles()
            self._ask_now()
        elif event.get("id") is not None and event.get("id") == self._conversation.request:  # the whole request was refused
            self._conversation.fail(event["text"])
        self._say(event["text"], wrong=True)

    def on_serve_ended(self, message: ServeEnded) -> None:
        if message.serve is not self._serve:
            return
        self._serve, self._loaded = None, {}
        why = message.last.removeprefix("irm-lite: ") or f"it ended with code {message.code}"
        self._conversation.fail("the server ended")
        self._titles()
        self._say(f"irm-lite serve has ended: {why} ({self._restart_key} starts it again, {self._hint})", wrong=True)

    # Asking

    def on_input_submitted(self, message: Input.Submitted) -> None:
        prompt = message.value.strip() or self._first_question
        if message.input.id != "prompt" or not prompt:
            return
        if self._serve is None:
            self._tell(f"no model is loaded: {self._restart_key} loads it", "warning")
        elif self._loading:  # what comes later would not be asked
            self._early = prompt
            self._tell("asked as soon as all is loaded")
        elif self._conversation.writing:
            self._tell("an answer is being written: escape stops it", "warning")
        else:
            message.input.clear()
            self._ask(self._serve, prompt)

    def _ask_now(self) -> None:
        """Ask what was sent before all was loaded, as it has been changed since."""
        field = self.query_one("#prompt", Input)
        if self._early and not self._loading and not self._conversation.writing and self._serve is not None:
            prompt, self._early = field.value.strip() or self._first_question, ""
            if prompt:
                field.clear()
                self._ask(self._serve, prompt)

    def _ask(self, serve: Serve, prompt: str) -> None:
        columns = [name for name in COLUMNS if name in self._loaded]
        strength, layers = self.query_one(StrengthSlider).strength, self.query_one(LayerRange).spec
        seed, temperature, most = int(self._number("seed")), self._number("temperature"), int(self._number("tokens"))
        turn = Turn(prompt, strength, layers, seed, temperature, self._files(), {name: Answer() for name in columns})
        request = serve.ask(
            "chat",
            messages={name: history(self.turns, name, prompt) for name in columns},
            strength=strength,
            layers=layers,
            seed=seed,
            temperature=temperature,
            max_new_tokens=most,
        )
        self._conversation.begin(turn, request)
        self._invite()
        self._say(f"writing {', '.join(columns)}")
        self.query_one(TokenMap).hide()
        for name in columns:
            self.query_one(f"#{name}", AnswerColumn).begin(turn)

    def _number(self, name: str) -> float:
        """The number in a field; its default where that is not a finite number."""
        default = next(value for known, value, _ in _NUMBERS if known == name)
        try:
            number = float(self.query_one(f"#{name}", Input).value)
        except ValueError:
            return float(default)
        return number if math.isfinite(number) else float(default)

    def action_stop(self) -> None:
        """Stop the answers; where none is being written, leave the field, so that the keys of the modes work."""
        if not self._stop():
            self.set_focus(None)

    def would_lose(self) -> str:
        """See settings/losing.py."""
        return "The conversation was not saved since its last answer." if self.turns and markdown(self.turns) != self._saved else ""

    def action_new(self) -> None:
        loss = self.would_lose()
        if loss:
            self.app.push_screen(AskScreen("Begin a new conversation?", "New", loss), lambda yes: self._new() if yes else None)
        else:
            self._new()

    def _new(self) -> None:
        self._stop()
        self._conversation = Conversation()
        for column in self.query(AnswerColumn):
            column.clear()
        self.query_one(TokenMap).hide()
        self._titles()
        if self._serve is not None:
            self._say_idle()

    # Steering

    def on_strength_moved(self, message: StrengthMoved) -> None:
        self._steer(strength=message.strength)

    def on_layers_moved(self) -> None:
        self._steer(layers=self.query_one(LayerRange).spec)

    def _steer(self, **values: float | str) -> None:
        """Change the steering of what is being written, too; the server starts its cache afresh."""
        if self._serve is not None and self._conversation.writing:
            self._serve.ask("set", **values)

    # Looking at tokens

    def _follow(self) -> None:
        columns = self.query(AnswerColumn)
        norms = [norm for column in columns for norm in column.strip.norms if norm is not None]
        for column in columns:
            column.follow(max(norms, default=0.0))

    def on_token_chosen(self, message: TokenChosen) -> None:
        if self._serve is not None and self._loaded.get(message.column, {}).get("layers"):
            self._serve.ask("outputs", column=message.column, token=message.token)
        else:
            self.query_one(TokenMap).hide()

    def _outputs(self, event: dict[str, Any]) -> None:
        name, token = event["column"], event["token"]
        if event.get("chat") != self._conversation.request or not self.turns or name not in self.turns[-1].answers:
            return
        tokens = self.turns[-1].answers[name].tokens
        try:
            values, layers = read_outputs(event)
            if not 0 <= token < len(tokens):
                raise ValueError("there is no such token")
        except ValueError as error:
            self._say(f"the outputs of that token cannot be read ({error}): update irm-lite", wrong=True)
            return
        self.query_one(TokenMap).show(name, tokens[token], values, layers, float(event["strength"]))

    # Copying and saving

    def action_copy(self) -> None:
        """The answer of the column in focus, else the whole conversation."""
        focused = next((column for column in self.query(AnswerColumn) if column.has_focus_within), None)
        answer = self.turns[-1].answers.get(focused.column) if focused and self.turns else None
        what = f"{focused.column}'s answer" if focused and answer else "the conversation"
        copy(self.app, answer.text if answer else markdown(self.turns), what)

    def action_save(self) -> None:
        path = Path(f"chat-{time.strftime('%Y%m%d-%H%M%S')}.md")
        text = markdown(self.turns)
        try:
            path = path.absolute()  # the folder may be gone
            write_text(path, encodable(text))
        except OSError as error:
            self._tell(f"{path} cannot be written ({error.strerror})", "error")
        else:
            self._saved = text
            self._tell(f"saved: {path}")
