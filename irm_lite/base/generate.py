"""Text from the base in transformers, with whatever is injected into it now."""

import torch

from irm_lite.base.load import Base
from irm_lite.data.dataset import Message
from irm_lite.data.encoding import encode_prompt


@torch.no_grad()
def generate(base: Base, messages: tuple[Message, ...], max_new_tokens: int) -> str:
    """The assistant's next turn under greedy decoding, without special tokens."""
    ids = torch.tensor([encode_prompt(base.tokenizer, messages)], device=base.model.device)
    output = base.model.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=max_new_tokens,
        do_sample=False,
        temperature=None,
        top_p=None,
        pad_token_id=base.tokenizer.pad_token_id if base.tokenizer.pad_token_id is not None else base.tokenizer.eos_token_id,
    )
    return str(base.tokenizer.decode(output[0, ids.shape[1] :], skip_special_tokens=True)).strip()
