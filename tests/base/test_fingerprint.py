"""Fingerprints of bases against torch's bfloat16, hashlib and the gguf package's reader."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import gguf
import hypothesis.extra.numpy as arrays
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from irm_lite.base.fingerprint import Fingerprint, fingerprint_gguf, gguf_quantisation, hash_norm_gains
from irm_lite.core.errors import InputError, VectorError
from irm_lite.core.files.gguf_header import read_header
from support.gguf_files import Array, write_gguf

quick = settings(deadline=None, max_examples=60)

LAYERS, HIDDEN = 2, 32


def to_bfloat16(gain: Array) -> Array:
    """Rounded to bfloat16 by torch, as float32 again."""
    return np.asarray(torch.from_numpy(gain.copy()).to(torch.bfloat16).float().numpy())


def hash_with_torch(gains: list[Array]) -> str:
    digest = hashlib.sha256()
    for gain in gains:
        digest.update(torch.from_numpy(gain.copy()).to(torch.bfloat16).view(torch.int16).numpy().astype("<i2").tobytes())
    return digest.hexdigest()


def norm_gains(seed: int = 0) -> dict[str, Array]:
    """Gains by tensor name, in the order in which they are hashed."""
    rng = np.random.default_rng(seed)
    names = [f"blk.{layer}.{norm}.weight" for layer in range(LAYERS) for norm in ("attn_norm", "ffn_norm")]
    return {name: rng.normal(1, 0.3, HIDDEN).astype(np.float32) for name in [*names, "output_norm.weight"]}


def model(path: Path, tensors: dict[str, Array], fields: dict[str, Any] | None = None, types: dict[str, int] | None = None) -> Path:
    shape = {"llama.block_count": LAYERS, "llama.embedding_length": HIDDEN}
    return write_gguf(path, "llama", tensors, shape if fields is None else fields, types)


@quick
@given(
    st.lists(
        arrays.arrays(np.float32, st.integers(1, 40), elements=st.floats(width=32, allow_nan=False, allow_infinity=True)),
        min_size=1,
        max_size=4,
    )
)
def test_the_hash_is_sha256_over_bfloat16_as_torch_rounds_it(gains: list[Array]) -> None:
    assert hash_norm_gains(gains) == hash_with_torch(gains)


@pytest.mark.parametrize("bits", [0x3F808000, 0x3F818000, 0x3F807FFF, 0x3F808001, 0xBF808000, 0x7F7FFFFF, 0x00008000, 0x80000001])
def test_ties_and_edges_round_as_in_torch(bits: int) -> None:
    gain = np.array([bits], dtype="<u4").view("<f4")
    assert hash_norm_gains([gain]) == hash_with_torch([gain])


def test_gains_that_are_not_contiguous_hash_by_their_values() -> None:
    gain = np.arange(12, dtype=np.float32)
    assert hash_norm_gains([gain[::3]]) == hash_with_torch([gain[::3].copy()])


def test_gains_kept_in_full_and_rounded_to_bfloat16_give_one_fingerprint(tmp_path: Path) -> None:
    gains = norm_gains()
    rounded = {name: to_bfloat16(gain) for name, gain in gains.items()}
    assert any((rounded[name] != gains[name]).any() for name in gains)
    full = fingerprint_gguf(model(tmp_path / "full.gguf", gains))
    assert full == fingerprint_gguf(model(tmp_path / "rounded.gguf", rounded))
    assert full.weights == hash_with_torch(list(gains.values()))


def test_the_order_of_tensors_in_the_file_does_not_matter(tmp_path: Path) -> None:
    gains = norm_gains()
    backwards = dict(reversed(gains.items()))
    first = fingerprint_gguf(model(tmp_path / "a.gguf", gains))
    assert first == fingerprint_gguf(model(tmp_path / "b.gguf", backwards))


@pytest.mark.parametrize("name", list(norm_gains()))
def test_another_gain_in_any_norm_gives_another_hash(tmp_path: Path, name: str) -> None:
    gains = norm_gains()
    other = {**gains, name: gains[name] + np.float32(0.1) * (np.arange(HIDDEN) == 7)}
    first = fingerprint_gguf(model(tmp_path / "a.gguf", gains))
    second = fingerprint_gguf(model(tmp_path / "b.gguf", other))
    assert first.weights != second.weights
    assert first.weights != second.weights


def test_two_norms_exchanged_give_another_hash(tmp_path: Path) -> None:
    gains = norm_gains()
    other = {
        **gains,
        "blk.0.attn_norm.weight": gains["blk.0.ffn_norm.weight"],
        "blk.0.ffn_norm.weight": gains["blk.0.attn_norm.weight"],
    }
    first, second = (fingerprint_gguf(model(tmp_path / name, each)) for name, each in (("a.gguf", gains), ("b.gguf", other)))
    assert first.weights != second.weights


def test_quantising_the_weights_changes_the_quantisation_alone(tmp_path: Path) -> None:
    weights = np.random.default_rng(1).standard_normal((64, HIDDEN), dtype=np.float32)
    tensors = {**norm_gains(), "blk.0.ffn_down.weight": weights, "token_embd.weight": np.tile(weights, (20, 1))}
    prints = [
        fingerprint_gguf(
            model(
                tmp_path / f"{kind}.gguf",
                tensors,
                types={"blk.0.ffn_down.weight": kind, "token_embd.weight": gguf.GGMLQuantizationType.F16},
            )
        )
        for kind in (gguf.GGMLQuantizationType.F32, gguf.GGMLQuantizationType.Q8_0, gguf.GGMLQuantizationType.Q4_1)
    ]
    assert [fingerprint.quantisation for fingerprint in prints] == ["F32", "Q8_0", "Q4_1"]
    assert prints[0].weights == prints[1].weights
    assert prints[0].weights == prints[2].weights
    assert {(one.architecture, one.n_layers, one.hidden_size) for one in prints} == {("llama", LAYERS, HIDDEN)}


def test_a_file_without_layers_has_no_quantisation(tmp_path: Path) -> None:
    assert (
        gguf_quantisation(read_header(write_gguf(tmp_path / "a.gguf", "llama", {"output_norm.weight": np.ones(4, np.float32)})))
        == ""
    )


@pytest.mark.demo
def test_the_demo_model_is_hashed_as_torch_rounds_its_gains(demo_gguf: Path) -> None:
    """The gains' places are taken from the header, which test_gguf_header holds against the gguf package."""
    places = read_header(demo_gguf).tensors
    names = [f"blk.{n}.{norm}.weight" for n in range(30) for norm in ("attn_norm", "ffn_norm")]
    gains = [np.fromfile(demo_gguf, "<f4", count=576, offset=places[name].offset) for name in [*names, "output_norm.weight"]]
    graph = fingerprint_gguf(demo_gguf).graph
    assert fingerprint_gguf(demo_gguf) == Fingerprint("llama", 30, 576, hash_with_torch(gains), "Q4_1", graph)
    assert graph.startswith("heads=9 kv_heads=3 head_size=64 epsilon=1e-05 rope=")  # as its card says
    assert graph.endswith(" biases=none other=none")


