"""A GGUF's model in transformers, unquantised in float32, with one block in memory at a time: what transformers makes of the file,
without what a quantised base loses."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from irm_lite.base.architecture import decoder_layers
from irm_lite.base.forward import answers_of, run_base
from irm_lite.base.sources.gguf_read_once import gguf_read_once
from irm_lite.base.sources.gguf_weights import gguf_weights, rotate, skeleton
from irm_lite.core.machine.quiet import quiet_libraries
from irm_lite.data.packing import Row


@torch.no_grad()
def streamed_answer_logits(gguf: Path, row: Row) -> Tensor:
    """Logits (A, V), float32, at a packed row's answer positions, as transformers makes them of the file.

    Raises BaseModelError as `load_base` does. Takes as long as reading the file's weights once.
    """
    with quiet_libraries(), gguf_read_once():
        model = skeleton(gguf)
        weights = gguf_weights(gguf, model)
    tied = model.config.tie_word_embeddings
    model.model.rotary_emb = type(model.model.rotary_emb)(config=model.config)
    rotate(model, gguf)
    names = {module: name for name, module in model.named_modules()}
    embed, head = model.get_input_embeddings(), model.get_output_embeddings()
    parts = [*decoder_layers(model), embed, model.model.norm, head]
    with _filled_when_called(parts, names, weights, {"lm_head.weight": "model.embed_tokens.weight"} if tied else {}):
        stream = embed(row["input_ids"])
        logits: Tensor = head(answers_of(run_base(model.eval(), row, stream), row))
        return logits


@contextmanager
def _filled_when_called(
    parts: list[nn.Module], names: dict[nn.Module, str], weights: dict[str, Any], shared: dict[str, str]
) -> Iterator[None]:
    """Within: each part's weights are read as it is called, and let go when it has returned."""

    def fill(part: nn.Module, *_: Any) -> None:
        for name, parameter in list(part.named_parameters()):
            full = f"{names[part]}.{name}"
            values = weights[shared.get(full, full)][...].float().view(parameter.shape)
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
