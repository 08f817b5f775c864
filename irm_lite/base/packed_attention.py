"""Attention over a packed row, sample by sample: the work grows with the samples' lengths, not with the row's.

Where the samples share their first tokens, those stand in the row once, and each sample attends to them as to its own: same
states, and gradients that add up. Only attention computes them again for each sample; all else of the model does not.

Registered with transformers as an attention of its own (AttentionInterface); where no sample lengths come with the call,
in generation say, it is transformers' sdpa.
"""

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

if TYPE_CHECKING:
    from transformers import PreTrainedModel

NAME = "irm_lite_packed"


def attend_by_sample(model: "PreTrainedModel") -> None:
    """Let the model attend within samples where `sample_lengths` (a tuple of ints) is given to its forward.

    A model that attends otherwise than by sdpa keeps what it has.
    """
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    if model.config._attn_implementation == "sdpa":
        AttentionInterface.register(NAME, packed_attention)
        AttentionMaskInterface.register(NAME, sdpa_mask)
        model.set_attn_implementation(NAME)


def packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    sample_lengths: tuple[int, ...] | None = None,
    shared_tokens: int = 0,
    **options: Any,
) -> tuple[Tensor, None]:
    """Causal attention within each sample. query (1, heads, T, D), key and value (1, kv heads, T, D) -> (1, T, heads, D).

    `sample_lengths` count the row's first `shared_tokens` for each sample.

    `options` are what transformers gives to every attention: `scaling`, and `sliding_window` or `softcap` of some models.
    """
    window = options.get("sliding_window")
    if sample_lengths is None or (window and max(sample_lengths) > window) or options.get("softcap") is not None:
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        assert not shared_tokens, "forward.can_share says which models and rows share"
        whole: tuple[Tensor, None] = sdpa_attention_forward(module, query, key, value, attention_mask, **options)
        return whole
    attend = _one_by_one if query.device.type == "cpu" else _padded
    return attend(query, key, value, sample_lengths, shared_tokens, options.get("scaling")), None


def _one_by_one(query: Tensor, key: Tensor, value: Tensor, lengths: tuple[int, ...], shared: int, scaling: float | None) -> Tensor:
    """On a CPU: short calls cost little there, and in float32 they are 2.5 times as fast as in bfloat16 (docs/log.md)."""

    def samples(each: Tensor) -> list[Tensor]:
        start, *rests = torch.split(each.float(), [shared, *(length - shared for length in lengths)], dim=2)
        return [torch.cat((start, rest), dim=2) for rest in rests] if shared else rests

    attended = [
        F.scaled_dot_product_attention(*part, is_causal=True, scale=scaling, enable_gqa=True).transpose(1, 2)
        for part in zip(samples(query), samples(key), samples(value), strict=True)
    ]
    rests = [attended[0], *(each[:, shared:] for each in attended[1:])]  # the start of all is that of the first
    return torch.cat(rests, dim=1).to(query.dtype)


def _padded(query: Tensor, key: Tensor, value: Tensor, lengths: tuple[int, ...], shared: int, scaling: float | None) -> Tensor:
    """On a GPU: one call for all. Padding stands at the end of each sample, where causal attention never looks."""
    sources, places, back = _places(lengths, shared, query.device)
    longest = max(lengths)

    def spread(each: Tensor) -> Tensor:
        """(1, heads, T, D) -> (samples, heads, longest, D)."""
        tokens = each[0].transpose(0, 1)
        given = tokens if sources is None else tokens.index_select(0, sources)
        padded = tokens.new_zeros(len(lengths) * longest, *tokens.shape[1:]).index_copy(0, places, given)
        return padded.view(len(lengths), longest, *tokens.shape[1:]).transpose(1, 2)

    if query.device.type == "mps":  # Metal shares no heads in older versions of torch
        key, value = (each.repeat_interleave(query.shape[1] // key.shape[1], dim=1) for each in (key, value))
    queries, keys, values = map(spread, (query, key, value))
    attended = F.scaled_dot_product_attention(
        queries, keys, values, is_causal=True, scale=scaling, enable_gqa=query.device.type != "mps"
    )
    return attended.transpose(1, 2).flatten(0, 1).index_select(0, back)[None]


@lru_cache(maxsize=4)  # every block asks for the same
def _places(lengths: tuple[int, ...], shared: int, device: torch.device) -> tuple[Tensor | None, Tensor, Tensor]:
    """Of all samples' tokens (N,), one sample after another: which of the row's each is (None: N of N), and where it stands among
    samples padded to the longest one; and where each token of the row (T,) is found there."""
    places = (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]).flatten().nonzero()[:, 0]
    if not shared:
        return None, places.to(device), places.to(device)
    starts = torch.tensor([0, *lengths]).cumsum(0)[:-1].tolist()  # of the samples
    sources = torch.full((sum(lengths),), -1)
    for start in starts:
        sources[start : start + shared] = torch.arange(shared)
    own = (sources == -1).nonzero()[:, 0]
    sources[own] = torch.arange(shared, shared + len(own))
    back = torch.cat((torch.arange(shared), own))  # of the row's tokens among all samples' ones
    return sources.to(device), places.to(device), places[back].to(device)
