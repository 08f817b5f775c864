"""A curve of any length in bounded memory."""

LIMIT = 2048  # points kept; a screen has fewer columns


class Curve:
    """Points (x, y) with rising x. Whenever LIMIT are kept, every second one is dropped, and of new ones as many."""

    def __init__(self) -> None:
        self._kept: list[tuple[float, float]] = []
        self._last: tuple[float, float] | None = None
        self._stride, self._passed = 1, 0

    def add(self, x: float, y: float) -> None:
        """Add a point; where x is not beyond the last one (a resumed run), what lies at or after x is cut off first."""
        if self._last is not None and x <= self._last[0]:
            self._kept = [point for point in self._kept if point[0] < x]
        self._last = (x, y)
        self._passed += 1
        if self._passed >= self._stride:
            self._passed = 0
            self._kept.append(self._last)
            if len(self._kept) >= LIMIT:
                self._kept = self._kept[::2]
                self._stride *= 2

    @property
    def points(self) -> list[tuple[float, float]]:
        """What is kept, the newest point always among it."""
        newest = [] if self._last is None or self._kept[-1:] == [self._last] else [self._last]
        return self._kept + newest

    @property
    def values(self) -> list[float]:
        return [y for _, y in self.points]

    @property
    def last(self) -> float | None:
        return None if self._last is None else self._last[1]
