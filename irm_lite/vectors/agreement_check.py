"""Both runtimes on one model: a run's base against a GGUF, or a GGUF alone."""

from pathlib import Path
from typing import TYPE_CHECKING

from irm_lite.base.load import locate
from irm_lite.core.errors import BaseModelError
from irm_lite.data.encoding import Sample
from irm_lite.llamacpp.agreement import Compared, disagreement
from irm_lite.runs.trained import TrainedRun

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def disagreement_on(run: TrainedRun, gguf: Path, *, allowed: bool) -> str | None:
    """What is to be said of the two. Raises as `disagreement` does, unless it is `allowed` or was in training."""
    base = Compared(locate(run.config.model, run.config.download), run.tokenizer, run.__dict__.get("base"))
    return disagreement(base, gguf, run.held_out, allowed=allowed or run.allows_disagreement(gguf))


def disagreement_of_file(gguf: Path, tokenizer: "PreTrainedTokenizerBase", samples: list[Sample]) -> str | None:
    """Of the file in both runtimes: only llama.cpp is needed here, but what was trained was trained in transformers."""
    try:
        return disagreement(Compared.of_file(gguf, tokenizer), gguf, samples, allowed=True)
    except BaseModelError:  # transformers has nothing to do with it, or llama.cpp says itself what is wrong
        return None
