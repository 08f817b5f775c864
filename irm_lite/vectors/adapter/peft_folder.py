"""An adapter as PEFT's folder: adapter_config.json, adapter_model.safetensors, and what is written beside them."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from irm_lite.core.errors import InputError
from irm_lite.steering.adapter import Adapter


def write_peft(folder: Path, adapter: Adapter, names: Mapping[str, str], base: str) -> None:
    """Into an existing folder. `names`: the base's own names of the maps, by GGUF's; `base`: where others find it.

    Raises InputError where the base has no such map, or where the maps' ranks differ, which a plain LoRA cannot say.
    """
    from peft import LoraConfig
    from safetensors.numpy import save

    missing = [module for module in adapter.factors if module not in names]
    if missing:
        raise InputError(f"the base has no {missing[0]} in transformers", "write a .gguf, or use the model it was made for")
    ranks = {each.rank for each in adapter.factors.values()}
    if len(ranks) != 1:
        raise InputError(f"the adapter's maps have different ranks ({sorted(ranks)})", "write a .gguf")
    config = LoraConfig(
        r=ranks.pop(),
        lora_alpha=int(adapter.alpha) if adapter.alpha.is_integer() else adapter.alpha,  # PEFT's and vLLM's is an integer
        target_modules=[names[module] for module in adapter.factors],
        base_model_name_or_path=base,
        task_type="CAUSAL_LM",
        inference_mode=True,
    )
    config.target_modules = sorted(config.target_modules)  # a set, which has no order: the same adapter is the same file
    config.save_pretrained(str(folder))
    tensors = {}
    for module, factors in adapter.factors.items():
        prefix = f"base_model.model.{names[module]}"
        tensors[f"{prefix}.lora_A.weight"] = np.ascontiguousarray(factors.a)
        tensors[f"{prefix}.lora_B.weight"] = np.ascontiguousarray(factors.b)
    (folder / "adapter_model.safetensors").write_bytes(save(tensors, metadata={"format": "pt"}))  # save_file's is its owner's alone
