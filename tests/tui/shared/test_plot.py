"""Curves as characters, against the dots that Unicode says they are."""

import unicodedata

from hypothesis import given, settings
from hypothesis import strategies as st

from irm_lite_tui.shared.plot import bounds, braille, sparkline

quick = settings(deadline=None, max_examples=100)

# Unicode names a braille pattern by its dots: 1-3 and 7 are the left column from the top, 4-6 and 8 the right one.
PLACES = {1: (0, 0), 2: (0, 1), 3: (0, 2), 7: (0, 3), 4: (1, 0), 5: (1, 1), 6: (1, 2), 8: (1, 3)}


def dots(rows: list[list[tuple[str, int]]]) -> set[tuple[int, int]]:
    """(column, row) of each raised dot, by the names of the characters."""
    found = set()
    for y, row in enumerate(rows):
        for x, (character, _) in enumerate(row):
            if character != " ":
                for dot in unicodedata.name(character).removeprefix("BRAILLE PATTERN DOTS-"):
                    column, line = PLACES[int(dot)]
                    found.add((2 * x + column, 4 * y + line))
    return found


def test_a_diagonal() -> None:
    rows = braille([[(0, 0), (1, 1)]], 4, 2, (0, 1, 0, 1))
    assert dots(rows) == {(n, 7 - n) for n in range(8)}


@quick
@given(values=st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=60), width=st.integers(1, 30), height=st.integers(1, 8))
def test_every_point_has_its_dot_within_the_frame(values: list[float], width: int, height: int) -> None:
    points = [(float(x), y) for x, y in enumerate(values)]
    box = bounds([points])
    raised = dots(braille([points], width, height, box))
    assert all(0 <= x < 2 * width and 0 <= y < 4 * height for x, y in raised)
    lowest = min(points, key=lambda point: point[1])
    assert any(y == 4 * height - 1 for _, y in raised) or lowest[1] == box[3]
    assert {x for x, _ in raised} >= {0}


def test_the_cell_belongs_to_the_series_drawn_last() -> None:
    rows = braille([[(0, 0), (1, 0)], [(1, 0)]], 2, 1, (0, 1, 0, 1))
    assert [owner for _, owner in rows[0]] == [0, 1]


def test_sparkline() -> None:
    assert sparkline([0, 1, 2, 3, 4, 5, 6, 7], 8) == "▁▂▃▄▅▆▇█"
    assert sparkline([7, 7, 0, 0], 2) == "█▁"
    assert sparkline([3.0], 5) == "▁"
    assert sparkline([], 5) == ""
