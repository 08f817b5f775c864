"""One setting of the form: its name, a control, and below it what is wrong."""

from rich.text import Text
from textual import events
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical
from textual.suggester import SuggestFromList
from textual.widgets import Input, Label, Select, Static

from irm_lite_tui.fields import Field
from irm_lite_tui.messages import SettingChanged, SettingFocused
from irm_lite_tui.text import line


class SettingRow(Vertical):
    """Posts SettingChanged when it is edited, SettingFocused when the cursor comes in."""

    DEFAULT_CSS = """
    SettingRow { height: auto; }
    SettingRow Horizontal { height: 1; }
    SettingRow Label { width: 24; color: $text-muted; }
    SettingRow.changed Label { color: $text-accent; text-style: bold; }
    SettingRow Input, SettingRow Select { width: 1fr; max-width: 60; }
    SettingRow .error { padding-left: 24; color: $text-error; height: auto; display: none; }
    SettingRow:focus-within Label { color: $text; }
    """

    def __init__(self, field: Field, suggestions: tuple[str, ...] = ()) -> None:
        super().__init__(id=f"row-{field.name}")
        self.field = field
        self._suggestions = suggestions

    def compose(self) -> ComposeResult:
        default = self.field.shown(self.field.default)
        with Horizontal():
            yield Label(Text(self.field.label))
            if self.field.choices:
                choices = [(choice, choice) for choice in self.field.choices]
                yield Select(choices, value=default, allow_blank=False, compact=True, id=f"set-{self.field.name}")
            else:
                suggester = SuggestFromList(self._suggestions) if self._suggestions else None
                yield Input(default, compact=True, suggester=suggester, id=f"set-{self.field.name}")
        yield Static("", classes="error")

    @property
    def text(self) -> str:
        """What stands in the control."""
        control = self._control
        return str(control.value)

    @text.setter
    def text(self, text: str) -> None:
        control = self._control
        if isinstance(control, Input) or text in self.field.choices:
            control.value = text

    @property
    def _control(self) -> "Input | Select[str]":
        return self.query_one(Select) if self.field.choices else self.query_one(Input)

    def complain(self, error: str) -> None:
        """Show what is wrong with it; nothing where the text is empty."""
        shown = self.query_one(".error", Static)
        if shown.display or error:
            shown.update(line(error))
            shown.display = bool(error)

    def _edited(self) -> None:
        self.set_class(self.text != self.field.shown(self.field.default), "changed")
        self.post_message(SettingChanged(self.field.name))

    def on_input_changed(self, event: Input.Changed) -> None:
        event.stop()
        self._edited()

    def on_select_changed(self, event: Select.Changed) -> None:
        event.stop()
        self._edited()

    def on_descendant_focus(self, event: events.DescendantFocus) -> None:
        self.post_message(SettingFocused(self.field.name))
