"""The table of architectures: how each one's blocks treat the residual stream, and what llama.cpp's graph calls it.

Each line was compared in both runtimes (docs/architectures.md, made by benchmarks/architectures.py). What is not in it is probed
(stream.py), never guessed. No torch: readers of GGUF headers ask it too.
"""

from dataclasses import dataclass, replace

Norms = tuple[tuple[str, str], ...]

_ATTN_NORM = ("attn_norm", "input_layernorm")
_LLAMA_NORMS: Norms = (_ATTN_NORM, ("ffn_norm", "post_attention_layernorm"))
_SANDWICH: Norms = (_ATTN_NORM, ("ffn_norm", "pre_feedforward_layernorm"))  # Gemma's
_POST: Norms = (("post_attention_norm", "post_attention_layernorm"), ("post_ffw_norm", "post_feedforward_layernorm"))
_BEFORE_MLP: Norms = (_ATTN_NORM, ("post_attention_norm", "post_attention_layernorm"))  # the MLP's, by another name


@dataclass(frozen=True)
class Architecture:
    """One architecture. Names of modules are those within a block of transformers' model, a dot between levels."""

    gguf: str  # general.architecture of its GGUFs
    attn: tuple[str, ...] = ("self_attn",)  # the module whose output is added to the stream before the MLP, whichever a block
    # has; none where attention and MLP run side by side, or there is no MLP: then an IRM reads the stream after block 0
    reads: str = "post_attention_layernorm"  # the module that reads the stream next: the MLP's norm, or the MLP
    multiplier: str = ""  # the configuration's factor of what `attn` puts out
    norms: Norms = _LLAMA_NORMS  # GGUF's and transformers' names of a block's norms, by which weights are told apart
    shift: float = 0.0  # what llama.cpp's converter adds to a norm's gain
    node: str = "ffn_inp"  # llama.cpp's name of the stream before the MLP; empty: its graph shows none
    seen_through: str = ""  # where there is none: the norm whose input that stream is (read there, never written)
    packed: bool = True  # samples packed into one row stay apart; else they are padded
    shares: bool = True  # what such samples have in common may stand there once: the blocks tell attention of their lengths
    cut: bool = True  # what enters block 0 is `inputs_embeds`, so that blocks can be left out
    mixed: bool = False  # its blocks attend in several ways unless the configuration says otherwise (a window in most of them)
    scale: str = ""  # the configuration's factor of the logits; with a leading slash its divisor
    side_by_side_if: str = ""  # the configuration's switch that puts attention and MLP side by side

    @property
    def sandwiched(self) -> bool:
        """Whether a block normalises what attention puts out, and what the MLP does, and then adds it to the stream."""
        return any("norm" in module for module in self.attn)

    @property
    def attn_norm(self) -> str:
        """transformers' name of the norm that reads the stream for a block's attention; empty where none does."""
        return dict(self.norms).get("attn_norm", "")

    def beside(self) -> "Architecture":
        """The same with attention and MLP side by side."""
        return replace(self, attn=(), reads="", node="", seen_through="")


def cuts(model_type: str, layer_types: object = None) -> bool:
    """Whether a model's first blocks can be left out. Not where something is done to what enters block 0, nor where blocks look
    their attention up by their place in the list. `layer_types`: of the configuration; None where it is not known."""
    known = TABLE.get(model_type)
    if known is None or not known.cut:
        return False
    return not (len(set(layer_types)) > 1 if isinstance(layer_types, (list, tuple)) else known.mixed)


def gguf_cuts(architecture: str, windowed: bool) -> bool:
    """The same of a GGUF's architecture; `windowed`: it names an attention window."""
    found = [(name, each) for name, each in TABLE.items() if each.gguf == architecture]
    kinds = [(name, each) for name, each in found if each.mixed == windowed] or found  # OLMo 2 and 3 have one name
    return bool(kinds) and all(cuts(name) for name, _ in kinds)


def _beside(gguf: str, norms: Norms = (_ATTN_NORM,), **others: object) -> Architecture:
    """One without a place between attention and MLP."""
    return Architecture(gguf, attn=(), reads="", norms=norms, node="", **others)  # type: ignore[arg-type]


_MULTIPLIED = {"multiplier": "residual_multiplier", "cut": False, "scale": "/logits_scaling"}

