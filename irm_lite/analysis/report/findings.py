"""The report's statistics in plain words: what holds, what does not, and what cannot be told."""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from irm_lite.analysis.statistics.causality import MEASURES

HOLDS, FAILS, UNCLEAR = "holds", "does not hold", "unclear"
_LEVEL = 0.05
_SHOWN = 10

Document = dict[str, Any]
Finding = dict[str, str]


def findings(document: Document) -> list[Finding]:
    """One for each question that the runs can answer."""
    several = [run for run in document["runs"] if "striation_test" in run]
    asked: list[Callable[[], Iterable[Finding]]] = [
        lambda: _striated(several),
        lambda: _beyond_the_field(several),
        lambda: _foretold(several),
        lambda: _common(document),
        lambda: _of_the_tone(document),
        lambda: _marked(document),
        lambda: _ablated(document),
    ]
    return [finding for ask in asked for finding in ask()]


def _verdict(count: int, of: int) -> str:
    return HOLDS if count == of else FAILS if count == 0 else UNCLEAR


def _finding(claim: str, verdict: str, text: str) -> Finding:
    return {"claim": claim, "verdict": verdict, "text": text}


def _median(values: Iterable[float]) -> float:
    return float(np.median(list(values)))


def _list(indices: list[int]) -> str:
    shown = ", ".join(map(str, indices[:_SHOWN]))
    return shown + (f" and {len(indices) - _SHOWN} more" if len(indices) > _SHOWN else "")


def _striated(runs: list[Document]) -> Iterable[Finding]:
    if not runs:
        return
    tests = [run["striation_test"] for run in runs]
    count = sum(each["index_share"]["p"] <= _LEVEL and each["neighbour_correlation"]["p"] <= _LEVEL for each in tests)
    share, null = (_median(each["index_share"][key] for each in tests) for key in ("observed", "null_mean"))
    r = _median(each["neighbour_correlation"]["observed"] for each in tests)
    yield _finding(
        "The outputs are striated: the same indices in layer after layer",
        _verdict(count, len(runs)),
        f"In {count} of {len(runs)} runs the mean output is more striated than with its indices permuted within layers (p "
        f"<= {_LEVEL} "
        f"for both measures). Median: the index explains {100 * share:.0f}% of the layer-normalised variance (permuted: "
        f"{100 * null:.0f}%), and neighbouring layers correlate by {r:.2f}.",
    )


def _beyond_the_field(runs: list[Document]) -> Iterable[Finding]:
    if not runs:
        return
    fields = [run["field"] for run in runs]
    more = sum(each["index_share_added_95"][0] > 0 for each in fields)
    less = sum(each["index_share_added_95"][1] < 0 for each in fields)
    left = sum(each["left"]["index_share"]["p"] <= _LEVEL for each in fields)
    own, given, r2 = (
        _median(each["values"]["index_share"] for each in fields),
        _median(each["field"]["index_share"] for each in fields),
        _median(each["r2_mean"] for each in fields),
    )
    yield _finding(
        "Training adds striation to what the base's residual design gives for free",
        HOLDS if more == len(runs) else FAILS if more == 0 else UNCLEAR,
        "The gradient field of the untouched base, with nothing trained, is striated too: there the index explains "
        f"{100 * given:.0f}% "
        f"(median), in the IRMs {100 * own:.0f}%. The IRM is above its field in {more} of {len(runs)} runs and below it "
        f"in {less} (95% "
        f"intervals over indices). The field explains {100 * r2:.0f}% of the IRM's variance within a layer (median R2); "
        "what it leaves is still "
        f"striated in {left} of {len(runs)} runs.",
    )


def _foretold(runs: list[Document]) -> Iterable[Finding]:
    if not runs:
        return
    explained = [run["explanation"] for run in runs]
    r2 = _median(each["adjusted_r2"] for each in explained)
    names = list(explained[0]["features"])
    partial = {name: _median(each["features"][name]["partial"] for each in explained if name in each["features"]) for name in names}
    best = max(names, key=lambda name: abs(partial[name]))
    rho = _median(each["features"][best]["spearman"] for each in explained if best in each["features"])
    yield _finding(
        "The base alone foretells which indices an IRM uses",
        HOLDS if r2 >= 0.5 else FAILS if r2 < 0.1 else UNCLEAR,
        f"Features of the untouched base explain {100 * r2:.0f}% of the variance of the indices' ranks (median adjusted "
        f"R2 of {len(runs)} "
        f"runs; called holding from 50%, not holding below 10%). The strongest is the {best}: Spearman {rho:.2f}, given "
        "all the others "
        f"{partial[best]:.2f}.",
    )


