"""The gradient field's parts in the report: a section with a chart for each field, and what is found of loud and marked indices."""

from collections.abc import Iterable, Mapping
from typing import Any

from irm_lite.analysis.report.parts import Cell, Mark, Section, chart, count, number, table
from irm_lite.analysis.report.verdicts import Finding, finding, verdict
from irm_lite.analysis.statistics.channels import BLOCKS, DIRECT, FINAL

Fields = Mapping[str, Mapping[str, Any]]
_MOSTLY = 0.5  # of an index's gradient


def split_section(fields: Fields) -> Section:
    """By the field's name what `described_channels` gives."""
    charts, rows, totals, likeness = [], [], [], []
    for name, field in fields.items():
        marks = []
        for each in field["channels"]:
            way = ", ".join(each["why"])
            rows.append(
                [
                    Cell(name),
                    count(each["index"]),
                    Cell(way),
                    *(number(each[part]) for part in (DIRECT, FINAL, BLOCKS, "scale")),
                    count(each["scale_rank"]),
                    *(cell for key in ("gradient", "loudness") for cell in (number(each[key]), count(each[f"{key}_rank"]))),
                ]
            )
            marks.append(Mark(f"{each['index']} ({way})", each["scale"], other=each[DIRECT]))
        title = f"What of an index's gradient goes through denominators: {name}"
        charts += chart(title, "share of the index's gradient; hollow: its direct part; line: 0", marks)
        totals.append(
            [Cell(name), *(number(field["total"][part]) for part in (DIRECT, FINAL, BLOCKS)), number(field["through_scale"])]
        )
        likeness.append([Cell(name), *(number(field["spearman"][way]) for way in ("gradient", DIRECT, "scale"))])
    columns = ["field", "index", "why it is here", DIRECT, FINAL, BLOCKS, "both norms", "rank of that"]
    columns += ["gradient", "rank", "loudness", "rank"]
    text = (
        "A channel of the residual stream reaches the logits through what reads it (direct), and through the denominator of every "
        "RMSNorm, in which it counts for all channels: that is a gradient along the stream itself, so a loud channel gets one "
        "whatever is trained. Shares of an index's gradient in the untouched base, over all layers; they sum to 1, and one that "
        "goes against the whole is below 0. Loudness: RMS of the stream on neutral answers; 1 is an average index."
    )
    tables = table("Single indices", columns, rows) + table(
        "All indices", ["field", DIRECT, FINAL, BLOCKS, "indices with half or more from denominators"], totals
    )
    tables += table(
        "Loudness against the gradient's size, Spearman", ["field", "whole", "direct part", "denominators' part"], likeness
    )
    return Section("Direct, or through the norms' denominators", text, charts, tables)


def split_findings(fields: Fields) -> Iterable[Finding]:
    """Of the loudest indices together, and of each marked one, in all fields."""
    if not fields:
        return
    loud = [(name, each) for name, field in fields.items() for each in field["channels"] if "loud" in each["why"]]
    most = sum(each["scale"] >= _MOSTLY for _, each in loud)
    shares = [field["through_scale"] for field in fields.values()]
    ends = sorted({f"{100 * share:.0f}" for share in shares}, key=float)
    usual = f"of all indices {' to '.join(dict.fromkeys((ends[0], ends[-1])))}% are so"
    yield finding(
        "The loudest channels' gradients go through the norms' denominators",
        verdict(most, len(loud)),
        f"In {most} of {len(loud)} cases (the loudest indices of each field) half or more of the index's gradient goes through "
        f"denominators; {usual}. {_told(loud)}",
    )
    for index in dict.fromkeys(each["index"] for field in fields.values() for each in field["channels"] if "marked" in each["why"]):
        cases = [(name, each) for name, field in fields.items() for each in field["channels"] if each["index"] == index]
        most = sum(each["scale"] >= _MOSTLY for _, each in cases)
        width = next(iter(fields.values()))["indices"]
        places = "; ".join(
            f"{name} {each['scale']:+.2f} (rank {each['scale_rank']} of {width} by that, {each['gradient_rank']} by its gradient, "
            f"{each['loudness_rank']} by loudness)"
            for name, each in cases
        )
        yield finding(
            f"Index {index}'s gradient goes through the norms' denominators",
            verdict(most, len(cases)),
            f"Half or more of it does in {most} of {len(cases)} fields; {usual}. Share: {places}.",
        )


def _told(cases: list[tuple[str, Mapping[str, Any]]]) -> str:
    """The share of each index, its range where there are several fields."""
    by_index: dict[int, list[float]] = {}
    for _, each in cases:
        by_index.setdefault(each["index"], []).append(each["scale"])
    said = [
        f"{index} {min(shares):+.2f}" + (f" to {max(shares):+.2f}" if len(shares) > 1 else "") for index, shares in by_index.items()
    ]
    return f"Shares: {', '.join(said)}."
