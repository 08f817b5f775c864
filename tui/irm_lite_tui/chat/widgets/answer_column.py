"""One column of the chat: what was said in it, and the strip of norms of its latest answer."""

from rich.text import Text
from textual.app import ComposeResult
from textual.containers import Vertical, VerticalScroll
from textual.widgets import Static

from irm_lite_tui.chat.conversation import Answer, Turn
from irm_lite_tui.chat.widgets.norm_strip import NormStrip
from irm_lite_tui.shared.text import line, paragraphs

_ENDS = {"length": "cut at the limit", "context": "the context is full", "stopped": "stopped"}


class AnswerColumn(Vertical):
    """A column without a conversation shows its state: why it is empty, and the fix."""

    def __init__(self, column: str) -> None:
        super().__init__(id=column)
        self.column = column
        self._answer: Answer | None = None
        self._shown: tuple[int, bool, int | None] = (0, False, None)

    def compose(self) -> ComposeResult:
        with VerticalScroll(can_focus=False):
            yield Static("", classes="state")
        yield NormStrip(self.column)

    @property
    def strip(self) -> NormStrip:
        return self.query_one(NormStrip)

    def set_title(self, title: str) -> None:
        """The border's title, as text."""
        self.border_title = line(title)

    def set_state(self, text: str) -> None:
        """One line instead of a conversation; empty: none."""
        state = self.query_one(".state", Static)
        state.update(paragraphs(text))
        state.display = bool(text)

    def clear(self) -> None:
        """Forget the conversation."""
        self.query(".said").remove()
        self._answer = None
        self.strip.show([])
        self.border_subtitle = None

    def begin(self, turn: Turn) -> None:
        """Show a turn's prompt; its answer follows as it grows."""
        self.set_state("")
        self._answer, self._shown = turn.answers[self.column], (-1, False, None)
        for old in self.query(".latest"):
            old.remove_class("latest")
        scroll = self.query_one(VerticalScroll)
        scroll.mount(Static(paragraphs(turn.prompt), classes="said prompt"), Static("", classes="said answer latest"))
        self.strip.cursor = None
        self.strip.show([])

    def follow(self, limit: float) -> None:
        """Show what the answer has become; `limit` is the norm of a full bar."""
        answer, strip = self._answer, self.strip
        strip.limit = limit
        if answer is None:
            return
        state = (len(answer.tokens), answer.over, strip.cursor)
        if state == self._shown:
            return
        self._shown = state
        strip.show(answer.norms)
        for latest in self.query(".latest").results(Static):
            latest.update(self._said(answer, strip.cursor))
        if strip.cursor is None:
            self.query_one(VerticalScroll).scroll_end(animate=False)
        else:
            self._reveal("".join(answer.tokens[: strip.cursor]))
        self._say_token(answer, strip.cursor)

    def _reveal(self, before: str) -> None:
        """Scroll to where the text before the cursor ends."""
        scroll = self.query_one(VerticalScroll)
        latest = self.query_one(".latest", Static)
        lines = len(paragraphs(before).wrap(self.app.console, max(latest.size.width, 1))) or 1
        scroll.scroll_to(y=latest.virtual_region.y + lines - 1 - scroll.size.height // 2, animate=False)

    def _said(self, answer: Answer, cursor: int | None) -> Text:
        if answer.error:
            return paragraphs(answer.text).append(line(f"\n{answer.error}"[1:], "italic red"))
        if cursor is None:
            text = paragraphs(answer.text)
        else:
            text = paragraphs("".join(answer.tokens[:cursor]))
            text.append(paragraphs(answer.tokens[cursor] or "\N{REPLACEMENT CHARACTER}", "reverse"))
            text.append(paragraphs("".join(answer.tokens[cursor + 1 :])))
        if not answer.over:
            text.append("▍", "blink" if answer.tokens else "dim blink")
        if answer.reason in _ENDS:
            text.append(f" [{_ENDS[answer.reason]}]", "dim italic")
        return text

    def _say_token(self, answer: Answer, cursor: int | None) -> None:
        norm = answer.norms[cursor] if cursor is not None else answer.mean_norm
        if cursor is not None:
            self.border_subtitle = line(f"token {cursor + 1}/{len(answer.tokens)}" + (f"  {norm:.3g}" if norm is not None else ""))
        else:
            self.border_subtitle = line(f"{len(answer.tokens)} tokens" + (f"  mean {norm:.3g}" if norm is not None else ""))
