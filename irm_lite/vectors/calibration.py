"""The strength and the layers at which a control vector gains most for what it costs, in llama.cpp on one GGUF.

Both sides are in nats a token: what is gained is the fall of the NLL of the tone's answers, what it costs is the
KL(base || steered) on neutral answers. The trade is their difference, and the setting with the largest is proposed. Its
interval does not know that it was chosen among many: `eval` measures it on the test split, which is not used here.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from irm_lite.base.fingerprint import Match
from irm_lite.base.load import load_tokenizer
from irm_lite.core.bootstrap import Interval, interval, resampled_sums
from irm_lite.core.errors import DataError, InputError
from irm_lite.core.log_probabilities import kl
from irm_lite.core.machine.give_way import giving_way
from irm_lite.core.types import DoubleArray, Progress, unwatched
from irm_lite.data.dataset import load_dataset
from irm_lite.data.encoding import Sample, encode_all
from irm_lite.llamacpp.likelihood import answer_nll, context_for
from irm_lite.llamacpp.parallel import ONE_BY_ONE, log_probabilities_together
from irm_lite.steering.control_vector import ControlVector, require_scale
from irm_lite.steering.layers import format_layers
from irm_lite.vectors.agreement_check import disagreement_of_file
from irm_lite.vectors.scored import MAX_LENGTH

if TYPE_CHECKING:
    from torch import Tensor

    from irm_lite.llamacpp import Runtime

STRENGTHS = (0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0)
_SAMPLES = 24  # of each kind at most: the time grows with them, and the intervals say what they are worth


@dataclass(frozen=True)
class Grid:
    """The strengths that are tried at each choice of layers. Raises InputError where there are none, or one cannot be used."""

    strengths: Sequence[float] = STRENGTHS
    choices: Sequence[tuple[int, ...]] | None = None  # None: all of the vector's layers, and three halves of them
    seed: int = 0  # of the samples that are drawn for the intervals

    def __post_init__(self) -> None:
        if not self.strengths:
            raise InputError("there are no strengths to try", "write 0.5,1,1.5")
        for strength in self.strengths:
            require_scale(strength)


@dataclass(frozen=True)
class Setting:
    """A strength and layers with what they do. NLL and KL in nats a token, `trade_95` the trade's bootstrap interval."""

    layers: str
    strength: float
    nll_aligned: float
    nll_neutral: float
    kl_neutral: float
    trade: float
    trade_95: Interval


@dataclass(frozen=True)
class Calibration:
    """All settings that were tried, by layers and then strength."""

    gguf: Path
    data: str
    nll_base: float  # of the aligned answers, without the vector
    settings: list[Setting]
    samples: int  # aligned answers
    match: Match
    disagreement: str | None = None  # of transformers and llama.cpp on the file

    @property
    def best(self) -> Setting:
        return max(self.settings, key=lambda setting: setting.trade)

    def at(self, layers: str) -> list[Setting]:
        """The curve of one choice of layers."""
        return [setting for setting in self.settings if setting.layers == layers]

    def to_dict(self) -> dict[str, Any]:
        return {
            "gguf": str(self.gguf),
            "data": self.data,
            "samples": self.samples,
            "disagreement": self.disagreement,
            "nll_base": self.nll_base,
            "best": asdict(self.best),
            "settings": [asdict(setting) for setting in self.settings],
        }