def test_a_control_vector_is_refused_as_a_model(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "v.gguf", "controlvector", {"direction.1": np.ones(4, np.float32)})
    with pytest.raises(InputError, match=r"is a control vector, not a model: give the model's \.gguf") as caught:
        fingerprint_gguf(path)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("missing", ["blk.1.ffn_norm.weight", "output_norm.weight"])
def test_a_model_without_one_of_its_norms_is_refused_by_its_name(tmp_path: Path, missing: str) -> None:
    gains = {name: gain for name, gain in norm_gains().items() if name != missing}
    with pytest.raises(InputError, match=f"no '{missing}' in this llama file: give a Llama-like model"):
        fingerprint_gguf(model(tmp_path / "a.gguf", gains))


@pytest.mark.parametrize("missing", ["llama.block_count", "llama.embedding_length"])
def test_a_model_without_its_shape_is_refused_by_the_key(tmp_path: Path, missing: str) -> None:
    fields = {key: 2 for key in ("llama.block_count", "llama.embedding_length") if key != missing}
    with pytest.raises(InputError, match=f"{missing} is missing: give a Llama-like model"):
        fingerprint_gguf(model(tmp_path / "a.gguf", norm_gains(), fields))


def test_gains_in_half_precision_are_refused(tmp_path: Path) -> None:
    gains = {name: gain.astype(np.float16) for name, gain in norm_gains().items()}
    with pytest.raises(InputError, match="is not F32"):
        fingerprint_gguf(model(tmp_path / "a.gguf", gains))


