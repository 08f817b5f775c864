"""A run's prompts against those of llama-server on a GGUF."""

from pathlib import Path

from irm_lite.base.architecture import text_config
from irm_lite.base.sources.shape import base_shape
from irm_lite.core.errors import InputError
from irm_lite.llamacpp.prompts import PromptCheck, check_prompts
from irm_lite.runs.trained import TrainedRun


def prompts_on(run: TrainedRun, gguf: Path) -> PromptCheck:
    """What the whole dataset of the run shows of this file. Raises as `check_prompts` does."""
    data = run.dataset
    return check_prompts(run.tokenizer, _rows(run), gguf, [*data.train, *data.validation, *data.test])


def _rows(run: TrainedRun) -> int | None:
    """The embeddings of the run's base; None where they are not known without loading it."""
    if "base" in run.__dict__:
        return int(text_config(run.base.model).vocab_size)
    try:
        return base_shape(run.config.model).vocabulary
    except InputError:
        return None
