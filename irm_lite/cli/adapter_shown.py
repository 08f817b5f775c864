"""How an adapter is shown: its figures, what is to be told of blocks, and where it lies."""

from typing import TYPE_CHECKING

from rich.console import RenderableType
from rich.table import Table

from irm_lite.cli.output import Output
from irm_lite.cli.tables import comparison_shown, score_lines, with_interval
from irm_lite.core.visible_text import safe
from irm_lite.vectors.adapter.card import error_meant

if TYPE_CHECKING:
    from irm_lite.scoring.score import Score
    from irm_lite.vectors.adapter.written import AdapterExport


def show(result: "AdapterExport", output: Output, score: "Score | None" = None) -> None:
    """Figures, what is to be told of blocks, where it lies, and what its text is worth."""
    output.tell_matches(result.matches)
    for line in result.warnings:
        output.warn(line)
    helped = [fit for fit in result.fits if len(fit.modules) > 1]
    for fit in helped:
        output.note(
            f"block {fit.block}: 1 is predicted badly by {fit.modules[0]} alone (error {fit.unhelped:.3f}); "
            f"{fit.modules[1]} helps (error {fit.error:.3f})"
        )
    of = "IRM" if result.measured.strengths_of == "irm" else "vector"
    strengths = ", ".join(f"{value:.3f} at {strength:g}" for strength, value in result.strengths.items())
    output.result(
        {**result.to_dict(), "score": score.to_dict() if score else None},
        *_compared(result),
        *((_by_block(result), _error_line(result)) if result.fits else ()),
        *_tuned(result),
        f"of what the {of} does at other strengths the adapter does {strengths}",
        f"{safe(str(result.path))}: {len(result.adapter.factors)} maps of rank {result.rank}, {result.n_bytes / 1000:.0f} kB, "
        f"{result.seconds:.0f} s; {result.origin}",
        *(score_lines(score) if score else ()),
    )


def _error_line(result: "AdapterExport") -> str:
    worst = max(result.fits, key=lambda fit: fit.error)
    at = worst.worst
    mean = sum(fit.error for fit in result.fits) / len(result.fits)
    if result.tuned is not None:
        return f"what the IRM adds is predicted with {mean:.4f} of its power lost, {worst.error:.4f} in block {worst.block}"
    token = f"its worst token (text {at.text}, position {at.position}) is given {at.added:.2f} times the vector"
    if result.normed:
        return f"of what is read of the vector {mean:.4f} arrives wrongly ({worst.error:.4f} in block {worst.block}); {token}"
    return f"1 is predicted with a mean square error of {mean:.4f}, in block {worst.block} of {worst.error:.4f}; {token}"


def _tuned(result: "AdapterExport") -> tuple[str, ...]:
    """By KL on validation answers: each rank's start that was tried, and what was fitted from there."""
    tuned = result.tuned
    if tuned is None:
        return ()
    tried = "".join(f", rank {rank} {value:.3f}" for rank, value in tuned.by_rank.items())
    fitted = f"rank {result.rank} by least squares {tuned.kl_start:.3f}, fitted on {tuned.kl:.3f}"
    return (f"KL(IRM || it) on validation answers: base {tuned.kl_base:.3f}{tried}; {fitted}",)


def _compared(result: "AdapterExport") -> tuple[RenderableType, ...]:
    """The fidelity; of a run beside its vector's."""
    vector, mine = result.compared.get("vector"), result.comparison
    if vector is not None:
        shown = comparison_shown(mine, "adapter")
        of_vector = f"{vector.fidelity:.3f}"
        return (*shown, f"the vector's own fidelity there: {of_vector}")
    size = f"{len(mine.sums)} answers that nothing was fitted to, {mine.tokens} tokens, in {mine.measured_in}"
    kl, fidelity = (with_interval(mine.means[name], mine.intervals[name]) for name in ("kl_irm_vector", "fidelity"))
    return (f"{size}: KL(vector || adapter) {kl} nats a token", f"fidelity to the vector {fidelity}")


def _by_block(result: "AdapterExport") -> Table:
    table = Table(title=f"{error_meant(result)} on held-out tokens")
    for column in ("block", "error", "first token", "ridge", "worst token"):
        table.add_column(column, justify="right")
    table.add_column("maps")
    for fit in result.fits:
        figures = (f"{fit.error:.4f}", f"{fit.first_token:.4f}", f"{fit.ridge:g}", f"{fit.worst.added:+.2f}")
        table.add_row(str(fit.block), *figures, " + ".join(fit.modules))
    return table
