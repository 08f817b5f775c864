"""The tests of predictions.md, from the reports that `irm-lite analyze` wrote: effect, interval, null and verdict of each.

python docs/paper/verdicts.py STATIC/report.json MASKED/report.json [--paper REPORT.json] --channel 490 --next 570 [--json FILE]

The first two are of the runs of kind static without and with the channel masked, the third (test 5 alone) of those of kind paper.
Thresholds are predictions.md's; those of test 6 (ii) are in proportion where there are fewer than its 9 pairs. Statistics by scipy.
"""

import argparse
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

HOLDS, REFUTED, UNDECIDED, MISSING = "holds", "refuted", "not decided", "not run"
TONES = ("sadness", "joy", "neutral")
ABLATED_SEED = 11
TOP, LEVEL, MARGIN = 20, 0.05, 0.02
KL = "KL on aligned answers"
ASKED = {  # of each test what is asked, and what its figures are held against
    "1": ("its gradient goes through denominators", "the other indices' shares: p by rank"),
    "2": ("with denominators held nothing is left of zeroing it", "a direct channel: 0"),
    "3": ("a temperature explains what zeroing it does", "the 30 indices nearest in RMS"),
    "4": ("its gradient is large, and loudness says how large", "uniform ranks; Spearman above 0"),
    "5": (f"it is in the top {TOP} of more runs than chance", "independent ranks, Holm over all indices"),
    "6i": ("masked, the best NLL is the same", f"a difference of {MARGIN} nats: two one-sided t tests"),
    "6ii": ("masked, the next loudest is more important", "a sign test"),
    "6": ("both: whoever may not write there writes to the next, at no cost", ""),
    "7": ("one index carries the effect", "thresholds"),
}

Report = dict[str, Any]
Test = dict[str, Any]
Row = dict[str, float]  # a tone's figures


def main(arguments: Sequence[str] | None = None) -> None:
    options = _options(arguments)
    paths = [path for path in (options.static, options.masked, options.paper) if path is not None]
    static, masked, *paper = reports = [_read(path) for path in paths]
    _require_fitting(paths, reports, options.channel, options.next)
    found = verdicts(static, masked, paper[0] if paper else None, options.channel, options.next)
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(table(found))


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("static", type=Path)
    parser.add_argument("masked", type=Path)
    parser.add_argument("--paper", type=Path)
    parser.add_argument("--channel", type=int, required=True)
    parser.add_argument("--next", type=int, required=True)
    parser.add_argument("--json", type=Path)
    return parser.parse_args(arguments)


def _read(path: Path) -> Report:
    try:
        found: Report = json.loads(path.read_text(encoding="utf-8"))
        if not {"base", "runs", "across", "gradient_split"} <= found.keys():
            raise ValueError("it is something else, or of a single run")
    except (OSError, ValueError, AttributeError) as error:
        raise SystemExit(f"{path} is no report of several runs by irm-lite analyze: give a report.json ({error})") from None
    return found


def _require_fitting(paths: Sequence[Path], reports: Sequence[Report], channel: int, following: int) -> None:
    """Exits unless they are of one base, have both indices marked in each run, and the second is of the masked ones."""
    for path, report in zip(paths, reports, strict=True):
        if report["base"] | {"name": ""} != reports[0]["base"] | {"name": ""}:  # what a file is called tells nothing
            raise SystemExit(f"{paths[0]} and {path} are of different bases: give reports of one")
        for index in (channel, following):
            if any(rank_of(run, index) is None for run in report["runs"]):
                raise SystemExit(f"{path} has no index {index} in each run: irm-lite analyze ... --mark {index}")
    if any(each["importance"] for run in reports[1]["runs"] for each in run["marked"] if each["index"] == channel):
        raise SystemExit(f"{paths[1]} is not of runs with index {channel} masked: give that report second")


def verdicts(static: Report, masked: Report, paper: Report | None, channel: int, following: int) -> Report:
    """All tests, by number, and the model's verdict."""
    tests = {
        "1": scale_share(static, channel),
        "2": through_norms(static, channel),
        "3": temperature(static, channel),
        "4": gradient_size(static, channel),
        "5": common_index(static, channel),
        "6i": equal_nll(static, masked),
        "6ii": moved_on(static, masked, following),
        "7": single_index(static),
    }
    tests["6"] = both_of(tests["6i"], tests["6ii"])
    if paper is not None:
        tests["5, paper"] = common_index(paper, channel)
    return {"base": static["base"]["name"], "channel": channel, "next": following, "tests": tests, "verdict": whole(tests)}


def whole(tests: dict[str, Test]) -> str:
    """The model's verdict, as predictions.md has it."""
    of = {number: test["verdict"] for number, test in tests.items()}
    if MISSING in (of["1"], of["2"], of["3"], of["5"]):
        return MISSING
    if REFUTED in (of["2"], of["3"]):
        return "no dial"
    if of["1"] == of["2"] == of["3"] == HOLDS and of["5"] in (HOLDS, REFUTED):
        return "a dial that every IRM turns" if of["5"] == HOLDS else "a dial that IRMs leave alone"
    return UNDECIDED


