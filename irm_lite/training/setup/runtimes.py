"""Before a training: llama.cpp takes the base's file, makes the same model of it as transformers, and is given the same tokens."""

from collections.abc import Sequence
from pathlib import Path

from irm_lite.base.load import Base, locate
from irm_lite.base.sources.gguf_graph import read_graph
from irm_lite.config import TrainConfig
from irm_lite.core.errors import BaseModelError, IrmLiteError
from irm_lite.core.files.gguf_header import read_header
from irm_lite.core.machine import processes
from irm_lite.data.encoding import Sample
from irm_lite.llamacpp.agreement import ALLOW, Compared, disagreement, not_taken
from irm_lite.llamacpp.prompts import check_prompts


def runs_in_llamacpp(config: TrainConfig, base: Base | None, *, allowed: bool) -> list[str]:
    """What is to be said of a base from a GGUF that llama.cpp does not take, before it is loaded; nothing of others.

    Raises BaseModelError there unless `allowed`.
    """
    gguf = base.gguf_path if base else locate(config.model, config.download).gguf
    if gguf is None or not processes.first():
        return []
    text = not_taken(gguf)
    if text is not None and not allowed:
        raise BaseModelError(text, f"give another file, or say {ALLOW} to train all the same")
    return [text] if text else []


def told_of_runtimes(base: Base, train: Sequence[Sample], validation: Sequence[Sample], *, allowed: bool) -> list[str]:
    """What is to be said of a loaded base from a GGUF. Raises BaseModelError where the runtimes are far apart, unless `allowed`."""
    gguf = base.gguf_path
    if gguf is None or not processes.first():
        return []
    other_ids = _other_ids(base, gguf, (*train, *validation))
    apart = disagreement(Compared.of_file(gguf, base.tokenizer, base), gguf, validation, allowed=allowed)
    return [*_unknown_keys(gguf), *filter(None, (other_ids, apart))]


def _other_ids(base: Base, gguf: Path, samples: Sequence[Sample]) -> str | None:
    try:
        return check_prompts(base.tokenizer, base.model.config.vocab_size, gguf, [each.example for each in samples]).token_ids
    except IrmLiteError as error:
        return f"the samples' tokens cannot be compared with llama.cpp's ({error})"


def _unknown_keys(gguf: Path) -> list[str]:
    graph = read_graph(read_header(gguf))
    if graph is None or not graph.unknown:
        return []
    return [f"{gguf.name} has keys that irm-lite does not know: {', '.join(graph.unknown)[:300]}"]
