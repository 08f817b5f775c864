"""How much memory a training will hold at its peak, part by part, predicted from the sizes of base and IRM alone.

Most parts are counted: the tensors that autograd saves or that a step makes (tests compare them with torch's own count). What the
process itself holds is measured as each training starts (setup/own_share.py), since builds of torch differ by gigabytes. Three
parts were measured once, on a CPU with the demo model (benchmarks/fit.py, docs/log.md): what training adds to the process, the
holes in its heap, and that a recomputed block counts twice. For a GPU only tensors are counted, and nothing was measured.
Imports no torch: the TUI uses it.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from irm_lite.base.sources.shape import BaseShape, side_by_side
from irm_lite.config import KINDS, Reads, TrainConfig
from irm_lite.core.errors import InputError
from irm_lite.steering.layers import injected_layers
from irm_lite.training.irm_memory import IRM_MEMORY

Parts = dict[str, int]  # what -> bytes

BATCHES = (1, 2, 4, 8, 16, 32, 64)  # samples a row, as `choices` tries them
BATCH = 8  # samples of an optimiser step, the default
SAMPLE_TOKENS = 128  # where the data's lengths are not known: the paper's
OWN_SHARE = 594_000_000  # Python, torch's CPU build, transformers and bitsandbytes once a base is loaded, without it
_TRAINING = 50_000_000  # what a training's first steps and validations add: kernels, threads, small buffers
_HOLES = 0.45  # share of what a step holds: glibc's heap keeps gaps between the buffers of rows of unequal length
_HOLES_RECOMPUTING = 1.4  # the same with gradient checkpointing, where the buffers of blocks come and go
NEW_TOKENS, OWN_ANSWERS = 48, 3  # of the model's own answers, and how many of them a step has in a row (step/own_repeats.py)
_VALIDATION_TOKENS = 1024  # of a validation's row (packing.rows)
_CHUNK = 96  # answer tokens whose logits are held at once (answer_loss.CHUNK)
_SIZES = {"bfloat16": 2, "float16": 2, "float32": 4}
_WEIGHT_BYTES = {"nf4": 0.5 + 4 / 64, "fp4": 0.5 + 4 / 64, "int8": 1.0}  # a 4-byte scale for 64 weights
_DOUBLE_QUANT_BYTES = 0.5 + 1 / 64 + 4 / (64 * 256)
_STATE_BYTES = {  # a weight of the IRM; torch's AdamW, whose two moments have the weights' number format, is not listed
    **dict.fromkeys(("adamw_bnb_8bit", "adamw_8bit", "paged_adamw_8bit"), 2),
    **dict.fromkeys(("lion_8bit", "paged_lion_8bit"), 1),
    **dict.fromkeys(("lion_32bit", "paged_lion_32bit"), 4),
    "paged_adamw_32bit": 8,
    "sgd": 0,
}
_TORCH_ADAMW = ("adamw_torch", "adamw_torch_fused")


@dataclass(frozen=True)
class Fit:
    """The predicted peaks of loading and of training: bytes by the parts that are in memory together."""

    load: Parts
    training: Parts
    dequantised_once: bool = False  # whether training keeps the blocks' weights dequantised (step/dequantised.py)

    @property
    def load_peak(self) -> int:
        return sum(self.load.values())

    @property
    def training_peak(self) -> int:
        return sum(self.training.values())


@dataclass(frozen=True)
class Room:
    """Bytes of memory: those that are free, and those that the process holds on a CPU without base and IRM."""

    free: int
    own: int = OWN_SHARE


@dataclass(frozen=True)
class Step:
    """A training's largest step. `tokens` of its largest row; `kept`: tokens of all samples whose frozen states stay in memory;
    `rows` that it is computed in; `repeated`: how many more tokens the row would have if samples shared none; `said_again`: tokens
    of the row of the model's own answers that repeat something; `written`: of an answer that is written, its prompt too."""

    tokens: int
    kept: int = 0
    rows: int = 1
    repeated: int = 0
    said_again: int = 0
    written: int = 0

    @property
    def largest(self) -> "Step":
        """With what goes through the base in its largest row."""
        return self if self.said_again <= self.tokens else replace(self, tokens=self.said_again, repeated=0)


@dataclass(frozen=True)
class IrmShape:
    """The sizes of an IRM (steering/irm.py). `weights`: elements of each of its tensors."""

    layers: tuple[int, ...]
    site: str
    weights: dict[str, int] = field(default_factory=dict)
    whole: bool = False  # the base's first blocks cannot be left out
    reads: Reads = "h0"

    @property
    def parameters(self) -> int:
        return sum(self.weights.values())

    @property
    def first_reached(self) -> int:
        """The first block that reads anything of it, as step/frozen_prefix.py's `first_reached`."""
        return 0 if self.whole else self.layers[0] + (self.site == "block" and self.reads != "maps")


