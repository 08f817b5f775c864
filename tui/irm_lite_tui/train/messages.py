"""Messages of the form."""

from typing import TYPE_CHECKING

from textual.message import Message

if TYPE_CHECKING:  # the form is drawn before a dataset's reader is there
    from irm_lite.data.dataset import Example


class SettingChanged(Message):
    """A field of the form was edited: its new text."""

    def __init__(self, name: str, text: str) -> None:
        super().__init__()
        self.name, self.text = name, text


class SettingFocused(Message):
    """A field of the form got the focus: show its help."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name


class DataRead(Message):
    """The head of a dataset was read: its first rows and a line about it, or what is wrong with it."""

    def __init__(self, spec: str, rows: "list[Example]", about: str, failed: bool) -> None:
        super().__init__()
        self.spec, self.rows, self.about, self.failed = spec, rows, about, failed
