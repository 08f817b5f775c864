"""A control vector as a LoRA adapter, in closed form: block N's last map gets B = v_N, and as A the predictor of 1 from its input.

Two things are not in the formula. The predictor is fitted on texts that the model reads at several strengths, not at 1 alone: what
v does to the stream is itself a constant that later blocks read, and an A that leans on it gives a quarter of v at half the scale.
And where 1 is predicted badly, the block's attention output gets a second A that predicts what is left over.

Where what the last map puts out is normalised before it reaches the stream, A predicts what the norm divides by (post_norm.py).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, TypeVar

import numpy as np

from irm_lite.base.maps import LAST
from irm_lite.core.types import DoubleArray, FloatArray, Progress, unwatched
from irm_lite.steering.adapter import Factors
from irm_lite.vectors.adapter.inputs import Source, Text
from irm_lite.vectors.adapter.post_norm import FLOORS, Behind, PostNorm
from irm_lite.vectors.adapter.predictor import Predictor, fit, mean_square

FITTED_AT = (1.0, 0.0, 0.5, 1.0, -1.0, 1.5, 1.0, 0.75)  # strengths of the texts, in turn
BADLY = 0.05  # mean square error from which on a block is helped
_AT_ONCE = 1 << 28  # floats of inputs that are held at once (1 GiB): a large model's blocks are read in several passes
Array = TypeVar("Array", FloatArray, DoubleArray)
Item = TypeVar("Item")


@dataclass(frozen=True)
class Worst:
    """The token of the held-out texts at which a block adds least of what it should, or most too much: `added` times its vector."""

    text: int
    position: int
    added: float


@dataclass(frozen=True)
class BlockFit:
    """How well 1 is predicted in a block, on held-out texts: mean of (1 - A x)^2 over tokens, over first tokens (the attention
    sink's), and by the strength that the model was steered at. Behind a post norm: what of the vector's power, as the next norm
    reads it, reaches the stream wrongly at that strength."""

    block: int
    modules: tuple[str, ...]
    ridge: float
    error: float
    unhelped: float  # the same by the last map alone
    first_token: float
    by_strength: dict[float, float]
    worst: Worst
    floor: float | None = None  # by which B behind a post norm was chosen (post_norm.py); None: there is no such norm

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {"by_strength": {f"{strength:g}": error for strength, error in self.by_strength.items()}}


@dataclass(frozen=True)
class ClosedForm:
    """Factors by GGUF map, and the fit of each block."""

    factors: dict[str, Factors]
    fits: list[BlockFit]


@dataclass(frozen=True)
class Split:
    """The texts in three: A is fitted on the first, the ridge chosen on the second, the error told on the third."""

    fit: Sequence[Text]
    choose: Sequence[Text]
    tell: Sequence[Text]

    @property
    def all(self) -> list[Text]:
        return [*self.fit, *self.choose, *self.tell]

    def parts(self, values: Array) -> tuple[Array, Array, Array]:
        first = sum(len(text.ids) for text in self.fit)
        second = first + sum(len(text.ids) for text in self.choose)
        return values[:first], values[first:second], values[second:]


def closed_form(
    source: Source,
    directions: dict[int, FloatArray],
    texts: Sequence[Text],
    *,
    last: str = LAST,
    help_with: Mapping[int, str] | None = None,
    norms: Mapping[int, PostNorm] | None = None,
    on_progress: Progress = unwatched,
) -> ClosedForm:
    """The adapter of `directions` {block: (H,)}: rank 1 on each block's map `last`, and on that in `help_with`, if it names one of
    the block, where that is not enough. `norms`: by block, of what `last` puts out, before it reaches the stream."""
    split = split_of(texts)
    behind_norms = norms or {}
    factors: dict[str, Factors] = {}
    fits: list[BlockFit] = []
    blocks = sorted(directions)
    for group in _groups(source, blocks, last, split.all, also=max((len(each.gain) for each in behind_norms.values()), default=0)):
        read = source.read([f"blk.{block}.{last}" for block in group], split.all)
        normed = [f"blk.{block}.{last}" for block in group if block in behind_norms]
        outputs = source.put_out(normed, split.all) if normed else {}
        for block in group:
            name = f"blk.{block}.{last}"
            inputs = read.pop(name)
            if block in behind_norms:
                made = _through(split, inputs, outputs.pop(name), behind_norms[block], directions[block])
            else:
                made = _as_it_is(split, inputs, directions[block])
            factors[name] = made.factors
            fits.append(replace(told(block, (last,), made.ridge, made.errors, made.added, split.tell), floor=made.floor))
            on_progress(len(fits), len(blocks), "predicting 1")
    for number, bad in enumerate(fits):
        if bad.error > BADLY and (helping := (help_with or {}).get(bad.block)) is not None:
            fits[number] = _helped(source, split, bad, (last, helping), factors)
    return ClosedForm(factors, fits)


def split_of(texts: Sequence[Text]) -> Split:
    """The texts, parted."""
    return Split(*parted(texts))


def parted(items: Sequence[Item]) -> tuple[Sequence[Item], Sequence[Item], Sequence[Item]]:
    """In three, 5 : 1 : 2 of eight: what is fitted on, what chooses, what nothing was fitted to."""
    count = max(1, len(items) // 8)
    return items[: -3 * count], items[-3 * count : -2 * count], items[-2 * count :]


@dataclass(frozen=True)
class _Made:
    """Factors of a block's last map, and of each held-out token its squared error and how many times the vector it is given."""

    factors: Factors
    ridge: float
    errors: FloatArray | DoubleArray
    added: FloatArray | DoubleArray
    floor: float | None = None


def _as_it_is(split: Split, inputs: FloatArray, direction: FloatArray) -> _Made:
    """What the map puts out reaches the stream as it is."""
    predictor = _fit(split, inputs)
    added = split.parts(inputs)[2] @ predictor.a
    return _Made(_factors(predictor, direction), predictor.ridge, np.square(1 - added), added)


def _through(split: Split, inputs: FloatArray, outputs: FloatArray, norm: PostNorm, direction: FloatArray) -> _Made:
    """It is normalised before that. The floor is what loses least on the texts that choose, at their own strengths."""
    sizes = norm.sizes(outputs)[:, None]
    inputs, normed = inputs / sizes, outputs / sizes  # q = A x / r is to be 1
    predictor = _fit(split, inputs)
    strengths = np.repeat([text.strength for text in split.all], [len(text.ids) for text in split.all])
    parts = list(zip(split.parts(normed), split.parts(inputs @ predictor.a), split.parts(strengths), strict=True))

    def lost(part: int, floor: float) -> Behind:
        n, q, s = parts[part]
        return norm.behind(norm.added(n, q, norm.before(direction, floor), s), direction)

    floor = min(FLOORS, key=lambda each: float(lost(1, each).errors.mean()))
    found = lost(2, floor)
    return _Made(_factors(predictor, norm.before(direction, floor)), predictor.ridge, found.errors, found.given, floor)


def _groups(source: Source, blocks: Sequence[int], last: str, texts: Sequence[Text], also: int) -> Iterator[Sequence[int]]:
    """As many blocks as are read at once; one text tells the width, `also` is kept beside it."""
    probe = source.read([f"blk.{blocks[0]}.{last}"], texts[:1])
    return at_once(blocks, next(iter(probe.values())).shape[1] + also, texts)


def at_once(blocks: Sequence[int], width: int, texts: Sequence[Text]) -> Iterator[Sequence[int]]:
    """The blocks in as many groups as it takes, where `width` floats are held of each token in each block."""
    count = max(1, _AT_ONCE // (width * sum(len(text.ids) for text in texts)))
    return (blocks[at : at + count] for at in range(0, len(blocks), count))


def _fit(split: Split, inputs: FloatArray) -> Predictor:
    fitting, choosing, _ = split.parts(inputs)
    return fit(fitting, choosing)


def _helped(source: Source, split: Split, bad: BlockFit, modules: tuple[str, str], factors: dict[str, Factors]) -> BlockFit:
    """A second factor that predicts what the first leaves over, if that is less then."""
    names = [f"blk.{bad.block}.{module}" for module in modules]
    read = source.read(names, split.all)
    first = factors[names[0]]
    left: DoubleArray = 1 - read[names[0]].astype(np.float64) @ first.a[0]
    fitting, choosing, telling = split.parts(read[names[1]])
    wanted, wanted_there, wanted_last = split.parts(left)
    predictor = fit(fitting, choosing, wanted, wanted_there)
    rest = wanted_last - telling @ predictor.a
    if mean_square(rest) >= bad.error:
        return bad
    factors[names[1]] = Factors(predictor.a[None], first.b)
    return replace(told(bad.block, modules, bad.ridge, np.square(rest), 1 - rest, split.tell), unhelped=bad.error)


def _factors(predictor: Predictor, direction: FloatArray) -> Factors:
    return Factors(predictor.a[None], direction.astype(np.float32)[:, None])


def told(block: int, modules: tuple[str, ...], ridge: float, errors: Any, added: Any, texts: Sequence[Text]) -> BlockFit:
    """From the squared error at each token of the held-out texts, (T,), and how many times what it should be is `added` there."""
    ends = np.cumsum([len(text.ids) for text in texts])[:-1]
    by_text, there = (np.split(np.asarray(each, dtype=np.float64), ends) for each in (errors, added))
    strengths: dict[float, list[DoubleArray]] = {}
    for text, values in zip(texts, by_text, strict=True):
        strengths.setdefault(text.strength, []).append(values)
    number = int(np.argmax([values.max() for values in by_text]))
    position = int(by_text[number].argmax())
    error = float(np.mean(errors, dtype=np.float64))
    return BlockFit(
        block,
        modules,
        ridge,
        error,
        error,
        float(np.mean([values[0] for values in by_text])),
        {strength: float(np.concatenate(values).mean()) for strength, values in sorted(strengths.items())},
        Worst(number, position, float(there[number][position])),
    )


def spread(ids: Sequence[tuple[list[int], int]], strengths: Sequence[float] = FITTED_AT) -> list[Text]:
    """Texts (ids, answer_start) at the strengths in turn."""
    return [Text(each, strengths[number % len(strengths)], start) for number, (each, start) in enumerate(ids)]
