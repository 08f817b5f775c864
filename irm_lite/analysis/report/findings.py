"""The report's statistics in plain words: what holds, what does not, and what cannot be told."""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from irm_lite.analysis.report.split import split_findings
from irm_lite.analysis.report.verdicts import FAILS, HOLDS, UNCLEAR, Finding, finding, verdict
from irm_lite.analysis.statistics.causality import MEASURES
from irm_lite.analysis.statistics.holm import holm

_LEVEL = 0.05
_SHOWN = 10  # of a list
_OUTSTANDING = 10  # an index within so many of the top stands out

Document = dict[str, Any]


def findings(document: Document) -> list[Finding]:
    """One for each question that the runs can answer. A claim about all runs holds where it does in each of them, after
    Holm over the runs where it is a test, does not where it does in none, and is unclear between."""
    several = [run for run in document["runs"] if "striation_test" in run]
    asked: list[Callable[[], Iterable[Finding]]] = [
        lambda: _striated(several),
        lambda: _beyond_the_field(several),
        lambda: _foretold(several),
        lambda: _common(document),
        lambda: _of_the_tone(document),
        lambda: _marked(document),
        lambda: split_findings(document.get("gradient_split", {})),
        lambda: _ablated(document),
        lambda: _sharpened(document),
    ]
    return [each for ask in asked for each in ask()]


def _median(values: Iterable[float]) -> float:
    return float(np.median(list(values)))


def _percent(values: Iterable[float]) -> str:
    """The median, and the range where there are several."""
    given = sorted(100 * value for value in values)
    middle = f"{_median(given):.0f}%"
    return middle if len(given) == 1 else f"{middle} (median; {given[0]:.0f} to {given[-1]:.0f}%)"


def _list(indices: Iterable[object]) -> str:
    given = [str(index) for index in indices]
    return ", ".join(given[:_SHOWN]) + (f" and {len(given) - _SHOWN} more" if len(given) > _SHOWN else "")


def _striated(runs: list[Document]) -> Iterable[Finding]:
    if not runs:
        return
    tests = [run["striation_test"] for run in runs]
    both = holm(np.array([max(each["index_share"]["p"], each["neighbour_correlation"]["p"]) for each in tests]))
    count = int((both <= _LEVEL).sum())
    text = (
        f"In {count} of {len(runs)} runs the mean output is more striated than with its indices permuted within layers, by index "
        f"share and by the correlation of neighbouring layers (Holm over the runs, {_LEVEL}). The index explains "
        f"{_percent(each['index_share']['observed'] for each in tests)} of the layer-normalised variance, permuted "
        f"{_percent(each['index_share']['null_mean'] for each in tests)}; neighbouring layers correlate by "
        f"{_median(each['neighbour_correlation']['observed'] for each in tests):.2f} (median)."
    )
    before = [run["untrained"]["two_way"]["index"] for run in runs if "untrained" in run]
    if before:
        text += f" In the untrained IRMs that the same runs started from it explains {_percent(before)}."
    yield finding("The outputs are striated: the same indices in layer after layer", verdict(count, len(runs)), text)


def _beyond_the_field(runs: list[Document]) -> Iterable[Finding]:
    if not runs:
        return
    fields = [run["field"] for run in runs]
    added = [(each["index_share_added_95"], each["neighbour_correlation_added_95"]) for each in fields]
    more = sum(all(interval[0] > 0 for interval in both) for both in added)
    less = sum(all(interval[1] < 0 for interval in both) for both in added)
    left = sum(each["left"]["index_share"]["p"] <= _LEVEL for each in fields)
    what = "what training added to the IRM's output" if any("untrained" in run for run in runs) else "the IRM's output"
    yield finding(
        "In these runs training adds striation to what the residual design gives for free",
        verdict(more, len(runs)),
        "The gradient field of the untouched base, with nothing trained, is striated too: there the index explains "
        f"{_percent(each['field']['index_share'] for each in fields)}, in {what} "
        f"{_percent(each['values']['index_share'] for each in fields)}. By both measures the IRM is above its field in {more} of "
        f"{len(runs)} runs and below it in {less} (95% intervals over indices, each by itself; they say nothing of another "
        f"training). The field explains {_percent(each['r2_mean'] for each in fields)} of the variance within a layer; what it "
        f"leaves is still striated in {left} of {len(runs)} runs, of which some is owed to noise in the field itself.",
    )


