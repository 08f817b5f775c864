"""Features of each index of the untouched base: what could make it important whatever an IRM is trained for."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from irm_lite.base.architecture import block_input, decoder_layers, hidden_state, inner_decoder
from irm_lite.base.forward import run_base
from irm_lite.base.load import Base
from irm_lite.base.norms import gain_of_final, gains_at
from irm_lite.base.padded import as_row
from irm_lite.base.stream import stream_of
from irm_lite.core.types import FloatArray
from irm_lite.data.encoding import Sample
from irm_lite.data.packing import pack, rows
from irm_lite.steering.irm import Site


@torch.no_grad()
def base_features(base: Base, power: FloatArray, layers: Sequence[int], site: Site) -> dict[str, FloatArray]:
    """Each (H,), by name. `power` is `stream_power` at all layers of the base, of which `layers` count. A model whose head is
    its embedding has one of the two norms.

    - residual RMS: of the stream that the site adds to; each layer to unit mean, mean over the layers
    - norm gain: |gain| of the norm that reads the stream next, the same mean
    - final gain: |gain| of the norm before the head
    - embedding norm, head norm: of the index's column, (V, H) -> (H,)
    - head norm x final gain: how strongly the index reaches the logits
    """
    model: Any = base.model
    final = gain_of_final(model).abs()
    head, embedding = (_column_norms(each) for each in (model.get_output_embeddings(), model.get_input_embeddings()))
    gains = [gains_at(model, site)[layer] for layer in layers]
    features = {
        "residual RMS": _mean_over_layers(torch.from_numpy(power[list(layers)]).sqrt()),
        "norm gain": _mean_over_layers(torch.stack([gain.abs() for gain in gains])),
        "final gain": final,
        "head norm": head,
        "embedding norm": embedding,
        "head norm x final gain": head * final,
    }
    if torch.equal(head, embedding):
        del features["embedding norm"]
    return {name: each.float().cpu().numpy() for name, each in features.items()}


def _column_norms(module: Any) -> Tensor:
    """(H,) of a weight (V, H), which bitsandbytes leaves as it is."""
    norms: Tensor = module.weight.float().norm(dim=0)
    return norms


def _mean_over_layers(values: Tensor) -> Tensor:
    """(L, H) -> (H,), each layer to unit mean first: the stream grows with depth."""
    return (values / values.mean(1, keepdim=True)).mean(0)


@torch.no_grad()
def stream_power(base: Base, samples: Sequence[Sample], site: Site) -> FloatArray:
    """Mean square of the residual stream at the site, (n_layers, H), where the samples' answers are predicted.

    The first token of a text draws attention, and holds nearly all of the stream's power (Sun et al. 2024): a mean over all
    tokens would be a measure of that token.
    """
    blocks: Any = decoder_layers(base.model)
    known = stream_of(base.model)
    total = torch.zeros(base.n_layers, base.hidden_size, device=base.model.device)
    count, positions = 0, torch.empty(0, dtype=torch.int64)

    def watch(index: int) -> Any:
        def add(_module: object, args: tuple[Tensor, ...], kwargs: dict[str, Tensor], output: object) -> None:
            # The norm that reads the stream after attention gets it as its input; a block hands it on as its output.
            stream = as_row(base.model, block_input(args, kwargs) if site == "attn" else hidden_state(output))
            total[index].add_(stream.float().view(-1, stream.shape[-1])[positions].square().sum(0))

        return add

    watched = [getattr(block, known.reads) if site == "attn" else block for block in blocks]
    handles = [module.register_forward_hook(watch(index), with_kwargs=True) for index, module in enumerate(watched)]
    try:
        for group in rows(list(samples)):
            row = pack(group)
            positions = row["positions"].to(base.model.device)
            if known.packed:
                ids, places = (row[name].to(base.model.device) for name in ("input_ids", "position_ids"))
                inner_decoder(base.model)(input_ids=ids, position_ids=places, use_cache=False)
            else:
                run_base(base.model, row)
            count += len(positions)
    finally:
        for handle in handles:
            handle.remove()
    found: FloatArray = (total / count).cpu().numpy()
    return found


def top_tokens(base: Base, vectors: FloatArray, k: int = 8) -> list[dict[str, list[tuple[str, float]]]]:
    """The logit lens (nostalgebraist 2020) on what is added: for each of (L, H) vectors the tokens that head(final gain * v)
    pushes up and down most, with that product in standard deviations from its mean over the vocabulary.

    A constant over the vocabulary moves no probability, and the final norm's division is a positive number a token: with
    both left out the figures of different layers compare. Of a random vector the largest of V tokens is near
    sqrt(2 ln V), 4.6 for V = 49152.
    """
    model: Any = base.model
    weight, final = model.get_output_embeddings().weight.float(), gain_of_final(model)
    found = []
    for vector in vectors:
        scaled = final * torch.from_numpy(np.asarray(vector, dtype=np.float32)).to(weight.device)
        logits = weight @ scaled
        scores = (logits - logits.mean()) / logits.std().clamp_min(torch.finfo(torch.float32).tiny)
        chosen = {"up": scores.topk(k), "down": scores.topk(k, largest=False)}
        found.append(
            {
                name: [(str(base.tokenizer.decode([int(token)])), float(value)) for value, token in zip(*each, strict=True)]
                for name, each in chosen.items()
            }
        )
    return found
