"""The card of an adapter's folder, README.md, as PEFT and the hub have it."""

from pathlib import Path
from typing import TYPE_CHECKING

from irm_lite.core.files.paths import is_hub_id
from irm_lite.vectors.card_head import card_head, plain

if TYPE_CHECKING:
    from irm_lite.vectors.adapter.written import AdapterExport

_CARD = """{head}
# {title}

{what} The adapter's scale is the strength: 0.5 is half, -1 the opposite.

- base: `{base}` ({architecture}, {layers} layers of {hidden}); the adapter is for no other
- maps: {modules} in {blocks} blocks
- {origin}
- fidelity {fidelity}: of what the {teacher} does, measured in {where} on {samples} held-out answers
{vector}{error}- beside the {beside} at other strengths: {strengths}

## Use

```python
from peft import PeftModel
from transformers import AutoModelForCausalLM

model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained("{loaded}"), "THIS FOLDER")
```

    llama-server -m BASE.gguf --lora-scaled adapter.gguf:0 --jinja

and by request `"lora": [{{"id": 0, "scale": 0.5}}]`. vLLM, Ollama and others: irm-lite's docs/adapter.md.

Written by irm-lite {version}.
"""

_VECTOR = (
    "A control vector as a LoRA adapter of rank 1, in closed form: beside the last linear map of each block, B is the block's\n"
    "vector and A the least-squares predictor of the constant 1 from what that map reads."
)
_NORMED = (
    "A control vector as a LoRA adapter of rank 1, in closed form: beside the last linear map of each block, whose output is\n"
    "normalised, B is the block's vector by the norm's gain and A the least-squares predictor of what the norm divides by."
)
_LORA = (
    "A LoRA adapter of rank {rank} beside the last linear map of each block, trained on the frozen base: what it adds to the\n"
    "residual stream depends on what the model reads."
)
_IRM = (
    "An IRM, a network that reads the model and adds to it, as a LoRA adapter of rank {rank}: fitted by least squares to what the\n"
    "network adds, token by token, then by KL to what the model says under it."
)


def card(export: "AdapterExport", base: str) -> str:
    """The card's text."""
    adapter, comparison = export.adapter, export.comparison
    keys = adapter.metadata
    low, high = comparison.intervals["fidelity"]
    vector = export.compared.get("vector")
    named = plain(Path(base).name if Path(base).is_absolute() else base)
    return _CARD.format(
        head=card_head(base, ("lora", "steering", "irm-lite"), "peft"),
        base=named,
        loaded=named if is_hub_id(base) else "THE BASE'S FOLDER",  # a .gguf is none
        what=_what(export),
        error=_error(export),
        beside="IRM" if export.measured.strengths_of == "irm" else "vector",
        title=plain(export.path.name),
        architecture=adapter.architecture,
        layers=keys["base.n_layers"],
        hidden=keys["base.hidden_size"],
        modules=" and ".join(export.modules),
        blocks=len({name.split(".", 2)[1] for name in adapter.factors}),
        origin=export.origin,
        fidelity=f"{comparison.fidelity:.3f} ({low:.3f} to {high:.3f})",
        teacher="IRM" if export.teacher == "irm" else "vector",
        where=str(keys.get("fidelity.on", comparison.measured_in)),
        samples=len(comparison.sums),
        vector=f"- the vector's own fidelity there: {vector.fidelity:.3f}\n" if vector else "",
        strengths=", ".join(f"{value:.3f} at {strength:g}" for strength, value in export.strengths.items()),
        version=keys["version"],
    )


def _error(export: "AdapterExport") -> str:
    """A line of the list; none where nothing was fitted."""
    if not export.fits:
        return ""
    worst, mean = max(export.fits, key=lambda fit: fit.error), float(export.adapter.metadata["error"])
    found = f"{mean:.4f} over all blocks, {worst.error:.4f} in the worst (block {worst.block})"
    return f"- {error_meant(export)} on held-out tokens: {found}\n"


def error_meant(export: "AdapterExport") -> str:
    """What a block's error is."""
    if export.tuned is not None:
        return "E|y - B A x|^2 / E|y|^2, y being what the IRM adds,"
    return "mean of |added - v|^2 / |v|^2, as the next norm reads it," if export.normed else "mean of (1 - A x)^2"


def _what(export: "AdapterExport") -> str:
    if not export.fits:
        return _LORA.format(rank=export.rank)
    if export.tuned is not None:
        return _IRM.format(rank=export.rank)
    return _NORMED if export.normed else _VECTOR
