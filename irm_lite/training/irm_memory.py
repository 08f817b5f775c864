"""What each kind of IRM takes of a training's memory: the sizes of its weights, and what autograd saves of it. Imports no torch."""

from collections.abc import Callable
from dataclasses import dataclass

from irm_lite.config import Kind, TrainConfig

Sizes = dict[str, int]


@dataclass(frozen=True)
class IrmMemory:
    """Of a kind, each as a function of the settings, hidden size H and number of layers L."""

    weights: Callable[[TrainConfig, int, int], Sizes]  # numbers in each of its tensors (steering/irm.py)
    saved: Callable[[TrainConfig, int, int, int], Sizes]  # bytes a token that autograd saves; the last: bytes of a product's number
    compared: Callable[[TrainConfig, int], int]  # numbers a token and layer that the dependence penalty saves (IRM.moments)
    outputs_at_once: bool = False  # `encode` makes the outputs of all layers, so that they have gradients together


def _paper_weights(_config: TrainConfig, hidden: int, count: int) -> Sizes:
    trunk = {"in": (hidden + 1) * 3 * hidden} | {f"hidden {i}": (3 * hidden + 1) * 3 * hidden for i in range(3)}
    return trunk | {"head": (3 * hidden + 1) * hidden * count}


def _paper_saved(_config: TrainConfig, hidden: int, count: int, irm_c: int) -> Sizes:
    return {"IRM activations": 13 * hidden * irm_c, "IRM outputs": count * hidden * irm_c}


def _lite_weights(config: TrainConfig, hidden: int, count: int) -> Sizes:
    trunk = {"in": (hidden + 1) * config.width, "hidden": (config.width + 1) * config.width}
    return trunk | {"down": count * config.rank * config.width, "up": count * hidden * config.rank, "bias": count * hidden}


def _lite_saved(config: TrainConfig, hidden: int, count: int, _irm_c: int) -> Sizes:
    return {"IRM activations": 4 * (hidden + 4 * config.width + count * config.rank)}  # its products are in float32


IRM_MEMORY: dict[Kind, IrmMemory] = {
    "paper": IrmMemory(_paper_weights, _paper_saved, lambda _config, hidden: hidden, outputs_at_once=True),
    "lite": IrmMemory(_lite_weights, _lite_saved, lambda config, _hidden: config.rank),
    "static": IrmMemory(lambda _config, hidden, count: {"vectors": count * hidden}, lambda *_sizes: {}, lambda _config, _hidden: 0),
}
