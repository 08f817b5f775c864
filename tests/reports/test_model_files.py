"""Model and vector files as people have them: copied, half downloaded, made by other tools, or on the wrong machine."""

import shutil
import struct
from pathlib import Path
from typing import Any

import gguf
import llama_cpp
import numpy as np
import pytest

from irm_lite.analysis.pictures.draw_target import load_target
from irm_lite.base.fingerprint import fingerprint_gguf
from irm_lite.base.load import load_base, load_tokenizer, locate
from irm_lite.base.sources.gguf_weights import skeleton
from irm_lite.base.sources.shape import base_shape
from irm_lite.cli import main as cli
from irm_lite.core.errors import BaseModelError, InputError, VectorError
from irm_lite.core.files.gguf_header import read_header
from irm_lite.core.files.magic import format_of
from irm_lite.steering.control_vector import ControlVector
from support.gguf_files import write_gguf
from support.tiny_models import write_gguf as write_model

RAMP = np.arange(64, dtype=np.float32)
Said = pytest.CaptureFixture[str]


def one_line(arguments: list[object], said: Said) -> str:
    """What a verb that refuses says: one line, exit code 2."""
    said.readouterr()
    assert cli.run([str(each) for each in arguments]) == 2
    captured = said.readouterr()
    assert captured.out == ""
    lines = [line for line in captured.err.splitlines() if line.startswith("irm-lite:")]
    assert len(lines) == 1
    return lines[0]


@pytest.fixture
def said(capsys: Said) -> Said:
    return capsys


@pytest.fixture
def blob(llama_gguf: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(llama_gguf, tmp_path / "sha256-6f85a640a97cf2bf5b8e764087b1e83da0fdb51d7c9fab7d0fece9385611df83"))


@pytest.mark.slow
def test_a_blob_of_ollama_is_read_by_its_magic(blob: Path, llama_gguf: Path, tmp_path: Path, said: Said) -> None:
    """Somebody named the file that Ollama keeps, which has no ending; training said that no such model was on the machine."""
    assert locate(str(blob)).gguf == blob
    assert base_shape(str(blob)) == base_shape(str(llama_gguf))
    text = "Why is the sky blue?"
    assert load_tokenizer(str(blob))(text)["input_ids"] == load_tokenizer(str(llama_gguf))(text)["input_ids"]
    assert cli.run(["models", "fit", "--model", str(blob), "--memory", "1GB"]) == 0
    said.readouterr()
    run = ["train", "--model", str(blob), "--quant", "none", "--device", "cpu", "--max-steps", "1", "--irm", "static", "--json"]
    assert cli.run([*run, "--sample-tokens", "0", "--out", str(tmp_path / "run")]) == 0
    assert cli.run(["export", str(tmp_path / "run"), "--json"]) == 0


def test_a_vector_without_an_ending_is_drawn(tmp_path: Path) -> None:
    """The same with a control vector: the heatmap took it for a run."""
    ControlVector({1: RAMP, 2: -RAMP}, "llama").save(tmp_path / "v.gguf")
    (tmp_path / "v.gguf").rename(tmp_path / "v")
    _, loaded = load_target(tmp_path / "v")
    assert isinstance(loaded, ControlVector)
    assert loaded.layers == (1, 2)


def test_a_file_that_is_no_model_is_said_to_be_none(tmp_path: Path, llama_folder: Path, said: Said) -> None:
    """A path with one slash reads as a hub id: the line told people to download what lay before them."""
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "noext").write_text("hello")
    for verb in (["train", "--model"], ["models", "fit", "--model"], ["generate", "-p", "Hi", "--gguf"], ["heatmap"]):
        assert "noext is not a GGUF file: give" in one_line([*verb, tmp_path / "odd" / "noext"], said)
    with pytest.raises(BaseModelError, match=f"one of a model's files: give their folder, {llama_folder}"):
        locate(str(llama_folder / "model.safetensors"))


def big_endian(path: Path, architecture: str, tensors: dict[str, Any]) -> Path:
    writer = gguf.GGUFWriter(path, architecture, endianess=gguf.GGUFEndian.BIG)
    for name, values in tensors.items():
        writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_a_big_endian_file_is_called_that_by_every_reader(tmp_path: Path, said: Said) -> None:
    """Somebody took the file that is offered for IBM's machines, and was told to download version 50331648 again."""
    model = big_endian(tmp_path / "model.gguf", "llama", {"token_embd.weight": RAMP[None]})
    vector = big_endian(tmp_path / "vector.gguf", "controlvector", {"direction.1": RAMP})
    for arguments in (
        ["train", "--model", model, "--out", tmp_path / "run"],
        ["generate", "--gguf", model, "-p", "Hi"],
        ["generate", "--gguf", model, "-p", "Hi", "--vector", vector],
        ["models", "fit", "--model", model],
        ["bake", vector, "--gguf", model, "-o", tmp_path / "out.gguf"],
        ["bake", "--undo", model, "-o", tmp_path / "out.gguf"],
        ["vector", "info", vector],
        ["heatmap", vector, "-o", tmp_path / "figures"],
    ):
        assert "big-endian" in one_line(list(arguments), said), arguments
    with pytest.raises(VectorError, match="gguf-convert-endian FILE little"):
        ControlVector.load(vector)


