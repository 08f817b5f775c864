"""A change that nobody planned, to a key or a tensor of a GGUF, is mapped, told or refused: never silent.

200 by hand: MUTATIONS=200 [MUTATION_SEED=1] python -m pytest tests/base/test_gguf_mutations.py; --junitxml=FILE keeps outcomes.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from irm_lite.base.load import load_tokenizer, locate
from irm_lite.core.errors import IrmLiteError
from irm_lite.llamacpp.agreement import Compared, disagreement, not_taken
from support.both_runtimes import HEADS, HIDDEN, INNER, LAYERS, VOCABULARY, WIDTHS, bias, divergence
from support.gguf_files import Array
from support.once import Once
from support.tiny_models import write_gguf, write_hf_folder

Draw = np.random.Generator
HEAD = HIDDEN // HEADS


def number(low: float, high: float) -> Callable[[Draw], float]:
    return lambda draw: float(draw.uniform(low, high))


def whole(low: int, high: int) -> Callable[[Draw], int]:
    return lambda draw: int(draw.integers(low, high))


def a_layer(*choices: Any) -> Callable[[Draw], list[Any]]:
    return lambda draw: [choices[int(draw.integers(len(choices)))] for _ in range(LAYERS)]


CHANGES: dict[str, Callable[[Draw], Any]] = {
    "attention.causal": lambda draw: bool(draw.integers(2)),
    "attention.clamp_kqv": number(0.1, 8),
    "attention.head_count": lambda draw: [int(draw.choice([2, 4, 8]))] * LAYERS,
    "attention.head_count_kv": a_layer(1, 2, 4),
    "attention.key_length": lambda draw: int(draw.choice([HEAD // 2, HEAD, 2 * HEAD])),
    "attention.layer_norm_epsilon": number(1e-6, 1e-2),
    "attention.layer_norm_rms_epsilon": lambda draw: float(10 ** draw.uniform(-7, -2)),
    "attention.output_scale": number(0.1, 2),
    "attention.scale": number(0.05, 1),
    "attention.sliding_window": whole(1, 64),
    "attention.sliding_window_pattern": a_layer(True, False),
    "attention.temperature_length": whole(1, 64),
    "attention.temperature_scale": number(0.1, 1),
    "attention.value_length": lambda draw: int(draw.choice([HEAD // 2, HEAD, 2 * HEAD])),
    "attn_logit_softcapping": number(1, 50),
    "context_length": whole(64, 4096),
    "embedding_length_out": whole(16, 128),
    "embedding_scale": number(0.1, 2),
    "expert_count": whole(1, 8),
    "expert_feed_forward_length": whole(1, 256),
    "expert_gating_func": whole(1, 4),
    "expert_group_count": whole(0, 3),
    "expert_shared_count": whole(0, 3),
    "expert_used_count": whole(0, 3),
    "expert_weights_norm": lambda draw: bool(draw.integers(2)),
    "expert_weights_scale": number(1.1, 2),
    "feed_forward_length": a_layer(INNER, INNER // 2),
    "final_logit_softcapping": number(1, 50),
    "interleave_moe_layer_step": whole(0, 3),
    "leading_dense_block_count": whole(0, 3),
    "logit_scale": number(0.1, 2),
    "nextn_predict_layers": whole(0, 2),
    "of_tomorrow": number(0, 1),
    "pooling_type": whole(0, 4),
    "residual_scale": number(0.1, 2),
    "rope.dimension_count": lambda draw: int(draw.choice([HEAD // 2, HEAD])),
    "rope.dimension_sections": lambda draw: [int(each) for each in draw.integers(0, 5, 4)],
    "rope.freq_base": lambda draw: float(10 ** draw.uniform(2, 6)),
    "rope.freq_base_swa": number(100, 1e5),
    "rope.scale_linear": number(0.5, 8),
    "rope.scaling.alpha": number(1, 100),
    "rope.scaling.attn_factor": number(0.5, 2),
    "rope.scaling.factor": number(0.5, 8),
    "rope.scaling.original_context_length": whole(32, 512),
    "rope.scaling.type": lambda draw: str(draw.choice(["none", "linear", "yarn", "longrope"])),
    "rope.scaling.yarn_attn_factor": number(0.5, 2),
    "rope.scaling.yarn_beta_fast": number(8, 64),
    "rope.scaling.yarn_beta_slow": number(0.5, 4),
    "rope.scaling.yarn_ext_factor": number(0, 1),
    "rope.scaling.yarn_log_multiplier": number(0.1, 1),
    "use_parallel_residual": lambda draw: bool(draw.integers(2)),
    "vocab_size": whole(500, 800),
}


def values(draw: Draw, *shape: int) -> Array:
    return draw.normal(0, 0.3, shape).astype(np.float32)


def experts(draw: Draw, layer: int) -> dict[str, Array]:
    shapes = {
        "gate_inp": (2, HIDDEN),
        "gate_exps": (2, INNER, HIDDEN),
        "up_exps": (2, INNER, HIDDEN),
        "down_exps": (2, HIDDEN, INNER),
    }
    return {f"blk.{layer}.ffn_{name}.weight": values(draw, *shape) for name, shape in shapes.items()}


def tensor(draw: Draw) -> dict[str, Array]:
    """One more tensor, or a few that belong together."""
    part, layer = str(draw.choice(sorted(WIDTHS))), int(draw.integers(0, LAYERS))
    place = f"blk.{layer}"
    extra: dict[str, dict[str, Array]] = {
        "bias": bias(part, layer, int(draw.integers(100))),
        "scale": {f"{place}.{part}.scale": np.full(1, draw.uniform(0.5, 2), np.float32)},
        "input scale": {f"{place}.{part}.input_scale": np.full(1, draw.uniform(0.5, 2), np.float32)},
        "a scale of the head": {"output.scale": np.full(1, 0.5, np.float32)},
        "a scale of the embeddings": {"token_embd.scale": np.full(1, 0.5, np.float32)},
        "a bias of the head": {"output.bias": values(draw, VOCABULARY)},
        "a norm's bias": {f"{place}.attn_norm.bias": values(draw, HIDDEN)},
        "the last norm's bias": {"output_norm.bias": values(draw, HIDDEN)},
        "a norm after attention": {f"{place}.post_attention_norm.weight": values(draw, HIDDEN)},
        "a norm of queries": {f"{place}.attn_q_norm.weight": values(draw, HEAD)},
        "sinks": {f"{place}.attn_sinks.weight": values(draw, HEADS)},
        "experts": experts(draw, layer),
        "fused": {f"{place}.attn_qkv.weight": values(draw, 2 * HIDDEN, HIDDEN)},
        "factors": {"rope_freqs.weight": draw.uniform(0.5, 8, HEAD // 2).astype(np.float32)},
        "factors by layer": {f"{place}.rope_freqs.weight": draw.uniform(0.5, 8, HEAD // 2).astype(np.float32)},
        "long factors": {"rope_factors_long.weight": draw.uniform(0.5, 8, HEAD // 2).astype(np.float32)},
        "too few factors": {"rope_freqs.weight": np.ones(HEAD // 4, np.float32)},
        "embeddings of positions": {"position_embd.weight": values(draw, 512, HIDDEN)},
        "a norm of the embeddings": {"token_embd_norm.weight": values(draw, HIDDEN)},
        "a name of nobody's": {f"{place}.of_tomorrow.weight": values(draw, HIDDEN)},
        "one more block": {f"blk.{LAYERS}.attn_norm.weight": values(draw, HIDDEN)},
    }
    return extra[str(draw.choice(sorted(extra)))]


LACKING = ("output.weight", "blk.1.attn_q.weight", "blk.1.ffn_norm.weight", "rope.dimension_count", "attention.head_count_kv")


def change(draw: Draw, architecture: str) -> tuple[dict[str, Any], dict[str, Array], tuple[str, ...]]:
    """Keys that are added or changed, tensors that are added, and names of what is left out."""
    kind = draw.integers(0, 12)
    if kind == 0:
        lacking = str(draw.choice(LACKING))
        return {}, {}, (lacking if lacking.endswith("weight") else f"{architecture}.{lacking}",)
    names = draw.choice(sorted(CHANGES), size=int(draw.integers(1, 3)), replace=False)
    keys = {f"{architecture}.{name}": CHANGES[name](draw) for name in names}
    if kind == 1:
        return keys | {f"{architecture}.expert_count": 2, f"{architecture}.expert_used_count": 1}, experts(draw, 1), ()
    return (keys, {}, ()) if kind < 8 else ({}, tensor(draw), ()) if kind < 11 else (keys, tensor(draw), ())


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(int(os.environ.get("MUTATIONS", "15"))))
def test_no_mutation_is_silent(
    seed: int, llama_folder: Path, once: Once, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    draw = np.random.default_rng([seed, int(os.environ.get("MUTATION_SEED", "0"))])
    kind = str(draw.choice(["llama", "llama", "qwen2", "qwen3"]))
    folder = llama_folder if kind == "llama" else once(f"tiny-{kind}", lambda at: write_hf_folder(at / "folder", kind)) / "folder"
    keys, tensors, lacking = change(draw, kind)
    gguf = write_gguf(folder, tmp_path / "a.gguf", "{{ 1 }}", architecture=kind, extra=tensors, keys=keys, without=lacking)
    refusal = not_taken(gguf)  # as `train` asks first
    try:
        found = divergence(gguf) if refusal is None else 0.0
    except IrmLiteError as error:
        refusal = str(error)
    record_property("outcome", "refused" if refusal is not None else "told" if found > 1e-5 else "mapped")
    if refusal is not None:
        names = (*keys, *tensors, *lacking)
        assert any(
            word in refusal
            for word in (
                *names,
                *(name.split(".")[-1] for name in names),
                "layers",
                "heads",
                "blk.",
                "cannot load",
                "crash",
                "rope scaling",
            )
        ), (refusal, names)
        assert "\n" not in refusal
    elif found > 1e-5:
        compared = Compared(locate(str(gguf)), load_tokenizer(str(gguf)))
        assert disagreement(compared, gguf, [], allowed=True) is not None, (kind, keys, list(tensors), lacking, found)
