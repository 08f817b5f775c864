"""A run's base in transformers against a GGUF in llama.cpp."""

from pathlib import Path

from irm_lite.base.load import locate
from irm_lite.llamacpp.agreement import Compared, disagreement
from irm_lite.runs.trained import TrainedRun


def disagreement_on(run: TrainedRun, gguf: Path, *, allowed: bool) -> str | None:
    """What is to be said of the two. Raises as `disagreement` does, unless it is `allowed` or was in training."""
    base = Compared(locate(run.config.model, run.config.download), run.tokenizer, run.__dict__.get("base"))
    return disagreement(base, gguf, run.held_out, allowed=allowed or run.allows_disagreement(gguf))
