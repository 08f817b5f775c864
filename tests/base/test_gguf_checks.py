"""Model files that kill llama.cpp: each is refused here, and each does kill it, in a process of its own."""

import os
import struct
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fuzz.llamacpp import Parts, take_apart
from fuzz.seeds import tiny_model
from irm_lite.base.fingerprint import fingerprint_gguf
from irm_lite.base.sources.gguf_checks import require_loadable
from irm_lite.core.errors import BaseModelError
from irm_lite.core.files.gguf_header import read_header
from irm_lite.llamacpp.runtime import Runtime

Change = Callable[[Parts], None]


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("sound") / "sound.gguf")


def key(name: str, kind: int, value: Any) -> Change:
    """Another value of a key, or a new one."""

    def change(parts: Parts) -> None:
        parts.metadata[:] = [each for each in parts.metadata if each[0] != name.encode()]
        parts.metadata.append((name.encode(), kind, value))

    return change


def tensor(name: str, **changes: Any) -> Change:
    """Another shape or type of a tensor."""

    def change(parts: Parts) -> None:
        parts.tensors[:] = [replace(each, **changes) if each.name == name.encode() else each for each in parts.tensors]

    return change


def tokens(words: Callable[[list[bytes]], list[bytes]]) -> Change:
    """Another vocabulary."""

    def change(parts: Parts) -> None:
        parts.metadata[:] = [
            (name, kind, (8, words(list(value[1])))) if name == b"tokenizer.ggml.tokens" else (name, kind, value)
            for name, kind, value in parts.metadata
        ]

    return change


def rope_factors(parts: Parts) -> None:
    row = next(each for each in parts.tensors if each.name == b"blk.0.attn_norm.weight")
    parts.tensors.append(replace(row, name=b"rope_freqs.weight", shape=(2,), kind=1, data=bytes(4)))


def no_vocabulary(parts: Parts) -> None:
    key("tokenizer.ggml.model", STRING, b"no_vocab")(parts)
    key("llama.vocab_size", U32, 259)(parts)


def without_the_last_norm(parts: Parts) -> None:
    del parts.tensors[1]


def shifted(parts: Parts) -> None:
    key("general.alignment", U32, 1)(parts)
    key("x", STRING, b"y")(parts)


def wider_values(parts: Parts) -> None:
    key("llama.attention.value_length", U32, 8)(parts)
    for block in (0, 1):
        tensor(f"blk.{block}.attn_v.weight", shape=(8, 8))(parts)


U32, F32, STRING = 4, 6, 8
DEADLY: dict[str, tuple[Change, str]] = {
    "too many layers": (key("llama.nextn_predict_layers", U32, 99), "nextn_predict_layers is not within"),
    "experts without number": (key("llama.expert_used_count", U32, 2), "expert_used_count is not within"),
    "experts beyond number": (key("llama.expert_count", U32, 5000), "expert_count is not within"),
    "unknown rope scaling": (key("llama.rope.scaling.type", STRING, b"su"), "the rope scaling su is unknown"),
    "a negative epsilon": (key("llama.attention.layer_norm_rms_epsilon", F32, -1.0), "is negative"),
    "an epsilon that is none": (key("llama.attention.layer_norm_rms_epsilon", F32, float("nan")), "is nan"),
    "values of another size": (wider_values, "heads of 4 and 8"),
    "a token twice": (tokens(lambda words: [*words[:-1], words[5]]), "two of its tokens are the same text"),
    "no token for a byte": (tokens(lambda words: [*words[:68], b"other", *words[69:]]), "no token for byte 65"),
    "no vocabulary": (no_vocabulary, "its tokenizer is no_vocab"),
    "weights of whole numbers": (tensor("blk.0.ffn_up.weight", kind=26), "is of type 26"),
    "embeddings of whole numbers": (tensor("token_embd.weight", kind=24), "is of type 24"),
    "norms of half precision": (tensor("blk.0.attn_norm.weight", kind=1), "blk.0.attn_norm.weight is not F32"),
    "half a rope factor": (rope_factors, "rope_freqs.weight is not F32"),
}


