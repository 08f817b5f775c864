"""Curves over the training steps."""

from collections.abc import Mapping, Sequence

from rich.text import Text
from textual.widget import Widget

from irm_lite.core.visible_text import visible
from irm_lite_tui.shared.plot import Point, bounds, braille

_AXIS = 7  # columns of the numbers at the left
_COLOURS = ("secondary", "accent", "success", "warning")  # of the theme, by the order of the series


class CurvePlot(Widget):
    """Named series of points in one frame, each in its own colour; the legend is in the border."""

    DEFAULT_CSS = """
    CurvePlot {
        text-wrap: nowrap; text-overflow: ellipsis;
        border: round $border-blurred; border-title-color: $text-muted; padding: 0 1 0 0; min-height: 4;
    }
    """

    def __init__(self, title: str, id: str | None = None) -> None:
        super().__init__(id=id)
        self.border_title = title
        self._series: dict[str, Sequence[Point]] = {}

    def on_mount(self) -> None:
        self.app.theme_changed_signal.subscribe(self, lambda _theme: self._write_legend())

    def show(self, series: Mapping[str, Sequence[Point]]) -> None:
        """Draw these series."""
        self._series = dict(series)
        self._write_legend()
        self.refresh()

    def render(self) -> Text:
        width, height = self.content_size.width - _AXIS, self.content_size.height - 1
        colours = [self.app.theme_variables[name] for name in _COLOURS]
        shown = [points for points in self._series.values() if points]
        if width < 4 or height < 1:
            return Text("")
        if not shown:
            return Text("nothing to draw yet", style="dim")
        box = bounds(shown)
        text = Text(no_wrap=True)
        rows = braille(list(self._series.values()), width, height, box)
        for number, row in enumerate(rows):
            value = box[3] - (box[3] - box[2]) * number / max(height - 1, 1)
            label = f"{value:.3g}" if number in (0, height // 2, height - 1) else ""
            text.append(f"{label:>{_AXIS - 2}} │" if label else " " * (_AXIS - 1) + "│", style="dim")
            for character, owner in row:
                text.append(character, style=colours[owner % len(colours)] if owner >= 0 else "")
            text.append("\n")
        left, right = f"{box[0]:.0f}", f"step {box[1]:.0f}"
        text.append(" " * _AXIS + left + " " * max(1, width - len(left) - len(right)) + right, style="dim")
        return text

    def _write_legend(self) -> None:
        """The names, each in the colour of its curve."""
        legend = Text()
        for name, colour in zip(self._series, _COLOURS, strict=False):
            legend.append(f" ━ {visible(name)}", style=self.app.theme_variables[colour])
        self.border_subtitle = legend
