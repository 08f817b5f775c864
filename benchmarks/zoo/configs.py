"""What makes a tiny model of each architecture: the class's name in transformers and the sizes that it wants."""

from dataclasses import dataclass, field
from typing import Any

VOCABULARY = 512
LAYERS = 3


@dataclass(frozen=True)
class Tiny:
    """`config`: the name of transformers' configuration; `sizes` stand over SIZES. `like`: models that people run."""

    name: str
    config: str
    like: str
    sizes: dict[str, Any] = field(default_factory=dict)
    experts: bool = False
    on_the_hub: dict[str, Any] = field(default_factory=dict)  # of config.json, as people's files have it and the converter reads it


SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "initializer_range": 0.08,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
_MOE = {"moe_intermediate_size": 32, "num_experts": 4, "num_experts_per_tok": 2}
_LINEAR = {  # of Qwen3-Next and Qwen3.5: three blocks of linear attention, then one as usual
    "num_hidden_layers": 4,
    "head_dim": 32,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 16,
}

ZOO: tuple[Tiny, ...] = (
    Tiny("llama", "LlamaConfig", "Llama 2, Llama 3.x, SmolLM2"),
    Tiny("mistral", "MistralConfig", "Mistral 7B v0.3", {"sliding_window": None}),
    Tiny("qwen2", "Qwen2Config", "Qwen2.5"),
    Tiny("qwen3", "Qwen3Config", "Qwen3 0.6B to 32B", {"head_dim": 16}),
    Tiny("gemma", "GemmaConfig", "Gemma 1", {"head_dim": 16}),
    Tiny("gemma2", "Gemma2Config", "Gemma 2", {"head_dim": 16, "query_pre_attn_scalar": 16, "sliding_window": 16}),
    Tiny(
        "gemma3",
        "Gemma3TextConfig",
        "Gemma 3 270M, 1B",
        {"head_dim": 16, "query_pre_attn_scalar": 16, "sliding_window": 16, "num_hidden_layers": 6},
    ),
    Tiny("phi3", "Phi3Config", "Phi-3, Phi-4, Phi-4-mini", {"sliding_window": None}),
    Tiny(
        "granite",
        "GraniteConfig",
        "Granite 3",
        {"residual_multiplier": 0.22, "embedding_multiplier": 12.0, "logits_scaling": 4.0, "attention_multiplier": 0.25},
    ),
    Tiny("olmo", "OlmoConfig", "OLMo 1"),
    Tiny("olmo2", "Olmo2Config", "OLMo 2"),
    Tiny("olmo3", "Olmo3Config", "OLMo 3", {"sliding_window": 16, "num_hidden_layers": 4}),
    Tiny("smollm3", "SmolLM3Config", "SmolLM3"),
    Tiny("glm4", "Glm4Config", "GLM-4-0414", {"head_dim": 16}),
    Tiny("stablelm", "StableLmConfig", "StableLM 2"),
    Tiny("starcoder2", "Starcoder2Config", "StarCoder2", {"sliding_window": None}),
    Tiny("nemotron", "NemotronConfig", "Nemotron-4, Minitron"),
    Tiny("exaone4", "Exaone4Config", "EXAONE 4 1.2B", {"sliding_window": None, "layer_types": ["full_attention"] * LAYERS}),
    Tiny("seed_oss", "SeedOssConfig", "Seed-OSS", {"head_dim": 16}),
    Tiny("ernie4_5", "Ernie4_5Config", "ERNIE 4.5 0.3B", {"head_dim": 16}),
    Tiny("arcee", "ArceeConfig", "AFM-4.5B"),
    Tiny("apertus", "ApertusConfig", "Apertus 8B"),
    Tiny("hunyuan_v1_dense", "HunYuanDenseV1Config", "Hunyuan dense", {"head_dim": 16}),
    Tiny("gpt2", "GPT2Config", "GPT-2", {"n_embd": 64, "n_layer": LAYERS, "n_head": 4, "n_positions": 512, "n_ctx": 512}),
    Tiny("phi", "PhiConfig", "Phi-1.5, Phi-2", {"num_key_value_heads": 4, "intermediate_size": 256}),
    Tiny("cohere", "CohereConfig", "Command R"),
    Tiny("cohere2", "Cohere2Config", "Command R7B, Command A", {"rotary_pct": 1.0, "sliding_window": 16, "num_hidden_layers": 4}),
    Tiny("gpt_neox", "GPTNeoXConfig", "Pythia", on_the_hub={"rotary_pct": 0.25}),
    Tiny("falcon", "FalconConfig", "Falcon 7B", {"num_kv_heads": 1}),
    Tiny("mixtral", "MixtralConfig", "Mixtral 8x7B", {"num_local_experts": 4, "sliding_window": None}, True),
    Tiny("qwen2_moe", "Qwen2MoeConfig", "Qwen1.5-MoE, Qwen2-57B-A14B", {**_MOE, "shared_expert_intermediate_size": 64}, True),
    Tiny("qwen3_moe", "Qwen3MoeConfig", "Qwen3-30B-A3B", {**_MOE, "head_dim": 16, "norm_topk_prob": True}, True),
    Tiny("olmoe", "OlmoeConfig", "OLMoE 1B-7B", {"num_experts": 4, "num_experts_per_tok": 2, "num_key_value_heads": 4}, True),
    Tiny(
        "gpt_oss",
        "GptOssConfig",
        "gpt-oss-20b",
        {
            "rope_parameters": {
                "rope_type": "yarn",
                "rope_theta": 150000.0,
                "factor": 4.0,
                "beta_fast": 32.0,
                "beta_slow": 1.0,
                "truncate": True,
                "original_max_position_embeddings": 128,
            },
            "num_local_experts": 4,
            "num_experts_per_tok": 2,
            "head_dim": 16,
            "sliding_window": 16,
        },
        True,
    ),
    Tiny(
        "glm4_moe",
        "Glm4MoeConfig",
        "GLM-4.5-Air",
        {
            "moe_intermediate_size": 32,
            "n_routed_experts": 4,
            "num_experts_per_tok": 2,
            "n_shared_experts": 1,
            "first_k_dense_replace": 1,
            "head_dim": 16,
            "n_group": 1,
            "topk_group": 1,
        },
        True,
    ),
    Tiny(
        "granitemoe",
        "GraniteMoeConfig",
        "Granite 3 MoE",
        {
            "num_local_experts": 4,
            "num_experts_per_tok": 2,
            "residual_multiplier": 0.22,
            "embedding_multiplier": 12.0,
            "logits_scaling": 4.0,
            "attention_multiplier": 0.25,
        },
        True,
    ),
    Tiny(
        "ernie4_5_moe",
        "Ernie4_5_MoeConfig",
        "ERNIE 4.5 21B-A3B",
        {"moe_intermediate_size": 32, "moe_num_experts": 4, "moe_k": 2, "moe_num_shared_experts": 2, "head_dim": 16},
        True,
    ),
    Tiny(
        "deepseek_v3",
        "DeepseekV3Config",
        "DeepSeek V3, R1",
        {
            "moe_intermediate_size": 32,
            "n_routed_experts": 4,
            "num_experts_per_tok": 2,
            "n_shared_experts": 1,
            "first_k_dense_replace": 1,
            "n_group": 1,
            "topk_group": 1,
            "q_lora_rank": 32,
            "kv_lora_rank": 32,
            "qk_rope_head_dim": 16,
            "qk_nope_head_dim": 16,
            "v_head_dim": 16,
            "num_key_value_heads": 4,
        },
        True,
        {"scoring_func": "sigmoid"},
    ),
    Tiny("mamba", "MambaConfig", "Mamba", {"state_size": 16}),
    Tiny("mamba2", "Mamba2Config", "Mamba 2, Codestral Mamba", {"num_heads": 8, "head_dim": 16, "state_size": 16, "n_groups": 1}),
    Tiny(
        "jamba",
        "JambaConfig",
        "Jamba",
        {
            "num_experts": 4,
            "num_experts_per_tok": 2,
            "attn_layer_period": 2,
            "attn_layer_offset": 1,
            "expert_layer_period": 2,
            "expert_layer_offset": 1,
            "mamba_dt_rank": 8,
            "use_mamba_kernels": False,
        },
    ),
    Tiny(
        "qwen3_next",
        "Qwen3NextConfig",
        "Qwen3-Next",
        {**_MOE, "shared_expert_intermediate_size": 64, **_LINEAR},
    ),
    Tiny(
        "qwen3_5",
        "Qwen3_5TextConfig",
        "Qwen3.5 0.8B to 27B",
        _LINEAR,
    ),
    Tiny(
        "falcon_h1",
        "FalconH1Config",
        "Falcon-H1",
        {"head_dim": 16, "mamba_d_ssm": 128, "mamba_n_heads": 8, "mamba_d_head": 16, "mamba_n_groups": 1, "mamba_d_state": 16},
    ),
    Tiny("lfm2", "Lfm2Config", "LFM2", {"block_auto_adjust_ff_dim": False, "layer_types": ["conv", "full_attention", "conv"]}),
    Tiny(
        "granitemoehybrid",
        "GraniteMoeHybridConfig",
        "Granite 4",
        {
            "num_local_experts": 4,
            "num_experts_per_tok": 2,
            "mamba_n_heads": 8,
            "mamba_d_head": 16,
            "mamba_d_state": 16,
            "shared_intermediate_size": 64,
            "layer_types": ["mamba", "attention", "mamba"],
        },
        on_the_hub={"layer_types": ["mamba", "attention", "mamba"]},
    ),
)
