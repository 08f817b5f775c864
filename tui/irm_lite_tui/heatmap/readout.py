"""The two lines above the heatmap: what is drawn, and the numbers under the crosshair and the pointer."""

from rich.text import Text

from irm_lite.core.visible_text import visible
from irm_lite_tui.heatmap.source import Picture, Source
from irm_lite_tui.heatmap.widgets.window import Window


def title_line(source: Source, picture: Picture, robust: bool, colours: str) -> Text:
    """The source's name, the picture, and the value of full colour."""
    limit = picture.robust_limit if robust else picture.whole_limit
    scale = f"full colour {limit:.3g} ({'99.5th percentile' if robust else 'largest'}), {colours}"
    return Text.assemble((visible(source.name), "bold"), f"  {picture.what}  ", (scale, "dim"))


def readout_line(picture: Picture, window: Window, hovered: tuple[int, int] | None) -> Text:
    """The neuron under the crosshair with its ranks, and the one under the pointer: a row and an index, or None."""
    n_layers, hidden_size = picture.values.shape
    line = Text.assemble(
        "layer ",
        (str(picture.layers[window.row]), "bold"),
        "  index ",
        (str(window.index), "bold"),
        "  value ",
        (f"{picture.values[window.row, window.index]:+.4g}", "bold"),
        f"  rank {picture.rank_in_layer(window.row, window.index)} of {hidden_size} in its layer",
        f", index {picture.rank_of_index(window.index)} by rms",
    )
    if hovered and hovered[0] < n_layers and hovered[1] < hidden_size:
        row, index = hovered
        line.append(f"   pointer: l{picture.layers[row]} {index} {picture.values[row, index]:+.4g}", "dim")
    return line
