"""A dial as people read it: a table of at most 80 columns, the best strength, and how evenly it turns."""

from typing import TYPE_CHECKING

from rich.console import RenderableType
from rich.table import Table

if TYPE_CHECKING:
    from irm_lite.vectors.dial import Dial, Point

_BAR = 10  # cells from the lowest preference to the highest


def dial_shown(dial: "Dial") -> list[RenderableType]:
    """The table, the verdict, the two figures of the dial, and what could not be measured, a line each."""
    score = dial.best.score
    size = f"{score.size}, greedy (docs/score.md); preference in nats a token"
    return [size, _table(dial), *_verdict(dial), _rising(dial), _half(dial), *(f"not measured: {line}" for line in score.lacks)]


def _table(dial: "Dial") -> Table:
    table = Table()
    for name in ("strength", "preference", "tone", "sense", "fluency", "score (95%)"):
        table.add_column(name, justify="left" if name == "preference" else "right", no_wrap=True)
    for point in dial.points:
        parts = [f"{point.score.figures[name]:.2f}" for name in ("tone", "sense", "fluency")]
        low, high = point.value_95
        value = f"{point.value:.2f} ({low:.2f} to {high:.2f})" if point.strength > 0 else ""
        style = "bold" if point is dial.best else None
        table.add_row(f"{point.strength:g}", f"{point.preference:+6.2f} {_bar(point, dial)}", *parts, value, style=style)
    return table


def _bar(point: "Point", dial: "Dial") -> str:
    """From 0, to the left where the neutral answers are preferred."""
    values = [0.0, *(each.preference for each in dial.points)]
    low, high = min(values), max(values)
    zero, end = (round(_BAR * (value - low) / (high - low or 1)) for value in (0.0, point.preference))
    return " " * min(zero, end) + "█" * abs(end - zero) if end < zero else " " * zero + "▏" + "█" * (end - zero)


def _verdict(dial: "Dial") -> list[str]:
    best, one = dial.best, dial.at(1.0)
    if not best.value > 0:
        return ["no strength has a score: at each of them a part of it is 0"]
    low, high = best.value_95
    line = f"best: strength {best.strength:g}, score {best.value:.2f} ({low:.2f} to {high:.2f}), "
    line += f"not corrected for choosing the best of {len(dial.tried)}"
    if one is not None and one is not best and low <= one.value <= high:
        line += f"; strength 1 is within its interval ({one.value:.2f})"
    at_the_end = best is dial.points[-1] and len(dial.tried) > 1
    return [line, "it is the largest that was tried: try larger ones with --strengths"] if at_the_end else [line]


def _rising(dial: "Dial") -> str:
    from irm_lite.vectors.dial import RISING

    between = f"between {dial.ranked[0].strength:g} and {dial.ranked[-1].strength:g}"
    if dial.correlations is None:
        return f"too few strengths {between} to say how steadily preference rises"
    count = int((dial.correlations >= RISING).sum())
    asked = f"rank correlation {RISING:g} or more"
    return f"preference rises with strength {between} in {count} of {len(dial.correlations)} questions ({asked})"


def _half(dial: "Dial") -> str:
    if dial.half is None or dial.half_95 is None:
        return "how straight the dial is cannot be said: it takes strengths 0.5 and 1, and a strength 1 that raises preference"
    low, high = dial.half_95
    return f"half strength has {dial.half:.2f} ({low:.2f} to {high:.2f}) of the effect of strength 1 on preference; 0.5 is straight"
