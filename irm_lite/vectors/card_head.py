"""The head of a model card, README.md: what the Hugging Face hub reads of it."""

from collections.abc import Sequence
from typing import Any

from irm_lite.core.files.paths import is_hub_id
from irm_lite.core.visible_text import safe

TAGS = ("steering", "llama-cpp", "gguf", "irm-lite")
VECTOR_TAGS = ("control-vector", "representation-engineering")
_LICENCES = (  # by the hub's names, those that models and data mostly have; others are `other` with a name
    *("apache-2.0", "mit", "bsd-2-clause", "bsd-3-clause", "mpl-2.0", "gpl-3.0", "agpl-3.0", "lgpl-3.0", "unlicense", "openrail"),
    *("cc0-1.0", "cc-by-4.0", "cc-by-sa-4.0", "cc-by-nc-4.0", "cc-by-nc-sa-4.0", "cc-by-nc-nd-4.0", "gemma"),
    *("llama2", "llama3", "llama3.1", "llama3.2", "llama3.3"),
)


def card_head(base: str, tags: Sequence[str], library: str, licence: str = "", datasets: Sequence[str] = ()) -> str:
    """The YAML block with its dashes. `base` goes in where it is a hub id: the hub refuses a card that names anything else."""
    from huggingface_hub import ModelCardData

    facts: dict[str, Any] = {"base_model": base, "base_model_relation": "adapter"} if is_hub_id(base) else {}
    if licence.lower() in _LICENCES:
        facts["license"] = licence.lower()
    elif licence:
        facts |= {"license": "other", "license_name": plain(licence).lower().replace(" ", "-")}
    if datasets:
        facts["datasets"] = list(datasets)
    head = ModelCardData(**facts, library_name=library, pipeline_tag="text-generation", tags=list(tags))
    return f"---\n{head.to_yaml()}\n---\n"


def plain(text: str) -> str:
    """A name from elsewhere as a card can show it: one line, nothing in it marks anything up."""
    shown = " ".join(safe(text).split())
    return "".join(each for each in shown if each not in '"`<>|[]*\\')
