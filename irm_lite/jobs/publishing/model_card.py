"""The card of a published vector: what it is, what it does, how each program takes it, how it is made again."""

import shlex
from collections.abc import Container, Iterable, Mapping
from pathlib import Path
from typing import Any

from irm_lite.core.version import __version__
from irm_lite.jobs.publishing.gathered import Gathered
from irm_lite.jobs.publishing.run_file import CARD, RUN_FILE
from irm_lite.steering.layers import format_layers
from irm_lite.vectors.card_head import TAGS, card_head, plain

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
    tags = [*TAGS, *(("lora",) if adapters else ()), *(("peft",) if any(adapters.values()) else ())]
    datasets = [data.name.removeprefix("hf:")] if data.name.startswith("hf:") else []
    files = "".join(f"| `{plain(name)}` | `{digest}` |\n" for name, digest in sorted(digests.items()))
    return _CARD.format(
        head=card_head(base.hub_id, tags, "irm-lite", wishes.licence or base.licence, datasets),
        title=plain(wishes.title) or _title(gathered),
        what=_what(gathered),
        strength=wishes.strength,
        facts=_facts(gathered),
        use=_use(gathered) + _use_of_adapters(gathered, adapters, digests) + _python(gathered),
        again=_again(gathered),
        files=f"| file | SHA-256 |\n|---|---|\n{files}",
        version=__version__,
    )


def _title(gathered: Gathered) -> str:
    about = plain(gathered.data.name).removesuffix(".jsonl") or plain(next(iter(gathered.vectors))).removesuffix(".gguf")
    return f"{about[:1].upper()}{about[1:]}: a control vector for {_base(gathered)}"


def _base(gathered: Gathered) -> str:
    base = gathered.base
    return (
        plain(base.hub_id or base.given) or f"a {plain(gathered.vector.architecture) or 'model'} of {gathered.vector.hidden_size}"
    )


def _what(gathered: Gathered) -> str:
    blocks = gathered.vector.layers
    added = f"A control vector: llama.cpp adds one direction to what comes out of each of the blocks {blocks[0]} to {blocks[-1]}."
    if gathered.irm is None:
        return added
    kind = gathered.irm.kind
    whole = "" if kind == "static" else " The network itself, which reads the input, is here too (`irm.safetensors`)."
    return f"{added} It is what became of an injectable realignment model (IRM, kind `{kind}`) of irm-lite.{whole}"


def _facts(gathered: Gathered) -> str:
    base, data, vector = gathered.base, gathered.data, gathered.vector
    print_ = base.fingerprint
    shape = f"{plain(print_.architecture)}, {print_.n_layers or 'unknown'} layers of {print_.hidden_size}"
    rows: list[tuple[str, str]] = [
        ("base", f"`{_base(gathered)}` ({shape})"),
        ("its weights", f"`{print_.weights[:64] or 'not known'}` (SHA-256 of the norms' gains, the same in every quantisation)"),
        ("trained on them as", plain(print_.quantisation) or "not known"),
        ("blocks", format_layers(vector.layers)),
        ("recommended strength", f"{gathered.wishes.strength:g}"),
        ("how it was made", plain(str(vector.metadata.get("method", "not known")))),
        ("data", f"`{plain(data.name)}`" if data.name else "not known"),
        ("the data's licence", plain(data.licence) or "not stated"),
        *([("the data's SHA-256", f"`{data.sha256}`")] if data.sha256 else []),
        *_figures(gathered.figures, vector.metadata),
        *_of_adapter(gathered),
    ]
    return "| | |\n|---|---|\n" + "".join(f"| {name} | {value} |\n" for name, value in rows)