@pytest.mark.parametrize(
    ("start", "told"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        (b"<!DOCTYPE html>\n<html>", "a web page"),
        (b"\x00" * 4096, "not downloaded to its end"),
        (b"", "empty"),
        (b"PK\x03\x04rest", "zip archive, or a pickle"),
        (b"\x1f\x8b\x08rest", "packed by gzip"),
        (b"tjgg\x03\x00\x00\x00", "llama.cpp's format of 2023"),
    ],
)
def test_what_lies_in_a_models_place_is_named(start: bytes, told: str, tmp_path: Path) -> None:
    """Pages saved as a model, pointers that Git LFS left, downloads that were cut: all of them were "not a GGUF file"."""
    (tmp_path / "model.gguf").write_bytes(start)
    with pytest.raises(InputError, match=told):
        read_header(tmp_path / "model.gguf")


def test_text_and_models_are_nothing_known_by_their_beginning() -> None:
    for start in (b"GGUF\x03\x00\x00\x00", b"hello", b"\x08\x00\x00\x00\x00\x00\x00\x00{}"):
        assert format_of(start) is None


def test_a_type_that_cannot_be_dequantised_is_named(llama_gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model in a new quantisation ran in llama.cpp; training on it ended in an unexpected error while it was read."""
    options = llama_cpp.llama_model_quantize_default_params()
    options.ftype = llama_cpp.LLAMA_FTYPE_MOSTLY_Q8_0
    file = tmp_path / "q8.gguf"
    assert llama_cpp.llama_model_quantize(str(llama_gguf).encode(), str(file).encode(), options) == 0
    monkeypatch.delitem(gguf.quants._type_traits, gguf.GGMLQuantizationType.Q8_0)
    with pytest.raises(BaseModelError, match=r"\w+\.weight is quantised as Q8_0.*pip install -U gguf"):
        load_base(str(file), quant="none", device="cpu")
    assert base_shape(str(file)) == base_shape(str(llama_gguf))  # what llama.cpp does with it needs none of that


def test_a_type_that_nobody_knows_is_no_damage(tmp_path: Path) -> None:
    """Files for phones had types that were given up since: "download or export it again" helped nobody."""
    path = write_gguf(tmp_path / "model.gguf", "llama", {"blk.0.attn_q.weight": RAMP[None]})
    name = b"blk.0.attn_q.weight"
    data = bytearray(path.read_bytes())
    at = data.index(name) + len(name) + 4 + 16  # its two extents
    assert struct.unpack_from("<I", data, at) == (0,)
    struct.pack_into("<I", data, at, 33)
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"attn_q\.weight' is of type 33.*another quantisation"):
        read_header(path)


@pytest.mark.parametrize("name", ["mistral", "Mistral 7B Instruct v0.3", "umt5", "Granite"])
def test_a_name_is_no_architecture(name: str, llama_folder: Path, llama_gguf: Path, tmp_path: Path) -> None:
    """Somebody called a fine-tune of a Llama "mistral": transformers took it for one."""
    file = write_model(llama_folder, tmp_path / "named.gguf", chat_template="{{ messages }}", keys={"general.name": name})
    assert skeleton(file).config.to_dict() == skeleton(llama_gguf).config.to_dict()
    mine, plain = (load_tokenizer(str(each)) for each in (file, llama_gguf))
    assert (mine("Why not?")["input_ids"], len(mine)) == (plain("Why not?")["input_ids"], len(plain))
    assert mine.decode(mine("Why not?")["input_ids"]) == plain.decode(plain("Why not?")["input_ids"])


def test_a_gguf_with_fewer_embeddings_than_tokens_is_refused(llama_folder: Path, llama_gguf: Path, tmp_path: Path) -> None:
    """Tokens were added to a vocabulary, the embeddings stayed: the first step ended with an index out of range."""
    tokens = read_header(llama_gguf).metadata["tokenizer.ggml.tokens"]
    words = [*(word.decode() for word in read_header(llama_gguf).read_strings(tokens)), "<|im_end|>"]
    kinds = [*read_header(llama_gguf).read_numbers(read_header(llama_gguf).metadata["tokenizer.ggml.token_type"]).tolist(), 3]
    more: dict[str, Any] = {"tokenizer.ggml.tokens": words, "tokenizer.ggml.token_type": kinds}
    more["tokenizer.ggml.scores"] = [-float(number) for number in range(len(words))]
    file = write_model(llama_folder, tmp_path / "more.gguf", chat_template="{{ messages }}", keys=more)
    with pytest.raises(BaseModelError, match=r"ids up to 640 \('<\|im_end\|>'\), its embeddings end at 639"):
        load_base(str(file), quant="none", device="cpu")


@pytest.mark.parametrize("hint", ["mixtral", "mistral", "llama", "", "my-own-finetune", "LLaMA"])
def test_a_vector_whose_hint_is_no_architecture_of_gguf_is_taken(hint: str, llama_gguf: Path) -> None:
    """Vectors that were made on a Mixtral name it as the hint; its GGUF says llama. llama.cpp looks at the shapes alone."""
    vector = ControlVector({1: RAMP, 2: RAMP}, hint)
    vector.require_fit(fingerprint_gguf(llama_gguf), "model")
    both = vector + ControlVector({1: RAMP}, "llama")
    assert (both.architecture, both.directions[1].tolist()) == ("llama", (2 * RAMP).tolist())
    assert (ControlVector({1: RAMP}, "llama") + vector).architecture == "llama"


@pytest.mark.parametrize("hint", ["qwen2", "qwen2_moe", "phi3"])
def test_a_vector_of_another_architecture_is_refused(hint: str, llama_gguf: Path) -> None:
    with pytest.raises(VectorError, match="made for qwen2|made for phi3"):
        ControlVector({1: RAMP, 2: RAMP}, hint).require_fit(fingerprint_gguf(llama_gguf), "model")
    with pytest.raises(VectorError, match="cannot be added"):
        ControlVector({1: RAMP}, hint) + ControlVector({1: RAMP}, "llama")
