"""What was zeroed, kept and dropped, as a section of the report."""

from collections.abc import Mapping, Sequence
from typing import Any

from irm_lite.analysis.report.parts import Cell, Mark, Section, Table, chart, count, estimate, number, p_value, table

Run = Mapping[str, Any]


def ablations_section(runs: Sequence[Run]) -> Section:
    by_measure: dict[str, list[Mark]] = {}
    rows = []
    for run in runs:
        for each in run.get("ablations", []):
            kind = each.get("controls_kind", "")
            rows.append(
                [
                    Cell(run["name"]),
                    count(each["index"]),
                    Cell(each.get("where", "")),
                    Cell(each.get("measure", "")),
                    Cell(each.get("unit", "")),
                    estimate(each["effect"], each["effect_95"]),
                    Cell(f"{each['controls']} {kind}", float(each["controls"])),
                    estimate(each["control_median"], each["control_95"]),
                    count(each.get("samples")),
                    count(each["rank"]),
                    p_value(each["p"]),
                    estimate(each["beyond_controls"], each["beyond_controls_95"]),
                    Cell(_held(each)),
                ]
            )
            where = " in the ".join(part for part in (str(each["index"]), each.get("where", "")) if part)
            where += f", norms {held}" if (held := _held(each)) else ""
            mark = Mark(f"{run['name']}: {where}, {kind}", each["effect"], each["effect_95"], each["control_95"])
            by_measure.setdefault(f"{each.get('measure', 'effect')}, {each.get('unit', '')}", []).append(mark)
    columns = ["run", "index", "ablated in", "measure", "unit", "effect [95%]", "controls", "controls: median [2.5th, 97.5th]"]
    text = (
        "What changes when one index is ablated, against other indices ablated on the same samples. 95% intervals over samples; "
        "rank 1: no control reaches the effect; beyond: the effect less the controls' mean. Matched controls are the indices "
        "nearest in what is zeroed: mean |output|, or the RMS of the steered stream."
    )
    legend = "dot: the index, with its 95% interval; bar: the central 95% of controls; line: 0"
    drawn = [each for measure, marks in by_measure.items() for each in chart(f"Ablations: {measure}", legend, marks)]
    tables = table("", [*columns, "samples", "rank", "p", "beyond controls [95%]", "norms' denominators"], rows)
    return Section("Ablations", text, drawn, tables + _through(runs) + _sharpness(runs) + _sets(runs))


def _held(each: Run) -> str:
    norms = each.get("norms", "free")
    return "" if norms == "free" else f"held at the {norms}'s"


def _through(runs: Sequence[Run]) -> list[Table]:
    rows = [
        [
            Cell(run["name"]),
            count(each["index"]),
            Cell(each["where"]),
            Cell(each["measure"]),
            Cell(_held(each)),
            estimate(each["effect"], each["effect_95"]),
            estimate(each["through_norms"], each["through_norms_95"]),
        ]
        for run in runs
        for each in run.get("ablations", [])
        if "through_norms" in each and each.get("controls_kind") == "matched"
    ]
    columns = ["run", "index", "ablated in", "measure", "denominators", "effect with them held [95%]", "free less held [95%]"]
    return table("What of it goes through the norms' denominators", columns, rows)


def _sharpness(runs: Sequence[Run]) -> list[Table]:
    rows = [
        [
            Cell(run["name"]),
            count(each["index"]),
            Cell(each["where"]),
            Cell(_held(each)),
            number(each["effect"]),
            estimate(each["explained"], each["explained_95"]),
            estimate(each["controls_explained"], each["controls_explained_95"]),
            count(each["explained_rank"]),
            p_value(each["explained_p"]),
        ]
        for run in runs
        for each in run.get("ablations", [])
        if "explained" in each
    ]
    columns = [
        "run",
        "index",
        "ablated in",
        "denominators",
        "KL",
        "explained [95%]",
        "matched: median [2.5th, 97.5th]",
        "rank",
        "p",
    ]
    note = (
        "The share of KL(ablated || not) that a temperature fitted to each token takes away: 1 where nothing but sharpness changed."
    )
    return table("Is it a change of sharpness alone?", columns, rows, note)


def _sets(runs: Sequence[Run]) -> list[Table]:
    rows = [
        [
            Cell(run["name"]),
            Cell(f"{each['what']} {each['k']}"),
            number(each["power"]),
            number(each["kept_effect"]),
            Cell(_held(each)),
            Cell(effect["measure"]),
            estimate(effect["effect"], effect["effect_95"]),
            number(effect["nothing"]),
            Cell(f"{effect['controls']} {effect['controls_kind']}", float(effect["controls"])),
            estimate(effect["control_median"], effect["control_95"]),
            p_value(effect["p"]),
        ]
        for run in runs
        for each in run.get("sets", [])
        for effect in each["effects"]
    ]
    columns = ["run", "the most important indices", "share of the output's power", "of the KL left", "denominators", "measure"]
    columns += ["effect [95%]", "nothing added", "control sets", "controls: median [2.5th, 97.5th]", "p"]
    note = "p of kept indices: as few random sets leave as little changed; of dropped ones: change as much."
    return table("Indices of the IRM's output kept or dropped together", columns, rows, note)
