"""Messages of the chat."""

from textual.message import Message


class StrengthMoved(Message):
    """The strength slider was moved."""

    def __init__(self, strength: float) -> None:
        super().__init__()
        self.strength = strength


class LayersMoved(Message):
    """The layer range was changed."""


class TokenChosen(Message):
    """The cursor was put on a token of a column's latest answer."""

    def __init__(self, column: str, token: int) -> None:
        super().__init__()
        self.column, self.token = column, token