def scale_share(report: Report, channel: int) -> Test:
    """1: the channel's gradient goes through denominators."""
    rows = {
        tone: {"share": each["scale"], "p": each["scale_rank"] / field["indices"]}
        for tone, field, each in fields_of(report, channel)
    }
    shown = "{share:.2f} of it (p {p:.3f})"
    return _by_tone(rows, lambda row: row["share"] >= 0.5 and row["p"] <= LEVEL, lambda row: row["share"] < 0.5, shown)


def through_norms(report: Report, channel: int) -> Test:
    """2: with denominators held nothing is left of zeroing it."""
    rows = {}
    for tone, each in ablated_records(report, channel, "steered", "matched"):
        free = each["through_norms"] + each["effect"]
        low, high = (end / free for end in each["through_norms_95"])
        rows[tone] = {"share": each["through_norms"] / free, "low": low, "high": high}
    shown = "{share:.1%} of the KL gone [{low:.1%}, {high:.1%}]"
    return _by_tone(rows, lambda row: row["share"] >= 0.9 and row["low"] > 0.5, lambda row: row["share"] < 0.5, shown)


def temperature(report: Report, channel: int) -> Test:
    """3: a temperature for each token explains what zeroing it does."""
    rows = {}
    for tone, each in ablated_records(report, channel, "free", "matched"):
        low, high = each["explained_95"]
        rows[tone] = {"share": each["explained"], "low": low, "high": high}
        rows[tone] |= {"others": each["controls_explained"], "p": each["explained_p"]}
    shown = "{share:.0%} [{low:.0%}, {high:.0%}], of the others {others:.0%} (p {p:.3f})"
    return _by_tone(rows, lambda row: row["share"] >= 0.8 and row["p"] <= LEVEL, lambda row: row["share"] < 0.5, shown)


def gradient_size(report: Report, channel: int) -> Test:
    """4: its gradient is among the largest, and loudness says how large the denominators' part is."""
    rows = {}
    for tone, field, each in fields_of(report, channel):
        rho, width = field["spearman"]["scale"], field["indices"]
        p = float(stats.t.sf(rho * math.sqrt((width - 2) / (1 - rho**2)), width - 2))
        rows[tone] = {"rank": each["gradient_rank"], "rho": rho, "p": p, "part": each["gradient_rank"] / width}
    return _by_tone(
        rows,
        lambda row: row["rank"] <= TOP and row["rho"] >= 0.1 and row["p"] <= LEVEL,
        lambda row: row["part"] > 0.25,
        "rank {rank:.0f}, rho {rho:+.2f} (p {p:.2g})",
    )


def common_index(report: Report, channel: int) -> Test:
    """5: it is among the top 20 of more runs than chance."""
    by_tone: dict[str, list[bool]] = {tone: [] for tone in TONES}
    for run in report["runs"]:
        rank = next((each["rank"] for each in run["marked"] if each["index"] == channel), None)
        if rank is not None and run["data"] in by_tone:
            by_tone[run["data"]].append(rank <= TOP)
    runs, hits = sum(map(len, by_tone.values())), sum(map(sum, by_tone.values()))
    if not all(by_tone.values()):
        return {"verdict": MISSING, "text": ""}
    is_common = channel in report["across"]["common"]["indices"]
    found = HOLDS if is_common and all(any(each) for each in by_tone.values()) else REFUTED if hits <= runs / 9 else UNDECIDED
    where = {tone: sum(each) for tone, each in by_tone.items()}
    common = report["across"]["common"]
    p = common["p"][common["indices"].index(channel)] if is_common else None
    chance = f"Holm p {p:.2g}" if p is not None else "not more than chance"
    text = f"in {hits} of {runs} runs ({', '.join(f'{tone} {count}' for tone, count in where.items())}); {chance}"
    return {"verdict": found, "hits": hits, "runs": runs, "by_tone": where, "p": p, "text": text}


def equal_nll(static: Report, masked: Report) -> Test:
    """6 (i): masked or not, the best validation NLL is the same: two one-sided t tests."""
    more = np.array([after["nll"]["irm"] - before["nll"]["irm"] for before, after in pairs_of(static, masked)])
    if len(more) < 3:
        return {"verdict": MISSING, "text": ""}
    below = stats.ttest_1samp(more, MARGIN, alternative="less").pvalue
    above = stats.ttest_1samp(more, -MARGIN, alternative="greater").pvalue
    low, high = stats.ttest_1samp(more, 0).confidence_interval(0.9)
    found = HOLDS if max(below, above) <= LEVEL else REFUTED if low > MARGIN else UNDECIDED
    text = f"{more.mean():+.4f} nats [90%: {low:+.4f}, {high:+.4f}], {len(more)} pairs"
    return {
        "verdict": found,
        "mean": float(more.mean()),
        "interval_90": [float(low), float(high)],
        "p": float(max(below, above)),
        "text": text,
    }


