"""When a training is given up as diverging."""

import math
from collections.abc import Sequence
from itertools import islice
from typing import Any

STEPS = 20  # running: spikes at a high learning rate are over sooner (docs/log.md)


def diverges(history: Sequence[dict[str, Any]], vocabulary: int, allowance: float = 0.0) -> bool:
    """Whether each of the last STEPS losses is above the first by more than ln(vocabulary) nats, what guessing blindly costs: by
    then even a base that knew everything would know less than nothing. `allowance`: what penalties may add at the most.

    `history` is TrainerState.log_history, of which each step's entry has "loss".
    """
    limit = allowance + math.log(vocabulary)
    last = list(islice((entry["loss"] for entry in reversed(history) if "loss" in entry), STEPS))
    first = next((entry["loss"] for entry in history if "loss" in entry), 0.0)
    return len(last) == STEPS and min(last) > first + limit
