"""Two runtimes, one model: what they agree in on sound files, and that a difference which nobody thought of is told."""

import json
import math
import os
import struct
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from safetensors.torch import load_file, save_file

from irm_lite.base.forward import answer_logits
from irm_lite.base.load import Source, load_base, locate
from irm_lite.base.presets import presets
from irm_lite.base.streamed import streamed_answer_logits
from irm_lite.core.errors import BaseModelError
from irm_lite.data.dataset import load_dataset
from irm_lite.data.encoding import Sample, encode
from irm_lite.data.packing import pack
from irm_lite.llamacpp import agreement as module
from irm_lite.llamacpp.agreement import Agreement, Compared, agreement, disagreement, not_taken
from support.disagreeing import disagree
from support.tiny_models import write_gguf, write_hf_folder
from zoo.configs import ZOO
from zoo.models import tiny_model, write_tokenizer

TEMPLATE = presets()["llama-2-7b-chat"].chat_template


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("IRM_LITE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def loaded(model: Path, **options: Any) -> tuple[Compared, list[Sample]]:
    base = load_base(str(model), **{"quant": "none", "dtype": "float32", "device": "cpu", **options})
    return Compared(locate(str(model)), base.tokenizer, base), [
        encode(base.tokenizer, each) for each in load_dataset("joy").train[:4]
    ]


def on_disk(model: Path) -> tuple[Compared, list[Sample]]:
    """The same, with nothing in memory."""
    compared, samples = loaded(model)
    return Compared(compared.source, compared.tokenizer), samples


def require_streamed_as_loaded(model: Path, **options: Any) -> None:
    base, samples = loaded(model, **options)
    row = pack(samples)
    assert base.loaded is not None
    with torch.no_grad():
        torch.testing.assert_close(streamed_answer_logits(model, row), answer_logits(base.loaded.model, row), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("place", ["llama_gguf", "llama_folder"])
def test_a_streamed_model_is_the_loaded_one(place: str, request: pytest.FixtureRequest) -> None:
    model = request.getfixturevalue(place)
    require_streamed_as_loaded(model)


@pytest.mark.parametrize("kind", ["llama", "qwen2", "qwen3"])
def test_a_tied_head_and_split_files_are_streamed_too(kind: str, tmp_path: Path) -> None:
    folder = write_hf_folder(tmp_path / "folder", kind, chat_template=TEMPLATE)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": True, "pad_token_id": 639}))
    weights = load_file(folder / "model.safetensors")
    del weights["lm_head.weight"]
    (folder / "model.safetensors").unlink()
    halves = [dict(list(weights.items())[part::2]) for part in (0, 1)]
    for number, half in enumerate(halves):
        save_file(half, folder / f"part-{number}.safetensors", metadata={"format": "pt"})
    names = {name: f"part-{number}.safetensors" for number, half in enumerate(halves) for name in half}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": names}))
    require_streamed_as_loaded(folder)


@pytest.mark.parametrize("name", ["gemma3", "granite", "phi"])
def test_what_is_in_no_file_is_made_as_transformers_makes_it(name: str, tmp_path: Path) -> None:
    """Gemma's factor of the embeddings is a buffer that no file holds."""
    folder = tmp_path / name
    tiny_model(next(each for each in ZOO if each.name == name)).save_pretrained(folder)
    write_tokenizer(folder)
    require_streamed_as_loaded(folder, chat_template=TEMPLATE)


def test_a_sound_file_is_one_model_whatever_the_base_was_quantised_to(llama_gguf: Path, cache: Path) -> None:
    base, samples = loaded(llama_gguf, quant="nf4")
    found = agreement(base, llama_gguf, samples)
    assert found.kl < 1e-5
    assert found.nll_transformers == pytest.approx(found.nll_llamacpp, abs=1e-3)
    assert found.tokens > 100
    assert disagreement(base, llama_gguf, samples) is None


def test_a_folder_is_compared_by_its_files_too(llama_folder: Path, llama_gguf: Path, tmp_path: Path, cache: Path) -> None:
    base, samples = on_disk(llama_folder)
    assert agreement(base, llama_gguf, samples).kl < 1e-5
    other = write_gguf(llama_folder, tmp_path / "other.gguf", "{{ 1 }}", keys={"llama.rope.freq_base": 100.0})
    told = disagreement(base, other, samples) or ""  # transformers has not run that file
    assert told.startswith(f"transformers and llama.cpp run {llama_folder.name} and other.gguf as two models")


def test_what_cannot_be_streamed_is_compared_as_it_is_loaded(
    llama_folder: Path, llama_gguf: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise BaseModelError("a model of another make")

    monkeypatch.setattr(module, "streamed_answer_logits", refuse)
    base, samples = loaded(llama_folder)
    assert agreement(base, llama_gguf, samples).kl < 1e-5
    told = disagreement(Compared(base.source, base.tokenizer), llama_gguf, samples)  # the figure of a base in memory is another's
    assert told == "transformers and llama.cpp were not compared on tiny.gguf (a model of another make)"
    gone = Compared(Source("owner/not-here", None, None), base.tokenizer)
    assert "owner/not-here is not on this machine" in (disagreement(gone, llama_gguf, samples) or "")


def test_a_difference_that_nobody_thought_of_is_told(llama_gguf: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disagree(monkeypatch, 1.5)
    base, samples = loaded(llama_gguf)
    told = disagreement(base, llama_gguf, samples)
    assert told is not None
    assert told.startswith(f"transformers and llama.cpp run {llama_gguf.name} as two models: KL 0.")


def test_far_beyond_what_is_explained_is_refused_unless_it_is_allowed(
    llama_gguf: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disagree(monkeypatch, 30)
    base, samples = loaded(llama_gguf)
    with pytest.raises(BaseModelError, match=r"as two models: KL \d.*: check the file, or say --allow-disagreement") as caught:
        disagreement(base, llama_gguf, samples)
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)
    allowed = disagreement(base, llama_gguf, samples, allowed=True)
    assert allowed is not None
    assert "--allow" not in allowed


@pytest.mark.parametrize(
    ("kl", "explained", "told", "far"),
    [
        (1e-4, 1e-4, False, False),
        (0.1, 1e-4, True, False),
        (0.49, 1e-4, True, False),
        (0.51, 1e-4, True, True),
        (0.51, 0.3, True, False),
        (1.6, 0.3, True, True),
        (1.4, 1.0, True, False),
        (3.9, 4.0, False, False),
        (4.1, 4.0, True, True),
        (math.nan, 1.0, True, True),
        (math.inf, 1.0, True, True),
    ],
)
def test_far_is_ten_times_what_is_explained_but_no_more_than_that(kl: float, explained: float, told: bool, far: bool) -> None:
    found = Agreement(kl, 3.0, 3.0, 100, explained)
    assert (found.warning(Path("a.gguf")) is not None, found.is_far) == (told, far)


def test_another_file_than_the_bases_is_compared_with_the_base(
    llama_gguf: Path, llama_folder: Path, tmp_path: Path, cache: Path
) -> None:
    base, samples = loaded(llama_gguf)
    other = write_gguf(llama_folder, tmp_path / "other.gguf", keys={"llama.rope.freq_base": 100.0})
    assert agreement(base, other, samples).kl > 1e-3
    assert disagreement(base, other, samples) is not None


def test_it_is_measured_once_a_file(llama_gguf: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base, samples = loaded(llama_gguf)
    first = agreement(base, llama_gguf, samples)
    monkeypatch.setattr(module, "streamed_answer_logits", lambda *_: pytest.fail("measured again"))
    assert agreement(base, llama_gguf, samples) == first
    assert agreement(Compared(base.source, base.tokenizer), llama_gguf, samples) == first
    kept = (cache / "agreement.json").read_text()
    for damaged in ("[]", kept.replace(str(first.tokens), "Infinity"), kept.replace('"kl"', '"kk"')):  # whatever stands there
        (cache / "agreement.json").write_text(damaged)
        with pytest.raises(pytest.fail.Exception):
            agreement(base, llama_gguf, samples)


def test_another_graph_in_the_place_of_a_file_is_measured_anew(llama_folder: Path, tmp_path: Path, cache: Path) -> None:
    """Of the same size and with the same date, as `cp -p` leaves it."""
    gguf = write_gguf(llama_folder, tmp_path / "a.gguf", TEMPLATE, keys={"llama.rope.freq_base": 10000.0})
    base, samples = on_disk(gguf)
    agreement(base, gguf, samples)
    dates, data = gguf.stat(), gguf.read_bytes()
    other = data.replace(struct.pack("<f", 10000.0), struct.pack("<f", 20000.0))
    assert other != data
    gguf.write_bytes(other)
    os.utime(gguf, ns=(dates.st_atime_ns, dates.st_mtime_ns))
    agreement(base, gguf, samples)
    assert len(json.loads((cache / "agreement.json").read_text())) == 2


@pytest.mark.parametrize("change", ["weights", "configuration"])
def test_a_folder_that_has_changed_is_measured_anew(change: str, llama_gguf: Path, tmp_path: Path, cache: Path) -> None:
    folder = write_hf_folder(tmp_path / "folder", chat_template=TEMPLATE)
    base, samples = on_disk(folder)
    assert agreement(base, llama_gguf, samples).kl < 1e-5
    if change == "weights":  # of which the gains tell nothing
        weights = load_file(folder / "model.safetensors")
        weights["lm_head.weight"] *= 1.5
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    else:
        config = json.loads((folder / "config.json").read_text())
        config["rope_parameters"] = {"rope_type": "default", "rope_theta": 100.0}
        (folder / "config.json").write_text(json.dumps(config))
    assert agreement(base, llama_gguf, samples).kl > 1e-3


def test_too_little_memory_is_said_and_refuses_nothing(llama_gguf: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base, samples = on_disk(llama_gguf)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: type("Memory", (), {"available": 1 << 30}))
    assert "were not compared on tiny.gguf (too little memory is free: 1.1 GB)" in (disagreement(base, llama_gguf, samples) or "")


def test_a_file_that_llamacpp_cannot_load_is_named_with_its_reason(llama_folder: Path, llama_gguf: Path, tmp_path: Path) -> None:
    gguf = write_gguf(llama_folder, tmp_path / "a.gguf", TEMPLATE, without=("blk.1.ffn_up.weight",))
    told = not_taken(gguf)
    assert told is not None
    assert told.startswith(f"llama.cpp cannot load {gguf} (")
    assert "blk.1.ffn_up.weight" in told
    assert not_taken(llama_gguf) is None