def _common(document: Document) -> Iterable[Finding]:
    across = document.get("across")
    if across is None:
        return
    common, runs = across["common"]["indices"], len(across["names"])
    rho = _median(pair["spearman"] for pair in across["pairs"])
    overlap = _median(pair["overlap"] for pair in across["pairs"])
    chance = across["pairs"][0]["expected"]
    text = f"Of two runs' top {across['k']} indices {overlap:g} are the same (median; {chance:.1f} by chance), "
    text += f"and their rankings correlate by {rho:.2f} (Spearman). "
    if common:
        worst = [int(each) for each in across["common"]["worst_rank"]]
        text += f"Near the top in all {runs} runs (Holm, {_LEVEL}): {_list(common)}; the first is never below rank {worst[0]}."
    else:
        text += f"No index is near the top in all {runs} runs (Holm, {_LEVEL})."
    yield _finding("Some indices are important in every run", HOLDS if common else FAILS, text)


def _of_the_tone(document: Document) -> Iterable[Finding]:
    groups = document.get("across", {}).get("common_by_data", {})
    if "all but neutral" not in groups or "neutral" not in groups:
        return
    emotional, neutral = (set(groups[name]["indices"]) for name in ("all but neutral", "neutral"))
    alone = [index for index in groups["all but neutral"]["indices"] if index not in neutral]
    shared = [index for index in groups["all but neutral"]["indices"] if index in neutral]
    if not emotional:
        verdict, text = FAILS, "No index is common to the runs that were trained on an emotion."
    else:
        verdict = FAILS if not alone else HOLDS if not shared else UNCLEAR
        text = f"Of the {len(emotional)} indices common to all runs but the neutral ones, "
        text += f"{len(shared)} are common to the neutral runs too"
        text += f" ({_list(shared)})" if shared else ""
        text += f"; only with emotion: {_list(alone)}." if alone else "; none is common only with emotion."
        text += " An index that an IRM trained on neutral answers uses as well is a channel of the base, not of an emotion."
    yield _finding("The common indices are emotion, not the base", verdict, text)


def _marked(document: Document) -> Iterable[Finding]:
    for place, mark in enumerate(document["runs"][0]["marked"]):
        ranks = [run["marked"][place]["rank"] for run in document["runs"]]
        top = sum(rank <= _SHOWN for rank in ranks)
        yield _finding(
            f"Index {mark['index']} stands out",
            _verdict(top, len(ranks)),
            f"It is among the {_SHOWN} most important indices in {top} of {len(ranks)} runs; its rank is {min(ranks)} to "
            f"{max(ranks)}, median "
            f"{_median(ranks):g}, of {document['base']['hidden_size']}.",
        )


def _ablated(document: Document) -> Iterable[Finding]:
    effects = [(run["name"], each) for run in document["runs"] for each in run["ablations"]]
    for index, where in dict.fromkeys((each["index"], each["where"]) for _, each in effects):
        for kind in ("random", "matched"):
            chosen = [
                (name, each)
                for name, each in effects
                if (each["index"], each["where"], each["controls_kind"]) == (index, where, kind) and each["measure"] == MEASURES[0]
            ]
            if not chosen:
                continue
            count = sum(each["p"] <= _LEVEL for _, each in chosen)
            place = "in the IRM's output" if where == "irm" else "in the base's residual stream"
            parts = [
                f"{name}: {each['effect']:+.4f} [{each['effect_95'][0]:+.4f}, {each['effect_95'][1]:+.4f}] against "
                f"{each['control_median']:+.4f} "
                f"[{each['control_95'][0]:+.4f}, {each['control_95'][1]:+.4f}] of {each['controls']} controls (p "
                f"{each['p']:.3f})"
                for name, each in chosen[:_SHOWN]
            ]
            yield _finding(
                f"Zeroing index {index} {place} does more than zeroing "
                f"{'random' if kind == 'random' else 'equally important'} indices",
                _verdict(count, len(chosen)),
                f"Change of the NLL of the aligned answers, nats a token. {'; '.join(parts)}.",
            )
