"""A training of a few steps on a Llama of two layers or so."""

from pathlib import Path
from typing import Any

from irm_lite.config import TrainConfig


def config(folder: Path, **changes: Any) -> TrainConfig:
    settings: dict[str, Any] = {
        "model": str(folder),
        "quant": "none",
        "dtype": "float32",
        "device": "cpu",
        "max_steps": 6,
        "batch_size": 4,
        "irm": "lite",
        "rank": 4,
        "eval_steps": 2,
        "sample_tokens": 0,
    }
    return TrainConfig(**{**settings, **changes})