def irm_shape(config: TrainConfig, base: BaseShape) -> IrmShape:
    """The IRM that `config` trains on this base. Raises LayerError where the base lacks those layers."""
    layers = injected_layers(config.layers, config.chosen_site, base.layers)
    weights = IRM_MEMORY[config.irm].weights(config, base, len(layers))
    return IrmShape(layers, config.chosen_site, weights, base.whole, KINDS[config.irm].reads)


def predict(base: BaseShape, config: TrainConfig, step: Step, device: str, dtype: str, optim: str, room: Room) -> Fit:
    """The peaks of a training. `device`, `dtype` and `optim`: as decided, not "auto". Raises LayerError as `irm_shape`, InputError
    for an optimiser whose states are not known.

    On a CPU that computes in bfloat16 the blocks' weights are kept dequantised too where all stays within half of what is free. In
    float32 that brings 2% of the speed for a quarter more memory (docs/log.md, 2026-11-30)."""
    least = _predict(base, config, step.largest, device, dtype, optim, room.own)
    if device != "cpu" or dtype != "bfloat16" or config.quant not in ("nf4", "fp4") or config.gradient_checkpointing:
        return least
    blocks = base.layers - irm_shape(config, base).first_reached
    weights = {"blocks' weights, dequantised": blocks * sum(base.block_matrices) * _SIZES[dtype]}
    more = Fit(least.load, least.training | weights, dequantised_once=True)
    return more if more.training_peak <= room.free / 2 else least


def _predict(base: BaseShape, config: TrainConfig, step: Step, device: str, dtype: str, optim: str, own: int) -> Fit:
    if optim not in (*_TORCH_ADAMW, *_STATE_BYTES):
        raise InputError(f"what --optim {optim!r} holds is not known", f"known are {', '.join((*_TORCH_ADAMW, *_STATE_BYTES))}")
    irm = irm_shape(config, base)
    c = _SIZES[dtype]
    weights = _base_weights(base, config, c)
    cpu = device == "cpu"
    process = {"process": own} if cpu else {}
    load = process | weights | {"weights being read": _reading(base, config, sum(weights.values()), c, cpu)}
    irm_c = 2 if dtype == "bfloat16" else 4  # of the paper's products (step/injected_model.py); the others' are in float32
    saved = _saved(base, irm, config, step, c, irm_c, cpu)
    each = _SIZES[config.chosen_irm_dtype(device, dtype)]
    passing = {"logits": _logits(base, c), "block at work": _working(base, step.tokens, c)}
    if step.rows > 1:  # of the largest weight, beside the sum of the rows before it
        passing["a row's gradient"] = each * max(irm.weights.values())
    if IRM_MEMORY[config.irm].outputs_at_once:
        passing["IRM outputs' gradients"] = len(irm.layers) * base.hidden_size * irm_c * step.tokens
    if cpu:  # a validation's row may be longer than a step's
        passing["block at work"] = max(passing["block at work"], _working(base, _VALIDATION_TOKENS, c))
    if step.written and sum((writing := _writing(base, step.written, c)).values()) > sum((saved | passing).values()):
        saved, passing = {}, writing
    optimiser = {
        "IRM weights": each * irm.parameters,
        "IRM gradients": each * irm.parameters,
        "optimiser states": optimiser_bytes(irm.parameters, each, optim),
    }
    streams = (irm.first_reached > 0) + (KINDS[config.irm].reads == "h0")
    kept = {"frozen prefix kept": step.kept * streams * base.hidden_size * c} if cpu else {}
    # torch's AdamW makes its denominator of two: the second moment's square root, and the quotient
    step_takes = 0 if optim != "adamw_torch" else 2 * each * max(irm.weights.values())
    halved = 2 * irm.parameters if KINDS[config.irm].large and irm_c < each else 0
    if cpu:  # the heap keeps what the passes held while the optimiser makes its step
        moment = {"optimiser step, or IRM in half precision": max(step_takes, halved)}
        share = _HOLES_RECOMPUTING if config.gradient_checkpointing else _HOLES
        holes = {"holes in the heap": int(share * sum((saved | passing).values()))}
        training = process | {"training": _TRAINING} | weights | optimiser | kept | saved | holes | passing | moment
    else:
        in_passes, in_step = saved | passing | {"IRM in half precision": halved}, {"optimiser step": step_takes}
        training = weights | optimiser | max(in_passes, in_step, key=lambda parts: sum(parts.values()))
    return Fit(load, {name: n_bytes for name, n_bytes in training.items() if n_bytes})


