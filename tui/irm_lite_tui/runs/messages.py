"""Messages of the table of runs."""

from textual.message import Message


class RunActionDone(Message):
    """A run was deleted, or could not be: one line to show."""

    def __init__(self, text: str, failed: bool) -> None:
        super().__init__()
        self.text, self.failed = text, failed


class SortChanged(Message):
    """The runs are sorted by another column, or the other way round."""

    def __init__(self, column: str, descending: bool) -> None:
        super().__init__()
        self.column, self.descending = column, descending
