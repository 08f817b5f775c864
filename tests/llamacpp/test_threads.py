"""A context computes with fewer threads while others want the cores, and to the same bits."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np
import pytest

from irm_lite.core.machine.free_cores import FreeCores
from irm_lite.llamacpp import Runtime
from irm_lite.llamacpp.threads import _SPLIT
from support.zoo_ggufs import write_zoo


def leave(cores: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FreeCores, "left", lambda self: min(cores, self.all))


def ids(count: int) -> list[int]:
    return [int(token) for token in np.random.default_rng(1).integers(3, 600, count)]


@pytest.fixture
def four_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever this machine has."""
    monkeypatch.setattr("irm_lite.core.machine.free_cores.usable_cores", lambda: 4)


@pytest.mark.usefixtures("four_cores")
def test_threads_follow_what_is_free_down_to_half_of_the_cores(llama_gguf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Runtime(llama_gguf, n_ctx=64) as runtime:
        for left, threads in ((4, 4), (3, 3), (1, 2), (0, 2), (4, 4)):
            leave(left, monkeypatch)
            runtime.logits(ids(8))
            assert llama_cpp.llama_n_threads(runtime._context) == threads
            assert llama_cpp.llama_n_threads_batch(runtime._context) == threads


@pytest.mark.usefixtures("four_cores")
def test_a_single_token_far_in_keeps_all_threads(llama_gguf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    leave(1, monkeypatch)
    with Runtime(llama_gguf, n_ctx=320) as runtime:
        for count, threads in ((200, 2), (256, 2), (257, 4)):
            runtime.logits(ids(count - 1))
            runtime.decode([(7, count - 1, 0)], np.ones(1, dtype=np.bool_))
            assert llama_cpp.llama_n_threads(runtime._context) == threads


_WHAT_IS_FREE = """
import sys
import numpy as np
from irm_lite.core.machine import free_cores
from irm_lite.data.encoding import Sample
from irm_lite.llamacpp import Runtime, threads
from irm_lite.llamacpp.parallel import nll_together

path, target, split, *left = sys.argv[1:]
free_cores.usable_cores = lambda: 4
threads._SPLIT = int(split)
ids = [int(token) for token in np.random.default_rng(1).integers(3, 600, 300)]
for number in left:
    free_cores.FreeCores.left = lambda self: int(number)
    np.save(f"{target}-{number}.npy", measured())
"""

_TEXTS = """
def measured():
    with Runtime(path, n_ctx=320) as runtime:
        found = [runtime.logits(ids[:120]).ravel()]
        for start in (9, 250, 262):
            list(runtime.generate_tokens(ids[:start], max_new_tokens=12))
            found.append(runtime._logits(0).copy())
    return np.concatenate(found)
"""

_ANSWERS = """
def measured():
    samples = [Sample(ids=(*ids, *answer), answer_start=300, example=None) for answer in ((5, 6, 7), (8, 9, 10, 11))]
    with Runtime(path, n_ctx=1000, n_sequences=3) as runtime:
        return nll_together(runtime, samples)
"""


def measured(what: str, gguf: Path, place: Path, split: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """With all of four cores free and with one, in a process that may have more than one thread."""
    unlimited = {name: value for name, value in os.environ.items() if not name.startswith("OMP")}
    command = [sys.executable, "-c", what + _WHAT_IS_FREE, str(gguf), str(place / "found"), str(split), "4", "1"]
    subprocess.run(command, env=unlimited, check=True)
    return np.load(place / "found-4.npy"), np.load(place / "found-1.npy")


@pytest.mark.slow
@pytest.mark.parametrize("model", ["llama_gguf", "demo_gguf"])
def test_bits_do_not_depend_on_what_is_free(model: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """Of texts whose single tokens are written where llama.cpp splits their attention over the threads, and before it does. Were
    fewer taken there, too, they would."""
    gguf = request.getfixturevalue(model)
    assert np.array_equal(*measured(_TEXTS, gguf, tmp_path, _SPLIT))
    assert not np.array_equal(*measured(_TEXTS, gguf, tmp_path, 10**6))


@pytest.mark.slow
def test_a_hybrid_that_llamacpp_gives_single_tokens_of_a_batch_keeps_its_bits(tmp_path: Path) -> None:
    """Answers of two lengths: of the longer one the last token is read alone."""
    _, gguf = write_zoo("lfm2", tmp_path)
    assert np.array_equal(*measured(_ANSWERS, gguf, tmp_path, _SPLIT))
    assert not np.array_equal(*measured(_ANSWERS, gguf, tmp_path, 10**6))
