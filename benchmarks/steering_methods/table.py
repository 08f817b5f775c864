"""The comparison as Markdown: one row a method, its trainings combined, the best first."""

from irm_lite.scoring.parts import PARTS
from irm_lite.scoring.score import combined
from steering_methods.store import Document, Result, base_nll, results_of

HEAD = ("", "score", *PARTS, "NLL", "KL", "seconds", "parameters", "strength", "tried as", "seeds")


def markdown(document: Document) -> str:
    """With what failed and what does not apply in lines below."""
    settings = document["settings"]
    results = results_of(document)
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
        *(f"{figures[part]:.2f}" if part in figures else "" for part in PARTS),
        f"{sum(each.nll for each in found) / len(found):.3f}",
        f"{sum(effects) / len(effects):.3f}" if effects else "",
        f"{sum(each.seconds for each in found) / len(found):.0f}",
        f"{found[0].parameters:,}",
        ", ".join(f"{each:g}" for each in strengths),
        str(found[0].variant).replace("|", "/"),
        str(len(found)),
    ]
