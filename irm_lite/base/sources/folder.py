"""What a model's configuration would make transformers load from elsewhere: files, packages, kernels of the hub."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from irm_lite.base.sources.gguf_checks import MAX_LAYERS
from irm_lite.core.errors import BaseModelError
from irm_lite.core.files.paths import is_file
from irm_lite.core.files.reading import read_json

if TYPE_CHECKING:
    from transformers import PretrainedConfig

_PARTS = (".safetensors", ".bin", ".json", ".model", ".pt", ".pth")  # of a Hugging Face folder


def names_gguf(path: Path) -> bool:
    """Whether a model's path is to be read as a GGUF: by its ending, or because it is a file at all (Ollama's have no ending).

    Raises BaseModelError where it is one of the files of a Hugging Face folder.
    """
    if path.suffix.lower() == ".gguf":
        return True
    if not is_file(path):
        return False
    if path.suffix in _PARTS and is_file(path.parent / "config.json"):
        raise BaseModelError(f"{path} is one of a model's files", f"give their folder, {path.parent}")
    return True


def require_own_files(folder: Path) -> None:
    """Raise BaseModelError where the folder's index names files outside of it, the folder holds an adapter, or its configuration
    has absurdly many layers."""
    _require_layers(folder / "config.json")
    if (folder / "adapter_config.json").exists():
        raise BaseModelError(f"{folder} holds an adapter on another model", "merge it into that model, and give the result")
    index = folder / "model.safetensors.index.json"
    if not index.exists():
        return
    try:
        names = set(read_json(index)["weight_map"].values())
        strange = [name for name in names if not isinstance(name, str) or name in ("", ".", "..") or set(name) & set("/\\")]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BaseModelError(f"{index} cannot be read ({error})", "download or convert it again") from None
    if strange:
        raise BaseModelError(f"{index} names files that are not in its folder", "get a copy from its maker")


def _require_layers(file: Path) -> None:
    """Before transformers reads it: some of its configurations make a list with an entry a layer."""
    try:
        config = read_json(file)
    except (OSError, ValueError):  # transformers reports it, in its own words
        return
    parts = [part for part in (config, *(config.values() if isinstance(config, dict) else ())) if isinstance(part, dict)]
    counts = [part.get(key) for part in parts for key in ("num_hidden_layers", "num_layers", "n_layers", "n_layer")]
    if any(isinstance(count, int | float) and count > MAX_LAYERS for count in counts):
        raise BaseModelError(f"{file} says that the model has more than {MAX_LAYERS} layers", "check the file")


def choose_code(config: "PretrainedConfig", where: str) -> None:
    """Leave the choice of attention and experts to transformers: a name with a slash would be fetched as native code.

    Raises BaseModelError where the configuration asks for a package or a kernel to read its weights, or for a file by name.
    """
    config._attn_implementation = None  # sdpa where the model has it; sub-configurations too
    config._experts_implementation = None
    for part in (config, *(getattr(config, name, None) for name in config.sub_configs)):
        quantised: Any = getattr(part, "quantization_config", None)
        method = quantised.get("quant_method", "bitsandbytes") if isinstance(quantised, dict) else "bitsandbytes"
        if method != "bitsandbytes":
            raise BaseModelError(f"{where} is quantised by {method!s:.40}", "give the model as it was before, or a .gguf of it")
    for key in ("transformers_weights", "fusion_config"):
        if getattr(config, key, None) is not None:
            raise BaseModelError(f"the configuration of {where} has {key}", "get a copy from its maker")
