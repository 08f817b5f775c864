"""Recordings made on the spot, by numpy alone."""

from pathlib import Path

import numpy as np

from irm_lite.analysis.recordings.recording import Description, HalfArray, Phase, Prompt, Recording, Statistics
from irm_lite.base.fingerprint import Fingerprint

LAYERS = [2, 3, 5]
HIDDEN = 40


def outputs(seed: int, tokens: int, hidden_size: int = HIDDEN, n_layers: int = len(LAYERS)) -> HalfArray:
    """(T, L, H) as an IRM puts them out: striations and noise."""
    random = np.random.default_rng(seed)
    return (random.standard_normal(hidden_size) + random.standard_normal((tokens, n_layers, hidden_size))).astype(np.float16)


def write_recording(
    folder: Path,
    texts: list[list[str]],
    seed: int = 0,
    run: str = "angry",
    layers: list[int] | None = None,
    hidden_size: int = HIDDEN,
) -> list[HalfArray]:
    """A recording whose prompts have these tokens, the first two of each being the prompt's. Returns their outputs."""
    layers = LAYERS if layers is None else layers
    vectors = [outputs(seed + number, len(each), hidden_size, len(layers)) for number, each in enumerate(texts)]
    parts: dict[Phase, list[HalfArray]] = {"prompt": [v[:2] for v in vectors], "generated": [v[2:] for v in vectors]}
    about = Description(
        run=run,
        data="anger",
        kind="lite",
        site="block",
        layers=layers,
        hidden_size=hidden_size,
        base=Fingerprint("llama", 8, hidden_size, "0" * 64),
        measured_in="transformers",
        weights="tiny",
        prompts=[Prompt(f"question {number}", each, 2) for number, each in enumerate(texts)],
        n_prompts=len(texts),
    )
    statistics = {phase: _statistics(np.concatenate(part).astype(np.float64)) for phase, part in parts.items()}
    Recording(about, statistics, vectors).save(folder)
    return vectors


def _statistics(values: np.ndarray) -> Statistics:
    shape = values.shape[1:]
    nothing = np.zeros(shape, dtype=np.int64)
    return Statistics(
        tokens=len(values),
        mean=values.mean(0),
        mean_abs=np.abs(values).mean(0),
        deviations=np.square(values - values.mean(0)).sum(0),
        minimum=values.min(0).astype(np.float32),
        maximum=values.max(0).astype(np.float32),
        near_zero=np.zeros(shape[0]),
        in_top=nothing,
        largest_in_layer=nothing,
        largest_of_all=nothing,
        top=10,
    )
