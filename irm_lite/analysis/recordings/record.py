"""Record what an IRM puts out: over prompts and what it generates from them, in transformers or in llama.cpp."""

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor

from irm_lite.analysis.recordings.recording import PHASES, Description, HalfArray, Phase, Prompt, Recording
from irm_lite.analysis.recordings.running_statistics import Running
from irm_lite.base.fingerprint import fingerprint_gguf
from irm_lite.core.errors import DataError, InputError
from irm_lite.core.machine.give_way import giving_way
from irm_lite.core.types import Progress
from irm_lite.data.encoding import encode_prompt, turn_ends
from irm_lite.steering.injection import inject
from irm_lite.steering.irm import IRM
from irm_lite.steering.irm_files import read_saved, untrained

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from irm_lite.llamacpp import Runtime
    from irm_lite.runs.trained import TrainedRun

_HALF_MAX = float(np.finfo(np.float16).max)

# For the token ids of a prompt: that prompt's tokens with outputs (T, L, H), then each generated token with (1, L, H);
# beside them, where it is known, what the untrained IRM puts out there.
Heard = tuple[list[int], Tensor, Tensor | None]
Source = Callable[[list[int]], Iterator[Heard]]


@giving_way()
def record(
    run: "TrainedRun",
    questions: Sequence[str],
    *,
    new_tokens: int = 32,
    keep: int = 4,
    gguf: Path | None = None,
    on_progress: Progress = lambda done, of, what: None,
) -> Recording:
    """The IRM's unscaled outputs while it steers at strength 1 under greedy decoding.

    With a GGUF in llama.cpp, else in transformers, where the IRM that the training started from is heard on the same
    tokens too. Statistics are of all tokens; the outputs themselves are kept for the first `keep` prompts. A generated
    token counts once it is fed back, so its output is what the IRM made of it. Of an IRM that reads nothing, which puts out the
    same everywhere, only the prompts that are kept are heard.
    """
    if new_tokens < 0 or keep < 0:
        raise InputError(f"{new_tokens} new tokens or {keep} prompts to keep make no sense", "give 0 or more")
    if not questions:
        raise DataError("there are no prompts to record", "give a file with one prompt a line")
    if run.irm.reads == "nothing":
        questions = questions[: max(keep, 1)]
    statistics, at_first = ({phase: Running(len(run.irm.layers), run.irm.hidden_size) for phase in PHASES} for _ in range(2))
    prompts: list[Prompt] = []
    outputs: list[HalfArray] = []
    with _source(run, gguf, new_tokens) as (about, source):
        for number, question in enumerate(questions):
            ids = encode_prompt(run.tokenizer, ({"role": "user", "content": question},))
            tokens: list[int] = []
            kept: list[Tensor] = []
            phase: Phase = "prompt"
            for fed, vectors, before in source(ids):
                statistics[phase].add(vectors)
                if before is not None:
                    at_first[phase].add(before)
                phase = "generated"
                if number < keep:
                    tokens += fed
                    kept.append(vectors.clamp(-_HALF_MAX, _HALF_MAX).half().cpu())
            if number < keep:
                prompts.append(Prompt(question, texts(run.tokenizer, tokens), len(ids)))
                outputs.append(torch.cat(kept).numpy())
            on_progress(number + 1, len(questions), f"recording in {about.measured_in}")
    about = replace(about, prompts=prompts, n_prompts=len(questions))
    heard, before_training = (
        {phase: each.statistics for phase, each in group.items() if each.tokens} for group in (statistics, at_first)
    )
    silent = not any(each.mean_abs.any() for each in before_training.values())  # as lite and static ones start
    return Recording(about, heard, outputs, {} if silent else before_training)


def texts(tokenizer: "PreTrainedTokenizerBase", tokens: list[int]) -> list[str]:
    """Each token's text, which add up to the whole; a character of several tokens stands at the last of them."""
    found: list[str] = []
    for count in range(1, len(tokens) + 1):
        whole = str(tokenizer.decode(tokens[:count], skip_special_tokens=False)).rstrip("\N{REPLACEMENT CHARACTER}")
        found.append(whole[sum(map(len, found)) :])
    return found


@contextmanager
def _source(run: "TrainedRun", gguf: Path | None, new_tokens: int) -> Iterator[tuple[Description, Source]]:
    saved = read_saved(run.directory.path)

    def about(measured_in: Literal["transformers", "llama.cpp"], weights: str) -> Description:
        irm = run.irm
        return Description(
            run=run.directory.name,
            data=run.config.data,
            kind=irm.kind,
            site=irm.site,
            layers=list(irm.layers),
            hidden_size=irm.hidden_size,
            base=run.fingerprint,
            measured_in=measured_in,
            weights=weights,
            irm_sha256=saved.digest,
        )

    if gguf is None:
        weights = f"{run.base.name} ({run.base.fingerprint.quantisation})"
        at_first = untrained(saved, run.config.seed).to(run.base.plan.device)
        yield about("transformers", weights), lambda ids: in_transformers(run, ids, new_tokens, at_first)
        return
    from irm_lite.llamacpp import Runtime

    run.matches.append(run.match(fingerprint_gguf(gguf), gguf.name))
    with Runtime(gguf, irm=run.irm) as runtime:
        yield about("llama.cpp", gguf.name), lambda ids: in_llamacpp(runtime, ids, new_tokens)


@torch.no_grad()
def in_transformers(run: "TrainedRun", prompt: list[int], new_tokens: int, at_first: IRM) -> Iterator[Heard]:
    """See Source. `at_first` is heard at strength 0: it reads what the trained IRM reads, and moves nothing."""
    model: Any = run.base.model
    vectors: dict[int, Tensor] = {}
    before: dict[int, Tensor] = {}
    cache, fed = None, prompt
    takes = inspect.signature(model.forward).parameters
    named = "cache" if "cache" in takes else "past_key_values"  # its name before transformers 5.24
    ends = turn_ends(run.base.tokenizer)
    # The outer one reads the stream first, so that at layer 0 it sees nothing of the inner one's output.
    with inject(model, at_first, strength=0.0) as silent, inject(model, run.irm) as injection:
        silent.observers.append(lambda layer, vector: before.update({layer: vector[0]}))
        injection.observers.append(lambda layer, vector: vectors.update({layer: vector[0]}))
        for _ in range(new_tokens + 1):
            ids = torch.tensor([fed], device=model.device)
            output = model(input_ids=ids, use_cache=True, logits_to_keep=1, **{named: cache})
            cache = output[named]
            now, then = (torch.stack([each[layer] for layer in run.irm.layers], dim=1) for each in (vectors, before))
            yield fed, now, then
            token = int(output.logits[0, -1].argmax())
            if token in ends:
                return
            fed = [token]


def in_llamacpp(runtime: "Runtime", prompt: list[int], new_tokens: int) -> Iterator[Heard]:
    """See Source. A prompt goes through in several micro-batches where it is long."""
    assert runtime.dynamic is not None
    vectors: dict[int, list[Tensor]] = {layer: [] for layer in runtime.dynamic.irm.layers}

    def hear(layer: int, vector: Tensor) -> None:
        vectors[layer].append(vector)

    runtime.dynamic.observers[:] = [hear]
    fed = prompt
    for token in runtime.generate_tokens(prompt, max_new_tokens=new_tokens + 1):  # the last one is not fed back
        yield fed, torch.stack([torch.cat(each) for each in vectors.values()], dim=1), None
        for each in vectors.values():
            each.clear()
        if runtime.model.ends_turn(token):
            return
        fed = [token]
