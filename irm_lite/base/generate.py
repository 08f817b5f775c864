"""Text from the base in transformers, with whatever is injected into it now."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from transformers import GenerationConfig

from irm_lite.base.load import Base
from irm_lite.data.dataset import Message
from irm_lite.data.encoding import encode_prompt, turn_ends

TOP_K, TOP_P, MIN_P = 40, 0.95, 0.05  # llama.cpp's own defaults, as in llamacpp/sampling.py


def generate(base: Base, messages: tuple[Message, ...], max_new_tokens: int) -> str:
    """The assistant's next turn under greedy decoding, without special tokens."""
    (written,) = generate_ids(base, [encode_prompt(base.tokenizer, messages)], max_new_tokens)
    return str(base.tokenizer.decode(written, skip_special_tokens=True)).strip()


@torch.no_grad()
def generate_ids(
    base: Base, prompts: Sequence[Sequence[int]], max_new_tokens: int, temperature: float = 0.0, seed: int = 0
) -> list[list[int]]:
    """What follows each prompt, side by side, with the token that ends the turn where it came. Temperature 0 is greedy; the
    caller's random state is left as it was."""
    ends = sorted(turn_ends(base.tokenizer))
    pad = ends[0] if ends else 0
    longest = max(map(len, prompts))
    ids = torch.tensor([[pad] * (longest - len(each)) + list(each) for each in prompts], device=base.model.device)
    mask = torch.tensor([[0] * (longest - len(each)) + [1] * len(each) for each in prompts], device=base.model.device)
    drawn = {"temperature": temperature, "top_k": TOP_K, "top_p": TOP_P, "min_p": MIN_P} if temperature else {}
    config = GenerationConfig(
        max_new_tokens=max_new_tokens, do_sample=temperature > 0, eos_token_id=ends, pad_token_id=pad, **drawn
    )
    with _own_settings_aside(base), _seeded(seed, base.model.device), _head_reads_rows(base):
        output = base.model.generate(input_ids=ids, attention_mask=mask, generation_config=config)
    return [_until(row, ends) for row in output[:, longest:].tolist()]


@contextmanager
def _own_settings_aside(base: Base) -> Iterator[None]:
    """Without the model's own generation_config: its repetition penalty would count."""
    own, base.model.generation_config = base.model.generation_config, GenerationConfig()
    try:
        yield
    finally:
        base.model.generation_config = own


@contextmanager
def _head_reads_rows(base: Base) -> Iterator[None]:
    """The prompts' last states are every n-th row of a tensor; torch makes a copy of the head's weight for each of them then, 57 MB
    with the demo model: most of what writing an answer cost."""
    head = base.model.get_output_embeddings()
    handle = head.register_forward_pre_hook(lambda _module, args: (args[0].contiguous(), *args[1:]))
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    devices = range(torch.cuda.device_count()) if device.type == "cuda" else []
    on_apple = torch.mps.get_rng_state() if device.type == "mps" else None
    with torch.random.fork_rng(devices):
        torch.manual_seed(seed)  # on all devices
        try:
            yield
        finally:
            if on_apple is not None:
                torch.mps.set_rng_state(on_apple)


def _until(ids: list[int], ends: list[int]) -> list[int]:
    """Up to the first token that ends the turn, with it; what follows is padding."""
    at = next((at for at, token in enumerate(ids) if token in ends), len(ids))
    return ids[: at + 1]
