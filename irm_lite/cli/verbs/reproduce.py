"""irm-lite reproduce"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from rich.table import Table

from irm_lite.cli.interrupt import graceful, raise_if
from irm_lite.cli.output import Common, Output
from irm_lite.cli.progress import progress, training_progress
from irm_lite.core.errors import IrmLiteError

if TYPE_CHECKING:
    from irm_lite.jobs.publishing.comparing import Compared


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class ReproduceFlags:
    """Where to, and where this machine has what it takes."""

    out: Annotated[Path, Parameter(alias="-o")]
    """The run directory to make."""
    model: str = ""
    """The base, where it is not found by the name in the folder: a .gguf, a folder or a hub id."""
    data: str = ""
    """The data file, where it was somebody's own."""
    download: bool = False
    """Fetch the base (or an hf: dataset) from the hub if it is not on this machine."""


def reproduce(place: Path, /, *, flags: ReproduceFlags, common: Common | None = None) -> None:
    """Train again what was published, and compare: the same vector or adapter, or how far each block is off and what differs here.

    Parameters
    ----------
    place
        A folder that irm-lite publish wrote, or the card (README.md) in it.
    """
    output = Output(common)
    from irm_lite.jobs.publishing.reproduce import Places
    from irm_lite.jobs.publishing.reproduce import reproduce as again

    with graceful(output) as should_stop, training_progress(output) as listen, progress(output, "exporting") as report:

        def report_or_stop(done: int, of: int, what: str) -> None:
            raise_if(should_stop())
            report(done, of, what)

        found = again(
            place,
            flags.out,
            Places(flags.model, flags.data, flags.download),
            on_event=listen,
            on_progress=report_or_stop,
            should_stop=should_stop,
        )
    compared, what = found.compared, found.made.lead.key
    output.tell_matches(found.run.matches)
    output.result(found.to_dict(), *_shown(compared, what))
    if not compared.same:
        raise IrmLiteError(f"{found.made.path} is not the published {what}", "see above what differs")


def _shown(compared: "Compared", what: str) -> list[str | Table]:
    changed = (
        f"not as where it was published: {'; '.join(compared.changed)}" if compared.changed else "versions and machine: the same"
    )
    told = [changed, *([f"that folder does not tell: {', '.join(compared.unknown)}"] if compared.unknown else [])]
    if compared.same:
        whole = "and so is its file" if compared.same_file else "its file says other things beside it (figures, versions)"
        return [f"the same {what}, to the last bit (SHA-256 of its {compared.hashed} {compared.made}), {whole}", *told]
    table = Table(title=f"the {what} made here beside the published one", title_justify="left")
    for column in ("block", "cosine", "relative difference"):
        table.add_column(column, justify="right")
    for each in compared.off:
        table.add_row(str(each.block), f"{each.cosine:.6f}", f"{each.relative:.2e}")
    lines: list[str | Table] = [table]
    if compared.only:
        lines.append(f"blocks that only one of them has: {', '.join(map(str, compared.only))}")
    if compared.off:
        worst = max(compared.off, key=lambda each: each.relative)
        lines.append(
            f"the farthest off is block {worst.block}: cosine {worst.cosine:.6f}, relative difference {worst.relative:.2e}"
        )
    nothing = "; the cause is not among what is recorded" if not compared.changed else ""
    return [*lines, told[0] + nothing, *told[1:]]
