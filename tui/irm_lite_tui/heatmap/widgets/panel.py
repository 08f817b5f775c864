"""The heatmap with its margins: everything that a screen needs to show a picture."""

from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical

from irm_lite_tui.heatmap.messages import WindowMoved
from irm_lite_tui.heatmap.source import Picture
from irm_lite_tui.heatmap.widgets.grid import HeatmapGrid
from irm_lite_tui.heatmap.widgets.margins import IndexMargin, LayerMargin, Margin, PositionBar, Ruler


class HeatmapPanel(Vertical):
    """`show` a Picture; `grid` takes the keys."""

    DEFAULT_CSS = """
    HeatmapPanel { background: $background; }
    HeatmapPanel.tall IndexMargin { height: 3; }
    """

    def compose(self) -> ComposeResult:
        yield PositionBar()
        yield Ruler()
        yield IndexMargin()
        with Horizontal():
            yield LayerMargin()
            yield HeatmapGrid()

    @property
    def grid(self) -> HeatmapGrid:
        return self.query_one(HeatmapGrid)

    def show(self, picture: Picture) -> None:
        """Draw this one; zoom and crosshair stay."""
        self.grid.show(picture)
        self.follow()  # at once: waiting for the message would be a frame more

    def follow(self) -> None:
        """Update the margins to what the grid shows."""
        if (picture := self.grid.picture) is not None:
            window = self.grid.window
            for margin in self.query(Margin):
                margin.follow(picture, window)

    def on_resize(self) -> None:
        self.set_class(self.size.height >= 30, "tall")

    def on_window_moved(self, message: WindowMoved) -> None:
        """Update the margins; the message bubbles on to the screen."""
        self.follow()
