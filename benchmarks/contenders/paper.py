"""The paper's recipe: fp32 base, every sample padded or cut to 128 tokens, its IRM, logits everywhere, Adam at 1e-4.

As in its code, but that labels stand on the answers and are shifted once: there they are shifted twice, at the same cost.
"""

import torch
from torch.optim.lr_scheduler import StepLR

from contenders.samples import Batch, epochs
from contenders.task import BATCH_SIZE, SEED
from contenders.turns import Turns
from irm_lite.base.load import Base
from irm_lite.data.encoding import Sample
from irm_lite.steering.injection import inject
from irm_lite.steering.irm import PaperIRM


def run(base: Base, train: list[Sample], turns: Turns) -> None:
    """Train until the turns are over."""
    torch.manual_seed(SEED)
    irm = PaperIRM(base.hidden_size, tuple(range(base.n_layers)), "attn").to(base.plan.device)
    optimiser = torch.optim.Adam(irm.parameters(), lr=1e-4)
    schedule = StepLR(optimiser, step_size=1, gamma=0.85)
    filler = base.tokenizer.pad_token_id or base.tokenizer.eos_token_id or 0
    with inject(base.model, irm):
        turns.begin(sum(parameter.numel() for parameter in irm.parameters()))
        for batches in epochs(train, BATCH_SIZE, SEED):
            for batch in batches:
                padded = {name: each.to(base.plan.device) for name, each in pad(batch, turns.limit, filler).items()}
                optimiser.zero_grad()
                base.model(**padded, use_cache=False).loss.backward()
                optimiser.step()
                turns.step(int(padded["attention_mask"].sum()))
            schedule.step()


def pad(batch: Batch, length: int, filler: int) -> dict[str, torch.Tensor]:
    """input_ids, attention_mask and labels (B, length); labels are -100 but on the answers."""
    ids = torch.full((len(batch), length), filler)
    mask = torch.zeros_like(ids)
    labels = torch.full_like(ids, -100)
    for row, sample in enumerate(batch):
        kept = torch.tensor(sample.ids[:length])
        ids[row, : len(kept)] = kept
        mask[row, : len(kept)] = 1
        labels[row, sample.answer_start : len(kept)] = kept[sample.answer_start :]
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}
