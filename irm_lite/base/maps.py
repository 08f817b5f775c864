"""A model's linear maps by GGUF's names and by its own, and the last one of each block, beside which a LoRA adapter goes."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from torch import nn

from irm_lite.base.architecture import decoder_layers, gguf_architecture
from irm_lite.core.errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

LAST, ATTENTION = "ffn_down", "attn_output"  # GGUF's names, behind "blk.N."
NO_ADAPTER = "use the control vector"
NO_LORA = "train another --irm, static or lite"


def module_names(model: "PreTrainedModel", architecture: str, instead: str = NO_ADAPTER) -> dict[str, str]:
    """GGUF's names of the model's linear maps -> its own, as convert_lora_to_gguf.py maps them.

    Raises InputError where GGUF does not know the architecture, or not its last maps; `instead` is what to do then.
    """
    import gguf

    kinds: dict[str, Any] = {name: kind for kind, name in gguf.MODEL_ARCH_NAMES.items()}
    if architecture not in kinds:
        raise InputError(f"the package gguf knows no architecture {architecture!r}", "pip install -U gguf")
    known = gguf.get_tensor_name_map(kinds[architecture], len(decoder_layers(model)))
    found = {known.get_name(name): name for name, part in model.named_modules() if getattr(part, "weight", None) is not None}
    names = {gguf_name: name for gguf_name, name in found.items() if gguf_name is not None}
    if f"blk.0.{LAST}" not in names:
        raise InputError(
            f"a {type(model).__name__} has no linear map that PEFT could be told of as its blocks' last one",
            instead,
        )
    return names


def require_maps_of(model: "PreTrainedModel", names: Mapping[str, str], blocks: Sequence[int], instead: str = NO_ADAPTER) -> None:
    """Raise InputError where no adapter can go beside the last map of these blocks. `names`: the model's `module_names`."""
    lacking = next((block for block in blocks if f"blk.{block}.{LAST}" not in names), None)
    if lacking is not None:  # mixtures of experts often begin with a dense block
        raise InputError(f"block {lacking} of a {type(model).__name__} has no single last map", instead)
    multipliers = getattr(model.config, "mlp_multipliers", None) or ()  # Falcon-H1's, which a GGUF has in its weights
    if any(float(each) != 1.0 for each in multipliers):
        raise InputError(f"a {type(model).__name__} scales what its last map puts out", "make it with --gguf, as a .gguf")


def width_read(maps: Sequence[Any]) -> int:
    """How many numbers each of these maps reads. Raises InputError where they differ."""
    widths: set[int] = {getattr(each, "in_features", None) or int(each.weight.shape[0]) for each in maps}  # GPT-2's has it first
    if len(widths) != 1:
        raise InputError("the blocks' last maps read different widths", NO_LORA)
    return widths.pop()


def last_maps(model: "PreTrainedModel", blocks: Sequence[int]) -> list[nn.Module]:
    """The last linear map of each of these blocks. Raises InputError where one has none."""
    names = module_names(model, gguf_architecture(model), NO_LORA)
    require_maps_of(model, names, blocks, NO_LORA)
    return [model.get_submodule(names[f"blk.{block}.{LAST}"]) for block in blocks]
