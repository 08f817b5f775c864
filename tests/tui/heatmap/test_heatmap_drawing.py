"""The terminal heatmap's arithmetic: columns, shades and cells, against loops, matplotlib and rich."""

from itertools import pairwise
from typing import Literal

import hypothesis.extra.numpy as arrays
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib import colormaps
from rich.color import Color
from rich.console import Console
from rich.text import Text
from textual.strip import Strip

from irm_lite.analysis.pictures.heatmap import terminal_heatmap
from irm_lite.analysis.pictures.pooling import pool_signed_max
from irm_lite.core.types import FloatArray, IntArray
from irm_lite_tui.heatmap.widgets.cells import Cells
from irm_lite_tui.heatmap.widgets.colour_maps import COLOUR_MAPS, LEVELS, N_SHADES, mark, shade_numbers, shades
from irm_lite_tui.heatmap.widgets.window import column_of, first_index, halves_of, shown_index, zooms

quick = settings(deadline=None, max_examples=80)
rows = arrays.arrays(np.float32, st.integers(1, 90), elements=st.floats(-1e6, 1e6, width=32))


@quick
@given(st.integers(1, 300), st.data())
def test_columns_are_those_of_the_pooling(hidden_size: int, data: st.DataObject) -> None:
    columns = data.draw(st.integers(1, hidden_size))
    found = pool_signed_max(np.eye(hidden_size, dtype=np.float32), columns).argmax(axis=1)
    assert [column_of(index, columns, hidden_size) for index in range(hidden_size)] == found.tolist()
    firsts = [first_index(column, columns, hidden_size) for column in range(columns)]
    assert firsts == np.searchsorted(found, np.arange(columns)).tolist()


@quick
@given(rows, st.data())
def test_the_index_of_a_column_is_the_one_whose_value_is_drawn(values: FloatArray, data: st.DataObject) -> None:
    columns = data.draw(st.integers(1, len(values)))
    drawn = pool_signed_max(values[None], columns)[0]
    for column in range(columns):
        index = shown_index(values, column, columns)
        assert column_of(index, columns, len(values)) == column
        assert abs(values[index]) == abs(drawn[column])


@quick
@given(st.integers(1, 5120), st.integers(0, 400))
def test_zooms_go_from_all_indices_to_one_a_cell(hidden_size: int, width: int) -> None:
    found = zooms(hidden_size, width)
    assert found[0] == min(hidden_size, max(width, 1))
    assert found[-1] == hidden_size
    assert all(small < large <= 2 * small for small, large in pairwise(found))


@pytest.mark.parametrize(("n_layers", "height", "halves"), [(32, 16, 1), (32, 48, 3), (40, 16, 1), (1, 30, 8), (30, 0, 1)])
def test_layers_share_the_height(n_layers: int, height: int, halves: int) -> None:
    assert halves_of(n_layers, height) == halves


def test_cividis_is_matplotlibs() -> None:
    ours = [each.triplet for each in shades("cividis |v|")[LEVELS:]]
    for level, colour in enumerate(ours):
        theirs = [255 * each for each in colormaps["cividis"](level / LEVELS)[:3]]
        assert colour is not None
        assert np.abs(np.array(colour) - theirs).max() < 20  # nine stops; its dark end has a kink


def test_blue_orange_is_the_colours_of_the_command_line() -> None:
    values = np.linspace(-1, 1, 201, dtype=np.float32)[None].repeat(2, 0)
    theirs = [span.style.color.get_truecolor() for span in terminal_heatmap(values, 201)[0].spans]  # type: ignore[union-attr]
    ours = [shades("blue-orange")[number].get_truecolor() for number in shade_numbers(values[0], 0.99)]
    step = 255 / LEVELS  # ours are fewer
    assert max(np.abs(np.subtract(one, other)).max() for one, other in zip(ours, theirs, strict=True)) < step


@pytest.mark.parametrize(("system", "most"), [("truecolor", None), ("256", 255), ("standard", 15)])
@pytest.mark.parametrize("name", COLOUR_MAPS)
def test_a_map_grows_lighter_or_darker_all_the_way_and_the_crosshair_is_another_colour(
    name: str, system: str, most: int | None
) -> None:
    found = shades(name, system)
    assert len(found) == N_SHADES
    light = [float(np.dot(each.get_truecolor(), (0.299, 0.587, 0.114))) for each in found]
    for side in (light[LEVELS:], light[LEVELS::-1]):
        steps = np.diff(side)
        assert (steps >= 0).all() or (steps <= 0).all()
        assert abs(side[-1] - side[0]) > 60
    crosshair = mark(name, system).get_truecolor()
    assert min(float(np.linalg.norm(np.subtract(crosshair, each.get_truecolor()))) for each in found) > 70
    assert all(each.number is None if most is None else each.number <= most for each in found)  # type: ignore[operator]


@quick
@given(rows, st.sampled_from([1e-3, 1.0, 50.0]))
def test_shades_follow_the_value(values: FloatArray, limit: float) -> None:
    numbers = shade_numbers(values, limit)
    for value, number in zip(values.tolist(), numbers.tolist(), strict=True):
        part = min(abs(value) / limit, 1.0) ** 0.7
        assert abs(number - LEVELS - (part if value > 0 else -part) * LEVELS) <= 0.5 + 1e-3


numbers = arrays.arrays(np.int64, st.integers(1, 60), elements=st.integers(0, 4))


@quick
@given(numbers, st.data())
def test_cells_are_those_of_a_loop(upper: IntArray, data: st.DataObject) -> None:
    lower = data.draw(arrays.arrays(np.int64, len(upper), elements=st.integers(0, 4)))
    colours = [Color.from_rgb(each, 0, 0) for each in range(5)]
    strip = Cells(colours).strip(upper, lower)
    assert strip.cell_length == len(upper)
    assert _seen(strip) == [(colours[top], colours[bottom]) for top, bottom in zip(upper, lower, strict=True)]
    assert sum(1 for _ in strip) == 1 + int(((np.diff(upper) != 0) | (np.diff(lower) != 0)).sum())


@quick
@given(numbers, st.data(), st.sampled_from(["truecolor", "256", "standard"]))
def test_a_line_is_written_as_textual_would_with_fewer_bytes(
    upper: IntArray, data: st.DataObject, system: Literal["truecolor", "256", "standard"]
) -> None:
    lower = data.draw(arrays.arrays(np.int64, len(upper), elements=st.integers(0, 4)))
    strip = Cells([Color.from_rgb(50 * each, 0, 0) for each in range(5)]).strip(upper, lower)
    console = Console(color_system=system)
    ours, theirs = strip.render(console), Strip(strip).render(console)
    assert _read(ours) == _read(theirs)
    assert len(ours) == len(theirs) - (sum(1 for _ in strip) - 1) * len("\x1b[0m")


def _read(written: str) -> list[tuple[str, Color | None, Color | None]]:
    """What a terminal shows of it, as rich reads escape sequences: character, its colour where it has one, and what is behind."""
    text = Text.from_ansi(written)
    styles = [text.get_style_at_offset(Console(), place) for place in range(len(text))]
    return [
        (character, style.color if character == "▀" else None, style.bgcolor)
        for character, style in zip(text.plain, styles, strict=True)
    ]


def _seen(strip: Strip) -> list[tuple[Color | None, Color | None]]:
    """What is seen in the upper and the lower half of each cell."""
    found = []
    for text, style, _ in strip:
        assert style is not None
        for character in text:
            assert character in " ▀"
            found.append((style.color if character == "▀" else style.bgcolor, style.bgcolor))
    return found
