"""A field for text that may come from a file or a folder's name."""

from typing import Any

from textual.widgets import Input

from irm_lite.core.visible_text import visible


class TextField(Input):
    """`text` is the text as given until the user edits it; what would act on the terminal is shown as escapes."""

    def __init__(self, text: str = "", **options: Any) -> None:
        super().__init__(visible(text), **options)
        self._given = text

    @property
    def text(self) -> str:
        return self._given if self.value == visible(self._given) else self.value

    @text.setter
    def text(self, text: str) -> None:
        self._given = text
        self.value = visible(text)
