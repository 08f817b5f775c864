"""What was compared, as a table for docs/architectures.md."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from zoo.comparing import LIMIT
from zoo.configs import ZOO

START, END = "<!-- made by benchmarks/architectures.py -->", "<!-- to here -->"
_HEADER = ("architecture", "llama.cpp", "models", "sites", "reads", "train", "export", "vector", "dynamic", "KL", "bake", "adapter")
_SITES = ("block", "attn")


def sound(row: Mapping[str, Any], figure: str) -> bool:
    """Whether the two runtimes agree in this figure: within LIMIT, and within a hundredth of what the steering does."""
    found = row["kls"].get(figure)
    return found is not None and abs(found) < min(LIMIT, row["effects"].get(figure, 1.0) / 100)


def dynamic_sites(row: Mapping[str, Any]) -> list[str]:
    """The sites at which the IRM itself works in llama.cpp."""
    return [site for site in _SITES if sound(row, f"dynamic {site}")]


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Markdown."""
    lines = ["| " + " | ".join(_HEADER) + " |", "|" + " --- |" * len(_HEADER)]
    lines += ["| " + " | ".join(_cells(row)) + " |" for row in rows]
    return "\n".join(lines)


def _cells(row: Mapping[str, Any]) -> Iterable[str]:
    like = next((tiny.like for tiny in ZOO if tiny.name == row["name"]), "")
    worst = max((abs(each) for each in row["kls"].values()), default=None)
    yield from (f"`{row['name']}`", f"`{row['gguf']}`" if row["gguf"] else "-", like, ", ".join(row["sites"]) or "-")
    yield {"attn": "layer 0 after attention", "block": "after block 0"}.get(row["h0"], "-")
    tried = "trained" in row
    yield _yes(row["trained"]) if tried else "-"
    yield _yes(not {"train", "export"} & row["why"].keys()) if tried else "-"
    yield _yes(sound(row, "plain") and sound(row, "vector"))
    yield ", ".join(dynamic_sites(row)) or "no"
    yield "-" if worst is None else f"{worst:.0e}"
    yield from (row.get(name, "-") for name in ("bake", "adapter"))


def agrees(row: Mapping[str, Any]) -> bool:
    """Whether nothing failed and no figure is far off; that a graph hides a place is no failure."""
    return (
        bool(row["kls"])
        and all(sound(row, figure) for figure in row["kls"])
        and all(each.startswith("dynamic") for each in row["why"])
    )


def _yes(what: object) -> str:
    return "yes" if what else "no"


def missing(row: Mapping[str, Any]) -> list[str]:
    """A line for each thing that an architecture lacks."""
    lines = [f"{figure}: {why}" for figure, why in row["why"].items()]
    for figure in row["kls"]:
        if not sound(row, figure):
            lines.append(
                f"{figure}: KL {row['kls'][figure]:.1e} between the runtimes (its effect is {row['effects'].get(figure, 1.0):.1e})"
            )
    if row["same_fingerprint"] is False:
        lines.append("fingerprint: the weights of folder and file are not told to be the same (base/architectures.py, norms)")
    return lines


def put_into(text: str, made: str) -> str:
    """The document with the table in its place."""
    before, _, rest = text.partition(START)
    _, _, after = rest.partition(END)
    return f"{before}{START}\n\n{made}\n\n{END}{after}"
