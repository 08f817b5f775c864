"""How the next token is chosen: llama.cpp's chain of samplers."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

TOP_K, TOP_P, MIN_P = 40, 0.95, 0.05  # llama.cpp's own defaults


@dataclass(frozen=True)
class Sampling:
    """Temperature 0 is greedy; `repeat_penalty` 1 is none."""

    temperature: float = 0.0
    seed: int = 0
    top_p: float = TOP_P
    repeat_penalty: float = 1.0


@contextmanager
def sampler_chain(sampling: Sampling, prompt: Sequence[int], n_vocabulary: int, n_ctx: int) -> Iterator[Any]:
    """A chain to sample with. The repetition penalty counts the prompt's tokens, and then those sampled."""
    import llama_cpp

    chain = llama_cpp.llama_sampler_chain_init(llama_cpp.llama_sampler_chain_default_params())
    links = [_penalty(sampling.repeat_penalty, n_vocabulary, n_ctx)] if sampling.repeat_penalty != 1 else []
    if sampling.temperature == 0:
        links.append(llama_cpp.llama_sampler_init_greedy())
    else:
        links += [
            llama_cpp.llama_sampler_init_top_k(TOP_K),
            llama_cpp.llama_sampler_init_top_p(sampling.top_p, 1),
            llama_cpp.llama_sampler_init_min_p(MIN_P, 1),
            llama_cpp.llama_sampler_init_temp(sampling.temperature),
            llama_cpp.llama_sampler_init_dist(sampling.seed),
        ]
    try:
        for link in links:
            llama_cpp.llama_sampler_chain_add(chain, link)
        for token in prompt if sampling.repeat_penalty != 1 else ():
            llama_cpp.llama_sampler_accept(chain, token)
        yield chain
    finally:
        llama_cpp.llama_sampler_free(chain)


def _penalty(strength: float, n_vocabulary: int, n_ctx: int) -> Any:
    """Over the whole context, by repetition alone."""
    import llama_cpp

    make = llama_cpp.llama_sampler_init_penalties
    size = [n_vocabulary] if len(make.argtypes) == 5 else []  # llama.cpp asks for it since its build 10405
    return make(*size, n_ctx, strength, 0.0, 0.0)
