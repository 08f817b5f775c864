"""The card of a published vector or adapter: what it is, what it does, how each program takes it, how it is made again."""

from collections.abc import Mapping
from pathlib import Path

from irm_lite.core.version import __version__
from irm_lite.jobs.publishing.card_uses import python, uses
from irm_lite.jobs.publishing.gathered import Gathered
from irm_lite.jobs.publishing.run_file import CARD, RUN_FILE
from irm_lite.vectors.card_head import TAGS, VECTOR_TAGS, card_head, plain

_CARD = """{head}
# {title}

{what} Strength 1 is as it was trained, 0.5 is half, -1 the opposite; {strength:g} is recommended.

{facts}
## Use

In this folder, with the base's GGUF beside it:

{use}
## Made again

{again}
## Files

{files}
## Limits

- It is for its base and for what is quantised from it. Where the shapes agree, llama.cpp loads it into any other model, and nobody
  knows what that says.
- Steering changes what a model says, and can undo what made it polite, careful or right: high strengths first. Nobody has looked at
  what this one says but in the figures above.

Written by irm-lite {version}.
"""


def model_card(gathered: Gathered, digests: Mapping[str, str], adapters: Mapping[str, bool]) -> str:
    """The card's text. `digests`: SHA-256 by file; `adapters`: by name, whether it is a folder of PEFT's."""
    wishes, base, data = gathered.wishes, gathered.base, gathered.data
    tags = [
        *(VECTOR_TAGS if gathered.vectors else ()),
        *TAGS,
        *(("lora",) if adapters else ()),
        *(("peft",) if any(adapters.values()) else ()),
    ]
    datasets = [data.name.removeprefix("hf:")] if data.name.startswith("hf:") else []
    files = "".join(f"| `{plain(name)}` | `{digest}` |\n" for name, digest in sorted(digests.items()))
    return _CARD.format(
        head=card_head(base.hub_id, tags, "irm-lite", wishes.licence or base.licence, datasets),
        title=plain(wishes.title) or _title(gathered),
        what=_what(gathered),
        strength=wishes.strength,
        facts=_facts(gathered),
        use=uses(gathered, adapters, digests) + python(gathered),
        again=_again(gathered),
        files=f"| file | SHA-256 |\n|---|---|\n{files}",
        version=__version__,
    )


def _title(gathered: Gathered) -> str:
    about = plain(gathered.data.name).removesuffix(".jsonl") or plain(gathered.lead.name).removesuffix(".gguf")
    return f"{about[:1].upper()}{about[1:]}: a {gathered.lead.noun} for {_base(gathered)}"


def _base(gathered: Gathered) -> str:
    base = gathered.base
    shape = base.fingerprint
    return plain(base.hub_id or base.given) or f"a {plain(shape.architecture) or 'model'} of {shape.hidden_size}"


def _what(gathered: Gathered) -> str:
    what = gathered.lead.what()
    if gathered.irm is None:
        return what
    irm = f"an injectable realignment model (IRM, kind `{gathered.irm.kind}`) of irm-lite"
    if gathered.lead.key == "adapter":
        vectors = [f" A control vector that carries a part of it is here too (`{plain(name)}`)." for name in gathered.vectors]
        return f"{what} It is {irm}, copied whole.{''.join(vectors[:1])}"
    whole = "" if gathered.irm.kind == "static" else " The network itself, which reads the input, is here too (`irm.safetensors`)."
    return f"{what} It is what became of {irm}.{whole}"


def _facts(gathered: Gathered) -> str:
    base, data = gathered.base, gathered.data
    print_ = base.fingerprint
    shape = f"{plain(print_.architecture)}, {print_.n_layers or 'unknown'} layers of {print_.hidden_size}"
    rows: list[tuple[str, str]] = [
        ("base", f"`{_base(gathered)}` ({shape})"),
        ("its weights", f"`{print_.weights[:64] or 'not known'}` (SHA-256 of the norms' gains, the same in every quantisation)"),
        ("trained on them as", plain(print_.quantisation) or "not known"),
        *gathered.lead.facts(),
        ("recommended strength", f"{gathered.wishes.strength:g}"),
        ("data", f"`{plain(data.name)}`" if data.name else "not known"),
        ("the data's licence", plain(data.licence) or "not stated"),
        *([("the data's SHA-256", f"`{data.sha256}`")] if data.sha256 else []),
        *_figures(gathered),
        *_of_others(gathered),
    ]
    return "| | |\n|---|---|\n" + "".join(f"| {name} | {value} |\n" for name, value in rows)


def _figures(gathered: Gathered) -> list[tuple[str, str]]:
    """What export measured of the lead; of a vector alone, and of an adapter whose figures were not kept, what its own keys say."""
    lead, metadata = gathered.lead, gathered.lead.steering.metadata
    figures, score = lead.measured(gathered.figures)
    fidelity = figures.get("fidelity", metadata.get("fidelity"))
    if not isinstance(fidelity, float):
        return [("fidelity", "not measured")]
    interval = figures.get("intervals_95", {}).get("fidelity")
    within = f" ({interval[0]:.3f} to {interval[1]:.3f})" if interval else ""
    where = plain(str(metadata.get("fidelity.on", "")))
    rows = [("fidelity", f"{fidelity:.3f}{within}: how much of the IRM arrives, 1 is all{', in ' if where else ''}{where}")]
    if "nll_base" in figures:
        nll = f"{figures['nll_base']:.3f} (base) -> {figures['nll_vector']:.3f} ({lead.key})"
        rows.append(("NLL of held-out answers", f"{nll} nats a token, {figures['samples']} answers"))
    if score and score["value"] is not None:
        low_high = " ({:.2f} to {:.2f})".format(*score["interval_95"]) if score["interval_95"] else ""
        parts = ", ".join(f"{plain(name)} {value:.2f}" for name, value in score["parts"].items() if value is not None)
        rows.append(("score of what it writes", f"{score['value']:.2f}{low_high} of 1: {parts}"))
    return rows


def _of_others(gathered: Gathered) -> list[tuple[str, str]]:
    """The fidelity that export measured of the run's own vector and of the adapter that it made last, where they do not lead."""
    kept = gathered.figures
    of_adapter = kept.get("adapter") or {}
    known = {
        Path(str(kept.get("vector", ""))).name: kept.get("fidelity"),
        Path(str(of_adapter.get("adapter", ""))).name: of_adapter.get("fidelity"),
    }
    names = [*gathered.vectors, *(each.name for each in gathered.adapters)]
    others = [name for name in names if name != gathered.lead.name.split("/")[0] and isinstance(known.get(name), float)]
    return [(f"fidelity of `{plain(name)}`", f"{known[name]:.3f}") for name in others]


def _again(gathered: Gathered) -> str:
    lead = gathered.lead
    if gathered.run is None:
        return f"The run that made it was not published: this {lead.key} cannot be made again from what is here.\n"
    return f"""    irm-lite reproduce {CARD} -o again

trains it again from `{RUN_FILE}` (settings, seed, versions, machine, hashes) and compares: the same {lead.key} to the last bit on
the same machine with the same versions, elsewhere how far {lead.differs} is off, and what differs.
"""
