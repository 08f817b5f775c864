"""When a training is given up as diverging."""

import math
from collections.abc import Sequence
from itertools import takewhile
from typing import Any

from transformers import TrainingArguments

STEPS = 20  # running: spikes at a high learning rate are over sooner (docs/log.md)


def steps_far_above(history: Sequence[dict[str, Any]], vocabulary: int, allowance: float = 0.0) -> int:
    """How many of the newest losses, running, are above the first by more than ln(vocabulary) nats, what guessing blindly costs: by
    then even a base that knew everything would know less than nothing. `allowance`: what penalties may add at the most.

    `history` is TrainerState.log_history, of which each step's entry has "loss".
    """
    first = next((entry["loss"] for entry in history if "loss" in entry), math.inf)
    limit = first + allowance + math.log(vocabulary)
    newest = (entry["loss"] for entry in reversed(history) if "loss" in entry)
    return sum(1 for _ in takewhile(lambda loss: loss > limit, newest))


def lower_rate(args: TrainingArguments) -> str:
    """What to try where a training diverges."""
    return f"train anew with a --learning-rate below {args.learning_rate:g}; what was saved before is kept"
