"""What each index of the residual stream has to do with a model's weights, read from its files: no block is loaded."""

from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch

from irm_lite.base.architectures import TABLE, Architecture
from irm_lite.base.load import explain, locate
from irm_lite.base.sources.folder_weights import folder_weights
from irm_lite.base.sources.gguf_read_once import gguf_read_once
from irm_lite.base.sources.gguf_weights import gguf_weights, skeleton
from irm_lite.core.errors import BaseModelError, IrmLiteError
from irm_lite.core.files.reading import read_json
from irm_lite.core.machine.quiet import quiet_libraries
from irm_lite.core.types import DoubleArray, Progress

_EMBEDDINGS, _HEAD, _FINAL = "model.embed_tokens.weight", "lm_head.weight", "model.norm.weight"
_ROWS = 2048  # of a matrix at a time


def read_channels(name: str, on_progress: Progress = lambda done, of, what: None) -> dict[str, DoubleArray]:
    """By name, one value an index, (H,). `name`: a model as `load_base` takes it. Nothing is fetched.

    - final gain: |gain| of the norm before the head
    - head: L2 of the index's column of the head, (V, H) -> (H,); head x final gain: how strongly the index reaches the logits
    - embedding: the same of the embeddings, where they are not the head
    - attention norms, MLP norms: |gain| of the norms that read the stream, each to unit mean, mean over the blocks; left out where
      an architecture has none (OLMo 2 normalises what its blocks put out); those whose gains are all 0 do not count

    Raises BaseModelError where the model is not on this machine, its parts are not called as in a Llama, or they are damaged.
    """
    source = locate(name)
    place = source.gguf or source.folder()
    if place is None:
        raise BaseModelError(f"the weights of {name!r} are not on this machine", "give a folder, a .gguf file or a preset that is")
    try:
        weights, known = _weights(place)
    except IrmLiteError:
        raise
    except Exception as error:  # transformers', where it reads no GGUF of this architecture
        raise explain(error, source, "model") from error
    lacking = [each for each in (_EMBEDDINGS, _FINAL) if not hasattr(weights.get(each), "rows")]
    if lacking:
        raise BaseModelError(f"{place} has no {lacking[0]}", "inspect reads models whose parts are called as in a Llama")
    tied = _HEAD not in weights
    reading = {"attention norms": known.attn_norm, "MLP norms": known.reads}
    norms = {title: [each for each in weights if norm and each.endswith(f".{norm}.weight")] for title, norm in reading.items()}
    _require_fitting(weights, [_EMBEDDINGS] if tied else [_EMBEDDINGS, _HEAD], [_FINAL, *chain(*norms.values())], place)
    embedding = _column_norms(weights[_EMBEDDINGS], on_progress, "embeddings")
    final = (weights[_FINAL][...].double() + known.shift).abs().numpy()
    head = embedding if tied else _column_norms(weights[_HEAD], on_progress, "head")
    found = {"final gain": final, "head": head, "head x final gain": head * final}
    found |= {} if tied else {"embedding": embedding}
    for title, names in norms.items():
        gains = [(weights[each][...].double() + known.shift).abs().numpy() for each in names]
        with np.errstate(invalid="ignore"):  # infinity is told below
            heard = [gain / gain.mean() for gain in gains if gain.any()]
        if heard:
            found[title] = np.mean(heard, axis=0)
    for title, values in found.items():
        if not np.isfinite(values).all():
            raise BaseModelError(f"there is NaN or infinity in what {place} has for its {title}", "download or convert it again")
    return found


def _require_fitting(weights: Mapping[str, Any], matrices: Sequence[str], norms: Sequence[str], place: Path) -> None:
    """Raise BaseModelError unless the matrices are (V, H) of one H, and the norms' gains (H,)."""
    shapes = {each: tuple(weights[each].shape) for each in (*matrices, *norms)}
    width = shapes[_EMBEDDINGS][-1:]
    for name, shape in shapes.items():
        sound = len(shape) == 2 and shape[0] > 0 and shape[1:] == width if name in matrices else shape == width
        if not sound:
            raise BaseModelError(f"{name} of {place} has shape {shape}, which fits no model", "download or convert it again")


def ranks(values: DoubleArray) -> DoubleArray:
    """Each index's place by size, (H,), 1: the largest. Equal values share the mean of their places."""
    from scipy.stats import rankdata

    places: DoubleArray = rankdata(-values)
    return places


def _weights(place: Path) -> tuple[dict[str, Any], Architecture]:
    """By name, and how the blocks are built; what is not in the table is read as a Llama."""
    with quiet_libraries(), gguf_read_once():
        if place.is_dir():
            return {**folder_weights(place)}, TABLE.get(_model_type(place / "config.json"), TABLE["llama"])
        model = skeleton(place)
        return {**gguf_weights(place, model)}, TABLE.get(str(model.config.model_type), TABLE["llama"])


def _model_type(path: Path) -> str:
    """As transformers has it, of a configuration's text part."""
    try:
        config = read_json(path)
    except (OSError, ValueError) as error:
        raise BaseModelError(f"{path} is not readable JSON ({error})", "download or convert it again") from None
    part = config.get("text_config", config) if isinstance(config, dict) else {}
    return str(part.get("model_type")) if isinstance(part, dict) else ""


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
