"""Text from the base in transformers, with whatever is injected into it now."""

import torch
from transformers import GenerationConfig

from irm_lite.base.load import Base
from irm_lite.data.dataset import Message
from irm_lite.data.encoding import encode_prompt, turn_ends


@torch.no_grad()
def generate(base: Base, messages: tuple[Message, ...], max_new_tokens: int) -> str:
    """The assistant's next turn under greedy decoding, without special tokens."""
    ids = torch.tensor([encode_prompt(base.tokenizer, messages)], device=base.model.device)
    ends = sorted(turn_ends(base.tokenizer))
    greedy = GenerationConfig(
        max_new_tokens=max_new_tokens, do_sample=False, eos_token_id=ends, pad_token_id=ends[0] if ends else 0
    )
    own, base.model.generation_config = base.model.generation_config, GenerationConfig()  # its repetition penalty would count
    try:
        output = base.model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), generation_config=greedy)
    finally:
        base.model.generation_config = own
    return str(base.tokenizer.decode(output[0, ids.shape[1] :], skip_special_tokens=True)).strip()