@pytest.mark.parametrize("count", ["two", [2, 2], float("inf")])
def test_a_layer_count_that_is_no_number_is_refused(tmp_path: Path, count: Any) -> None:
    path = model(tmp_path / "a.gguf", norm_gains(), {"llama.block_count": count, "llama.embedding_length": HIDDEN})
    with pytest.raises(InputError):
        fingerprint_gguf(path)


@pytest.mark.skipif(sys.platform == "win32", reason="the limit on memory is set the POSIX way")
def test_an_absurd_layer_count_is_refused_before_memory_runs_out(tmp_path: Path) -> None:
    fields = {"llama.block_count": 2**32 - 1, "llama.embedding_length": HIDDEN}
    path = model(tmp_path / "a.gguf", norm_gains(), fields)
    code = (
        "import resource, sys, gguf; from irm_lite.base.fingerprint import fingerprint_gguf, InputError\n"
        "resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))\n"
        "try: fingerprint_gguf(__import__('pathlib').Path(sys.argv[1]))\n"
        "except (InputError, MemoryError) as error: print(type(error).__name__)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "InputError", done.stderr


PRINT = Fingerprint("llama", 30, 576, "ab" * 32, "Q4_1")


@quick
@given(st.builds(Fingerprint, st.text(), st.integers(0, 10**6), st.integers(0, 10**6), st.text(), st.text(), st.text()))
def test_a_fingerprint_survives_json(fingerprint: Fingerprint) -> None:
    assert Fingerprint.from_dict(json.loads(json.dumps(fingerprint.to_dict()))) == fingerprint


@pytest.mark.parametrize(
    "data",
    [
        {},
        {key: value for key, value in PRINT.to_dict().items() if key != "weights"},
        {**PRINT.to_dict(), "n_layers": "many"},
        {**PRINT.to_dict(), "hidden_size": None},
        {**PRINT.to_dict(), "hidden_size": float("inf")},
        [1, 2],
        None,
        "llama",
    ],
)
def test_a_damaged_fingerprint_is_refused(data: Any) -> None:
    with pytest.raises(InputError, match="a base's fingerprint is damaged") as caught:
        Fingerprint.from_dict(data)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(("architecture", "layers", "size"), [("qwen2", 30, 576), ("llama", 29, 576), ("llama", 30, 577)])
def test_a_vector_for_another_shape_is_refused_with_both_shapes(architecture: str, layers: int, size: int) -> None:
    with pytest.raises(VectorError) as caught:
        PRINT.require_fit(architecture, layers, size, "anger.gguf")
    message = str(caught.value)
    assert f"anger.gguf was made for {architecture} with {layers} layers of {size}" in message
    assert "this model is llama with 30 layers of 576" in message
    assert "use it with the model it was trained on" in message


@quick
@given(st.integers(1, 99), st.integers(1, 99))
def test_only_the_very_same_shape_fits(layers: int, size: int) -> None:
    try:
        PRINT.require_fit("llama", layers, size, "a vector")
        fits = True
    except VectorError:
        fits = False
    assert fits == ((layers, size) == (30, 576))
