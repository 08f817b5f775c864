"""Messages of the dashboard."""

from typing import TYPE_CHECKING

from textual.message import Message

if TYPE_CHECKING:  # numpy would delay the first frame
    from irm_lite_tui.dashboard.reader import Reading


class RunRead(Message):
    """The watched run was looked at."""

    def __init__(self, reading: "Reading") -> None:
        super().__init__()
        self.reading = reading