# By transformers' model_type, of the text part where a model has several.
TABLE: dict[str, Architecture] = {
    "llama": Architecture("llama"),
    "mistral": Architecture("llama"),
    "mixtral": Architecture("llama"),
    "qwen2": Architecture("qwen2"),
    "qwen3": Architecture("qwen3"),
    "qwen2_moe": Architecture("qwen2moe"),
    "qwen3_moe": Architecture("qwen3moe"),
    "olmoe": Architecture("olmoe"),
    "gemma": Architecture("gemma", shift=1.0, node="sa_out"),
    "gemma2": Architecture(
        "gemma2",
        ("post_attention_layernorm",),
        "pre_feedforward_layernorm",
        norms=_SANDWICH,
        shift=1.0,
        node="sa_out",
        mixed=True,
    ),
    "gemma3_text": Architecture(
        "gemma3",
        ("post_attention_layernorm",),
        "pre_feedforward_layernorm",
        norms=_SANDWICH,
        shift=1.0,
        node="sa_out",
        mixed=True,
    ),
    "phi3": Architecture("phi3", node="", seen_through="ffn_norm"),
    "granite": Architecture("granite", **_MULTIPLIED),  # type: ignore[arg-type]
    "granitemoe": Architecture("granitemoe", **_MULTIPLIED),  # type: ignore[arg-type]
    "olmo": Architecture("olmo", norms=()),  # its norms have no gains
    "olmo2": Architecture("olmo2", ("post_attention_layernorm",), "mlp", norms=_POST),
    "olmo3": Architecture("olmo2", ("post_attention_layernorm",), "mlp", norms=_POST, mixed=True),
    "exaone4": Architecture("exaone4", ("post_attention_layernorm",), "mlp", norms=_POST, mixed=True),
    "smollm3": Architecture("smollm3"),
    "glm4": Architecture("glm4", ("post_self_attn_layernorm",)),
    "glm4_moe": Architecture("glm4moe", norms=_BEFORE_MLP),
    "stablelm": Architecture("stablelm", shares=False, side_by_side_if="use_parallel_residual"),
    "starcoder2": Architecture("starcoder2"),
    "nemotron": Architecture("nemotron", shift=1.0, shares=False),
    "seed_oss": Architecture("seed_oss", norms=_BEFORE_MLP),
    "ernie4_5": Architecture("ernie4_5"),
    "ernie4_5_moe": Architecture("ernie4_5-moe"),
    "arcee": Architecture("arcee"),
    "apertus": Architecture(
        "apertus",
        reads="feedforward_layernorm",
        norms=(("attn_norm", "attention_layernorm"), ("ffn_norm", "feedforward_layernorm")),
    ),
    "hunyuan_v1_dense": Architecture("hunyuan-dense"),
    "gpt2": Architecture("gpt2", ("attn",), "ln_2", norms=(("attn_norm", "ln_1"), ("ffn_norm", "ln_2")), cut=False),
    "gpt_oss": Architecture("gpt-oss", norms=_BEFORE_MLP, packed=False, cut=False),
    "deepseek_v3": Architecture("deepseek2"),
    "phi": _beside("phi2"),
    "cohere": _beside("command-r", scale="logit_scale"),
    "cohere2": _beside("cohere2", scale="logit_scale", mixed=True),
    "gpt_neox": _beside("gptneox", (_ATTN_NORM, ("ffn_norm", "post_attention_layernorm"))),
    "falcon": _beside("falcon"),
    "mamba": _beside("mamba", (("attn_norm", "norm"),), packed=False, cut=False),
    "mamba2": _beside("mamba2", (("attn_norm", "norm"),), packed=False, cut=False),
    "jamba": Architecture(
        "jamba",
        ("self_attn", "mamba"),
        "pre_ff_layernorm",
        norms=(_ATTN_NORM, ("ffn_norm", "pre_ff_layernorm")),
        packed=False,
        node="",  # its ffn_inp is what attention put out, before it is added
        seen_through="ffn_norm",
        cut=False,
    ),
    "qwen3_next": Architecture(
        "qwen3next", ("self_attn", "linear_attn"), norms=_BEFORE_MLP, shift=1.0, node="attn_residual", packed=False, cut=False
    ),
    "qwen3_5_text": Architecture(
        "qwen35", ("self_attn", "linear_attn"), norms=_BEFORE_MLP, shift=1.0, node="attn_residual", packed=False, cut=False
    ),
    "falcon_h1": _beside("falcon-h1", packed=False, cut=False, scale="lm_head_multiplier"),
    "lfm2": Architecture(
        "lfm2",
        ("self_attn", "conv"),
        "ffn_norm",
        norms=(),  # its file calls the final one an embedding's
        packed=False,
        cut=False,
        node="",
        seen_through="model.layers.{}.ffn_out",  # what it names so is the MLP norm's output
    ),
    "granitemoehybrid": Architecture("granitehybrid", ("self_attn", "mamba"), packed=False, **_MULTIPLIED),  # type: ignore[arg-type]
}

_BY_GGUF = {each.gguf: each for each in TABLE.values()}


def of_gguf(architecture: str) -> Architecture | None:
    """The line of a GGUF's general.architecture; None where the table has none."""
    return _BY_GGUF.get(architecture)
