"""The base's forward pass over a packed row: hidden states and logits where an answer token is predicted, and nowhere else."""

import torch
from torch import Tensor

from irm_lite.base.architecture import inner_decoder
from irm_lite.base.heads import head_of
from irm_lite.base.padded import Padding, padded_run
from irm_lite.base.stream import stream_of
from irm_lite.data.packing import Row


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
        **given, position_ids=row["position_ids"].to(device), sample_lengths=tuple(row["lengths"].tolist()), use_cache=False
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
