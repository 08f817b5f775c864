"""From turns to figures: medians over rounds with their range."""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

Turn = Mapping[str, Any]  # as Turns.step says it
RIVALS = ("qlora", "qlora-bf16", "paper")  # what others are held against
PRODUCTS = ("products", "products-float32")  # what the machine can do, in the format that training takes here and in float32


@dataclass(frozen=True)
class Spread:
    """A figure over rounds."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float]) -> "Spread":
        values = list(values)
        return cls(statistics.median(values), min(values), max(values))


def speed(
    turns: Mapping[str, Sequence[Turn]], peak_tflops: float | None = None, formats: Mapping[str, str] | None = None
) -> dict[str, dict[str, Any]]:
    """Of each contender's turns, the warm-up left out: rates, and ratios of real tokens/s to the rivals' of the same round.

    `formats`: the number format by contender; with it the share of the plain products' rate in that format, where it was measured.
    """
    found: dict[str, dict[str, Any]] = {}
    for name, own in turns.items():
        row = {
            "supervised_per_second": rates(own, "supervised"),
            "real_per_second": rates(own, "real"),
            "samples_per_second": rates(own, "samples"),
            "ms_per_step": [1000 * turn["seconds"] / turn["steps"] for turn in own],
        }
        for rival in RIVALS:
            if rival in turns:
                pairs = zip(row["real_per_second"], rates(turns[rival], "real"), strict=True)
                row[f"times_{rival}"] = [mine / theirs for mine, theirs in pairs]
        if peak_tflops is not None:
            row["flops_utilisation"] = [rate / (peak_tflops * 1e12) for rate in rates(own, "flops")]
        same = [each for each in PRODUCTS if formats and each in turns and formats[each] == formats[name]]
        if same:
            pairs = zip(rates(own, "flops"), rates(turns[same[0]], "flops"), strict=True)
            row["share_of_products"] = [mine / possible for mine, possible in pairs]
        found[name] = {key: asdict(Spread.of(values)) for key, values in row.items()}
    return found


def rates(turns: Sequence[Turn], what: str) -> list[float]:
    """So many a second in each turn."""
    return [turn[what] / turn["seconds"] for turn in turns]


def seconds_until(turns: Sequence[Turn], nll: float) -> float | None:
    """Seconds of training at the first measurement that is no worse; None where none is."""
    seconds = 0.0
    for turn in turns:
        seconds += float(turn["seconds"])
        if float(turn["nll"]) <= nll:
            return seconds
    return None
