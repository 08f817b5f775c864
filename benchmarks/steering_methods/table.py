"""The comparison as Markdown: one row a method, its trainings combined, the best first.

What counts as kept is what the base says, and the base in four bits in transformers says less of it than its file in llama.cpp:
beside its own base a method there would look better than it is. So all are held against the base in llama.cpp, if it was heard. How
strange a text is remains that of the base beside which it was written.
"""

from dataclasses import replace

from irm_lite.core.types import DoubleArray
from irm_lite.scoring.judging import CHOICE_COLUMNS, PAIR_COLUMNS, TEXT_COLUMNS, Columns
from irm_lite.scoring.parts import PARTS
from irm_lite.scoring.score import Score, combined
from steering_methods.store import Document, Result, base_nll, results_of

# Raw shares between the parts and the rest: answers heard in the tone, right of four, key words said.
RAW = {"toned": "heard", "choices": "right of four", "recalled": "key words"}
HEAD = ("", "score", *PARTS, *RAW.values(), "NLL", "KL", "seconds", "parameters", "strength", "tried as", "seeds")


def markdown(document: Document) -> str:
    """With what failed and what does not apply in lines below."""
    settings = document["settings"]
    results = beside_one_base(results_of(document))
    order = sorted(results, key=lambda name: -(combined([each.score for each in results[name]]).value or 0.0))
    rows = [_row(name, results[name]) for name in order]
    plain = base_nll(document)
    nll = "" if plain is None else f"; NLL of the tone's answers by the unsteered base {plain:.3f}"
    size = combined([results[order[0]][0].score]).size if order else "nothing yet"
    lines = [f"{settings['model']}, {settings['data']}, {settings['steps']} steps, {size}{nll}", ""]
    lines += ["| " + " | ".join(HEAD) + " |", "|---|" + "---:|" * (len(HEAD) - 1)]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    failed = {f"{name}, seed {seed}": why for name, seeds in document["failed"].items() for seed, why in seeds.items()}
    for title, of in (("Failed", failed), ("Left out", document["left_out"])):
        lines += [f"\n{title}: " + "; ".join(f"{name} ({why})" for name, why in of.items())] if of else []
    return "\n".join(lines)


def _row(name: str, found: list[Result]) -> list[str]:
    score = combined([each.score for each in found])
    figures, intervals = score.figures, score.intervals
    value = "none"
    if score.value is not None:
        low, high = intervals["score"]
        value = f"{score.value:.2f} [{low:.2f}, {high:.2f}]"
    effects = [each.side_effect for each in found if each.side_effect is not None]
    strengths = sorted({each.strength for each in found if each.strength is not None})
    star = "" if found[0].place == "llama.cpp" else "*"
    return [
        name + star,
        value,
        *(f"{figures[name]:.2f}" if name in figures else "" for name in (*PARTS, *RAW)),
        f"{sum(each.nll for each in found) / len(found):.3f}",
        f"{sum(effects) / len(effects):.3f}" if effects else "",
        f"{sum(each.seconds for each in found) / len(found):.0f}",
        f"{found[0].parameters:,}",
        ", ".join(f"{each:g}" for each in strengths),
        str(found[0].variant).replace("|", "/"),
        str(len(found)),
    ]


def beside_one_base(results: dict[str, list[Result]]) -> dict[str, list[Result]]:
    """With every score beside what the base says in llama.cpp; as they are where no method ran there."""
    there = next((each[0].score.trainings[0] for each in results.values() if each[0].place == "llama.cpp"), None)
    if there is None:
        return results
    return {name: [replace(each, score=_beside(each.score, there)) for each in found] for name, found in results.items()}


def _beside(score: Score, other: Columns) -> Score:
    """With the base's columns of another score on the same questions."""
    trainings = [
        Columns(
            _with_base(each.text, other.text, TEXT_COLUMNS),
            _with_base(each.pairs, other.pairs, PAIR_COLUMNS),
            _with_base(each.choices, other.choices, CHOICE_COLUMNS),
        )
        for each in score.trainings
    ]
    return replace(score, trainings=trainings)


def _with_base(own: DoubleArray, other: DoubleArray, names: tuple[str, ...]) -> DoubleArray:
    bases = [at for at, name in enumerate(names) if name.startswith("base_")]
    found = own.copy()
    found[:, bases] = other[:, bases]
    return found
