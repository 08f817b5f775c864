"""Everything that decides a training, in one dataclass: its fields are the flags, its field docs are the help.

Flags carry the names of transformers.TrainingArguments where it has one. Imports no torch: the TUI makes its form of it.
"""

import math
import re
import reprlib
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from irm_lite.core.errors import InputError
from irm_lite.core.files.paths import is_utf8
from irm_lite.core.files.reading import read_toml

Kind = Literal["paper", "lite", "static", "lora"]
Reads = Literal["h0", "maps", "nothing"]


@dataclass(frozen=True)
class KindFacts:
    """What the settings have to know of a kind of IRM: what it is trained with where they leave it open, and its demands.

    `large`: its products in `encode` cost as much as the base's. They are then taken in the base's bfloat16 (those in
    `layer_output` are not), its weights are bfloat16 on a GPU, and the optimiser is the one that saves memory.
    """

    learning_rate: float  # docs/log.md, "Steering worth having"
    dependence_penalty: float  # 1 where it reads the input and is to become static vectors; 0 where it is to vary freely
    site: Literal["attn", "block"]
    large: bool = False
    loop_penalty: float = 0.5
    phrase_penalty: float = 0.0  # what adds the same everywhere says other phrases as often, and facts less (docs/log.md)
    fact_weight: float = 4.0
    scaled: bool = False  # its outputs, and so its steps, are in units of the base's residual stream in each layer
    reads: Reads = "h0"  # layer 0's stream, or in each block what its last map reads, or nothing: it adds the same everywhere
    options: tuple[str, ...] = ()  # settings that `build_irm` is given
    rank: int = 16

    @property
    def leaves_as(self) -> Literal["vector", "adapter"]:
        """What it is exported as and loses nothing by: a vector is a part of what reads the last maps."""
        return "adapter" if self.reads == "maps" else "vector"


KINDS: dict[Kind, KindFacts] = {
    "paper": KindFacts(1e-4, 0.0, "attn", loop_penalty=0.0, fact_weight=1.0, large=True),  # its own rate and site
    "lite": KindFacts(1e-3, 1.0, "block", scaled=True, options=("width", "rank")),  # the demo's (docs/log.md)
    "static": KindFacts(2e-2, 0.0, "block", scaled=True, reads="nothing"),
    "lora": KindFacts(3e-3, 0.0, "block", phrase_penalty=0.5, fact_weight=1.0, reads="maps", options=("rank",), rank=4),
}


