"""Where a neuron is on the screen: arithmetic of zoom, columns and half cells."""

from dataclasses import dataclass

import numpy as np

from irm_lite.core.types import FloatArray

_MOST_HALVES = 8  # half cells a layer: a vector of one layer need not fill the screen


@dataclass(frozen=True)
class Window:
    """The part of a picture that is shown. In cells, but for `row` and `index`."""

    columns: int  # of all indices together, at this zoom
    halves: int  # half cells a layer
    left: int
    top: int
    width: int
    height: int
    row: int  # of the crosshair, among the picture's layers
    index: int  # of the crosshair


def zooms(hidden_size: int, width: int) -> list[int]:
    """Numbers of columns, from all indices on `width` cells, doubling, to one index a cell."""
    width = max(1, width)
    found = [min(hidden_size, width)]
    while found[-1] < hidden_size:
        found.append(min(hidden_size, 2 * found[-1]))
    return found


def halves_of(n_layers: int, height: int) -> int:
    """Half cells a layer, so that as many layers as possible are on `height` rows and the rows are used."""
    return max(1, min(_MOST_HALVES, 2 * height // n_layers))


def first_index(column: int, columns: int, hidden_size: int) -> int:
    """The first index of a column, as pool_signed_max cuts them."""
    return column * hidden_size // columns


def column_of(index: int, columns: int, hidden_size: int) -> int:
    """The column of an index: the last whose first index is not beyond it."""
    return ((index + 1) * columns - 1) // hidden_size


def shown_index(values: FloatArray, column: int, columns: int) -> int:
    """Of a layer's values (H,) the index that a column shows: that of the largest magnitude."""
    start, end = (first_index(each, columns, len(values)) for each in (column, column + 1))
    return start + int(np.abs(values[start:end]).argmax())