def _figures(figures: Mapping[str, Any], metadata: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What export measured; of a vector alone what its own keys say."""
    fidelity = figures.get("fidelity", metadata.get("fidelity"))
    if not isinstance(fidelity, float):
        return [("fidelity", "not measured")]
    interval = figures.get("intervals_95", {}).get("fidelity")
    within = f" ({interval[0]:.3f} to {interval[1]:.3f})" if interval else ""
    where = plain(str(metadata.get("fidelity.on", "")))
    rows = [("fidelity", f"{fidelity:.3f}{within}: how much of the IRM arrives, 1 is all{', in ' if where else ''}{where}")]
    if "nll_base" in figures:
        nll = " -> ".join(f"{figures[f'nll_{name}']:.3f} ({name})" for name in ("base", "vector"))
        rows.append(("NLL of held-out answers", f"{nll} nats a token, {figures['samples']} answers"))
    score = (figures.get("score") or {}).get("vector")
    if score and score["value"] is not None:
        low_high = " ({:.2f} to {:.2f})".format(*score["interval_95"]) if score["interval_95"] else ""
        parts = ", ".join(f"{plain(name)} {value:.2f}" for name, value in score["parts"].items() if value is not None)
        rows.append(("score of what it writes", f"{score['value']:.2f}{low_high} of 1: {parts}"))
    return rows


def _of_adapter(gathered: Gathered) -> list[tuple[str, str]]:
    """What export measured of the adapter that it made last, where that one is published."""
    found = gathered.figures.get("adapter") or {}
    name, fidelity = Path(str(found.get("adapter", ""))).name, found.get("fidelity")
    if not isinstance(fidelity, float) or name not in {each.name for each in gathered.adapters}:
        return []
    return [(f"fidelity of `{plain(name)}`", f"{fidelity:.3f}")]


def _use(gathered: Gathered) -> str:
    """A line for each program that takes the vector."""
    strength, repository = gathered.wishes.strength, gathered.wishes.repository
    name = next(iter(gathered.vectors))
    model = gathered.base.file or "BASE.gguf"
    scaled = shlex.quote(f"{name}:{strength:g}")
    lines = [
        ("llama-cli", f'llama-cli -m {shlex.quote(model)} --control-vector-scaled {scaled} -p "..."'),
        ("llama-server", f"llama-server -m {shlex.quote(model)} --control-vector-scaled {scaled} --jinja"),
        ("irm-lite", f'irm-lite generate --gguf {shlex.quote(model)} --vector {scaled} -p "..."'),
        (
            "irm-lite as a server with OpenAI's API (`pip install 'irm-lite[serve]'`), the strength in each request",
            f"irm-lite serve --http --gguf {shlex.quote(model)} --vector {shlex.quote(f'steer={name}')}",
        ),
        (
            "Ollama, LM Studio and all that takes no control vectors: a file with the steering in it",
            f"irm-lite bake {scaled} --gguf {shlex.quote(model)} -o steered.gguf",
        ),
    ]
    if gathered.irm is not None:
        here = shlex.quote(f".:{strength:g}")
        lines.append(("irm-lite with the network itself", f'irm-lite generate --gguf {shlex.quote(model)} --irm {here} -p "..."'))
    if repository:
        lines.insert(0, ("All files", f"hf download {repository} --local-dir {shlex.quote(repository.split('/')[1])}"))
    return _shown(lines)


def _use_of_adapters(gathered: Gathered, adapters: Mapping[str, bool], files: Container[str]) -> str:
    """A line for each program that takes an adapter, a file or what of a folder is one."""
    model, strength = shlex.quote(gathered.base.file or "BASE.gguf"), f"{gathered.wishes.strength:g}"
    lines = []
    for name, is_folder in adapters.items():
        file = f"{name}/adapter.gguf" if is_folder else name
        if not is_folder or file in files:
            request = f'`"lora": [{{"id": 0, "scale": {strength}}}]`'
            served = f"llama-server -m {model} --lora-scaled {shlex.quote(f'{file}:0')} --jinja"
            lines.append((f"llama-server with {plain(name)}, its strength in each request, as {request}", served))
            scaled = shlex.quote(f"{file}:{strength}")
            lines.append((f"irm-lite with {plain(name)}", f'irm-lite generate --gguf {model} --adapter {scaled} -p "..."'))
        if is_folder:
            base = shlex.quote(gathered.base.hub_id or "BASE")
            served = f"vllm serve {base} --enable-lora --lora-modules {shlex.quote(f'steer=./{name}')}"
            lines.append((f"vLLM with {plain(name)}, at strength 1", served))
            loaded = f"model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained({base!r}), {name!r})"
            lines.append((f"PEFT with {plain(name)}, at strength 1", loaded))
    return _shown(lines)


def _shown(lines: Iterable[tuple[str, str]]) -> str:
    return "".join(f"{title}:\n\n    {line}\n\n" for title, line in lines)


def _python(gathered: Gathered) -> str:
    """With irm-lite's Python."""
    base, name = gathered.base.given or "BASE", next(iter(gathered.vectors))
    return f"""Python:

```python
from irm_lite import ControlVector, inject, load_base

base = load_base({base!r})
question = base.tokenizer.apply_chat_template(
    [{{"role": "user", "content": "Why is the sky blue?"}}], add_generation_prompt=True, return_tensors="pt", return_dict=True
)
with inject(base.model, ControlVector.load({name!r}), strength={gathered.wishes.strength:g}):
    answer = base.model.generate(**question, max_new_tokens=64)
print(base.tokenizer.decode(answer[0], skip_special_tokens=True))
```
"""


def _again(gathered: Gathered) -> str:
    if gathered.run is None:
        return "The run that made it was not published: this vector cannot be made again from what is here.\n"
    return f"""    irm-lite reproduce {CARD} -o again

trains it again from `{RUN_FILE}` (settings, seed, versions, machine, hashes) and compares: the same vector to the last bit on
the same machine with the same versions, elsewhere how far each block's direction is off, and what differs.
"""
