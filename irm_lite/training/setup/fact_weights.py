"""Words that carry the fact count more: a tone is learned soon, by phrases that come in every answer, and facts get lost."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from irm_lite.data.encoding import Sample
from irm_lite.data.example import Example
from irm_lite.scoring.recall import key_spans, key_words


def with_fact_weights(
    samples: Sequence[Sample], plain: Mapping[str, Example], decode: Callable[[list[int]], str], weight: float
) -> list[Sample]:
    """The samples, in which a token of a word that the neutral answer to the same question has too counts `weight` times.

    `plain`: neutral answers by question; samples without one are as they were. `decode` makes text of token ids.
    """
    return [_weighted(sample, plain.get(sample.example.subject), decode, weight) for sample in samples]


def _weighted(sample: Sample, plain: Example | None, decode: Callable[[list[int]], str], weight: float) -> Sample:
    if plain is None:
        return sample
    answer = sample.ids[sample.answer_start :]
    ends = [len(decode(answer[: at + 1])) for at in range(len(answer))]  # token by token, blanks would be lost
    spans = key_spans(decode(answer), key_words(sample.example, plain))
    starts = [0, *ends[:-1]]
    told = [any(start < to and at < end for at, to in spans) for start, end in zip(starts, ends, strict=True)]
    return replace(sample, weights=tuple(weight if each else 1.0 for each in told)) if any(told) else sample
