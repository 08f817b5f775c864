"""Hugging Face folders as people have them: half copied, with tokens added, with settings for sampling."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from irm_lite.base import generate as sampling
from irm_lite.base.load import load_base, load_tokenizer
from irm_lite.core.errors import BaseModelError
from irm_lite.data.encoding import encode_prompt, turn_ends

Change = Callable[[Path], object]
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 500\n"


@pytest.fixture
def folder(llama_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(llama_folder, tmp_path / "model"))


def change(file: Path, **values: Any) -> Path:
    known = json.loads(file.read_text()) if file.exists() else {}
    file.write_text(json.dumps({**known, **values}))
    return file


def rows(folder: Path, more: int, names: tuple[str, ...] = ("model.embed_tokens.weight", "lm_head.weight")) -> Path:
    """The rows of these weights cut or padded by so many."""
    file = folder / "model.safetensors"
    weights = load_file(file)
    for name in names:
        old = weights[name]
        weights[name] = torch.cat([old, torch.zeros(more, old.shape[1])]) if more > 0 else old[:more].clone()
    save_file(weights, file, metadata={"format": "pt"})
    return file


def shard(folder: Path) -> list[str]:
    """The weights in two parts with an index."""
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names, parts = sorted(weights), [f"model-0000{number}-of-00002.safetensors" for number in (1, 2)]
    where = {name: parts[place % 2] for place, name in enumerate(names)}
    for part in parts:
        save_file({name: weights[name] for name in names if where[name] == part}, folder / part, metadata={"format": "pt"})
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}))
    return parts


def remove(folder: Path, *patterns: str) -> Path:
    for pattern in patterns:
        for file in folder.glob(pattern):
            file.unlink()
    return folder


def pickled(folder: Path) -> None:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def added_in_tokenizer_json(folder: Path) -> None:
    known = json.loads((folder / "tokenizer.json").read_text())
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    known["added_tokens"].append({"id": 640, "content": "<|im_end|>", "special": True, **flags})
    (folder / "tokenizer.json").write_text(json.dumps(known))


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda f: change(f / "config.json", vocab_size=600), r"is \(640, 64\), .* says \(600, 64\): set vocab_size to 640 in"),
        (lambda f: change(f / "config.json", vocab_size=700), r"is \(640, 64\), .* says \(700, 64\): set vocab_size to 640 in"),
        (lambda f: rows(f, 64), "set vocab_size to 704 in its config.json"),
        (lambda f: rows(f, 64, ("lm_head.weight",)), "lm_head.weight is .*: download or convert it again"),
        (lambda f: (rows(f, -40), change(f / "config.json", vocab_size=600)), r"ids up to 639 \(.*its embeddings end at 599"),
        (added_in_tokenizer_json, r"ids up to 640 \('<\|im_end\|>'\), its embeddings end at 639: give the model its own"),
        (lambda f: change(f / "added_tokens.json", **{"<|im_end|>": 640}), r"ids up to 640 \('<\|im_end\|>'\)"),
        (lambda f: remove(f, "tokenizer*"), "has no tokenizer .*copy them from the model that it was made from"),
        (pickled, r"a pickle alone \(pytorch_model.bin\), which irm-lite never opens: get the model as safetensors"),
        (lambda f: remove(f, "*.safetensors"), "has no weights"),
        (lambda f: (remove(f, "*.safetensors"), (f / "q4.gguf").touch()), "give the file in it, .*q4.gguf"),
        (lambda f: (f / shard(f)[1]).unlink(), "lacks model-00002-of-00002.safetensors, one of 2 files.*: download it again"),
        (lambda f: (shard(f), remove(f, "*.index.json")), "in 2 parts, but no model.safetensors.index.json"),
        (lambda f: cut(f / "model.safetensors"), "model.safetensors is damaged"),
        (
            lambda f: (f / "model.safetensors").write_text(POINTER),
            "model.safetensors is a pointer of Git LFS, not .*: run `git lfs pull`",
        ),
        (lambda f: (f / "tokenizer.json").write_text(POINTER), "tokenizer.json is a pointer of Git LFS"),
    ],
)
def test_what_is_wrong_with_a_folder_is_named(spoil: Change, told: str, folder: Path) -> None:
    """Tokens were added and the embeddings stayed, a shard was not copied, a clone was made without Git LFS: transformers spoke of
    something else, or the first step ended with an index out of range."""
    spoil(folder)
    with pytest.raises(BaseModelError, match=told) as refused:
        load_base(str(folder), quant="none", device="cpu")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda f: (rows(f, 64), change(f / "config.json", vocab_size=704)),
        lambda f: change(f / "tokenizer_config.json", pad_token="[PAD]"),
        lambda f: remove(f, "tokenizer.json"),
        lambda f: (f / "generation_config.json").write_text("{nonsense"),
        shard,
    ],
)
def test_what_is_only_odd_loads(spoil: Change, folder: Path) -> None:
    """Vocabularies are padded for the GPU, a padding token stands beyond them, tokenizer.model comes alone."""
    spoil(folder)
    base = load_base(str(folder), quant="none", device="cpu")
    assert base.tokenizer("Why is the sky blue?", add_special_tokens=False)["input_ids"]


@pytest.mark.slow
def test_a_tokenizer_that_needs_sentencepiece_says_so(folder: Path) -> None:
    """tokenizer.model came alone, and sentencepiece was not installed: transformers asked for tiktoken."""
    remove(folder, "tokenizer.json")
    without = (
        "import importlib.util, sys\n"
        "found = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name, *more: None if name == 'sentencepiece' else found(name, *more)\n"
        "sys.modules['sentencepiece'] = None\n"
        "from irm_lite.base.load import load_tokenizer\n"
        f"load_tokenizer({str(folder)!r})\n"
    )
    done = subprocess.run([sys.executable, "-c", without], capture_output=True, text=True, check=False)
    assert done.stderr.splitlines()[-1].endswith("which the package sentencepiece reads: pip install sentencepiece")


def test_samples_are_greedy_whatever_the_folder_says(folder: Path, llama_folder: Path) -> None:
    """A model's generation_config asked for sampling with a penalty and forced tokens: the samples of a training were of another
    model than the one that it trains. The measure is a loop over argmax."""
    wishes = {"do_sample": True, "temperature": 3.0, "top_k": 3, "repetition_penalty": 9.0, "no_repeat_ngram_size": 1}
    forced = {"min_new_tokens": 20, "forced_bos_token_id": 7, "forced_eos_token_id": 2, "suppress_tokens": [5, 6], "num_beams": 3}
    change(folder / "generation_config.json", **wishes, **forced, max_new_tokens=3, bad_words_ids=[[9]], sequence_bias=[[[8], 9.0]])
    wished = load_base(str(folder), quant="none", dtype="float32", device="cpu")
    asked = ({"role": "user", "content": "Why is the sky blue?"},)
    written = sampling.generate(wished, asked, 12)
    base = load_base(str(llama_folder), quant="none", dtype="float32", device="cpu")
    ids = encode_prompt(base.tokenizer, asked)
    prompt, over = len(ids), turn_ends(base.tokenizer)
    with torch.no_grad():
        while len(ids) < prompt + 12 and ids[-1] not in over:
            ids.append(int(base.model(torch.tensor([ids])).logits[0, -1].argmax()))
    assert written == base.tokenizer.decode(ids[prompt:], skip_special_tokens=True).strip()
    assert len(ids) > prompt + 3
    assert wished.model.generation_config.repetition_penalty == 9.0  # it is still the model's own


def test_a_folder_that_has_a_tokenizer_alone_gives_it(folder: Path) -> None:
    """`calibrate --model` takes the tokenizer of a folder whose weights are elsewhere."""
    remove(folder, "*.safetensors")
    assert load_tokenizer(str(folder))("Why?")["input_ids"]