@dataclass(kw_only=True)
class TrainConfig:
    """Settings of one training.

    >>> config = TrainConfig(model="demo", data="joy", irm="static", max_steps=50)
    >>> config.chosen_site, config.peak_learning_rate  # what is left at `auto` or 0 is chosen by the kind
    ('block', 0.02)
    >>> TrainConfig(max_length=4)
    Traceback (most recent call last):
    irm_lite.core.errors.InputError: --max-length 4 holds no sample: give at least 8
    """

    model: str = "demo"
    """Base model: a preset (irm-lite models list), hub id, Hugging Face folder or .gguf file."""
    data: str = "anger"
    """A shipped tone, a .jsonl, .json, .csv, .tsv, .parquet or .txt file, or hf:owner/name. Rows are question and answer,
    messages, ShareGPT's, Alpaca's, prompt and completion, preference pairs, SQuAD's, or text (docs/data.md)."""
    answer_column: str = "answer"
    """Which column of your own file holds the answers, in rows of a question and an answer."""
    irm: Kind = "static"
    """The network: the paper's own; a small low-rank one; one fixed vector a layer, which a control vector carries whole; or a LoRA
    beside each block's last map, which an adapter carries whole."""
    site: Literal["auto", "attn", "block"] = "auto"
    """Where it is added: after attention (the paper's) or after the block (llama.cpp's, so that more of it survives the
    export); auto: attn for paper, else block."""
    layers: str = "all"
    """Injected layers, 0-based: all, odd, even, 0-29, 0,3,7-12, 2/4 (the second of four parts) or every 4. At site block,
    layer 0 is in only where it is named by its number: llama.cpp adds nothing after block 0."""
    rank: int = 0
    """Rank of each layer's head of a lite IRM, or of each layer of a lora; 0: 16 and 4."""
    width: int = 256
    """Width of a lite IRM's trunk."""
    mask_indices: str = ""
    """Indices of the hidden size whose outputs stay zero, in training and after: 1512,7."""
    irm_dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Number format of the IRM's weights in training; auto: bfloat16 for paper on a GPU (half the memory), else float32. The
    steps of bitsandbytes' AdamW are rounded to bfloat16 at random, so that small ones add up; torch's lose them."""
    quant: Literal["nf4", "fp4", "int8", "none"] = "nf4"
    """Quantisation of the frozen base, by bitsandbytes."""
    double_quant: bool = False
    """Quantise the quantisation constants too: 0.4 bit a weight less, a little slower."""
    device: Literal["auto", "cuda", "mps", "cpu"] = "auto"
    """What to run on."""
    device_map: Literal["one", "auto"] = "one"
    """auto: the base is spread over all GPUs, as transformers does it, for one that no single GPU holds."""
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto"
    """Number format of the base's activations."""
    chat_template: str = ""
    """For a tokenizer that has none: a file with a Jinja chat template, or a preset's name."""
    download: bool = False
    """Fetch the base (or an hf: dataset) from the hub if it is not on this machine."""

    num_train_epochs: float = 3.0
    """Passes over the training samples."""
    max_steps: int = -1
    """Optimiser steps; above 0 it overrides the epochs."""
    batch_size: int = 8
    """Samples a step, packed into one row without padding; under accelerate launch, of each process."""
    gradient_accumulation_steps: int = 1
    """Rows before each optimiser step."""
    batch: Literal["given", "auto"] = "given"
    """auto: the samples of an optimiser step, --batch-size times --gradient-accumulation-steps, in as few rows as memory holds;
    the loss is the same, the penalty on dependence is of rows."""
    max_length: int = 512
    """Tokens a sample; longer ones are left out, and counted."""
    learning_rate: float = 0.0
    """Peak learning rate; 0: 1e-4 for paper, 3e-3 for lora, 1e-3 for lite, 2e-2 for static; of these two in units of the
    residual stream."""
    lr_scheduler_type: Literal["cosine", "linear", "constant", "constant_with_warmup"] = "cosine"
    """Course of the learning rate."""
    warmup_ratio: float = 0.1
    """Part of the steps in which the learning rate rises."""
    weight_decay: float = 0.0
    """AdamW's weight decay."""
    max_grad_norm: float = 1.0
    """Gradients are clipped to this norm; 0: not clipped."""
    l1: float = 0.0
    """Weight of the paper's penalty: l1 / L * sum |v| over the outputs of a token, mean over tokens."""
    dependence_penalty: float = -1.0
    """Weight of the share of the IRM's output that varies over a row's tokens, prompt included, which no control vector
    carries; 0: none, -1: 1 for lite, 0 for the others."""
    optim: str = "auto"
    """Optimiser, by transformers' name (adamw_torch, adamw_bnb_8bit, ...); auto: paged 8-bit AdamW for paper on a GPU, else
    AdamW."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, a third slower."""
    cache_prefix: bool = True
    """Keep what the IRM cannot change, the blocks below its first layer, over the epochs: in memory, or in a file."""
    seed: int = 0
    """Seed of initialisation and data order."""

    eval_steps: int = 0
    """Validate every so many steps; 0: six times in a training."""
    save_steps: int = 0
    """Write a checkpoint every so many steps; 0: at each validation."""
    save_minutes: float = 0.0
    """Also write one once so many minutes have gone by since the last; 0: not."""
    save_total_limit: int = 2
    """Checkpoints kept."""
    early_stopping_patience: int = 4
    """End after so many validations without improvement; 0: never."""
    sample_tokens: int = 48
    """Tokens of each of the eight answers written at a validation, which count in which step is the best where they are babble;
    0: none."""
    report_to: Literal["none", "tensorboard"] = "none"
    """Also report to TensorBoard, into the run directory."""
    fact_weight: float = -1.0
    """How many times a token counts that carries the fact: of words that the neutral answer to the same question has too (shipped
    tones, or a column `neutral`); -1: 4 for static and lite, 1 for the others."""
    loop_penalty: float = -1.0
    """Weight of what makes the model's own loops less likely (unlikelihood; every 10 steps it answers 32 questions, most of them
    general ones); 0: not, -1: 0 for paper, 0.5 for the others."""
    phrase_penalty: float = -1.0
    """The same for phrases that come back in its own answers, beyond how often the data have them; 0: not, -1: 0.5 for lora, 0
    for the others."""
    allow_disagreement: bool = False
    """Train on a .gguf that llama.cpp cannot load, or makes quite another model of than transformers."""

    def __post_init__(self) -> None:
        positive = ("width", "batch_size", "gradient_accumulation_steps", "save_total_limit")
        natural = ("rank", "learning_rate", "weight_decay", "max_grad_norm", "l1", "seed", "eval_steps", "save_steps")
        check_keys(self.to_dict(), "settings")
        for name, value in self.to_dict().items():
            if isinstance(value, int) and abs(value) >= 2**53:  # a float cannot hold it exactly, or at all
                raise InputError(f"{_flag(name)} is absurdly large", "give a smaller one")
            if isinstance(value, str) and "\0" in value:
                raise InputError(f"{_flag(name)} holds a null character", "remove it")
            if isinstance(value, str) and not is_utf8(value):  # run.toml could not hold it
                raise InputError(f"{_flag(name)} {value!r} is not UTF-8", "rename the file or folder")
        for name in positive:
            if not getattr(self, name) >= 1:
                raise InputError(f"{_flag(name)} {getattr(self, name)} makes no sense", "give at least 1")
        for name in (*natural, "save_minutes", "early_stopping_patience", "sample_tokens"):
            if not 0 <= getattr(self, name) < math.inf:
                raise InputError(f"{_flag(name)} {getattr(self, name)} makes no sense", "give at least 0")
        if not math.isfinite(self.num_train_epochs) or not (self.max_steps > 0 or self.num_train_epochs > 0):
            raise InputError("there is nothing to train", "give --max-steps or --num-train-epochs above 0")
        if self.seed >= 2**32:
            raise InputError(f"--seed {self.seed} is out of range", "give 0 to 4294967295")
        if max(self.rank, self.width) > 65536 or self.num_train_epochs > 1e6:
            raise InputError("--rank, --width or --num-train-epochs is absurdly large", "give at most 65536, 65536 and 1000000")
        if self.batch_size * self.gradient_accumulation_steps > 10**6:
            raise InputError("--batch-size times --gradient-accumulation-steps is absurdly large", "give at most 1000000")
        for name in ("dependence_penalty", "loop_penalty", "phrase_penalty"):
            if not (0 <= (weight := getattr(self, name)) <= 1000 or weight == -1):
                raise InputError(f"--{name.replace('_', '-')} {weight} makes no sense", "give 0 to 1000, or -1")
        if not (0 < self.fact_weight <= 1000 or self.fact_weight == -1):
            raise InputError(f"--fact-weight {self.fact_weight} makes no sense", "give one above 0, at most 1000, or -1")
        if not re.fullmatch(r"(\s*\d{1,6}\s*(,\s*\d{1,6}\s*)*)?", self.mask_indices, re.ASCII):
            raise InputError(f"--mask-indices {reprlib.repr(self.mask_indices)} names no indices", "write them as 1512,7")
        if self.l1 > 1000:
            raise InputError(f"--l1 {self.l1} is absurdly large", "give at most 1000")
        if self.learning_rate > 100:
            raise InputError(f"--learning-rate {self.learning_rate} only diverges", "give at most 100")
        if self.max_length < 8:
            raise InputError(f"--max-length {self.max_length} holds no sample", "give at least 8")
        if KINDS[self.irm].reads == "maps" and self.site == "attn":
            raise InputError(f"a {self.irm} IRM stands beside the blocks' last maps", "leave out --site, or give block")
        if KINDS[self.irm].reads == "maps" and self.dependence_penalty > 0:
            raise InputError(f"what a {self.irm} IRM adds depends on the input", "leave out --dependence-penalty")
        if not 0 <= self.warmup_ratio < 1:
            raise InputError(f"--warmup-ratio {self.warmup_ratio} is out of range", "give 0 to 0.99")

    @property
    def peak_learning_rate(self) -> float:
        return self.learning_rate or KINDS[self.irm].learning_rate

    @property
    def chosen_site(self) -> Literal["attn", "block"]:
        return KINDS[self.irm].site if self.site == "auto" else self.site

    @property
    def chosen_dependence_penalty(self) -> float:
        return KINDS[self.irm].dependence_penalty if self.dependence_penalty == -1 else self.dependence_penalty

    @property
    def chosen_rank(self) -> int:
        return self.rank or KINDS[self.irm].rank

    @property
    def chosen_loop_penalty(self) -> float:
        return KINDS[self.irm].loop_penalty if self.loop_penalty == -1 else self.loop_penalty

    @property
    def chosen_phrase_penalty(self) -> float:
        return KINDS[self.irm].phrase_penalty if self.phrase_penalty == -1 else self.phrase_penalty

    @property
    def asks_itself(self) -> bool:
        """Whether a training has the model's own answers written, for what they say again."""
        return self.chosen_loop_penalty > 0 or self.chosen_phrase_penalty > 0

    @property
    def chosen_fact_weight(self) -> float:
        return KINDS[self.irm].fact_weight if self.fact_weight == -1 else self.fact_weight

    @property
    def irm_options(self) -> dict[str, Any]:
        """What `build_irm` needs beside kind, hidden size, layers and site."""
        masked = {"mask": self.masked} if self.masked else {}
        chosen = {"rank": self.chosen_rank, "width": self.width}
        return {name: chosen[name] for name in KINDS[self.irm].options} | masked

    @property
    def masked(self) -> list[int]:
        """The indices whose outputs stay zero, ascending."""
        return sorted({int(index) for index in self.mask_indices.split(",") if index.strip()})

    def chosen_irm_dtype(self, device: str, dtype: str) -> Literal["float32", "bfloat16"]:
        """`device` and `dtype`: as decided for the base."""
        if self.irm_dtype != "auto":
            return self.irm_dtype
        return "bfloat16" if KINDS[self.irm].large and (device, dtype) == ("cuda", "bfloat16") else "float32"

    def chosen_optim(self, planned: str) -> str:
        """`planned`: the device's optimiser for large IRMs, used for `paper` alone: 8 bits save `lite` only 20 MB on a 7B base."""
        if self.optim != "auto":
            return self.optim
        return planned if KINDS[self.irm].large else "adamw_torch"

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def chosen(self) -> "TrainConfig":
        """With what is left to the kind of IRM filled in."""
        return replace(
            self,
            site=self.chosen_site,
            rank=self.chosen_rank,
            learning_rate=self.peak_learning_rate,
            dependence_penalty=self.chosen_dependence_penalty,
            loop_penalty=self.chosen_loop_penalty,
            phrase_penalty=self.chosen_phrase_penalty,
            fact_weight=self.chosen_fact_weight,
        )

    def resolved(self) -> dict[str, Any]:
        """As `to_dict`, with what the kind chooses filled in and what it does not read at None: equal for equal trainings, also
        where one of two versions wrote a default out and the other left it open."""
        return self.chosen().to_dict() | dict.fromkeys({"rank", "width"}.difference(KINDS[self.irm].options))

    @classmethod
    def from_dict(cls, data: dict[str, Any], where: str) -> "TrainConfig":
        """From a mapping, checked by type. Raises InputError naming the key."""
        check_keys(data, where)
        return cls(**data)