def moved_on(static: Report, masked: Report, following: int) -> Test:
    """6 (ii): with the channel masked the next loudest one is more important: a sign test."""
    pairs = [(rank_of(before, following), rank_of(after, following)) for before, after in pairs_of(static, masked)]
    known = [(before, after) for before, after in pairs if before is not None and after is not None]
    if len(known) < 3:
        return {"verdict": MISSING, "text": ""}
    higher, n = sum(after < before for before, after in known), len(known)
    p = float(stats.binomtest(higher, n, alternative="greater").pvalue)
    found = HOLDS if higher >= n - 1 else REFUTED if higher <= 5 * n / 9 else UNDECIDED
    return {
        "verdict": found,
        "higher": higher,
        "pairs": n,
        "p": p,
        "ranks": known,
        "text": f"in {higher} of {n} pairs (p {p:.3f})",
    }


def both_of(equal: Test, moved: Test) -> Test:
    """6: holds where both halves do, refuted where one of them is."""
    verdicts = {equal["verdict"], moved["verdict"]}
    found = next((each for each in (MISSING, REFUTED, UNDECIDED) if each in verdicts), HOLDS)
    return {"verdict": found, "text": f"(i) {equal['verdict']}, (ii) {moved['verdict']}"}


def single_index(report: Report) -> Test:
    """7: one index carries the effect."""
    rows = {}
    for run in ablated_runs(report):
        left = {(each["what"], each["k"]): each["kept_effect"] for each in run["sets"]}
        if ("drop", 1) in left and ("keep", TOP) in left:
            rows[run["data"]] = {"lost": 1 - left["drop", 1], "kept": left["keep", TOP]}
    return _by_tone(
        rows,
        lambda row: row["lost"] >= 0.5,
        lambda row: row["lost"] < 0.1,
        f"{{lost:.1%}} lost without it; {TOP} alone keep {{kept:.1%}}",
        all_refute=True,
    )


def _by_tone(
    rows: dict[str, Row],
    holds: Callable[[Row], bool],
    refutes: Callable[[Row], bool],
    shown: str,
    *,
    all_refute: bool = False,
) -> Test:
    """Holds where it does in all three tones; refuted in two or three of them, or only where it is in all. `shown`: its figures."""
    if set(rows) != set(TONES):
        return {"verdict": MISSING, "text": ""}
    against = sum(refutes(row) for row in rows.values())
    found = HOLDS if all(holds(row) for row in rows.values()) else REFUTED if against >= (3 if all_refute else 2) else UNDECIDED
    return {"verdict": found, "by_tone": rows, "text": "<br>".join(f"{tone} {shown.format(**rows[tone])}" for tone in TONES)}


def fields_of(report: Report, channel: int) -> list[tuple[str, Report, Report]]:
    """Each tone's gradient split at site block, and the channel's line in it."""
    found = []
    for name, field in report.get("gradient_split", {}).items():
        tone, _, site = name.partition(" ")
        line = next((each for each in field["channels"] if each["index"] == channel), None)
        if tone in TONES and site == "(block)" and line is not None:
            found.append((tone, field, line))
    return found


def ablated_runs(report: Report) -> list[Report]:
    return [run for run in report["runs"] if run["seed"] == ABLATED_SEED and run["data"] in TONES]


def ablated_records(report: Report, channel: int, norms: str, controls: str) -> list[tuple[str, Report]]:
    """By tone what zeroing the channel in the base did to the KL."""
    wanted = {"index": channel, "where": "base", "measure": KL, "norms": norms, "controls_kind": controls}
    return [
        (run["data"], each)
        for run in ablated_runs(report)
        for each in run["ablations"]
        if all(each.get(key) == value for key, value in wanted.items())
    ]


def pairs_of(static: Report, masked: Report) -> list[tuple[Report, Report]]:
    """Runs of one tone and seed, without and with the mask."""
    after = {(run["data"], run["seed"]): run for run in masked["runs"]}
    return [(run, after[run["data"], run["seed"]]) for run in static["runs"] if (run["data"], run["seed"]) in after]


def rank_of(run: Report, index: int) -> int | None:
    return next((each["rank"] for each in run["marked"] if each["index"] == index), None)


def table(found: Report, expected: Mapping[str, str] | None = None) -> str:
    """Markdown. `expected`: what predictions.md says of each test on this model."""
    head = ["", "asked", "effect", "held against", "verdict", *(["predicted"] if expected else [])]
    lines = [f"{found['base']}, channel {found['channel']}, next {found['next']}: **{found['verdict']}**", ""]
    lines += [_line(head), "|---" * len(head) + "|"]
    for number, test in sorted(found["tests"].items()):
        asked, null = ASKED[number.partition(",")[0]]
        lines.append(_line([number, asked, test["text"], null, test["verdict"], *([expected.get(number, "")] if expected else [])]))
    return "\n".join(lines)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
