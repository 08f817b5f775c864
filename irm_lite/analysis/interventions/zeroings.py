"""What zeroing one index after another changes, each measured once, those that break the model apart."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from irm_lite.analysis.interventions.changed import Where, zeroed
from irm_lite.analysis.interventions.measured import Changes, Measured
from irm_lite.core.errors import InputError

if TYPE_CHECKING:
    from irm_lite.runs.trained import TrainedRun

_MOST_BROKEN = 100  # before it is given up to find indices to match with


class Zeroings:
    """`changes` by index; `broken` are those without which the model puts out NaN. `on_measured` is called after each."""

    def __init__(self, run: "TrainedRun", where: Where, before: Measured, on_measured: Callable[["Zeroings"], None]) -> None:
        self.changes: dict[int, Changes] = {}
        self.broken: set[int] = set()
        self._run, self._where, self._before, self._on_measured = run, where, before, on_measured

    def measure(self, index: int, sharp: bool) -> bool:
        """Zero it, unless that was done (with temperatures or without: ask for them first). False where that breaks the model."""
        if index not in self.broken and index not in self.changes:
            found = self._before.changes(zeroed(self._run, index, self._where), sharp)
            if found is None:
                self.broken.add(index)
            else:
                self.changes[index] = found
            self._on_measured(self)
        return index not in self.broken

    def matched(self, index: int, nearest: Sequence[int], count: int) -> list[int]:
        """The first of `nearest` until `count` of them leave a model that works, with the broken ones between. Raises InputError
        where hardly one does."""
        tried: list[int] = []
        for each in nearest:
            sound = self.sound(tried)
            if len(sound) == count or len(tried) - len(sound) > _MOST_BROKEN:
                break
            self.measure(each, True)
            tried.append(each)
        if len(self.sound(tried)) < 2:
            raise InputError(f"beside {index} the model puts out NaN with any other like it zeroed", "leave out --hold-norms")
        return tried

    def sound(self, indices: Sequence[int]) -> list[int]:
        """Those whose zeroing left the model numbers to put out."""
        return [each for each in indices if each in self.changes]