def layer_choices(vector: ControlVector) -> list[tuple[int, ...]]:
    """All of the vector's layers, and their first, middle and last half."""
    layers, n = vector.layers, len(vector.layers)
    choices = [layers, layers[: n // 2], layers[n // 4 : n - n // 4], layers[n // 2 :]]
    return list(dict.fromkeys(choice for choice in choices if choice))


@giving_way()
def calibrate(
    vector: ControlVector,
    gguf: Path,
    data: str,
    *,
    model: str | None = None,
    answer_column: str = "answer",
    grid: Grid | None = None,
    on_progress: Progress = unwatched,
) -> Calibration:
    """Try every setting of the grid (default: seven strengths, four choices of layers) on the data's validation split.

    The test split stays for `eval`. `model` names where tokenizer and chat template come from (default: the GGUF).
    Raises an InputError where something is missing or does not fit.
    """
    from irm_lite.llamacpp import Runtime

    grid = grid or Grid()
    tokenizer = load_tokenizer(model or str(gguf))
    aligned, neutral = (
        encode_all(tokenizer, dataset.validation, MAX_LENGTH)[0][:_SAMPLES]
        for dataset in (load_dataset(data, answer_column), load_dataset("neutral"))
    )
    if not aligned:
        raise DataError(f"none of {data}'s validation samples has at most {MAX_LENGTH} tokens", "give more or shorter rows")
    settings = list(product(layer_choices(vector) if grid.choices is None else grid.choices, grid.strengths))
    told = disagreement_of_file(gguf, tokenizer, aligned)
    found: list[Setting] = []
    with Runtime(gguf, n_ctx=context_for([*aligned, *neutral]), n_sequences=ONE_BY_ONE) as runtime:
        match = vector.require_fit(runtime.model.fingerprint, gguf.name)
        said = "the model itself"

        def at_work() -> None:  # after each answer: whoever stops it is heard within a setting
            on_progress(len(found), len(settings), said)

        plain = Reference(runtime, aligned, neutral, seed=grid.seed, on_answer=at_work)
        for layers, strength in settings:
            runtime.set_vector(vector, strength, layers)
            found.append(plain.measure(runtime, format_layers(layers), strength))
            said = f"layers {found[-1].layers} at {strength:g}: trade {found[-1].trade:+.2f}"
            at_work()
    return Calibration(gguf, data, plain.nll, found, len(aligned), match, told)


class Reference:
    """The unsteered model on the samples, measured once; `measure` compares a runtime with it as it is steered then. `on_answer` is
    called after each answer."""

    def __init__(
        self,
        runtime: "Runtime",
        aligned: list[Sample],
        neutral: list[Sample],
        *,
        seed: int = 0,
        on_answer: Callable[[], None] = lambda: None,
    ) -> None:
        self.aligned, self.neutral, self.seed, self.on_answer = aligned, neutral, seed, on_answer
        # The shipped tones answer the same questions: then the bootstrap draws questions, with their answers of both kinds.
        self.paired = [each.example.question for each in aligned] == [each.example.question for each in neutral]
        self.aligned_nll = self._nlls(runtime)
        self.neutral_log_probs = list(self._log_probs(runtime, neutral))

    @property
    def nll(self) -> float:
        """Of the aligned answers, unsteered, nats a token."""
        return float(self.aligned_nll[:, 1].sum() / self.aligned_nll[:, 0].sum())

    def _nlls(self, runtime: "Runtime") -> DoubleArray:
        found = zip(self.aligned, self._log_probs(runtime, self.aligned), strict=True)
        return np.array([answer_nll(log_probs, sample) for sample, log_probs in found])

    def _log_probs(self, runtime: "Runtime", samples: list[Sample]) -> "Iterator[Tensor]":
        for found in log_probabilities_together(runtime, samples):
            self.on_answer()
            yield found

    def measure(self, runtime: "Runtime", layers: str, strength: float) -> Setting:
        aligned = self._nlls(runtime)
        neutral_sums = []
        changed = self._log_probs(runtime, self.neutral)
        for sample, before, after in zip(self.neutral, self.neutral_log_probs, changed, strict=True):
            neutral_sums.append([*answer_nll(after, sample), kl(before, after).sum().item()])
        neutral = np.array(neutral_sums)
        gains = self.aligned_nll.copy()
        gains[:, 1] -= aligned[:, 1]
        drawn_gains = resampled_sums(gains, seed=self.seed)
        drawn_costs = resampled_sums(neutral[:, [0, 2]], seed=self.seed + (not self.paired))
        tokens, neutral_tokens = aligned[:, 0].sum(), neutral[:, 0].sum()
        cost = float(neutral[:, 2].sum() / neutral_tokens)
        return Setting(
            layers,
            strength,
            float(aligned[:, 1].sum() / tokens),
            float(neutral[:, 1].sum() / neutral_tokens),
            cost,
            float(gains[:, 1].sum() / tokens) - cost,
            interval(drawn_gains[:, 1] / drawn_gains[:, 0] - drawn_costs[:, 1] / drawn_costs[:, 0]),
        )
