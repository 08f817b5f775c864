"""A tiny GGUF through both runtimes, and what may be added to it."""

from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from irm_lite.base.load import load_base
from irm_lite.llamacpp import Runtime
from support.gguf_files import Array

IDS = [1, *np.random.default_rng(0).integers(3, 600, 150).tolist()]
LAYERS, HIDDEN, HEADS, KV_HEADS, INNER, VOCABULARY = 3, 64, 4, 2, 128, 640
WIDTHS = {"attn_q": HIDDEN, "attn_k": HIDDEN // HEADS * KV_HEADS, "attn_v": HIDDEN // HEADS * KV_HEADS, "attn_output": HIDDEN}
WIDTHS |= {"ffn_gate": INNER, "ffn_up": INNER, "ffn_down": HIDDEN}


def bias(name: str, layer: int, seed: int = 0) -> dict[str, Array]:
    values = np.random.default_rng(seed).normal(0, 0.5, WIDTHS[name]).astype(np.float32)
    return {f"blk.{layer}.{name}.bias": values}


def everywhere(*names: str) -> dict[str, Array]:
    return {key: value for name in names for layer in range(LAYERS) for key, value in bias(name, layer, layer).items()}


def divergence(gguf: Path) -> float:
    """KL(llama.cpp || transformers), nats a token, on fixed ids, float32."""
    base = load_base(str(gguf), quant="none", dtype="float32", device="cpu")
    with torch.no_grad():
        ours = F.log_softmax(base.model(torch.tensor([IDS])).logits[0].double(), -1)
    with Runtime(gguf, n_ctx=256) as runtime:
        theirs = F.log_softmax(torch.from_numpy(runtime.logits(IDS)).double(), -1)
    return float((theirs.exp() * (theirs - ours)).sum(-1).mean())
