"""Measurements as tables: each figure with its 95% interval."""

from typing import TYPE_CHECKING

from rich.table import Table

if TYPE_CHECKING:
    from irm_lite.bootstrap import Interval
    from irm_lite.evaluation import Comparison, Evaluation


def with_interval(value: float, interval: "Interval") -> str:
    return f"{value:.3f} [{interval[0]:.3f}, {interval[1]:.3f}]"


def comparison_table(comparison: "Comparison") -> Table:
    """NLL by steering, and the fidelity with what it is made of."""
    table = Table(title=f"Held-out answers in {comparison.measured_in}, nats a token (95% intervals)", title_justify="left")
    table.add_column(f"{len(comparison.sums)} answers, {comparison.tokens} tokens")
    table.add_column("base", justify="right")
    table.add_column("IRM", justify="right")
    table.add_column("vector", justify="right")

    def show(name: str) -> str:
        return with_interval(comparison.means[name], comparison.intervals[name])

    table.add_row("NLL", show("nll_base"), show("nll_irm"), show("nll_vector"))
    table.add_row("KL(IRM || .)", show("kl_irm_base"), "0", show("kl_irm_vector"))
    table.add_row("fidelity", "0", "1", show("fidelity"))
    table.add_row("same first choice as the IRM", "", "1", show("top1_agreement"))
    return table


def side_effect_table(evaluation: "Evaluation") -> Table:
    """What steering does to neutral answers, and to the text's variety."""
    neutral, generations = evaluation.neutral, evaluation.generations
    table = Table(title=f"Side effects ({neutral.tokens} tokens of neutral answers)", title_justify="left")
    table.add_column("")
    for name in ("base", "IRM", "vector"):
        table.add_column(name, justify="right")

    def show(name: str) -> str:
        return with_interval(neutral.means[name], neutral.intervals[name])

    table.add_row("NLL of neutral answers", show("nll_base"), show("nll_irm"), show("nll_vector"))
    table.add_row("KL(base || .) on them", "0", show("kl_base_irm"), show("kl_base_vector"))
    if generations is not None:
        shares = generations.distinct_2()
        cells = (with_interval(*shares[name]) for name in ("base", "irm", "vector"))
        table.add_row(f"distinct-2 of {len(generations.questions)} generated answers", *cells)
    return table
