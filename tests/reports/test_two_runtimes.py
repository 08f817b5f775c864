"""What happened to people whose two runtimes made two models of one file."""

import json
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np
import pytest

from irm_lite.base.fingerprint import fingerprint_gguf
from irm_lite.base.load import load_base, load_tokenizer, locate
from irm_lite.base.presets import find_gguf, presets
from irm_lite.base.sources.graph_facts import SHARED
from irm_lite.core.errors import BaseModelError
from irm_lite.llamacpp import Runtime
from irm_lite.llamacpp.agreement import Agreement, Compared, agreement, disagreement, not_taken
from irm_lite.steering.control_vector import ControlVector
from irm_lite.vectors.bake import bake
from irm_lite.vectors.biases import gather
from support.both_runtimes import HIDDEN, divergence, everywhere
from support.tiny_models import tiny_model, write_gguf, write_hf_folder, write_sentencepiece

TEMPLATE = presets()["llama-2-7b-chat"].chat_template
KINDS = ("F16", "BF16", "Q8_0", "Q4_0", "Q5_1", "Q2_K", "Q3_K_M", "Q4_K_M", "Q6_K", "IQ4_XS")


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IRM_LITE_CACHE", str(tmp_path / "cache"))


def measured(gguf: Path) -> Agreement:
    return agreement(Compared.of_file(gguf, load_tokenizer(str(gguf))), gguf, [])


def test_a_baked_file_as_a_base(llama_gguf: Path, tmp_path: Path) -> None:
    """Someone trained on a file that irm-lite itself had baked a vector into: the training saw the model without it."""
    rng = np.random.default_rng(0)
    ControlVector({layer: rng.normal(0, 1, HIDDEN).astype(np.float32) for layer in (1, 2)}, "llama").save(tmp_path / "v.gguf")
    bake(llama_gguf, gather([str(tmp_path / "v.gguf")], fingerprint_gguf(llama_gguf), "tiny"), tmp_path / "baked.gguf")
    assert divergence(tmp_path / "baked.gguf") < 1e-6
    assert "biases" in (fingerprint_gguf(tmp_path / "baked.gguf").match(fingerprint_gguf(llama_gguf), "a run", "it").warning or "")


@pytest.mark.parametrize("kind", ["linear", "yarn"])
def test_a_file_with_a_longer_context(kind: str, llama_folder: Path, tmp_path: Path) -> None:
    """Someone took a file whose context was stretched by its rotation: it was trained unstretched, and nothing said so."""
    keys = {"llama.rope.scaling.type": kind, "llama.rope.scaling.factor": 4.0, "llama.rope.scaling.original_context_length": 128}
    gguf = write_gguf(llama_folder, tmp_path / "long.gguf", TEMPLATE, keys=keys)
    assert divergence(gguf) < 1e-6
    assert measured(gguf).warning(gguf) is None


def test_attention_biases_in_a_llama_file(llama_folder: Path, tmp_path: Path) -> None:
    """Someone's Llama-like model had biases on its attention, which transformers passed over in the file."""
    assert divergence(write_gguf(llama_folder, tmp_path / "a.gguf", TEMPLATE, extra=everywhere(*list(SHARED)[:4]))) < 1e-6


def test_a_file_that_only_transformers_takes(llama_folder: Path, tmp_path: Path) -> None:
    """Someone trained for a night on a file that llama.cpp could not load, and had nothing to export the result to."""
    extra = {"blk.3.ffn_norm.weight": np.ones(HIDDEN, np.float32)}
    told = not_taken(write_gguf(llama_folder, tmp_path / "a.gguf", TEMPLATE, extra=extra))
    assert told is not None
    assert "wrong number of tensors" in told
    assert "check that it is a model" not in told  # training says what to do about it