def optimiser_bytes(parameters: int, each: int, optim: str) -> int:
    """Bytes of an optimiser's states for so many parameters of `each` bytes; an unknown one counts as torch's AdamW."""
    return _STATE_BYTES.get(optim, 2 * each) * parameters


def largest_step(
    lengths: Sequence[int],
    validation: Sequence[int],
    config: TrainConfig,
    steps: int,
    rows: int,
    processes: int = 1,
    shared: int = 0,
) -> Step:
    """The largest step of a training on samples with these lengths in tokens, each step computed in `rows` rows a process, where
    all samples' first `shared` tokens stand once.

    The frozen states of validation samples are kept, those of training samples only where they are seen again (train.py).
    """
    together = config.batch_size * config.gradient_accumulation_steps
    again = seen_again(steps, together * processes, len(lengths))
    kept = sum(validation) + (sum(lengths) if again else 0)
    in_a_row = math.ceil(together / rows)
    repeated = shared * (min(in_a_row, len(lengths)) - 1)
    tokens = largest_row(lengths, in_a_row, steps * rows) - repeated
    return Step(tokens, kept if config.cache_prefix else 0, rows, repeated)


def with_text(step: Step, config: TrainConfig, prompt: int) -> Step:
    """The step, and the text that such a training has written behind prompts of so many tokens."""
    asks = config.asks_itself
    new = max(NEW_TOKENS if asks else 0, config.sample_tokens)
    again = OWN_ANSWERS * (prompt + NEW_TOKENS) if asks else 0
    return replace(step, said_again=again, written=prompt + new if new else 0)


def seen_again(steps: int, together: int, samples: int) -> bool:
    """Whether a training of so many steps of `together` samples sees any sample a second time."""
    return steps > math.ceil(samples / together)


def largest_row(lengths: Sequence[int], samples: int, draws: int) -> int:
    """Tokens of the largest of `draws` rows of so many samples with these lengths.

    The expected maximum of n normal sums, at most mean + sd sqrt(2 ln n) (Boucheron, Lugosi & Massart 2013, theorem 2.5),
    and never more than the longest samples together.
    """
    samples = min(samples, len(lengths))
    mean = sum(lengths) / len(lengths)
    variance = sum((length - mean) ** 2 for length in lengths) / len(lengths)
    expected = samples * mean + math.sqrt(2 * math.log(max(draws, 2)) * samples * variance)
    return min(math.ceil(expected), sum(sorted(lengths)[-samples:]))


def fewest_rows(fits: Callable[[int], Fit], samples: int, free: int) -> int:
    """The fewest rows in which a step of so many samples stays within `free` bytes, as `fits(rows)` predicts; a row for each sample
    where none does."""
    sizes = dict.fromkeys(math.ceil(samples / rows) for rows in range(1, samples + 1))  # of the largest row
    counts = [math.ceil(samples / size) for size in sizes]
    return next((rows for rows in counts if fits(rows).training_peak <= free), samples)


@dataclass(frozen=True)
class Choice:
    """One way to train a kind of IRM, and the memory that it takes."""

    config: TrainConfig
    fit: Fit

    def fits(self, memory: int) -> bool:
        """Whether loading and training stay within so many bytes."""
        return max(self.fit.load_peak, self.fit.training_peak) <= memory


