"""What is to be said before a training of the GGUF that it trains: where llama.cpp runs another model, or is given other tokens."""

from collections.abc import Iterator
from pathlib import Path

from irm_lite.base.load import Base
from irm_lite.base.sources.gguf_graph import read_graph
from irm_lite.core.errors import IrmLiteError
from irm_lite.core.files.gguf_header import read_header
from irm_lite.llamacpp.agreement import disagreement
from irm_lite.llamacpp.prompts import check_prompts
from irm_lite.training.setup.prepare import Samples


def differences(base: Base, gguf: Path, samples: Samples) -> Iterator[str]:
    """A line each; none where both runtimes are given the same and run the same."""
    graph = read_graph(read_header(gguf))
    if graph is not None and graph.unknown:
        yield f"{gguf.name} has keys that irm-lite does not know: {', '.join(graph.unknown)[:300]}"
    examples = [sample.example for sample in (*samples.train, *samples.validation)]
    try:
        other_ids = check_prompts(base.tokenizer, base.model.config.vocab_size, gguf, examples).token_ids
    except IrmLiteError as error:
        other_ids = f"the samples' tokens cannot be compared with llama.cpp's ({error})"
    yield from filter(None, (other_ids, disagreement(base, gguf, samples.validation)))