def _foretold(runs: list[Document]) -> Iterable[Finding]:
    if not runs:
        return
    explained = [run["explanation"] for run in runs]
    r2 = _median(each["adjusted_r2"] for each in explained)
    names = list(dict.fromkeys(name for each in explained for name in each["features"]))
    partial = {name: _median(each["features"][name]["partial"] for each in explained if name in each["features"]) for name in names}
    best = max(names, key=lambda name: abs(partial[name]))
    rho = _median(each["features"][best]["spearman"] for each in explained if best in each["features"])
    yield finding(
        "What is known before training foretells which indices an IRM uses",
        HOLDS if r2 >= 0.5 else FAILS if r2 < 0.1 else UNCLEAR,
        f"Features of the untouched base{', and the untrained IRM,' if 'the untrained IRM' in names else ''} explain "
        f"{_percent(each['adjusted_r2'] for each in explained)} of the variance of the indices' ranks (adjusted R2; here called "
        f"holding from 50%, not holding below 10%). Of the {len(names)} the one with the largest partial correlation is "
        f"{best}: Spearman {rho:.2f}, given all the others {partial[best]:.2f} (medians).",
    )


def _common(document: Document) -> Iterable[Finding]:
    across = document.get("across")
    if across is None:
        return
    common, runs, k = across["common"], len(across["names"]), across["k"]
    rho = _median(pair["spearman"] for pair in across["pairs"])
    overlap = _median(pair["overlap"] for pair in across["pairs"])
    chance = across["pairs"][0]["expected"]
    text = f"Of two runs' top {k} indices {overlap:g} are the same (median; {chance:.1f} by chance), "
    text += f"and their rankings correlate by {rho:.2f} (Spearman). "
    if common["indices"]:
        each = zip(common["indices"], common["counts"], common["worst_rank"], strict=True)
        named = [f"{index} ({count} of {runs}, worst rank {worst:.0f})" for index, count, worst in each]
        text += f"In the top {k} of more runs than chance allows (Holm, {_LEVEL}): {_list(named)}."
    else:
        text += f"No index is in the top {k} of more runs than chance allows (Holm, {_LEVEL})."
    told = HOLDS if common["in_all"] else UNCLEAR if common["indices"] else FAILS
    yield finding(f"An index is among the {k} most important of every run", told, text)


def _of_the_tone(document: Document) -> Iterable[Finding]:
    tone = document.get("across", {}).get("tone")
    if tone is None:
        return
    shared = document["across"]["common"]["indices"]
    text = (
        "Runs with an emotion against neutral runs of the same setting, the labels permuted within "
        f"{tone['blocks']} setting{'s' if tone['blocks'] > 1 else ''} (max-T, {_LEVEL}): "
    )
    if tone["indices"]:
        named = [f"{index} ({difference:+.2f})" for index, difference in zip(tone["indices"], tone["difference"], strict=True)]
        text += f"{len(named)} indices are ranked otherwise, by this part of the hidden size: {_list(named)}."
        of_shared = [index for index in shared if index in tone["indices"]]
        text += f" Of the {len(shared)} common indices these are among them: {_list(of_shared) or 'none'}."
    else:
        text += f"no index is ranked otherwise; the least adjusted p is {tone['least_p']:.2f}."
        text += " An index that serves neutral answers as well is not specific to an emotion." if shared else ""
    yield finding("Some indices serve the emotion, not the neutral answers", HOLDS if tone["indices"] else FAILS, text)


