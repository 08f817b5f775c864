"""Two graphs of the same weights are told apart; one graph is one, whichever file it was read from."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import AutoConfig

from irm_lite.base.fingerprint import Fingerprint, fingerprint_gguf
from irm_lite.base.load import load_base
from irm_lite.base.sources.graph_facts import differing
from irm_lite.runs.directory import RunDirectory
from irm_lite.steering.control_vector import ControlVector
from support.both_runtimes import HEADS, HIDDEN, bias
from support.gguf_files import Array
from support.once import Once
from support.tiny_models import tiny_model, write_gguf, write_hf_folder

HALF = HIDDEN // HEADS // 2


@pytest.fixture
def plain(llama_folder: Path, once: Once) -> Fingerprint:
    place = once("plain-graph", lambda folder: write_gguf(llama_folder, folder / "a.gguf", "{{ 1 }}"))
    return fingerprint_gguf(place / "a.gguf")


CHANGED: dict[str, tuple[dict[str, Any], dict[str, Array], str]] = {
    "rope base": ({"llama.rope.freq_base": 10001.0}, {}, "rope"),
    "linear": ({"llama.rope.scaling.factor": 4.0}, {}, "rope"),
    "yarn": ({"llama.rope.scaling.type": "yarn", "llama.rope.scaling.factor": 4.0}, {}, "rope"),
    "attention's factor": ({"llama.rope.scaling.attn_factor": 1.1}, {}, "rope"),
    "Llama 3's": ({}, {"rope_freqs.weight": np.linspace(1, 8, HALF).astype(np.float32)}, "rope"),
    "one frequency": ({}, {"rope_freqs.weight": np.array([1] * (HALF - 1) + [1.01], np.float32)}, "rope"),
    "epsilon": ({"llama.attention.layer_norm_rms_epsilon": 1.1e-6}, {}, "norm epsilon"),
    "heads": (
        {"llama.attention.head_count": 8, "llama.attention.head_count_kv": 4, "llama.rope.dimension_count": 8},
        {},
        "heads",
    ),
    "biases": ({}, bias("ffn_down", 1), "biases"),
    "a scale": ({}, {"blk.1.attn_q.scale": np.full(1, 0.5, np.float32)}, "keys or tensors"),
    "a window of Gemma's kind": ({"llama.attn_logit_softcapping": 30.0}, {}, "keys or tensors"),
    "a scale of attention": ({"llama.attention.scale": 0.5}, {}, "keys or tensors"),
    "a residual multiplier": ({"llama.residual_scale": 0.22}, {}, "keys or tensors"),
    "what nobody knows": ({"llama.of_tomorrow": 1}, {}, "keys or tensors"),
}


@pytest.mark.parametrize("name", CHANGED)
def test_another_graph_is_another_fingerprint(name: str, llama_folder: Path, plain: Fingerprint, tmp_path: Path) -> None:
    keys, tensors, said = CHANGED[name]
    other = fingerprint_gguf(write_gguf(llama_folder, tmp_path / "a.gguf", "{{ 1 }}", extra=tensors, keys=keys))
    assert other.weights == plain.weights
    assert not plain.is_of(other)
    warning = plain.match(other, "the vector", "a.gguf").warning
    assert warning is not None
    assert "the vector was made on the same weights with other settings than a.gguf has" in warning
    assert said in warning


@pytest.mark.parametrize(
    "keys",
    [
        {"llama.rope.freq_base": 10000.0},
        {"llama.rope.scaling.type": "none", "llama.rope.scaling.factor": 4.0},
        {"llama.rope.scaling.factor": 1.0},
        {"llama.attention.head_count_kv": [2, 2, 2]},
        {"llama.attention.sliding_window": 7},  # llama.cpp's llama heeds none
        {"llama.vocab_size": 600},
        {"llama.context_length": 1024},
        {"llama.attention.scale": 0.0},
        {"general.name": "another"},
    ],
)
def test_what_changes_nothing_is_no_other_graph(
    keys: dict[str, Any], llama_folder: Path, plain: Fingerprint, tmp_path: Path
) -> None:
    assert fingerprint_gguf(write_gguf(llama_folder, tmp_path / "a.gguf", "{{ 1 }}", keys=keys)).graph == plain.graph


def test_biases_of_other_values_are_others(llama_folder: Path, tmp_path: Path) -> None:
    files = [write_gguf(llama_folder, tmp_path / f"{seed}.gguf", extra=bias("ffn_down", 1, seed)) for seed in (0, 1)]
    one, other = map(fingerprint_gguf, files)
    assert "biases" in (one.match(other, "it", "that").warning or "")


@pytest.mark.parametrize("kind", ["llama", "qwen2", "qwen3"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_a_folder_and_the_file_made_from_it_are_one(kind: str, dtype: str, once: Once, tmp_path: Path) -> None:
    def make(at: Path) -> None:
        write_hf_folder(at / "folder", kind, chat_template="{{ 1 }}")
        tiny_model(kind, layers=3).bfloat16().save_pretrained(at / "folder")  # as checkpoints are

    folder = once(f"tiny-{kind}-bfloat16", make) / "folder"
    of_folder = load_base(str(folder), quant="none", dtype=dtype, device="cpu").fingerprint
    of_file = fingerprint_gguf(write_gguf(folder, tmp_path / "a.gguf", "{{ 1 }}", architecture=kind))
    assert of_file.match(of_folder, "the vector", "the file").warning is None
    assert of_folder.match(of_file, "the vector", "the folder").warning is None
    shared = set(of_folder.graph.split()) & set(of_file.graph.split())
    assert {part.split("=")[0] for part in shared} >= {"heads", "kv_heads", "head_size", "epsilon", "rope"}
    assert ("biases" in {part.split("=")[0] for part in shared}) == (dtype != "float16" or kind != "qwen2")


SCALED = [
    ({"rope_type": "linear", "factor": 4.0}, {"llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": 4.0}, False),
    (
        {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128},
        {
            "llama.rope.scaling.type": "yarn",
            "llama.rope.scaling.factor": 4.0,
            "llama.rope.scaling.original_context_length": 128,
        },
        False,
    ),
    ({"rope_type": "linear", "factor": 4.0}, {}, True),
    ({"rope_type": "dynamic", "factor": 4.0}, {}, False),  # the same at short lengths
    ({"rope_type": "default", "rope_theta": 20000.0}, {"llama.rope.freq_base": 20000.0}, False),
    ({"rope_type": "default", "rope_theta": 20000.0}, {"llama.rope.freq_base": 20001.0}, True),
]


@pytest.mark.parametrize(("parameters", "keys", "differ"), SCALED)
def test_a_scaled_rotation_is_one_in_both(
    parameters: dict[str, Any], keys: dict[str, Any], differ: bool, llama_folder: Path, tmp_path: Path
) -> None:
    folder = write_hf_folder(tmp_path / "folder", chat_template="{{ 1 }}")
    config = AutoConfig.from_pretrained(folder)
    config.rope_parameters = {"rope_theta": 10000.0, **parameters}
    config.save_pretrained(folder)
    of_folder = load_base(str(folder), quant="none", dtype="float32", device="cpu").fingerprint
    of_file = fingerprint_gguf(write_gguf(llama_folder, tmp_path / "a.gguf", "{{ 1 }}", keys=keys))
    assert (of_file.match(of_folder, "it", "that").warning is not None) == differ


def test_folders_differ_by_what_their_configuration_says(tmp_path: Path) -> None:
    prints = []
    kinds: list[dict[str, Any]] = [{}, {"hidden_act": "gelu"}, {"sliding_window": 5}]
    for number, changes in enumerate(kinds):
        folder = write_hf_folder(tmp_path / str(number), "mistral", chat_template="{{ 1 }}")
        config = AutoConfig.from_pretrained(folder)
        config.update({"sliding_window": None, **changes})
        config.save_pretrained(folder)
        prints.append(load_base(str(folder), quant="none", dtype="float32", device="cpu").fingerprint)
    plain, *others = prints
    assert all("config" in (plain.match(other, "it", "that").warning or "") for other in others)


def test_a_model_that_another_program_has_loaded_has_the_facts_of_its_file(llama_folder: Path, tmp_path: Path) -> None:
    """As `inject(model, vector)` asks: the frequencies that the model turns by, not those of its configuration."""
    from irm_lite.base.model_fingerprint import fingerprint_model

    gguf = write_gguf(llama_folder, tmp_path / "a.gguf", "{{ 1 }}", keys={"llama.rope.scaling.factor": 4.0})
    base = load_base(str(gguf), quant="none", dtype="float32", device="cpu")
    assert fingerprint_model(base.model).match(base.fingerprint, "it", "that").warning is None
    assert fingerprint_model(base.model.bfloat16()).weights == base.fingerprint.weights


def test_what_an_older_irm_lite_wrote_is_not_compared(plain: Fingerprint, tmp_path: Path) -> None:
    old = {name: value for name, value in plain.to_dict().items() if name != "graph"}
    before = Fingerprint.from_dict(old)
    assert before.graph == ""
    assert plain.match(before, "it", "that").warning is None
    assert before.match(plain, "it", "that").warning is None
    assert plain.is_of(before)
    vector = ControlVector({1: np.ones(HIDDEN, np.float32)}, "llama", {"base.weights": plain.weights, "base.n_layers": 3})
    assert vector.require_fit(plain, "that").warning is None
    RunDirectory(tmp_path / "run").path.mkdir()
    (tmp_path / "run" / "base.json").write_text(str(old).replace("'", '"'))
    assert RunDirectory(tmp_path / "run").fingerprint() == before


def test_sums_of_vectors_keep_the_graphs_that_they_were_made_on(llama_folder: Path, plain: Fingerprint, tmp_path: Path) -> None:
    scaled = fingerprint_gguf(write_gguf(llama_folder, tmp_path / "a.gguf", keys={"llama.rope.scaling.factor": 4.0}))
    one, other, old = (
        ControlVector({1: np.ones(HIDDEN, np.float32)}, "llama", {"base.weights": plain.weights, **graph})
        for graph in ({"base.graph": plain.graph}, {"base.graph": scaled.graph}, {})
    )
    assert (one + one).require_fit(plain, "that").warning is None
    assert (one + old).require_fit(plain, "that").warning is None
    for total in (one + other, other + one, (one + other) + one):
        assert "rope" in (total.require_fit(plain, "that").warning or "")
        assert "rope" in (total.require_fit(scaled, "that").warning or "")


@pytest.mark.parametrize("strange", ["", "heads", "=", "rope=x,y", "rope=1", "a=b=c", "\x1b[31m", "rope= ", "heads=" + "9" * 10000])
def test_strange_texts_are_compared_without_an_error(strange: str, plain: Fingerprint) -> None:
    for found in (differing(plain.graph, strange), differing(strange, plain.graph)):
        assert set(found) <= {"rope", "heads"}


def test_a_file_of_an_architecture_that_is_not_mapped_is_told_by_all_its_keys(tmp_path: Path) -> None:
    from support.gguf_files import write_gguf as write_file

    model = tiny_model("llama", layers=1)
    gains = {f"blk.0.{norm}_norm.weight": np.ones(HIDDEN, np.float32) for norm in ("attn", "ffn")}
    tensors = {**gains, "output_norm.weight": np.ones(HIDDEN, np.float32)}
    shape: dict[str, Any] = {"other.block_count": 1, "other.embedding_length": model.config.hidden_size}
    changes: list[dict[str, Any]] = [
        {},
        {"other.scale": 0.5},
        {"other.windows": [1, 2]},
        {"other.windows": [1, 3]},
        {"other.window": 3},
    ]
    graphs = [
        fingerprint_gguf(write_file(tmp_path / f"{number}.gguf", "other", tensors, {**shape, **change})).graph
        for number, change in enumerate(changes)
    ]
    assert len(set(graphs)) == len(graphs)
    assert (
        fingerprint_gguf(write_file(tmp_path / "c.gguf", "other", tensors, {**shape, "other.context_length": 9})).graph == graphs[0]
    )
