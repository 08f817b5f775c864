"""Messages of the chat."""

from textual.message import Message


class StrengthMoved(Message):
    """The strength slider stands elsewhere."""

    def __init__(self, strength: float) -> None:
        super().__init__()
        self.strength = strength


class LayersMoved(Message):
    """The layer range reaches elsewhere."""


class TokenChosen(Message):
    """The cursor stands on a token of a column's latest answer."""

    def __init__(self, column: str, token: int) -> None:
        super().__init__()
        self.column, self.token = column, token
