"""What vLLM asks of a LoRA folder, written a second time from its documentation and from what its loader checks: vLLM itself is not
run here. Its places: config/lora.py (ranks), lora/peft_helper.py (features), lora/lora_model.py (names), lora/utils.py (parts)."""

import json
from pathlib import Path

from safetensors import safe_open

RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)  # that --max-lora-rank can be; 16 if it is not given
LLAMA = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}  # linear maps of its Llama, Mistral, Qwen
REQUIRED = {"r": int, "lora_alpha": int, "target_modules": list}


def smallest_rank(folder: Path) -> int:
    """The --max-lora-rank that this folder needs."""
    r = json.loads((folder / "adapter_config.json").read_text())["r"]
    return next(rank for rank in RANKS if rank >= r)


def complaints(folder: Path, max_lora_rank: int = 16, supported: set[str] = LLAMA) -> list[str]:
    """Why vLLM would refuse the folder; empty: it would not."""
    config = json.loads((folder / "adapter_config.json").read_text())
    found = [f"{key} is no {kind.__name__}" for key, kind in REQUIRED.items() if type(config.get(key)) is not kind]
    if max_lora_rank not in RANKS:
        found.append(f"max_lora_rank {max_lora_rank} is not one of {RANKS}")
    if config["r"] > max_lora_rank:
        found.append(f"rank {config['r']} is greater than max_lora_rank {max_lora_rank}")
    found += [f"{key} is set" for key in ("modules_to_save", "use_dora") if config.get(key)]
    if config.get("bias", "none") != "none":
        found.append("it has biases")
    with safe_open(folder / "adapter_model.safetensors", framework="pt") as tensors:
        for name in tensors.keys():  # noqa: SIM118  # it is no mapping
            parts = name.split(".")
            if parts[:2] != ["base_model", "model"] or parts[-2:] not in (["lora_A", "weight"], ["lora_B", "weight"]):
                found.append(f"{name} is no name of a LoRA weight")
            elif parts[-3] not in supported:
                found.append(f"{name} is of no map that it supports")
            shape = tensors.get_slice(name).get_shape()
            if shape[0 if "lora_A" in name else 1] != config["r"]:
                found.append(f"{name} has another rank")
    return found