def damaged(sound: Path, change: Change, target: Path, alignment: int = 32) -> Path:
    parts = take_apart(sound)
    change(parts)
    target.write_bytes(parts.write(alignment))
    return target


def survives(path: Path) -> bool:
    command = [sys.executable, "-m", "irm_lite.llamacpp.trial_load", str(path)]
    quiet = {**os.environ, "GGML_NO_BACKTRACE": "1"}  # ggml would call a debugger
    return subprocess.run(command, capture_output=True, check=False, env=quiet, timeout=120).returncode == 0


def test_the_sound_file_runs_and_is_taken(sound: Path) -> None:
    assert survives(sound)
    require_loadable(read_header(sound))
    with Runtime(sound, n_ctx=64, n_gpu_layers=0) as runtime:
        assert len(list(runtime.generate_tokens([1, 2], max_new_tokens=3))) == 3


@pytest.mark.parametrize("name", DEADLY)
def test_what_kills_llama_cpp_is_refused_in_one_line(sound: Path, tmp_path: Path, name: str) -> None:
    change, fragment = DEADLY[name]
    path = damaged(sound, change, tmp_path / "deadly.gguf")
    with pytest.raises(BaseModelError, match=fragment) as caught:
        require_loadable(read_header(path))
    assert str(caught.value).startswith(f"{path} would crash llama.cpp (")
    assert not survives(path), "it is not deadly (any more): the check may go"


def test_data_at_an_odd_place_are_refused(sound: Path, tmp_path: Path) -> None:
    path = damaged(sound, key("general.alignment", U32, 1), tmp_path / "odd.gguf", alignment=1)
    if read_header(path).layout.data_start % 32 == 0:  # by chance
        path = damaged(sound, shifted, path, alignment=1)
    with pytest.raises(BaseModelError, match="multiple of 32 bytes"):
        require_loadable(read_header(path))


def test_norms_of_another_size_or_unending_layers_are_refused(sound: Path, tmp_path: Path) -> None:
    for change, fragment in (
        (tensor("blk.1.attn_norm.weight", shape=(16,)), "does not have the hidden size 8"),
        (key("llama.block_count", U32, 513), "says that it has 513 layers"),
        (without_the_last_norm, "no 'output_norm.weight'"),
    ):
        with pytest.raises(Exception, match=fragment):
            fingerprint_gguf(damaged(sound, change, tmp_path / "a.gguf"))


@pytest.mark.slow
def test_an_architecture_that_is_not_known_is_tried_in_a_child(tmp_path: Path) -> None:
    path = tiny_model(tmp_path / "other.gguf", "granite", {"granite.logit_scale": 1.0})
    with Runtime(path, n_ctx=64, n_gpu_layers=0) as runtime:
        assert runtime.model.fingerprint.architecture == "granite"
    parts = take_apart(path)
    key("granite.rope.scaling.type", STRING, b"su")(parts)
    path.write_bytes(parts.write())
    with pytest.raises(BaseModelError, match="crashes llama.cpp"):
        Runtime(path, n_ctx=64, n_gpu_layers=0)


def test_arrays_come_back_from_the_header(sound: Path) -> None:
    header = read_header(sound)
    words = header.read_strings(header.metadata["tokenizer.ggml.tokens"])
    assert words == [b"<unk>", b"<s>", b"</s>", *(b"<0x%02X>" % byte for byte in range(256))]
    kinds = header.read_numbers(header.metadata["tokenizer.ggml.token_type"])
    assert kinds.tolist() == [2, 3, 3] + [6] * 256
    assert kinds.dtype == np.dtype("<i4")
    assert struct.calcsize("<i") * len(kinds) == header.metadata["tokenizer.ggml.token_type"].n_bytes
