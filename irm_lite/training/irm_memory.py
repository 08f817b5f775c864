"""What each kind of IRM takes of a training's memory: the sizes of its weights, and what autograd saves of it. Imports no torch."""

from collections.abc import Callable
from dataclasses import dataclass

from irm_lite.base.sources.shape import BaseShape
from irm_lite.config import Kind, TrainConfig

Sizes = dict[str, int]


@dataclass(frozen=True)
class IrmMemory:
    """Of a kind, each as a function of the settings, the base's sizes and the number of layers L."""

    weights: Callable[[TrainConfig, BaseShape, int], Sizes]  # numbers in each of its tensors (steering/irm.py)
    saved: Callable[[TrainConfig, BaseShape, int, int], Sizes]  # bytes a token that autograd saves; the last: bytes of a number
    compared: Callable[[TrainConfig, int], int]  # numbers a token and layer that the dependence penalty saves (IRM.moments)
    outputs_at_once: bool = False  # `encode` makes the outputs of all layers, so that they have gradients together


def _paper_weights(_config: TrainConfig, base: BaseShape, count: int) -> Sizes:
    hidden = base.hidden_size
    trunk = {"in": (hidden + 1) * 3 * hidden} | {f"hidden {i}": (3 * hidden + 1) * 3 * hidden for i in range(3)}
    return trunk | {"head": (3 * hidden + 1) * hidden * count}


def _paper_saved(_config: TrainConfig, base: BaseShape, count: int, irm_c: int) -> Sizes:
    hidden = base.hidden_size
    return {"IRM activations": 13 * hidden * irm_c, "IRM outputs": count * hidden * irm_c}


def _lite_weights(config: TrainConfig, base: BaseShape, count: int) -> Sizes:
    hidden = base.hidden_size
    trunk = {"in": (hidden + 1) * config.width, "hidden": (config.width + 1) * config.width}
    rank = config.chosen_rank
    return trunk | {"down": count * rank * config.width, "up": count * hidden * rank, "bias": count * hidden}


def _lite_saved(config: TrainConfig, base: BaseShape, count: int, _c: int) -> Sizes:
    own = 4 * config.width + count * config.chosen_rank
    return {"IRM activations": 4 * (base.hidden_size + own)}  # its products are in float32


def _lora_weights(config: TrainConfig, base: BaseShape, count: int) -> Sizes:
    return {"down": count * config.chosen_rank * base.intermediate_size, "up": count * base.hidden_size * config.chosen_rank}


def _lora_saved(config: TrainConfig, base: BaseShape, count: int, c: int) -> Sizes:
    return {"IRM activations": count * (c * base.intermediate_size + 4 * config.chosen_rank)}  # what the last maps read


def _static_weights(_config: TrainConfig, base: BaseShape, count: int) -> Sizes:
    return {"vectors": count * base.hidden_size}


IRM_MEMORY: dict[Kind, IrmMemory] = {
    "paper": IrmMemory(_paper_weights, _paper_saved, lambda _config, hidden: hidden, outputs_at_once=True),
    "lite": IrmMemory(_lite_weights, _lite_saved, lambda config, _hidden: config.chosen_rank),
    "lora": IrmMemory(_lora_weights, _lora_saved, lambda _config, _hidden: 0),
    "static": IrmMemory(_static_weights, lambda *_sizes: {}, lambda _config, _hidden: 0),
}
