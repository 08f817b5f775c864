"""An analysis' document as sections of tables and charts: what the report's page shows, without how it looks."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from irm_lite.analysis.report.ablations import ablations_section
from irm_lite.analysis.report.parts import (
    Cell,
    Mark,
    Section,
    bars,
    chart,
    count,
    estimate,
    null,
    number,
    p_value,
    said_once,
    shown,
    table,
)
from irm_lite.analysis.report.split import split_section
from irm_lite.core.visible_text import short
from irm_lite.steering.layers import format_layers

Run = Mapping[str, Any]


def sections(document: Mapping[str, Any]) -> list[Section]:
    """Those for which the document has something."""
    runs = document.get("runs", [])
    across = document.get("across", {})
    found = [
        _runs(runs),
        _striations(runs),
        _field(runs, document.get("gradient_field", {})),
        split_section(document.get("gradient_split", {})),
        _indices(runs),
        _across(across),
        _explanation(runs),
        ablations_section(runs),
        _lens(runs),
    ]
    return [each for each in found if each.tables]


def _runs(runs: Sequence[Run]) -> Section:
    rows = [
        [
            Cell(run["name"]),
            Cell(run.get("data", "")),
            Cell(run.get("kind", "")),
            Cell(run.get("site", "")),
            Cell(format_layers(run.get("layers", []))),
            count(run.get("seed")),
            number(run.get("nll", {}).get("base")),
            number(run.get("nll", {}).get("irm")),
            count(run.get("tokens", {}).get("prompt")),
            count(run.get("tokens", {}).get("generated")),
            Cell(run.get("phase", "")),
            Cell(run.get("recording", "")),
            count(run.get("prompts")),
            Cell(run.get("measured_in", "")),
            bars(run.get("near_zero", [])),
        ]
        for run in runs
    ]
    columns = ["run", "data", "IRM", "site", "layers", "seed", "NLL: base", "NLL: IRM", "prompt tokens", "generated tokens"]
    columns += ["mean over", "recording", "prompts", "measured in", "share of |v| < 1e-4 by layer"]
    settings = ("IRM", "site", "layers", "mean over", "recording", "prompts", "measured in")
    tables = [said_once(each, settings) for each in table("", columns, rows)]
    text = (
        "NLL in nats an answer token, the best of the validations in training (the checkpoint was chosen by it). The statistics "
        "below are of each run's mean output (L, H) over the tokens of its recording, which are its own answers."
    )
    return Section("Runs", text, tables=tables)


def _striations(runs: Sequence[Run]) -> Section:
    marks, rows, parts, before = [], [], [], []
    for run in runs:
        test, likeness = run.get("striation_test", {}), run.get("correlations", {})
        share, neighbours = test.get("index_share", {}), test.get("neighbour_correlation", {})
        if test or likeness:
            rows.append(
                [
                    Cell(run["name"]),
                    number(share.get("observed")),
                    null(share),
                    p_value(share.get("p")),
                    number(neighbours.get("observed")),
                    null(neighbours),
                    p_value(neighbours.get("p")),
                    number(likeness.get("all_pairs")),
                ]
            )
        shares = [run.get(key, {}) for key in ("two_way_layer_normalised", "two_way")]
        if any(shares):
            parts.append([Cell(run["name"]), *(number(each.get(key)) for each in shares for key in ("index", "layer", "rest"))])
        if share:
            field_share = run.get("field", {}).get("field", {}).get("index_share")
            marks.append(Mark(run["name"], share["observed"], band=(share["null_mean"], share["null_95th"]), other=field_share))
        if untrained := run.get("untrained"):
            before.append(
                [
                    Cell(run["name"]),
                    number(untrained["cosine"]),
                    number(run["two_way_layer_normalised"]["index"]),
                    number(untrained["two_way"]["index"]),
                    number(untrained["learned_two_way"]["index"]),
                    number(untrained["correlations"]["neighbours"]),
                ]
            )
    columns = ["run", "index share", "permuted: mean (95th)", "p", "neighbours' r", "permuted: mean (95th)", "p", "all pairs' r"]
    of_parts = [f"{part}, {how}" for how in ("layers normalised", "as it is") for part in ("index", "layer", "rest")]
    text = (
        "Does the same neuron index light up in every layer? Index share: the part of the output's variance that the index "
        "explains. Neighbours' r: the correlation of a layer with the next. Null: the indices permuted within each layer. It is "
        "a weak one, since whatever stands in the residual stream is striated: the base's gradient field is the stronger control."
    )
    charts = chart(
        "Index share of each run",
        "share of variance; bar: permutations, mean to 95th percentile; hollow: the untouched base's gradient field; line: 0",
        marks,
    )
    tables = table("Against permutations", columns, rows) + table("Shares of variance", ["run", *of_parts], parts)
    tables += table(
        "Against the IRM that the training started from, on the same tokens",
        ["run", "cosine with it", "index share: trained", "untrained", "trained less untrained", "neighbours' r: untrained"],
        before,
        "An IRM that does not start at zero keeps some of its first weights: what is like the untrained one was not learned.",
    )
    return Section("Striations", text, charts, tables)


def _field(runs: Sequence[Run], gradients: Mapping[str, Run]) -> Section:
    rows, left, by_field = [], [], []
    for run in runs:
        if not (control := run.get("field")):
            continue
        rows.append(
            [
                Cell(run["name"]),
                *(number(control[of]["index_share"]) for of in ("values", "field")),
                estimate(control["added"]["index_share"], control["index_share_added_95"]),
                *(number(control[of]["neighbour_correlation"]) for of in ("values", "field")),
                estimate(control["added"]["neighbour_correlation"], control["neighbour_correlation_added_95"]),
            ]
        )
        remains = [
            (number(each["observed"]), null(each), p_value(each["p"]))
            for each in (control["left"][key] for key in ("index_share", "neighbour_correlation"))
        ]
        fits = [number(control["r2_mean"]), bars(control["r2"]), bars(control["slopes"])]
        left.append([Cell(run["name"]), *fits, *remains[0], *remains[1]])
    for name, gradient in gradients.items():
        likeness, shares = gradient.get("cosines", {}), gradient.get("two_way", {})
        by_field.append(
            [
                Cell(name),
                *(number(likeness.get(key)) for key in ("neighbours", "all_pairs")),
                *(number(shares.get(key)) for key in ("index", "layer", "rest")),
            ]
        )
    columns = ["run", "index share: IRM", "field", "added [95%]", "neighbours' r: IRM", "field", "added [95%]"]
    permuted = ["permuted: mean (95th)", "p"]
    left_columns = ["run", "R² mean", "R² by layer", "slope by layer", "index share", *permuted, "neighbours' r", *permuted]
    text = (
        "The stronger control: the gradient of the answers' NLL with respect to a vector added at each layer of the base, with "
        "no IRM and nothing trained. Of an IRM that does not start at zero, what training added to its output is held against it. "
        "Added: the IRM's striation less the field's, with a 95% interval over indices: it says "
        "nothing of another training. What the field leaves: each layer of the IRM regressed on that layer of the field, and the "
        "striation of the residuals against permutations."
    )
    tables = table("IRM against field", columns, rows) + table("What the field leaves", left_columns, left)
    tables += table(
        "Gradient fields of the untouched base",
        ["answers", "neighbours' cosine", "all pairs' cosine", "index share", "layer share", "rest"],
        by_field,
    )
    return Section("Against the gradient field of the base", text, tables=tables)


def _indices(runs: Sequence[Run]) -> Section:
    rows = []
    for run in runs:
        prominent = run.get("prominent", {})
        stands_out = {
            index: (statistic, p)
            for index, statistic, p in zip(*(prominent.get(key, []) for key in ("indices", "statistic", "p")), strict=True)
        }
        ranked = {each["index"]: each for key in ("top", "marked") for each in run.get(key, [])}
        marked = {each["index"] for each in run.get("marked", [])}
        in_order = sorted(ranked, key=lambda index: ranked[index]["rank"])
        for index in [*in_order, *(index for index in stands_out if index not in ranked)]:
            statistic, p = stands_out.get(index, (None, None))
            rows.append(
                [
                    Cell(run["name"]),
                    count(index),
                    count(ranked.get(index, {}).get("rank")),
                    number(ranked.get(index, {}).get("importance")),
                    number(statistic),
                    p_value(p),
                    Cell("marked" if index in marked else ""),
                ]
            )
    alphas = sorted({run["prominent"]["alpha"] for run in runs if "prominent" in run})
    level = f" at a familywise {', '.join(f'{alpha:g}' for alpha in alphas)}" if alphas else ""
    text = (
        "Importance: mean |output|, each layer scaled to a mean of 1, then averaged over layers: 1 is an average index. "
        f"Stands out: mean over layers of |mean output| / the layer's RMS, where it is more than chance allows{level} "
        "(null: the largest such mean of all indices when indices are permuted within each layer: a weak null, since the base's "
        "gradient field has such indices too)."
    )
    columns = ["run", "index", "rank", "importance", "stands out: statistic", "adjusted p", ""]
    return Section("Indices", text, tables=table("", columns, rows))


def _across(across: Run) -> Section:
    names = [short(name, 60) for name in across.get("names", [])]
    matrix = [
        [Cell(f"{nth} {name}", float(nth)), *(Cell(shown(rho), rho, shade=rho) for rho in row)]
        for nth, (name, row) in enumerate(zip(names, across.get("spearman", []), strict=False), 1)
    ]
    pairs = [
        [
            *(Cell(names[run]) for run in pair["runs"]),
            number(pair["spearman"]),
            p_value(pair["spearman_p"]),
            count(pair["overlap"]),
            number(pair["expected"]),
            p_value(pair["overlap_p"]),
        ]
        for pair in across.get("pairs", [])
    ]
    commons = [("all runs", across["common"])] if "common" in across else []
    commons += across.get("common_by_data", {}).items()
    shared = [row for of, each in commons for row in _common(of, each)]
    levels = ", ".join(sorted({f"{each['alpha']:g}" for _, each in commons}))
    tables = table("Spearman of the importances", ["run", *map(str, range(1, len(names) + 1))], matrix)
    tables += table(
        f"Indices in the top {across.get('k', 'k')} of many runs",
        ["runs", "index", "in the top of", "runs in all", "median rank", "worst rank", "adjusted p"],
        shared,
        f"Null: independent uniform ranks. Those with a p, after Holm over all indices, of {levels} at most.",
    )
    if tone := across.get("tone"):
        tables += table(
            "Indices that runs with an emotion rank otherwise than neutral ones of the same setting",
            ["index", "difference of mean ranks / hidden size", "adjusted p"],
            _toned(tone),
            f"Null: the labels permuted within {tone['blocks']} settings, the largest difference of all indices. Above 0: the "
            f"runs with an emotion use it more. The largest of all is {tone['largest']:.2f}, the least p {tone['least_p']:.2g}.",
        )
    tables += table(
        "How alike the rankings are",
        ["runs that share", "median Spearman"],
        [[Cell(kind), number(rho)] for kind, rho in across.get("agreement", {}).items()],
    )
    tables += table(
        "Each two runs",
        ["run", "and", "Spearman", "p", f"shared of the top {across.get('k', 'k')}", "expected by chance", "p"],
        pairs,
    )
    text = (
        "Do the runs agree on which indices matter? Runs on one base share its loud indices, so a small p says that they agree, "
        "not that the tone is why: a neutral run and the base's own features are the controls."
    )
    return Section("Across runs", text, tables=tables)


def _common(of: str, found: Run) -> list[list[Cell]]:
    if not found["indices"]:
        return [[Cell(of), Cell("none"), *(Cell("") for _ in range(5))]]
    columns = zip(*(found[key] for key in ("indices", "counts", "median_rank", "worst_rank", "p")), strict=True)
    return [
        [Cell(of), count(index), count(times), count(found["runs"]), count(median), count(worst), p_value(p)]
        for index, times, median, worst, p in columns
    ]


def _toned(tone: Run) -> list[list[Cell]]:
    columns = zip(*(tone[key] for key in ("indices", "difference", "p")), strict=True)
    return [[count(index), number(difference), p_value(p)] for index, difference, p in columns] or [
        [Cell("none"), Cell(""), Cell("")]
    ]


def _explanation(runs: Sequence[Run]) -> Section:
    marks, rows, totals = [], [], []
    for run in runs:
        if not (explanation := run.get("explanation")):
            continue
        totals.append([Cell(run["name"]), number(explanation["r2"]), number(explanation["adjusted_r2"])])
        for name, each in explanation["features"].items():
            rows.append(
                [
                    Cell(run["name"]),
                    Cell(name),
                    estimate(each["spearman"], each["spearman_95"]),
                    number(each["partial"]),
                    p_value(each["partial_p"]),
                    p_value(each["partial_p_holm"]),
                ]
            )
            marks.append(Mark(f"{run['name']}: {name}", each["spearman"], each["spearman_95"]))
    columns = ["run", "feature", "Spearman [95%]", "partial", "p", "p, Holm"]
    text = (
        "How far does what is known before training foretell which indices an IRM uses? Rank correlations of the importance "
        "with features of the base, and of the IRM that the training started from; partial: given all other features. Null: no "
        "correlation, 0. R²: the share of the importance's ranks that all features together explain."
    )
    charts = chart("Importance against what is known before training", "Spearman, with 95% intervals over indices; line: 0", marks)
    tables = table("All features together", ["run", "R²", "adjusted R²"], totals) + table("Each feature", columns, rows)
    return Section("Explained without the training", text, charts, tables)


def _lens(runs: Sequence[Run]) -> Section:
    def words(tokens: Iterable[Run]) -> Cell:
        return Cell(", ".join(f"{short(each['token'], 24)} {each['score']:+.2f}" for each in tokens))

    rows = [
        [Cell(run["name"]), count(each["layer"]), words(each.get("up", [])), words(each.get("down", []))]
        for run in runs
        for each in run.get("lens", [])
    ]
    text = (
        "The mean output of a layer times the final norm's gain, through the head: the tokens that it pushes up and down, in "
        "standard deviations over the vocabulary. Null: of a random vector the largest is near 4.5 in a vocabulary of 32,000 to "
        "50,000 tokens."
    )
    return Section("Logit lens", text, tables=table("", ["run", "layer", "up", "down"], rows))
