"""A model's files in transformers, unquantised in float32, with one block in memory at a time: what transformers makes of them,
without what a quantised base loses."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from irm_lite.base.architecture import decoder_layers, final_norm, inner_decoder
from irm_lite.base.forward import answers_of, run_base
from irm_lite.base.heads import head_of
from irm_lite.base.sources.folder_weights import folder_skeleton, folder_weights
from irm_lite.base.sources.gguf_read_once import gguf_read_once
from irm_lite.base.sources.gguf_weights import gguf_weights, rotate, skeleton
from irm_lite.core.errors import BaseModelError
from irm_lite.core.machine.quiet import quiet_libraries
from irm_lite.data.packing import Row

_EMBEDDINGS = "model.embed_tokens.weight"


@torch.no_grad()
def streamed_answer_logits(place: Path, row: Row) -> Tensor:
    """Logits (A, V), float32, at a packed row's answer positions, as transformers makes them of a .gguf or of a folder.

    Takes as long as reading the weights once. Raises BaseModelError as `load_base` does, and where the model is not built of
    embeddings, blocks, a norm and a head alone.
    """
    model, weights = _read(place)
    tied = model.config.tie_word_embeddings
    embed, head = model.get_input_embeddings(), model.get_output_embeddings()
    parts = [*decoder_layers(model), final_norm(model), head]
    names = {module: name for name, module in model.named_modules()}
    _require_parts(model, [*parts, embed], weights, tied, place)
    ids, places = torch.unique(row["input_ids"], return_inverse=True)
    embed.weight = nn.Parameter(weights[_EMBEDDINGS].rows(ids), requires_grad=False)  # the rest of a large matrix is not read
    embed.padding_idx = None  # it may lie beyond them
    with _filled_when_called(parts, names, weights, {"lm_head.weight": _EMBEDDINGS} if tied else {}):
        logits: Tensor = head_of(model)(answers_of(run_base(model.eval(), row, embed(places)), row))
        return logits


def _read(place: Path) -> tuple[Any, dict[str, Any]]:
    """The skeleton with its rotations, and its weights by name."""
    with quiet_libraries(), gguf_read_once():
        model: Any = folder_skeleton(place) if place.is_dir() else skeleton(place)
        weights: dict[str, Any] = {**(folder_weights(place) if place.is_dir() else gguf_weights(place, model))}
    inner: Any = inner_decoder(model)
    rotary = getattr(inner, "rotary_emb", None)
    if rotary is not None:
        inner.rotary_emb = type(rotary)(config=model.config)
        if not place.is_dir():
            rotate(model, place)
    _fill_buffers(model)
    return model, weights


def _fill_buffers(model: Any) -> None:
    """Buffers that are in no file (the factor of Gemma's embeddings) are made as transformers makes them; one that it leaves
    alone stays empty."""
    for module in model.modules():
        empty = {name: each for name, each in module.named_buffers(recurse=False) if each.is_meta and each.is_floating_point()}
        for name, each in empty.items():
            setattr(module, name, torch.full_like(each, torch.nan, device="cpu"))
        if empty:
            model._init_weights(module)
        for name, each in empty.items():
            if getattr(module, name).isnan().any():
                setattr(module, name, each)


def _require_parts(model: Any, parts: list[nn.Module], weights: dict[str, Any], tied: bool, place: Path) -> None:
    """Raise BaseModelError where a parameter or a buffer would stay empty."""
    filled = {id(tensor) for part in parts for tensor in part.parameters()}
    other = [name for name, tensor in model.named_parameters() if id(tensor) not in filled]
    other += [name for name, tensor in model.named_buffers() if tensor.is_meta]
    read = set(weights) | ({"lm_head.weight"} if tied else set())
    lacking = [name for name, _ in model.named_parameters() if name not in read]
    if other or lacking or not hasattr(weights.get(_EMBEDDINGS), "rows"):
        name = (other or lacking or [_EMBEDDINGS])[0]
        raise BaseModelError(
            f"{place} cannot be read a block at a time", f"its files do not have {name} by that name, or it is in no block"
        )


@contextmanager
def _filled_when_called(
    parts: list[nn.Module], names: dict[nn.Module, str], weights: dict[str, Any], shared: dict[str, str]
) -> Iterator[None]:
    """Within: each part's weights are read as it is called, and let go when it has returned."""

    def fill(part: nn.Module, *_: Any) -> None:
        for name, parameter in list(part.named_parameters()):
            full = f"{names[part]}.{name}"
            values = weights[shared.get(full, full)][...].float()
            if values.shape != parameter.shape:
                raise BaseModelError(f"{full} is {tuple(values.shape)}, and not {tuple(parameter.shape)}", "check the files")
            owner, _dot, last = name.rpartition(".")
            setattr(part.get_submodule(owner), last, nn.Parameter(values, requires_grad=False))

    def empty(part: nn.Module, *_: Any) -> None:
        part.to("meta")

    handles = [part.register_forward_pre_hook(fill) for part in parts] + [part.register_forward_hook(empty) for part in parts]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
