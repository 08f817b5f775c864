"""Two runtimes, one model: what they agree in on sound files, and that a difference which nobody thought of is told."""

from pathlib import Path
from typing import Any

import pytest
import torch

import irm_lite.base.streamed
from irm_lite.base.forward import answer_logits
from irm_lite.base.load import load_base, locate
from irm_lite.base.streamed import streamed_answer_logits
from irm_lite.data.dataset import load_dataset
from irm_lite.data.encoding import Sample, encode
from irm_lite.data.packing import pack
from irm_lite.llamacpp import agreement as module
from irm_lite.llamacpp.agreement import Compared, agreement, disagreement
from support.tiny_models import write_gguf


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("IRM_LITE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def loaded(model: Path, **options: Any) -> tuple[Compared, list[Sample]]:
    base = load_base(str(model), **{"quant": "none", "dtype": "float32", "device": "cpu", **options})
    return Compared(locate(str(model)), base.tokenizer, base), [
        encode(base.tokenizer, each) for each in load_dataset("joy").train[:4]
    ]


def test_a_streamed_model_is_the_loaded_one(llama_gguf: Path) -> None:
    base, samples = loaded(llama_gguf)
    row = pack(samples)
    assert base.loaded is not None
    with torch.no_grad():
        torch.testing.assert_close(
            streamed_answer_logits(llama_gguf, row), answer_logits(base.loaded.model, row), atol=1e-5, rtol=1e-5
        )


def test_a_sound_file_is_one_model_whatever_the_base_was_quantised_to(llama_gguf: Path, cache: Path) -> None:
    base, samples = loaded(llama_gguf, quant="nf4")
    found = agreement(base, llama_gguf, samples)
    assert found.kl < 1e-5
    assert found.nll_transformers == pytest.approx(found.nll_llamacpp, abs=1e-3)
    assert found.tokens > 100
    assert disagreement(base, llama_gguf, samples) is None


def test_a_difference_that_nobody_thought_of_is_told(llama_gguf: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def elsewhere(model: Any, _gguf: Path) -> None:
        model.model.rotary_emb.inv_freq *= 0.5

    monkeypatch.setattr(irm_lite.base.streamed, "rotate", elsewhere)
    base, samples = loaded(llama_gguf)
    told = disagreement(base, llama_gguf, samples)
    assert told is not None
    assert told.startswith(f"transformers and llama.cpp run {llama_gguf.name} as two models: KL 0.")


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
    kept = (cache / "agreement.json").read_text()
    for damaged in ("[]", kept.replace(str(first.tokens), "Infinity"), kept.replace('"kl"', '"kk"')):  # whatever stands there
        (cache / "agreement.json").write_text(damaged)
        with pytest.raises(pytest.fail.Exception):
            agreement(base, llama_gguf, samples)
