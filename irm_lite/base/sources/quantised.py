"""How a base is quantised, in transformers' terms."""

from typing import TYPE_CHECKING, Any

import torch

from irm_lite.base.sources.experts import expert_weights, has_experts, require_room, skeleton_of, unquantised_parts
from irm_lite.core.machine.device import DevicePlan
from irm_lite.core.machine.memory import free_bytes

if TYPE_CHECKING:
    from transformers import BitsAndBytesConfig


def kept_of(config: Any, plan: DevicePlan, where: str) -> list[str] | None:
    """What of a mixture of experts is not to be quantised; None of other models.

    Raises BaseModelError where its experts do not fit into memory.
    """
    if plan.quant == "none" or not has_experts(config):
        return None
    empty = skeleton_of(config)
    require_room(expert_weights(empty), getattr(torch, plan.dtype).itemsize, free_bytes(plan.device), where)
    return unquantised_parts(empty)


def quantisation(plan: DevicePlan, double_quant: bool, kept: list[str] | None = None) -> "BitsAndBytesConfig | None":
    """The plan's quantisation in transformers' terms; None where there is none. `kept`: modules that are left as they are; None:
    the head alone."""
    from transformers import BitsAndBytesConfig

    if plan.quant == "none":
        return None
    if plan.quant == "int8":
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=kept)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        llm_int8_skip_modules=kept,
        bnb_4bit_quant_type=plan.quant,
        bnb_4bit_use_double_quant=double_quant,
        bnb_4bit_compute_dtype=getattr(torch, plan.dtype),
    )
