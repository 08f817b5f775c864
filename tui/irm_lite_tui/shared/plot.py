"""Curves as characters: sparklines of eighth blocks, plots of braille dots (2 x 4 in a cell)."""

from collections.abc import Sequence
from itertools import pairwise

Point = tuple[float, float]

_BLOCKS = "▁▂▃▄▅▆▇█"
_DOTS = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))  # bits by column, then by row from the top


def sparkline(values: Sequence[float], width: int) -> str:
    """At most `width` blocks, each the mean of its share of the values; the lowest block is the smallest mean."""
    if not values:
        return ""
    width = min(width, len(values))
    edges = [len(values) * column // width for column in range(width + 1)]
    means = [sum(values[low:high]) / (high - low) for low, high in pairwise(edges)]
    low, high = min(means), max(means)
    span = (high - low) or 1.0
    return "".join(_BLOCKS[round((mean - low) / span * (len(_BLOCKS) - 1))] for mean in means)


def bounds(series: Sequence[Sequence[Point]]) -> tuple[float, float, float, float]:
    """(x low, x high, y low, y high) of all points, never empty ranges."""
    points = [point for each in series for point in each] or [(0.0, 0.0)]
    low_x, high_x = min(x for x, _ in points), max(x for x, _ in points)
    low_y, high_y = min(y for _, y in points), max(y for _, y in points)
    return low_x, high_x if high_x > low_x else low_x + 1, low_y, high_y if high_y > low_y else low_y + 1


def braille(
    series: Sequence[Sequence[Point]], width: int, height: int, box: tuple[float, float, float, float]
) -> list[list[tuple[str, int]]]:
    """`height` rows of `width` cells, each a character and the number of the series drawn last in it (-1: none).

    Neighbouring points of a series are joined by straight lines; `box` is (x low, x high, y low, y high).
    """
    low_x, high_x, low_y, high_y = box
    bits = [[0] * width for _ in range(height)]
    owners = [[-1] * width for _ in range(height)]

    def dot(column: int, row: int, owner: int) -> None:
        if 0 <= column < 2 * width and 0 <= row < 4 * height:
            bits[row // 4][column // 2] |= _DOTS[column % 2][row % 4]
            owners[row // 4][column // 2] = owner

    for owner, points in enumerate(series):
        placed = [
            (
                round((x - low_x) / (high_x - low_x) * (2 * width - 1)),
                round((high_y - y) / (high_y - low_y) * (4 * height - 1)),
            )
            for x, y in points
        ]
        if len(placed) == 1:
            dot(*placed[0], owner)
        for (x0, y0), (x1, y1) in pairwise(placed):
            steps = max(abs(x1 - x0), abs(y1 - y0), 1)
            for step in range(steps + 1):
                dot(round(x0 + (x1 - x0) * step / steps), round(y0 + (y1 - y0) * step / steps), owner)
    return [
        [(chr(0x2800 + mask) if mask else " ", owner) for mask, owner in zip(*row, strict=True)]
        for row in zip(bits, owners, strict=True)
    ]
