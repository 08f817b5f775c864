"""irm-lite ablate"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter
from rich.table import Table

from irm_lite.cli.output import Common, Output
from irm_lite.cli.progress import stoppable_progress


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class AblateFlags:
    """What to zero, and what to hold it against."""

    index: Annotated[list[int] | None, Parameter(negative="")] = None
    """The index to zero; may be given several times [default: the run's most important one, unless --keep or --drop is given]."""
    where: Literal["irm", "base"] = "irm"
    """irm: in what the IRM adds; base: in the residual stream that comes out of the injected blocks."""
    hold_norms: Literal["free", "steered", "base"] = "free"
    """Hold the denominators of the stream's RMSNorms at what they are in the steered model, or in the base, while something is
    zeroed: what is left is what does not act through them."""
    keep: Annotated[list[int] | None, Parameter(negative="")] = None
    """Keep only so many indices of the IRM's output, the most important ones, against random sets; may be given several times."""
    drop: Annotated[list[int] | None, Parameter(negative="")] = None
    """Drop so many, against random sets."""
    controls: int = 100
    """Random indices to zero, or random sets, for comparison, at least 100; 0: those of like magnitude alone, far sooner."""
    matched: int = 30
    """Indices of like magnitude to zero for comparison; the least p against 30 is 1 / 31."""
    samples: int = 12
    """Held-out answers to measure on."""
    recording: str | None = None
    """The recording that importance is taken from [default: the newest]."""
    seed: int = 0
    """Seed of the choice of controls and of the bootstrap."""


def ablate(
    run: Path,
    /,
    *,
    flags: AblateFlags | None = None,
    common: Common | None = None,
) -> None:
    """Zero an index and measure what it does, against zeroing random indices and equally important ones.

    Also how far that is a change of the answers' sharpness alone, by a temperature fitted to each token.

    Parameters
    ----------
    run
        The run directory.
    """
    output, flags = Output(common), flags or AblateFlags()
    from irm_lite.analysis.ablation import Ablation, AblationSettings, require_ablatable
    from irm_lite.analysis.ablation import ablate as zero_and_measure
    from irm_lite.analysis.ablation_files import save_ablations, save_subsets
    from irm_lite.analysis.recordings.run_recordings import with_recordings
    from irm_lite.analysis.statistics.ranking import importance
    from irm_lite.analysis.subsets import Subset, What, keep_and_drop
    from irm_lite.core.files.atomic import require_folder
    from irm_lite.runs.directory import require_unlinked
    from irm_lite.runs.trained import load_run

    trained, recorded = load_run(run), with_recordings([run], flags.recording)[0]
    mean_abs = recorded.recording.last_phase.mean_abs
    require_unlinked(trained.directory.ablations)
    require_folder(trained.directory.ablations)
    asked: list[tuple[What, int]] = [*(("keep", k) for k in flags.keep or []), *(("drop", k) for k in flags.drop or [])]
    wanted = list(dict.fromkeys(asked))
    chosen = flags.index or ([] if wanted else [int(importance(mean_abs).argmax())])
    require_ablatable(chosen, trained.irm.hidden_size)
    settings = AblationSettings(flags.where, flags.controls, flags.samples, flags.seed, flags.hold_norms, flags.matched)
    of_run = (trained.directory, recorded.folder.name, flags.seed)
    sets: list[Subset] = []
    found: list[Ablation] = []
    paths: list[Path] = []

    def tell() -> None:
        effects, of_sets = [row for each in found for row in each.to_list()], [each.to_dict() for each in sets]
        document = {"run": str(run), "files": [str(path) for path in paths], "effects": effects, "sets": of_sets}
        output.result(document, *_tables(effects, of_sets, flags.where))

    try:
        with stoppable_progress(output, "ablating") as on_progress:
            if wanted:
                sets = keep_and_drop(trained, wanted, mean_abs, settings, on_progress=on_progress)
                paths += save_subsets(sets, *of_run)  # before the indices, in which it may be stopped
            if chosen:
                found = zero_and_measure(trained, chosen, mean_abs, settings, on_progress=on_progress)
                paths += save_ablations(found, *of_run)
    except OSError:  # the disk is full: what took so long is told all the same
        if sets or found:
            tell()
        raise
    tell()


def _tables(effects: list[dict[str, Any]], sets: list[dict[str, Any]], where: str) -> Iterator[Table | str]:
    """What there is of both, and a line for each index on what of it goes through norms or is sharpness."""
    if effects:
        yield _table(effects, where)
    for row in effects:
        if "explained" in row:
            low, high = row["explained_95"]
            share = f"{100 * row['explained']:.0f}% [{100 * low:.0f}, {100 * high:.0f}]"
            others = f"{100 * row['controls_explained']:.0f}% of the {row['controls']} matched ones' (p {row['explained_p']:.3f})"
            yield f"{row['index']}: a temperature for each token explains {share} of KL(zeroed || not); {others}"
        if "through_norms" in row and row["controls_kind"] == "matched":
            low, high = row["through_norms_95"]
            gone = f"{row['through_norms']:+.4f} [{low:+.4f}, {high:+.4f}] nats a token"
            yield f"{row['index']}: {row['measure']}, with the norms held at the {row['norms']}'s {gone} less"
    if sets:
        yield _sets_table(sets)


def _sets_table(sets: list[dict[str, Any]]) -> Table:
    """A line for each set, measure and kind of control."""
    table = Table(title="indices of the IRM's output kept or dropped: change in nats a token [95% interval]")
    for column in ("indices", "measure", "change", "nothing added", "controls", "their median [2.5, 97.5%]", "p"):
        table.add_column(column)
    for each in sets:
        power, left = 100 * each["power"], 100 * each["kept_effect"]
        for row in each["effects"]:
            low, high = row["control_95"]
            table.add_row(
                f"{each['what']} {each['k']}, {power:.0f}% of the power; {left:.0f}% of the KL left",
                row["measure"],
                f"{row['effect']:+.4f} [{row['effect_95'][0]:+.4f}, {row['effect_95'][1]:+.4f}]",
                f"{row['nothing']:+.4f}",
                f"{row['controls']} {row['controls_kind']}",
                f"{row['control_median']:+.4f} [{low:+.4f}, {high:+.4f}]",
                f"{row['p']:.3f}",
            )
    return table


def _table(effects: list[dict[str, Any]], where: str) -> Table:
    """A line for each index, measure and kind of control."""
    table = Table(title=f"zeroed in the {'IRM' if where == 'irm' else 'base'}: change in nats a token [95% interval]")
    for column in ("index", "measure", "change", "controls", "their median [2.5, 97.5%]", "rank", "p"):
        table.add_column(column)
    for row in effects:
        low, high = row["control_95"]
        table.add_row(
            str(row["index"]),
            row["measure"],
            f"{row['effect']:+.4f} [{row['effect_95'][0]:+.4f}, {row['effect_95'][1]:+.4f}]",
            f"{row['controls']} {row['controls_kind']}" + (f", {row['broken']} of them give NaN" if row["broken"] else ""),
            f"{row['control_median']:+.4f} [{low:+.4f}, {high:+.4f}]",
            f"{row['rank']} of {row['controls'] + 1}",
            f"{row['p']:.3f}",
        )
    return table