def choices(base: BaseShape, config: TrainConfig, length: int, device: str, dtype: str, optim: str, room: Room) -> list[Choice]:
    """`config` with each batch of BATCHES, without gradient checkpointing and with it; samples of `length` tokens, half of them the
    prompt's."""
    found = []
    for batch_size in BATCHES:
        for recompute in (False, True):
            each = replace(config, batch_size=batch_size, gradient_checkpointing=recompute)
            step, chosen = with_text(Step(batch_size * length), each, length // 2), each.chosen_optim(optim)
            found.append(Choice(each, predict(base, each, step, device, dtype, chosen, room)))
    return found


def recommended(found: Sequence[Choice], memory: int) -> TrainConfig | None:
    """The quickest of `choices` that fits, for optimiser steps of BATCH samples: recomputing is slower than rows of half the size
    and quicker than rows of a quarter. None where none fits."""
    fitting = {(each.config.batch_size, each.config.gradient_checkpointing): each.config for each in found if each.fits(memory)}
    order = [(8, False), (4, False), (8, True), (4, True), (2, False), (2, True), (1, False), (1, True)]
    best = next((fitting[key] for key in order if key in fitting), None)
    return best and replace(best, gradient_accumulation_steps=BATCH // best.batch_size)


def _base_weights(base: BaseShape, config: TrainConfig, c: int) -> Parts:
    matrices = base.layers * sum(base.block_matrices)
    each = _WEIGHT_BYTES.get(config.quant, c)
    if config.double_quant and config.quant in ("nf4", "fp4"):
        each = _DOUBLE_QUANT_BYTES
    return {"blocks' weights": int(matrices * each), "embeddings and head": base.unquantised * c}


def _reading(base: BaseShape, config: TrainConfig, weights: int, c: int, cpu: bool) -> int:
    """Bytes that loading holds beside the weights that stay. To a GPU the largest weights, as a rule the embeddings, come in their
    final form; in memory, ggml's blocks come in the base's format too where transformers changes no more than the order of their
    rows, else by float32, before the others are there if those are quantised."""
    if not cpu:
        return c * max(base.block_matrices)
    largest = max(base.embedding, *base.block_matrices)
    unpacked = max(0, (4 + c % 4) * largest - weights) if base.from_gguf else 0
    each = c if base.from_gguf else 4
    return max(unpacked, each * (largest if config.quant == "none" else max(base.block_matrices)))


def _saved(base: BaseShape, irm: IrmShape, config: TrainConfig, step: Step, c: int, irm_c: int, cpu: bool) -> Parts:
    """What autograd saves of a forward, and the IRM's outputs, which the injection holds."""
    kind, hidden, count, tokens = IRM_MEMORY[config.irm], base.hidden_size, len(irm.layers), step.tokens
    blocks = base.layers - irm.first_reached
    norm = 4 * (hidden + 1)  # in float32, and its root mean square
    heads = 2 * (base.heads + base.kv_heads) * base.head_size  # queries and outputs; keys and values
    attention = 4 * (heads + base.heads) if cpu else c * heads + 4 * base.heads  # on a CPU in float32; log-sum-exps
    block = 2 * norm + attention + 3 * c * base.intermediate_size  # gate, its activation, up
    if config.quant == "int8":  # bitsandbytes holds each product's input
        block += c * (2 * hidden + base.heads * base.head_size + base.intermediate_size)
    unreached = norm + attention if irm.site == "attn" else 0  # of the first block: it is injected after its attention
    penalised = 4 * hidden if config.l1 > 0 and not kind.outputs_at_once else 0  # a layer's outputs
    if not config.gradient_checkpointing:
        parts = {"blocks' activations": (blocks * block - unreached) * tokens, "IRM outputs penalised": count * penalised * tokens}
        parts["attention to what is shared"] = (blocks - (irm.site == "attn")) * attention * step.repeated
    elif irm.site == "attn":  # inside the blocks; of a recomputed one as much again is made and not saved
        parts = {"blocks' inputs": blocks * hidden * c * tokens, "one block recomputed": 2 * (block + penalised) * tokens}
    else:
        parts = {"blocks' inputs": blocks * hidden * c * tokens, "one block recomputed": 2 * block * tokens}
        parts["IRM outputs penalised"] = count * penalised * tokens
    if config.chosen_dependence_penalty:  # IRM.moments: what is less its mean
        parts["IRM outputs compared"] = 4 * count * kind.compared(config, hidden) * tokens
    if config.gradient_checkpointing:
        parts["one block recomputed"] += 2 * attention * step.repeated
    parts["final norm"] = (norm + c * hidden) * tokens  # and the answers' gradient
    return parts | {
        name: each * tokens for name, each in kind.saved(config, base, count, irm_c if kind.outputs_at_once else c).items()
    }


def _logits(base: BaseShape, c: int) -> int:
    """A chunk's logits in the head's number format, in float32 together with the last chunk's, and their probabilities."""
    return _CHUNK * base.vocabulary * (12 + (c if c < 4 else 0))


def _working(base: BaseShape, tokens: int, c: int) -> int:
    """A block's gradients, and its largest matrix dequantised for them."""
    return tokens * (4 * base.intermediate_size * c + 12 * base.hidden_size) + c * max(base.block_matrices)


def _writing(base: BaseShape, length: int, c: int) -> Parts:
    """What answers of so many tokens, written side by side, hold: keys and values, the prompts on their way through a block, and
    the next tokens' logits, also in float32 and a second time for the choice."""
    answers = side_by_side(base.hidden_size)
    tokens = answers * length
    cache = 2 * base.layers * base.kv_heads * base.head_size * c * tokens
    logits = answers * base.vocabulary * (c + 8)
    return {"text: keys and values": cache, "text: block at work": _working(base, tokens, c), "text: logits": logits}
