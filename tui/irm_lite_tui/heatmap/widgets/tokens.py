"""The tokens of a recorded prompt and of what was generated from it: one of them is drawn."""

from typing import ClassVar

from rich.cells import cell_len
from rich.style import Style
from rich.text import Text
from textual import events
from textual.binding import Binding, BindingType
from textual.widget import Widget

from irm_lite.analysis.recordings.recording import Prompt
from irm_lite.core.visible_text import visible
from irm_lite_tui.heatmap.messages import SliderMoved


class TokenSlider(Widget, can_focus=True):
    """A line that says which token, a line of the tokens around it; posts SliderMoved."""

    DEFAULT_CSS = """
    TokenSlider {
        height: 2; color: $text-muted; background: $surface; padding: 0 1; text-wrap: nowrap; text-overflow: ellipsis;
    }
    TokenSlider:focus { background: $panel; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("left", "move(-1)", "Previous token", show=False, id="tokens.token-back"),
        Binding("right", "move(1)", "Next token", show=False, id="tokens.token-on"),
        Binding("home", "move(-1000000)", "First token", show=False, id="tokens.first-token"),
        Binding("end", "move(1000000)", "Last token", show=False, id="tokens.last-token"),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._prompt: Prompt | None = None
        self._where, self._token, self._drawn = "", 0, False
        self._places: list[tuple[int, int, int]] = []  # (token, first cell, cell after it) of what is on the line

    def show(self, prompt: Prompt, number: int, of: int, token: int, drawn: bool) -> None:
        """Stand at a token of this prompt, the `number`th from 0 of `of`; `drawn` where the heatmap is that token's."""
        self._prompt, self._token, self._drawn = prompt, token, drawn
        phase = "generated" if token >= prompt.n_prompt else "prompt"
        self._where = f"prompt {number} of 0-{of - 1}  token {token} of 0-{len(prompt.tokens) - 1}  {phase}"
        self.refresh()

    def render(self) -> Text:
        if self._prompt is None:
            return Text()
        hint = "" if self._drawn else "  ([ and ] draw single tokens)"
        first = Text(self._where + hint)
        line = Text()
        self._places = []
        for token, text in self._around(self.size.width):
            start = line.cell_len
            line.append(text, self._style(token))
            self._places.append((token, start, line.cell_len))
        return Text("\n").join([first, line])

    def action_move(self, tokens: int) -> None:
        if self._prompt is not None:
            self.post_message(SliderMoved(min(max(0, self._token + tokens), len(self._prompt.tokens) - 1)))

    def on_click(self, event: events.Click) -> None:
        offset = event.get_content_offset(self)
        if offset is None or offset.y != 1:
            return
        for token, start, end in self._places:
            if start <= offset.x < end:
                self.post_message(SliderMoved(token))

    def _style(self, token: int) -> Style:
        assert self._prompt is not None
        if token == self._token:
            return Style(reverse=True, bold=True)
        return Style(bold=token >= self._prompt.n_prompt, underline=token >= self._prompt.n_prompt and token % 2 == 0)

    def _around(self, width: int) -> list[tuple[int, str]]:
        """Tokens and their texts as they fit on the line, the chosen one near its middle."""
        assert self._prompt is not None
        texts = self._prompt.tokens

        def shown(token: int) -> str:
            return visible(texts[token]) or "''"  # an empty text still needs a cell to stand on

        found, room = [(self._token, shown(self._token))], width - cell_len(shown(self._token))
        low, high = self._token, self._token
        while room > 0 and (low > 0 or high < len(texts) - 1):
            before = sum(cell_len(text) for token, text in found if token < self._token)
            back = low > 0 and (before < width // 2 or high == len(texts) - 1)
            if back:
                low -= 1
                if cell_len(shown(low)) > room:
                    break
                found.insert(0, (low, shown(low)))
            elif high < len(texts) - 1:
                high += 1
                found.append((high, shown(high)))
            else:
                break
            room -= cell_len(shown(low if back else high))
        return found
