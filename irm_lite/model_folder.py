"""A Hugging Face folder's references to files: transformers follows them, wherever they lead."""

from pathlib import Path

from irm_lite.errors import BaseModelError
from irm_lite.reading import read_json


def require_own_files(folder: Path) -> None:
    """Raise BaseModelError where the folder's index names weights outside of it, or it is an adapter on another model."""
    if (folder / "adapter_config.json").exists():
        raise BaseModelError(f"{folder} holds an adapter on another model", "merge it into that model, and give the result")
    index = folder / "model.safetensors.index.json"
    if not index.exists():
        return
    try:
        names = set(read_json(index)["weight_map"].values())
        strange = [name for name in names if not isinstance(name, str) or name in ("", ".", "..") or set(name) & set("/\\")]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BaseModelError(f"{index} cannot be read ({error})", "get a whole copy") from None
    if strange:
        raise BaseModelError(f"{index} names files that are not in its folder", "get a copy from its maker")
