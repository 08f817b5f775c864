"""Settings that somebody gave and that do nothing in this training: a line each, since silence would be taken for an effect.

What is at the kind's own default may have been left to it, and is not told.
"""

from collections.abc import Iterator, Sequence

from irm_lite.config import KINDS, TrainConfig
from irm_lite.data.encoding import Sample
from irm_lite.training.step.own_repeats import EVERY


def idle_settings(config: TrainConfig, samples: Sequence[Sample], max_steps: int) -> Iterator[str]:
    """`samples`: of the training, with the weights of their tokens."""
    facts = KINDS[config.irm]
    if config.rank not in (0, facts.rank) and "rank" not in facts.options:
        yield f"--rank does nothing: a {config.irm} IRM has none"
    if config.width != TrainConfig.width and "width" not in facts.options:
        yield f"--width does nothing: a {config.irm} IRM has none"
    if config.dependence_penalty > 0 and facts.reads == "nothing":
        yield f"--dependence-penalty does nothing: what a {config.irm} IRM adds depends on nothing"
    if config.fact_weight not in (-1, 1, facts.fact_weight) and not any(sample.weights for sample in samples):
        yield "--fact-weight does nothing: no training answer has a neutral one to the same question beside it"
    short = max_steps <= EVERY
    if short or not any(sample.example.messages for sample in samples):
        where = f"a training of {max_steps} steps" if short else "data without questions"
        for name in ("loop_penalty", "phrase_penalty"):
            if getattr(config, name) not in (-1, 0, getattr(facts, name)):
                yield f"--{name.replace('_', '-')} does nothing: in {where} no answers of the model's own are looked at"
