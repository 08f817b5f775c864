"""A field for text that may come from a file or a folder's name."""

from typing import Any

from textual.widgets import Input

from irm_lite.core.visible_text import visible


class TextField(Input):
    """`text` is what was put in until it is edited, then what stands there; what would act on the terminal stands as escapes."""

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
