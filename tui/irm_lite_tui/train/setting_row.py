"""One setting of the form: its name, a control, and its error below."""

from rich.text import Text
from textual import events
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical
from textual.suggester import SuggestFromList
from textual.widgets import Input, Label, Select, Static

from irm_lite_tui.shared.text import line
from irm_lite_tui.shared.text_field import TextField
from irm_lite_tui.train.fields import Field
from irm_lite_tui.train.messages import SettingChanged, SettingFocused


class SettingRow(Vertical):
    """Posts SettingChanged when it is edited, SettingFocused when it gets the focus."""

    DEFAULT_CSS = """
    SettingRow { height: auto; }
    SettingRow Horizontal { height: 1; }
    SettingRow Label { width: 24; color: $text-muted; }
    SettingRow.changed Label { color: $text-accent; text-style: bold; }
    SettingRow Input, SettingRow Select { width: 1fr; max-width: 60; }
    SettingRow .error { padding-left: 24; color: $text-error; height: auto; display: none; }
    SettingRow:focus-within Label { color: $text; }
    """

    def __init__(self, field: Field, text: str, suggestions: tuple[str, ...] = ()) -> None:
        super().__init__(id=f"row-{field.name}")
        self.field = field
        self._control: TextField | Select[str]
        if field.choices:
            choices = [(choice, choice) for choice in field.choices]
            self._control = Select(
                choices, value=text if text in field.choices else field.choices[0], allow_blank=False, compact=True
            )
        else:
            self._control = TextField(text, compact=True, suggester=SuggestFromList(suggestions) if suggestions else None)
        self._error = Static("", classes="error")

    def compose(self) -> ComposeResult:
        with Horizontal():
            yield Label(Text(self.field.label))
            yield self._control
        yield self._error

    @property
    def text(self) -> str:
        """The text of the control."""
        return self._control.text if isinstance(self._control, TextField) else str(self._control.value)

    @text.setter
    def text(self, text: str) -> None:
        if isinstance(self._control, TextField):
            self._control.text = text
        elif text in self.field.choices:
            self._control.value = text

    def complain(self, error: str) -> None:
        """Show this error below it; an empty text hides it."""
        if self._error.display or error:
            self._error.update(line(error))
            self._error.display = bool(error)

    def _edited(self) -> None:
        self.set_class(self.text != self.field.shown(self.field.default), "changed")
        self.post_message(SettingChanged(self.field.name, self.text))

    def on_input_changed(self, event: Input.Changed) -> None:
        event.stop()
        self._edited()

    def on_select_changed(self, event: Select.Changed) -> None:
        event.stop()
        self._edited()

    def on_descendant_focus(self, event: events.DescendantFocus) -> None:
        self.post_message(SettingFocused(self.field.name))
