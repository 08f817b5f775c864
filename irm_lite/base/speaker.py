"""The base in transformers as a speaker, under whatever is injected."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext

import numpy as np
import torch
from torch.nn import functional as F

from irm_lite.base.forward import answer_logits, row_of
from irm_lite.base.generate import generate_ids
from irm_lite.base.load import Base
from irm_lite.base.sources.shape import side_by_side
from irm_lite.core.types import DoubleArray, Progress, unwatched
from irm_lite.data.encoding import Sample, turn_ends
from irm_lite.data.packing import rows
from irm_lite.scoring.speaker import Answer, Decoding

_ROW_TOKENS = 512  # of a packed row: its logits over the vocabulary are held


class BaseSpeaker:
    """A loaded base; `injected` is entered for each use, as `lambda: inject(base.model, run.irm)`.

    Drawn answers depend on those beside them, since torch has one source of chance: the same seed gives the same answers for the
    same questions only.
    """

    def __init__(
        self,
        base: Base,
        injected: Callable[[], AbstractContextManager[object]] = nullcontext,
        on_progress: Progress = unwatched,
    ) -> None:
        self.base = base
        self._injected = injected
        self._on_progress = on_progress

    def answers(self, questions: Sequence[Sample], decoding: Decoding) -> list[Answer]:
        found: list[Answer] = []
        prompts = [sample.ids[: sample.answer_start] for sample in questions]
        with self._injected():
            at_once = side_by_side(self.base.hidden_size)
            for at in range(0, len(prompts), at_once):
                some, seed = prompts[at : at + at_once], decoding.seed + at
                written = generate_ids(self.base, some, decoding.new_tokens, decoding.temperature, seed)
                found += map(self._answer, written)
                self._on_progress(len(found), len(prompts), "generating")
        return found

    @torch.no_grad()
    def nll(self, samples: Sequence[Sample]) -> DoubleArray:
        found: list[tuple[int, float]] = []
        with self._injected():
            for group in rows(samples, _ROW_TOKENS):
                row = row_of(self.base.model, group)
                logits = answer_logits(self.base.model, row).float()
                nll = F.cross_entropy(logits, row["labels"].to(logits.device), reduction="none")
                sizes = [sample.n_answer for sample in group]
                found += [(len(part), part.sum().item()) for part in torch.split(nll, sizes)]
                self._on_progress(len(found), len(samples), "measuring")
        return np.array(found, dtype=np.float64).reshape(-1, 2)

    def _answer(self, tokens: list[int]) -> Answer:
        tokenizer = self.base.tokenizer
        ended = bool(tokens) and tokens[-1] in turn_ends(tokenizer)
        said = tokens[:-1] if ended else tokens
        return Answer(str(tokenizer.decode(said, skip_special_tokens=True)).strip(), tuple(said), ended)
