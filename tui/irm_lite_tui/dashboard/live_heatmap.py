"""The live snapshot of a training as a heatmap: layers down, neuron index across."""

from rich.text import Text
from textual.widget import Widget

from irm_lite_tui.dashboard.reader import Live


class LiveHeatmap(Widget):
    """Mean |IRM output| over the newest step, pooled to the width by largest magnitude."""

    DEFAULT_CSS = """
    LiveHeatmap {
        text-wrap: nowrap; text-overflow: ellipsis;
        border: round $border-blurred; border-title-color: $text-muted; border-subtitle-color: $text-muted;
    }
    """

    def __init__(self, id: str | None = None) -> None:
        super().__init__(id=id)
        self.border_title = "mean |IRM output|"
        self._live: Live | None = None

    def show(self, live: Live | None) -> None:
        """Draw this snapshot; None: there is none yet."""
        if live is not self._live:
            self._live = live
            self.border_subtitle = "" if live is None else f"{live.values.shape[0]} layers x {live.values.shape[1]} indices"
            self.refresh()

    def render(self) -> Text:
        if self._live is None:
            return Text("no snapshot yet", style="dim")
        width, height = self.content_size
        if width < 1 or height < 1:
            return Text("")
        from irm_lite.analysis.pictures.heatmap import terminal_heatmap

        values = self._live.values
        values = values.repeat(max(1, 2 * height // len(values)), axis=0)  # two rows a line
        return Text("\n").join(terminal_heatmap(values, width, height, self.app.console.color_system))