def _marked(document: Document) -> Iterable[Finding]:
    for place, mark in enumerate(document["runs"][0]["marked"]):
        ranks = [run["marked"][place]["rank"] for run in document["runs"]]
        top = sum(rank <= _OUTSTANDING for rank in ranks)
        text = f"It is among the {_OUTSTANDING} most important indices in {top} of {len(ranks)} runs; its rank is {min(ranks)} to "
        text += f"{max(ranks)}, median {_median(ranks):g}, of {document['base']['hidden_size']}."
        tested = [run for run in document["runs"] if "prominent" in run]
        if tested:
            by_run, by_field = (
                sum(mark["index"] in run[key]["indices"] for run in tested) for key in ("prominent", "field_prominent")
            )
            text += f" It stands out of chance in {by_run} of {len(tested)} runs, and in the gradient field of the untouched base "
            text += f"in {by_field} (max-T within layers, {_LEVEL})."
        yield finding(f"Index {mark['index']} stands out", verdict(top, len(ranks)), text)


def _ablated(document: Document) -> Iterable[Finding]:
    effects = [(run["name"], each) for run in document["runs"] for each in run["ablations"]]
    asked = dict.fromkeys(_asked(each) for _, each in effects)
    for question in asked:
        index, where, kind, norms = question
        of_this = [(name, each) for name, each in effects if _asked(each) == question]
        aligned = [(name, each) for name, each in of_this if each["measure"] == MEASURES[0]]
        neutral = {name: each for name, each in of_this if each["measure"] == MEASURES[1]}
        if not aligned:
            continue
        count = sum(each["p"] <= _LEVEL for _, each in aligned)
        place = "in the IRM's output" if where == "irm" else "in the base's residual stream"
        parts = [
            f"{name} {each['effect']:+.4f} [{each['effect_95'][0]:+.4f}, {each['effect_95'][1]:+.4f}], controls "
            f"{each['control_median']:+.4f} [{each['control_95'][0]:+.4f}, {each['control_95'][1]:+.4f}], p {each['p']:.3f}"
            + (f"; of neutral answers {neutral[name]['effect']:+.4f}" if name in neutral else "")
            for name, each in aligned
        ]
        others = f"{aligned[0][1]['controls']} random indices"
        if kind == "matched":
            own, (low, high) = aligned[0][1]["magnitude"], aligned[0][1]["matched_magnitudes"]
            others = f"the {aligned[0][1]['controls']} indices nearest in {aligned[0][1]['matched_by']}"
            parts[0] += f" (that of the index {own:.2f}, of the controls {low:.2f} to {high:.2f})"
        place += "" if norms == "free" else f", the norms' denominators held at the {norms}'s,"
        yield finding(
            f"Zeroing index {index} {place} moves the aligned answers more than zeroing {others}",
            verdict(count, len(aligned)),
            f"In {count} of {len(aligned)} runs (p <= {_LEVEL} each, two-sided, not corrected for the {len(asked)} such questions "
            f"asked here). Change of the NLL, nats a token, above 0 is worse: {'; '.join(parts)}.",
        )


def _sharpened(document: Document) -> Iterable[Finding]:
    fitted = [(run["name"], each) for run in document["runs"] for each in run["ablations"] if "explained" in each]
    for index, where, _, norms in dict.fromkeys(_asked(each) for _, each in fitted):
        of_this = [(name, each) for name, each in fitted if _asked(each) == (index, where, "matched", norms)]
        count = sum(each["explained_p"] <= _LEVEL for _, each in of_this)
        place = ("in the IRM's output" if where == "irm" else "in the base's residual stream") + (
            "" if norms == "free" else f", the norms' denominators held at the {norms}'s,"
        )
        parts = [
            f"{name} {_percent([each['explained']])} [{100 * each['explained_95'][0]:.0f}, {100 * each['explained_95'][1]:.0f}], "
            f"matched indices {_percent([each['controls_explained']])} (median), p {each['explained_p']:.3f}"
            for name, each in of_this
        ]
        yield finding(
            f"Zeroing index {index} {place} changes the answers' sharpness rather than their content, more so than like indices",
            verdict(count, len(of_this)),
            f"In {count} of {len(of_this)} runs (p <= {_LEVEL} each, one-sided). The share of KL(ablated || not) that a "
            f"temperature fitted to each token explains: {'; '.join(parts)}.",
        )


def _asked(effect: Document) -> tuple[int, str, str, str]:
    return effect["index"], effect["where"], effect["controls_kind"], effect.get("norms", "free")