def test_an_absurd_stretch(llama_folder: Path, tmp_path: Path) -> None:
    """Someone's converter wrote nonsense as the factor of the rotation; it was trained on to the end."""

    def stretched(factor: float) -> Path:
        return write_gguf(llama_folder, tmp_path / f"{factor}.gguf", TEMPLATE, keys={"llama.rope.scaling.factor": factor})

    plain, endless = measured(stretched(1.0)), stretched(1e30)
    found = measured(endless)  # nothing turns any more, in both: a model without places, but one
    assert found.warning(endless) is None
    assert abs(found.nll_transformers - plain.nll_transformers) > 1e-3
    whirling = stretched(1e-30)  # angles that float32 knows no digit of
    assert "as two models" in (measured(whirling).warning(whirling) or "")
    with pytest.raises(BaseModelError, match="a rope base of 10000 with a factor of -1"):
        measured(stretched(-1.0))


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_quantised_file_is_no_other_model(kind: str, llama_folder: Path, tmp_path: Path) -> None:
    """Someone would stop reading warnings that came with every file that llama.cpp's own quantiser had made."""
    folder = tmp_path / "wide"
    tiny_model(hidden_size=256).save_pretrained(folder)  # K-quants come in blocks of 256
    write_sentencepiece(folder)
    plain = write_gguf(folder, tmp_path / "plain.gguf", TEMPLATE)
    options = llama_cpp.llama_model_quantize_default_params()
    options.ftype = getattr(llama_cpp, f"LLAMA_FTYPE_MOSTLY_{kind}")
    gguf = tmp_path / "quantised.gguf"
    assert llama_cpp.llama_model_quantize(str(plain).encode(), str(gguf).encode(), options) == 0
    found = measured(gguf)
    assert found.kl < found.explained / 2
    of_folder = agreement(Compared(locate(str(folder)), load_tokenizer(str(folder), chat_template=TEMPLATE)), gguf, [])
    assert of_folder.warning(gguf) is None
    assert of_folder.explained >= (found.explained if kind in ("F16", "BF16") else 4 * found.explained)  # the packing counts too
    assert fingerprint_gguf(gguf).match(fingerprint_gguf(plain), "a vector", "it").warning is None


@pytest.mark.slow
@pytest.mark.demo
def test_a_small_file_of_a_small_model(tmp_path: Path) -> None:
    """Someone trained on the whole file, and used the vector on one of three bits: twice what was thought that loses."""
    own, gguf = find_gguf("demo"), tmp_path / "small.gguf"
    options = llama_cpp.llama_model_quantize_default_params()
    options.ftype, options.allow_requantize = llama_cpp.LLAMA_FTYPE_MOSTLY_Q3_K_S, True
    assert llama_cpp.llama_model_quantize(str(own).encode(), str(gguf).encode(), options) == 0
    found = agreement(Compared.of_file(own, load_tokenizer(str(own))), gguf, [])
    assert found.kl > 0.3
    assert found.warning(gguf) is None


def test_a_vector_of_the_last_release(llama_gguf: Path) -> None:
    """Someone's vectors of before knew nothing of graphs, and go on working without a warning."""
    weights = fingerprint_gguf(llama_gguf).weights
    vector = ControlVector({1: np.ones(HIDDEN, np.float32)}, "llama", {"base.weights": weights, "base.n_layers": 3})
    with Runtime(llama_gguf, n_ctx=64) as runtime:
        assert runtime.set_vector(vector) is None


def test_a_rope_that_training_refuses_is_answered_with(llama_folder: Path, tmp_path: Path) -> None:
    """Someone chatted with a file whose rotation irm-lite does not map; only training on it needs both runtimes."""
    gguf = write_gguf(llama_folder, tmp_path / "a.gguf", TEMPLATE, keys={"llama.rope.scaling.type": "longrope"})
    with Runtime(gguf, n_ctx=256) as runtime:
        assert isinstance("".join(runtime.generate([{"role": "user", "content": "Why?"}], max_new_tokens=3)), str)
    with pytest.raises(BaseModelError, match="the rope scaling longrope, which irm-lite does not map"):
        load_base(str(gguf), quant="none", dtype="float32", device="cpu")


def test_a_mistral_folder_and_a_file_of_it(tmp_path: Path) -> None:
    """Someone trained on Mistral's folder, whose window llama.cpp does not have: no longer text than the window was trained on."""
    folder = write_hf_folder(tmp_path / "folder", "mistral", chat_template=TEMPLATE)
    config: dict[str, Any] = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "sliding_window": 512}))
    gguf = write_gguf(folder, tmp_path / "a.gguf", TEMPLATE)
    compared = Compared(locate(str(folder)), load_tokenizer(str(folder)))
    assert disagreement(compared, gguf, []) is None
    base = load_base(str(folder), quant="none", dtype="float32", device="cpu")
    assert fingerprint_gguf(gguf).match(base.fingerprint, "a run", "it").warning is None
