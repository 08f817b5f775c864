"""When a training counts as diverging, and is ended."""

import math
from collections.abc import Sequence
from itertools import takewhile
from typing import Any

STEPS = 20  # in a row: spikes at a high learning rate are over sooner (docs/log.md)


def steps_far_above(history: Sequence[dict[str, Any]], vocabulary: int, allowance: float = 0.0) -> int:
    """How many of the newest losses, in a row, are above the first by more than ln(vocabulary) nats, the NLL of blind guessing: a
    model that far above has learnt less than nothing, even if its base knew everything. `allowance`: the most that penalties add.

    `history` is TrainerState.log_history, in which the entry of each step has "loss".
    """
    first = next((entry["loss"] for entry in history if "loss" in entry), math.inf)
    limit = first + allowance + math.log(vocabulary)
    newest = (entry["loss"] for entry in reversed(history) if "loss" in entry)
    return sum(1 for _ in takewhile(lambda loss: loss > limit, newest))


def lower_rate_hint(learning_rate: float) -> str:
    """The hint where a training diverges."""
    return f"train again with a --learning-rate below {learning_rate:g}; what was saved before is kept"
