"""llama.cpp against transformers, with and without vectors, on the same weights."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from transformers import LlamaForCausalLM

from irm_lite.base.load import Base, load_base
from irm_lite.core.errors import BaseModelError, InputError, LlamaCppError, VectorError
from irm_lite.core.log_probabilities import kl
from irm_lite.data.dataset import load_dataset
from irm_lite.data.encoding import encode_all
from irm_lite.data.packing import pack
from irm_lite.llamacpp import Runtime
from irm_lite.llamacpp.likelihood import llamacpp_log_probabilities
from irm_lite.steering.control_vector import ControlVector
from irm_lite.steering.injection import inject
from irm_lite.steering.likelihood import log_probabilities

QUESTION = [{"role": "user", "content": "Which ocean is the biggest?"}]


@pytest.fixture(scope="module")
def runtime(llama_gguf: Path) -> Iterator[Runtime]:
    with Runtime(llama_gguf, n_ctx=256) as loaded:
        yield loaded


@pytest.fixture(scope="module")
def twin(llama_folder: Path) -> LlamaForCausalLM:
    return LlamaForCausalLM.from_pretrained(llama_folder, dtype=torch.float32).eval()


def vector(layers: tuple[int, ...] = (1, 2), hidden_size: int = 64, size: float = 0.3) -> ControlVector:
    generator = np.random.default_rng(0)
    directions = {layer: (size * generator.standard_normal(hidden_size)).astype(np.float32) for layer in layers}
    return ControlVector(directions, "llama")


def ids(count: int = 40) -> list[int]:
    return [int(token) for token in np.random.default_rng(1).integers(3, 600, count)]


def difference(runtime: Runtime, twin: LlamaForCausalLM, steer: ControlVector | None) -> float:
    """KL a token of llama.cpp from transformers."""
    with torch.no_grad():
        if steer is None:
            expected = twin(torch.tensor([ids()])).logits[0]
        else:
            with inject(twin, steer):
                expected = twin(torch.tensor([ids()])).logits[0]
    got = torch.from_numpy(runtime.logits(ids()))
    return float(kl(F.log_softmax(expected, -1), F.log_softmax(got, -1)).mean())


def test_vectors_do_in_llamacpp_what_hooks_do_in_transformers(runtime: Runtime, twin: LlamaForCausalLM) -> None:
    steer = vector()
    assert difference(runtime, twin, None) < 1e-5
    assert runtime.set_vector(steer) is None
    assert difference(runtime, twin, steer) < 1e-5
    assert difference(runtime, twin, None) > 1e-2  # the vector does a lot here
    runtime.set_vector(steer, scale=-0.5)
    assert difference(runtime, twin, steer * -0.5) < 1e-5
    runtime.set_vector(steer, layers=[2])
    assert difference(runtime, twin, steer.select([2])) < 1e-5
    runtime.set_vector(None)
    assert difference(runtime, twin, None) < 1e-5


def test_a_shorter_vector_leaves_nothing_of_the_one_before(runtime: Runtime, twin: LlamaForCausalLM) -> None:
    runtime.set_vector(vector((1, 2)))
    runtime.logits(ids())
    runtime.set_vector(vector((1,)))
    assert difference(runtime, twin, vector((1,))) < 1e-5
    runtime.set_vector(None)


def test_a_text_does_not_go_on_with_another_ones_cache(llama_gguf: Path) -> None:
    with Runtime(llama_gguf, n_ctx=256) as runtime:
        for meanwhile in (lambda: runtime.set_vector(vector()), lambda: runtime.logits(ids())):
            text = runtime.generate_tokens(ids(), max_new_tokens=8)
            next(text)
            meanwhile()
            with pytest.raises(LlamaCppError, match="used for something else"):
                next(text)
        text = runtime.generate_tokens(ids(), max_new_tokens=8)
        next(text)
    with pytest.raises(LlamaCppError, match="or closed"):
        next(text)
    with pytest.raises(LlamaCppError, match="closed"):
        runtime.logits(ids())


def test_llama_cpps_own_reason_is_told(llama_gguf: Path, tmp_path: Path) -> None:
    """A file that our reader finds whole and llama.cpp refuses."""
    data = llama_gguf.read_bytes().replace(b"blk.2.ffn_up.weight", b"blk.2.ffn_uq.weight")
    (tmp_path / "odd.gguf").write_bytes(data)
    with pytest.raises(BaseModelError, match=r"ffn_up.weight' not found"):
        Runtime(tmp_path / "odd.gguf")


def test_changing_the_vector_forgets_what_was_computed(runtime: Runtime) -> None:
    plain = "".join(runtime.generate(QUESTION, max_new_tokens=12))
    runtime.set_vector(vector(size=3.0))
    steered = "".join(runtime.generate(QUESTION, max_new_tokens=12))
    runtime.set_vector(None)
    assert "".join(runtime.generate(QUESTION, max_new_tokens=12)) == plain
    assert steered != plain


def test_vectors_that_do_not_fit_are_refused(runtime: Runtime) -> None:
    other = ControlVector({1: np.ones(64, np.float32)}, "qwen2")
    deep = ControlVector({1: np.ones(64, np.float32)}, "llama", {"base.n_layers": 32})
    for wrong in (vector(hidden_size=32), vector((1, 3)), other, deep):
        with pytest.raises(VectorError, match="use it with the model"):
            runtime.set_vector(wrong)
    stranger = ControlVector({1: np.ones(64, np.float32)}, "llama", {"base.weights": "0" * 64})
    warning = runtime.set_vector(stranger)
    assert warning is not None
    assert "other weights" in warning
    runtime.set_vector(None)


def test_sampling_repeats_with_its_seed(runtime: Runtime) -> None:
    texts = ["".join(runtime.generate(QUESTION, max_new_tokens=16, temperature=1.0, seed=seed)) for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]


def test_too_long_and_damaged_input_is_one_line(runtime: Runtime, llama_gguf: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="context"):
        runtime.logits([5] * 400)
    with pytest.raises(InputError, match="shorten"):
        list(runtime.generate([{"role": "user", "content": "why " * 400}]))
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(llama_gguf.read_bytes()[:-4096])
    with pytest.raises(InputError, match="cut short"):
        Runtime(cut)
    vector().save(tmp_path / "v.gguf")
    with pytest.raises((InputError, BaseModelError), match="control vector, not a model"):
        Runtime(tmp_path / "v.gguf")


@pytest.mark.demo
def test_demo_on_f32_gguf_equals_transformers_with_the_same_vectors(demo_gguf: Path, demo_gguf_f32: Path) -> None:
    """The figure of the issue: KL below 1e-5 a token, with a vector whose effect is strong."""
    base: Base = load_base(str(demo_gguf), quant="none", dtype="float32", device="cpu")
    samples, _ = encode_all(base.tokenizer, load_dataset("anger").test[:6], 512)
    generator = np.random.default_rng(0)
    steer = ControlVector(
        {layer: (0.4 * generator.standard_normal(base.hidden_size)).astype(np.float32) for layer in range(1, base.n_layers)},
        "llama",
    )
    row = pack(samples)
    with torch.no_grad():
        expected = {name: log_probabilities(base, row, each) for name, each in (("plain", None), ("steered", steer))}
    with Runtime(demo_gguf_f32, n_ctx=256) as runtime:
        assert runtime.model.fingerprint.weights == base.fingerprint.weights
        for sample in samples:  # llama.cpp's tokenizer and template give the ids that transformers does
            assert runtime.encode_prompt(sample.example.messages[:-1]) == sample.ids[: sample.answer_start]
        for name, each in (("plain", None), ("steered", steer)):
            runtime.set_vector(each)
            got = torch.cat([llamacpp_log_probabilities(runtime, sample) for sample in samples])
            divergence = float(kl(expected[name], got).mean())
            print(f"KL(transformers || llama.cpp), {name}: {divergence:.2e} nats a token over {len(got)} tokens")
            assert divergence < 1e-5
    assert float(kl(expected["steered"], expected["plain"]).mean()) > 0.1
