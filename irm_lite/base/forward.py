"""The base's forward pass over a packed row: hidden states and logits where an answer token is predicted, and nowhere else."""

from collections.abc import Sequence

import torch
from torch import Tensor

from irm_lite.base.architecture import inner_decoder, text_config
from irm_lite.base.heads import head_of
from irm_lite.base.packed_attention import NAME
from irm_lite.base.padded import Padding, padded_run
from irm_lite.base.stream import stream_of
from irm_lite.data.encoding import Sample
from irm_lite.data.packing import Row, pack, shared_prefix


def can_share(model: torch.nn.Module, longest: int) -> bool:
    """Whether this model's attention may be given rows whose samples, of at most `longest` tokens, share their start."""
    config, stream = text_config(model), stream_of(model)
    window = getattr(config, "sliding_window", None)
    return (
        stream.packed
        and stream.known is not None
        and stream.known.shares
        and getattr(config, "_attn_implementation", None) == NAME
        and getattr(config, "attn_logit_softcapping", None) is None
        and not (window and longest > window)
    )


def row_of(model: torch.nn.Module, samples: Sequence[Sample]) -> Row:
    """One row of all samples; what they have in common at their start stands there once, where the model's attention allows it."""
    shared = shared_prefix(samples)
    return pack(samples, shared if shared and can_share(model, max(len(sample.ids) for sample in samples)) else 0)


def run_base(model: torch.nn.Module, row: Row, stream: Tensor | None = None) -> Tensor:
    """The final, normed hidden states (1, T, H) of a packed row; `stream` (1, T, H) in the place of the tokens' embeddings."""
    device = next(model.parameters()).device if stream is None else stream.device  # of a base on several GPUs
    given = {"input_ids": row["input_ids"].to(device)} if stream is None else {"inputs_embeds": stream}
    decoder = inner_decoder(model)
    if not stream_of(model).packed:
        padding = Padding.of(row["lengths"])
        with padded_run(model, padding):
            output = decoder(**{name: padding.spread(each) for name, each in given.items()}, use_cache=False)
        return padding.gathered(output.last_hidden_state)
    output = decoder(
        **given,
        position_ids=row["position_ids"].to(device),
        sample_lengths=tuple(row["lengths"].tolist()),
        shared_tokens=int(row["shared"]),
        use_cache=False,
    )
    hidden: Tensor = output.last_hidden_state
    return hidden


def answers_of(hidden: Tensor, row: Row) -> Tensor:
    """Of hidden states (1, T, H) those where an answer token is predicted, (A, H)."""
    return hidden[0, row["positions"].to(hidden.device)]


def answer_hidden(model: torch.nn.Module, row: Row) -> Tensor:
    """The final, normed hidden states (A, H) at the row's answer positions; the head makes logits of them."""
    return answers_of(run_base(model, row), row)


def answer_logits(model: torch.nn.Module, row: Row) -> Tensor:
    """Logits (A, V) at the row's answer positions, and nowhere else."""
    logits: Tensor = head_of(model)(answer_hidden(model, row))
    return logits
