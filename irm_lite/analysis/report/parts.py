"""What a report's page is put together from: tables of cells, charts of dots. No layout, no HTML."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

_FOLD_FROM = 25  # a table of more rows is folded
_CHART_ROWS = 40  # a chart of more would be taller than a screen


@dataclass(frozen=True)
class Cell:
    """What is shown, and what it is sorted by. `bars` are drawn as a small chart instead; `shade` in -1..1 colours it."""

    text: str
    value: float | None = None
    bars: tuple[float, ...] = ()
    shade: float | None = None

    @property
    def key(self) -> float | str:
        return self.text if self.value is None else self.value

    @property
    def is_number(self) -> bool:
        return self.value is not None


@dataclass(frozen=True)
class Table:
    title: str
    columns: list[str]
    rows: list[list[Cell]]
    note: str = ""

    @property
    def folded(self) -> bool:
        return len(self.rows) > _FOLD_FROM

    def is_numeric(self, column: int) -> bool:
        return any(row[column].is_number for row in self.rows)


@dataclass(frozen=True)
class Mark:
    """A row of a chart: a dot with its interval, a band of what chance or controls give, a hollow dot to compare with."""

    label: str
    value: float
    interval: Sequence[float] | None = None
    band: Sequence[float] | None = None
    other: float | None = None


@dataclass(frozen=True)
class Chart:
    """Dots on one axis. `place` gives the percentage of the axis' length for a value."""

    title: str
    unit: str
    marks: list[Mark]

    @property
    def ends(self) -> tuple[float, float]:
        values = [0.0]
        for mark in self.marks:
            values += [mark.value, *(mark.interval or ()), *(mark.band or ())] + ([] if mark.other is None else [mark.other])
        margin = 0.04 * (max(values) - min(values)) or 1.0
        return min(values) - margin, max(values) + margin

    def place(self, value: float) -> float:
        low, high = self.ends
        return round(100 * (value - low) / (high - low), 2)


@dataclass(frozen=True)
class Section:
    heading: str
    text: str
    charts: list[Chart] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)


def table(title: str, columns: list[str], rows: list[list[Cell]], note: str = "") -> list[Table]:
    """The table without columns that are empty in every row; no table where there are no rows."""
    filled = [column for column in range(len(columns)) if any(row[column].text or row[column].bars for row in rows)]
    if not rows:
        return []
    return [Table(title, [columns[each] for each in filled], [[row[each] for each in filled] for row in rows], note)]


def said_once(table: Table, columns: Sequence[str]) -> Table:
    """Those of `columns` that hold one text in all of several rows go into the note: a page has room for what differs."""
    texts = {name: {row[number].text for row in table.rows} for number, name in enumerate(table.columns) if name in columns}
    same = {name: found.pop() for name, found in texts.items() if len(found) == 1 and len(table.rows) > 1}
    if not same:
        return table
    kept = [number for number, name in enumerate(table.columns) if name not in same]
    note = "The same in all: " + ", ".join(f"{name} {text}" for name, text in same.items()) + "."
    rows = [[row[number] for number in kept] for row in table.rows]
    return Table(table.title, [table.columns[number] for number in kept], rows, " ".join(filter(None, (table.note, note))))


def chart(title: str, unit: str, marks: list[Mark]) -> list[Chart]:
    return [Chart(title, unit, marks)] if 0 < len(marks) <= _CHART_ROWS else []


def shown(value: float) -> str:
    """Three decimals; two digits of what they would not show."""
    return f"{value:.3f}" if value == 0 or 5e-3 <= abs(value) < 1e3 else f"{value:.{2 if abs(value) < 1 else 6}g}"


def _when_there(show: Callable[[float], str]) -> Callable[[float | None], Cell]:
    return lambda value: Cell("") if value is None else Cell(show(value), float(value))


number = _when_there(shown)
count = _when_there(lambda value: f"{value:.10g}")
p_value = _when_there(lambda value: f"{value:.2g}")


def estimate(value: float, interval: Sequence[float]) -> Cell:
    return Cell(f"{shown(value)} [{shown(interval[0])}, {shown(interval[1])}]", value)


def null(permuted: Mapping[str, float]) -> Cell:
    """A Permuted's null: its mean, and its 95th percentile in brackets."""
    if not permuted:
        return Cell("")
    return Cell(f"{shown(permuted['null_mean'])} ({shown(permuted['null_95th'])})", permuted["null_mean"])


def bars(values: Sequence[float]) -> Cell:
    """By layer; sorted by the mean."""
    return Cell("", sum(values) / len(values), tuple(values)) if values else Cell("")
