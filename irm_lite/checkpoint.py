"""What a resumed training needs, without a pickle: tensors as safetensors, the rest as JSON."""

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import torch

from irm_lite.errors import RunError
from irm_lite.reading import open_ordinary, read_json
from irm_lite.tensors import save_tensors

OPTIMIZER, SCHEDULER, RNG = "optimizer", "scheduler", "rng"


def save_state(folder: Path, name: str, state: Any) -> None:
    """Write a nested state dict: its tensors into NAME.safetensors, its shape and plain values into NAME.json."""
    tensors: dict[str, torch.Tensor] = {}
    tree = _strip(state, tensors)
    save_tensors(folder / f"{name}.safetensors", tensors)
    (folder / f"{name}.json").write_text(json.dumps(tree), encoding="utf-8")


def load_state(folder: Path, name: str) -> Any:
    """Read what `save_state` wrote, tensors on the CPU. Raises RunError where it is missing or damaged."""
    from safetensors.torch import load_file

    try:
        tree = read_json(folder / f"{name}.json")
        open_ordinary(folder / f"{name}.safetensors").close()
        return _restore(tree, load_file(folder / f"{name}.safetensors"))
    except Exception as error:  # whatever is wrong inside, the files are not what `save_state` wrote
        why = " ".join(str(error).split())[:200]
        raise RunError(f"the checkpoint {folder} is damaged ({why})", "remove it and resume from the one before") from None


def rng_state() -> dict[str, Any]:
    """The random states of Python, NumPy, torch and every CUDA device."""
    kind, keys, position, has_gauss, gauss = np.random.get_state()
    state: dict[str, Any] = {
        "python": random.getstate(),
        "numpy": [kind, torch.from_numpy(np.asarray(keys).astype(np.int64)), position, has_gauss, gauss],
        "torch": torch.random.get_rng_state(),
    }
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.random.get_rng_state_all()
    return state


def set_rng_state(state: dict[str, Any]) -> None:
    """Restore what `rng_state` gave."""
    version, internal, gauss_next = state["python"]
    random.setstate((version, tuple(internal), gauss_next))
    kind, keys, *rest = state["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), *rest))
    torch.random.set_rng_state(state["torch"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.random.set_rng_state_all(state["cuda"])


def _strip(value: Any, tensors: dict[str, torch.Tensor]) -> Any:
    if isinstance(value, torch.Tensor):
        key = str(len(tensors))
        tensors[key] = value.detach().cpu().contiguous().clone()
        return {"tensor": key}
    if isinstance(value, dict):
        return {"dict": [[key, _strip(item, tensors)] for key, item in value.items()]}  # pairs: keys may be int
    if isinstance(value, list | tuple):
        return {"list": [_strip(item, tensors) for item in value]}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"a {type(value).__name__} cannot be kept in a checkpoint")


def _restore(tree: Any, tensors: dict[str, torch.Tensor]) -> Any:
    if not isinstance(tree, dict):
        return tree
    if "tensor" in tree:
        return tensors[tree["tensor"]]
    if "dict" in tree:
        return {key: _restore(item, tensors) for key, item in tree["dict"]}
    return [_restore(item, tensors) for item in tree["list"]]
