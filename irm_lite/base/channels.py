"""What each index of the residual stream has to do with a model's weights, read from its files: no block is loaded."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from irm_lite.base.load import locate
from irm_lite.base.sources.folder_weights import folder_weights
from irm_lite.base.sources.gguf_read_once import gguf_read_once
from irm_lite.base.sources.gguf_weights import gguf_weights, skeleton
from irm_lite.core.errors import BaseModelError
from irm_lite.core.machine.quiet import quiet_libraries
from irm_lite.core.types import DoubleArray, Progress

_EMBEDDINGS, _HEAD, _FINAL = "model.embed_tokens.weight", "lm_head.weight", "model.norm.weight"
_NORMS = {"attention norms": "input_layernorm", "MLP norms": "post_attention_layernorm"}
_ROWS = 2048  # of a matrix at a time


def read_channels(name: str, on_progress: Progress = lambda done, of, what: None) -> dict[str, DoubleArray]:
    """By name, one value an index, (H,). `name`: a model as `load_base` takes it. Nothing is fetched.

    - final gain: |gain| of the norm before the head
    - head: L2 of the index's column of the head, (V, H) -> (H,); head x final gain: how strongly the index reaches the logits
    - embedding: the same of the embeddings, where they are not the head
    - attention norms, MLP norms: |gain| of the norms that read the stream, each to unit mean, mean over the blocks

    Raises BaseModelError where the model is not on this machine, or its parts are not called as in a Llama.
    """
    source = locate(name)
    place = source.gguf or source.folder()
    if place is None:
        raise BaseModelError(f"the weights of {name!r} are not on this machine", "give a folder, a .gguf file or a preset that is")
    weights = _weights(place)
    lacking = [each for each in (_EMBEDDINGS, _FINAL) if not hasattr(weights.get(each), "rows")]
    if lacking:
        raise BaseModelError(f"{place} has no {lacking[0]}", "inspect reads models whose parts are called as in a Llama")
    tied = _HEAD not in weights
    embedding = _column_norms(weights[_EMBEDDINGS], on_progress, "embeddings")
    final = weights[_FINAL][...].double().abs().numpy()
    head = embedding if tied else _column_norms(weights[_HEAD], on_progress, "head")
    found = {"final gain": final, "head": head, "head x final gain": head * final}
    found |= {} if tied else {"embedding": embedding}
    for title, norm in _NORMS.items():
        gains = [weights[each][...].double().abs().numpy() for each in weights if each.endswith(f".{norm}.weight")]
        if gains:
            found[title] = np.mean([gain / gain.mean() for gain in gains], axis=0)
    return found


def ranks(values: DoubleArray) -> DoubleArray:
    """Each index's place by size, (H,), 1: the largest. Equal values share the mean of their places."""
    from scipy.stats import rankdata

    places: DoubleArray = rankdata(-values)
    return places


def _weights(place: Path) -> dict[str, Any]:
    with quiet_libraries(), gguf_read_once():
        return {**(folder_weights(place) if place.is_dir() else gguf_weights(place, skeleton(place)))}


def _column_norms(matrix: Any, on_progress: Progress, what: str) -> DoubleArray:
    """L2 over the rows of a matrix (V, H) that is read a piece at a time, (H,)."""
    count, done = matrix.shape[0], 0
    total = torch.zeros(matrix.shape[1], dtype=torch.float64)
    while done < count:
        ids = torch.arange(done, min(done + _ROWS, count))
        total += matrix.rows(ids).double().square().sum(0)
        done += len(ids)
        on_progress(done, count, what)
    found: DoubleArray = total.sqrt().numpy()
    return found
