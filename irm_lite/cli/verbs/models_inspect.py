"""irm-lite models inspect"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter
from rich.table import Table

from irm_lite.base.presets import EMBEDDED
from irm_lite.cli.output import Common, Output
from irm_lite.cli.progress import progress
from irm_lite.core.errors import InputError
from irm_lite.core.visible_text import safe

if TYPE_CHECKING:
    from irm_lite.core.types import DoubleArray

KNOWN_INDEX, KNOWN_HIDDEN_SIZE = 1512, 4096  # the paper's, in Llama 2 7B


def inspect(
    model: str = EMBEDDED,
    /,
    *,
    index: Annotated[tuple[int, ...], Parameter(negative="")] = (),
    top: int = 5,
    common: Common | None = None,
) -> None:
    """What single indices of the residual stream have to do with a model's weights; only those that are needed are read.

    An index with a large embedding and a final gain near 0 can hardly reach the logits by itself: what it does, it does through the
    norms' denominators, to all logits alike.

    Parameters
    ----------
    model
        A preset, a Hugging Face folder, a .gguf file, or a hub id that is on this machine.
    index
        The indices to show, such as --index 1512; may be given several times [default: 1512 in a model of Llama 2's size, and those
        with the smallest and the largest final gain].
    top
        How many of the smallest and the largest to show.
    """
    output = Output(common)
    if not 0 <= top <= 1000:
        raise InputError(f"--top {str(top)[:20]} makes no sense", "give 0 to 1000")
    from irm_lite.base.channels import ranks, read_channels

    with progress(output, "reading") as report:
        features = read_channels(model, report)
    shown = index or _outliers(features["final gain"], top)
    _require_indices(shown, len(features["final gain"]), model)
    places = {name: ranks(values) for name, values in features.items()}
    found = [
        {
            "index": each,
            **{name: {"value": float(values[each]), "rank": float(places[name][each])} for name, values in features.items()},
        }
        for each in shown
    ]
    medians = {name: float(sorted(values.tolist())[len(values) // 2]) for name, values in features.items()}
    document = {"model": model, "hidden_size": len(features["final gain"]), "medians": medians, "indices": found}
    output.result(document, _table(document))


def _outliers(final: "DoubleArray", top: int) -> tuple[int, ...]:
    order = final.argsort(kind="stable").tolist()
    known = [KNOWN_INDEX] if len(final) == KNOWN_HIDDEN_SIZE else []
    return tuple(dict.fromkeys([*known, *order[:top], *order[len(order) - top :]]))


def _require_indices(indices: Sequence[int], hidden_size: int, model: str) -> None:
    for each in indices:
        if not 0 <= each < hidden_size:
            raise InputError(
                f"there is no index {str(each)[:20]} in {model}, which has {hidden_size}", f"give 0 to {hidden_size - 1}"
            )


def _table(document: dict[str, Any]) -> Table:
    title = f"{safe(document['model'])}: {document['hidden_size']} indices of the residual stream"
    table = Table(title=title, caption="times the median index (its place by size, 1: the largest)")
    table.add_column("index", justify="right")
    for name in document["medians"]:
        table.add_column(name, justify="right")
    for row in document["indices"]:
        shares = [
            (row[name]["value"] / median if median else 0.0, row[name]["rank"]) for name, median in document["medians"].items()
        ]
        table.add_row(str(row["index"]), *(f"{share:.3g} ({rank:.0f})" for share, rank in shares))
    return table
