"""What a resumed training needs, without a pickle: tensors as safetensors, the rest as JSON.

Beside the IRM of its step a checkpoint holds the best IRM so far, in `best` where that is another one. The run directory's IRM may
be better still, from after the checkpoint: a resumed training, which has not got that far, puts this one in its place.
"""

import json
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch

from irm_lite.core.errors import RunError, reason
from irm_lite.core.files.atomic import atomic_path
from irm_lite.core.files.manifest import digest
from irm_lite.core.files.reading import open_ordinary, read_json
from irm_lite.core.files.tensors import save_tensors
from irm_lite.runs.checkpoints import BEST
from irm_lite.steering.irm import IRM
from irm_lite.steering.irm_files import read_saved, save_irm

OPTIMIZER, SCHEDULER, RNG, SCALER = "optimizer", "scheduler", "rng", "scaler"
_WEIGHTS = "irm.safetensors"


def save_state(folder: Path, name: str, state: Any) -> None:
    """Write a nested state dict: its tensors into NAME.safetensors, its structure and plain values into NAME.json."""
    tensors: dict[str, torch.Tensor] = {}
    tree = _strip(state, tensors)
    save_tensors(folder / f"{name}.safetensors", tensors)
    (folder / f"{name}.json").write_text(json.dumps(tree), encoding="utf-8")


def load_state(folder: Path, name: str) -> Any:
    """Read what `save_state` wrote, tensors on the CPU. Raises RunError where it is missing or damaged."""
    from safetensors.torch import load_file

    try:
        tree = read_json(folder / f"{name}.json")
        open_ordinary(folder / f"{name}.safetensors").close()  # a large file is allowed: the optimiser's states
        return _restore(tree, load_file(folder / f"{name}.safetensors"))
    except Exception as error:  # whatever the reason, the files are not what `save_state` wrote
        hint = "remove it and resume from the one before"
        raise RunError(f"the checkpoint {folder} is damaged ({reason(error)})", hint) from None


def save_irms(irm: IRM, run: Path, folder: Path, step: int, best_step: int | None) -> dict[str, str]:
    """Write the IRM of `step` into a checkpoint's `folder`, and copy the best one from the run directory: not as a link, so that
    damage to one file leaves the other. Returns file name -> SHA-256 of their weights."""
    save_irm(irm, folder)
    known = {_WEIGHTS: read_saved(folder).digest}
    if best_step not in (None, step):
        _copy_irm(run, folder / BEST)
        known[f"{BEST}/{_WEIGHTS}"] = read_saved(folder / BEST).digest
    return known


def restore_best(folder: Path, run: Path, step: int, best_step: int | None) -> None:
    """Restore the run directory's IRM to the best one when the checkpoint of `step` was written, unless that is damaged."""
    if best_step is None:
        return
    source = folder if best_step == step else folder / BEST
    if (source / _WEIGHTS).is_file() and digest(source / _WEIGHTS) == read_saved(source).digest:
        _copy_irm(source, run)


def _copy_irm(source: Path, target: Path) -> None:
    for name in (_WEIGHTS, "irm.json"):
        with atomic_path(target / name) as temporary:
            shutil.copyfile(source / name, temporary)


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
        torch.cuda.random.set_rng_state_all(state["cuda"][: torch.cuda.device_count()])


def _strip(value: Any, tensors: dict[str, torch.Tensor]) -> Any:
    if isinstance(value, torch.Tensor):
        key, ours = str(len(tensors)), value.detach().cpu().contiguous()
        shared = any(
            ours.data_ptr() == each.data_ptr() for each in tensors.values()
        )  # safetensors refuses tensors that share memory
        tensors[key] = ours.clone() if shared else ours
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
