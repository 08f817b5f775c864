"""Measurements as tables of at most 80 columns: each figure with its 95% interval."""

import math
from typing import TYPE_CHECKING, Any

from rich.console import RenderableType
from rich.table import Table

from irm_lite.scoring.parts import PARTS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from irm_lite.core.bootstrap import Interval
    from irm_lite.scoring.score import Score
    from irm_lite.vectors.fidelity.comparison import Comparison
    from irm_lite.vectors.fidelity.generations import Generations


def with_interval(value: float, interval: "Interval") -> str:
    return f"{value:.3f} ({interval[0]:.2f} to {interval[1]:.2f})"


def comparison_shown(comparison: "Comparison", name: str = "vector") -> tuple[RenderableType, ...]:
    """NLL and KL by steering, and the fidelity with what it is made of. `name`: what the third column is of."""

    def show(key: str) -> str:
        return with_interval(comparison.means[key], comparison.intervals[key])

    table = _table("NLL", "KL(IRM || it)", "IRM's first choice")
    table.add_row("base", show("nll_base"), show("kl_irm_base"), "")
    table.add_row("IRM", show("nll_irm"), "0", "1")
    table.add_row(name, show("nll_vector"), show("kl_irm_vector"), show("top1_agreement"))
    low, high = comparison.intervals["fidelity"]
    none = math.isnan(comparison.fidelity)
    fidelity = "-" if none else f"{comparison.fidelity:.3f} ({low:.3f} to {high:.3f})"
    size = f"{len(comparison.sums)} held-out answers, {comparison.tokens} tokens"
    return (
        f"{size}, in {comparison.measured_in}; nats a token (95% intervals)",
        table,
        f"fidelity {fidelity} = 1 - KL(IRM || {name}) / KL(IRM || base)",
    )


def side_effects_shown(
    neutral: "Comparison", generations: "Generations | None" = None, adapter: "Comparison | None" = None, name: str = "vector"
) -> tuple[RenderableType, ...]:
    """What steering does to neutral answers, and to the text's variety. `name`: what the third row is of; `adapter`: of another one
    on the same answers."""
    table = _table("NLL", "KL(base || it)", *(["distinct-2"] if generations else []))
    shares = generations.distinct_2() if generations else {}
    for shown, key in (("base", "base"), ("IRM", "irm"), (name, "vector")):
        effect = "0" if key == "base" else with_interval(neutral.means[f"kl_base_{key}"], neutral.intervals[f"kl_base_{key}"])
        variety = [with_interval(*shares[key])] if shares else []
        table.add_row(shown, with_interval(neutral.means[f"nll_{key}"], neutral.intervals[f"nll_{key}"]), effect, *variety)
    if adapter is not None:
        figures = (with_interval(adapter.means[key], adapter.intervals[key]) for key in ("nll_vector", "kl_base_vector"))
        table.add_row("adapter", *figures, *([""] if shares else []))
    written = f"; distinct-2 of {len(generations.questions)} written answers" if generations else ""
    return (f"side effects: {len(neutral.sums)} neutral answers, {neutral.tokens} tokens{written}", table)


_NAMES = {"irm": "IRM"}  # of columns, where they are not as they are written

_WITH_INTERVALS = 3  # columns of the score's table that fit into 80 characters with their intervals

# Rows of the score's table: its parts, each followed by what it is made of.
_SCORE_ROWS = {
    "score": "score",
    "fluency": "fluency",
    "ended": " ends by itself",
    "looped": " loops",
    "distinct_2": " distinct-2",
    "perplexity_ratio": " perplexity, times",
    "tone": "tone",
    "toned": " in the tone",
    "prefers": " prefers the tone",
    "sense": "sense",
    "choices": " right of four",
    "margin": " margin, nats",
    "recalled": " key words said",
    "steerability": "steerability",
    "wrong_way": " wrong way",
}


def score_shown(scores: "Mapping[Any, Score]") -> tuple[RenderableType, ...]:
    """The score of each steering's text, its parts, and what they are made of; what could not be measured, a line each."""
    if not scores:
        return ()
    first = next(iter(scores.values()))
    table = _table(*(_NAMES.get(name, name) for name in scores))
    table.columns[0].no_wrap = True
    narrow = len(scores) > _WITH_INTERVALS  # the score's own interval is then a row
    rows = {name: shown for name, shown in _SCORE_ROWS.items() if name in first.figures}
    for name, shown in rows.items():
        table.add_row(shown, *(_figure(each, name, bare=narrow or which == "base") for which, each in scores.items()))
        if narrow and name == "score":
            table.add_row(" 95%", *("" if which == "base" else _interval(each, name) for which, each in scores.items()))
    lacks = [f"not measured: {line}" for line in first.lacks]
    phrases = [f"{_NAMES.get(name, name)}: {line}" for name, each in scores.items() for line in _phrase_told(each)]
    return (f"score of text: {first.size}, greedy and sampled (docs/score.md)", table, *phrases, *lacks)


def _figure(score: "Score", name: str, bare: bool) -> str:
    """With its interval, if there is room for it: the base's are what the others are compared with."""
    return f"{score.figures[name]:.2f}" if bare else f"{score.figures[name]:.2f} ({_interval(score, name)})"


def _interval(score: "Score", name: str) -> str:
    low, high = score.intervals[name]
    return f"{low:.2f} to {high:.2f}"


def score_lines(score: "Score") -> list[str]:
    """The score and its parts in one line, what comes back from answer to answer, and what could not be measured."""
    lacks = [] if score.value is None else [f"not measured: {line}" for line in score.lacks]  # else the first line has it
    return [_score_line(score), *_phrase_told(score), *lacks]


def _phrase_told(score: "Score") -> list[str]:
    return [str(score.phrase)] if score.phrase and score.phrase.too_often else []


def _score_line(score: "Score") -> str:
    parts = ", ".join(f"{name} {score.figures[name]:.2f}" if name in score.figures else f"{name} -" for name in PARTS)
    if score.value is None:
        return f"no score of text ({'; '.join(score.lacks)}): {parts}"
    low, high = score.intervals["score"]
    return f"score of text {score.value:.2f} ({low:.2f} to {high:.2f}): {parts}; {score.size}"


def _table(*columns: str) -> Table:
    table = Table()
    table.add_column("")
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    return table
