"""Why a Hugging Face folder could not be loaded, told by its files: what transformers says of it is often about something else."""

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from irm_lite.core.files.magic import LONGEST, format_of
from irm_lite.core.files.reading import open_ordinary, read_json

Part = Literal["tokenizer", "model"]
_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model", "tekken.json", "*.tiktoken")
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")
_INDEX = "model.safetensors.index.json"
_AGAIN = "download it again"


def lacks(folder: Path, part: Part) -> tuple[str, str] | None:
    """What is wrong with the files of this part of the model, and what to do; None where nothing can be seen."""
    try:
        return next(_of_tokenizer(folder) if part == "tokenizer" else _of_weights(folder), None)
    except (
        OSError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
    ):  # an index that is none: transformers says so
        return None


def _of_tokenizer(folder: Path) -> Iterator[tuple[str, str]]:
    files = [file for pattern in _TOKENIZERS for file in folder.glob(pattern)]
    if not files:
        hint = "copy them from the model that it was made from"
        yield f"{folder} has no tokenizer (no tokenizer.json, no tokenizer.model)", hint
    yield from _other_formats([*files, *folder.glob("tokenizer_config.json")])
    names = {file.name for file in files}
    if names == {"tokenizer.model"} and importlib.util.find_spec("sentencepiece") is None:
        yield (
            f"{folder} has its tokenizer as tokenizer.model alone, which the package sentencepiece reads",
            "pip install sentencepiece",
        )


def _of_weights(folder: Path) -> Iterator[tuple[str, str]]:
    files, index = sorted(folder.glob("*.safetensors")), folder / _INDEX
    if index.is_file():
        named = set(read_json(index, 64 << 20)["weight_map"].values())
        lost = sorted(name for name in named if not (folder / name).is_file())
        if lost:
            yield f"{folder} lacks {lost[0]}, one of {len(named)} files that its index names", _AGAIN
    elif len(files) > 1 and not (folder / "model.safetensors").is_file():
        yield f"{folder} has its weights in {len(files)} parts, but no {_INDEX}", _AGAIN
    if not files:
        pickles = sorted(file.name for pattern in _PICKLES for file in folder.glob(pattern))
        gguf = next(iter(sorted(folder.glob("*.gguf"))), None)
        if gguf is not None:
            yield f"{folder} has no weights as safetensors", f"give the file in it, {gguf}"
        if pickles:
            hint = "get the model as safetensors, or convert it where you trust it by save_pretrained of transformers"
            yield f"{folder} has its weights as a pickle alone ({pickles[0]}), which irm-lite never opens", hint
        yield f"{folder} has no weights (no .safetensors)", "download or copy them into it"
    yield from _other_formats(files)
    for file in files:
        if why := _damage(file):
            yield f"{file} is damaged ({why})", _AGAIN


def _other_formats(files: list[Path]) -> Iterator[tuple[str, str]]:
    for file in files:
        with open_ordinary(file) as opened:
            found = format_of(opened.read(LONGEST))
        if found is not None:
            yield f"{file} is {found[0].removesuffix(' to one')}, not what its name says", found[1]


def _damage(file: Path) -> str:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, "pt"):
            return ""
    except SafetensorError as error:
        return " ".join(str(error).split())[:160]