def check_keys(data: dict[str, Any], where: str) -> None:
    """Raise InputError where a key is no field of TrainConfig, or a value has the wrong type or is none of the choices."""
    choices = {name: get_args(hint) for name, hint in get_type_hints(TrainConfig).items() if get_origin(hint) is Literal}
    types = {field.name: type(field.default) for field in fields(TrainConfig)}
    for key, value in data.items():
        if key not in types:
            raise InputError(f"{where}: there is no setting {reprlib.repr(key)}", f"the settings are {', '.join(types)}")
        fine = isinstance(value, int | float) and not isinstance(value, bool) if types[key] is float else type(value) is types[key]
        if not fine:
            raise InputError(f"{where}: {key} must be of type {types[key].__name__}, not {reprlib.repr(value)}", "fix that line")
        if key in choices and value not in choices[key]:
            raise InputError(f"{where}: {key} cannot be {reprlib.repr(value)}", f"choose one of {', '.join(choices[key])}")


def read_toml_file(path: Path, hint: str = "check the path") -> dict[str, Any]:
    """A TOML file that a user wrote. Raises InputError where it is missing (with the hint) or not readable."""
    try:
        return read_toml(path)
    except FileNotFoundError:
        raise InputError(f"there is no file {path}", hint) from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is not readable TOML ({error})", "fix it") from None


def read_config_file(path: Path) -> dict[str, Any]:
    """The settings in a TOML file: at its top, or in [train] as in a run's own run.toml. Only those that it names."""
    data = read_toml_file(path, "check --config")
    settings = data.get("train", data)
    if not isinstance(settings, dict):
        raise InputError(f"{path}: [train] must be a table", "fix it")
    check_keys(settings, str(path))
    return settings


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")
