"""Messages about watched run directories."""

from textual.message import Message

from irm_lite_tui.watch.run_state import RunView


class RunsRead(Message):
    """The folder of runs was looked at."""

    def __init__(self, views: "list[RunView]") -> None:
        super().__init__()
        self.views = views
