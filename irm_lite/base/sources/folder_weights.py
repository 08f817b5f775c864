"""A Hugging Face folder's weights by name, each read when it is asked for; nothing is quantised."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from irm_lite.base.sources.folder import choose_code, require_own_files
from irm_lite.core.errors import BaseModelError
from irm_lite.core.files.reading import read_json

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class FolderWeight:
    """One weight, still in its safetensors file. `[...]` reads it."""

    name: str
    path: Path

    def __getitem__(self, _: object) -> Tensor:
        from safetensors import safe_open

        with safe_open(self.path, framework="pt") as file:
            values: Tensor = file.get_tensor(self.name)
            return values.float()

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape, from the file's header."""
        from safetensors import safe_open

        with safe_open(self.path, framework="pt") as file:
            return tuple(file.get_slice(self.name).get_shape())

    def rows(self, ids: Tensor) -> Tensor:
        """Those rows (N, H) of a matrix, float32."""
        from safetensors import safe_open

        with safe_open(self.path, framework="pt") as file:
            matrix = file.get_slice(self.name)
            return torch.stack([matrix[number] for number in ids.tolist()]).float()


def folder_skeleton(folder: Path) -> "PreTrainedModel":
    """The folder's model on the meta device. Raises BaseModelError where its weights are quantised, or its code is elsewhere."""
    from transformers import AutoConfig, AutoModelForCausalLM

    require_own_files(folder)
    config = AutoConfig.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    choose_code(config, str(folder))
    if getattr(config, "quantization_config", None) is not None:
        raise BaseModelError(f"{folder} is quantised", "give the model as it was before")
    with torch.device("meta"):
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config)
    return model


def folder_weights(folder: Path) -> dict[str, FolderWeight]:
    """All weights by the names they have in the folder. Raises BaseModelError where it has no safetensors."""
    from safetensors import SafetensorError, safe_open

    found: dict[str, FolderWeight] = {}
    try:
        index = folder / "model.safetensors.index.json"
        if index.is_file():
            return {name: FolderWeight(name, folder / str(file)) for name, file in read_json(index)["weight_map"].items()}
        with safe_open(folder / "model.safetensors", framework="pt") as file:
            found = {name: FolderWeight(name, folder / "model.safetensors") for name in file.keys()}  # noqa: SIM118 - no mapping
    except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
        raise BaseModelError(f"the weights of {folder} cannot be read ({error})", "download or convert it again") from None
    return found
