"""Model folders -> F32 GGUFs by the converter in llama.cpp's source, in a child process: it brings a `gguf` of its own.

As a script: python conversion.py SOURCE FOLDER OUT.gguf [FOLDER OUT.gguf ...]; one JSON object a line, {"out", "error"}.
"""

import json
import os
import subprocess
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path

SOURCE = "IRM_LITE_LLAMACPP_SOURCE"  # the environment variable that names llama.cpp's source


def converter(given: str | None = None) -> Path | None:
    """llama.cpp's source with convert_hf_to_gguf.py in it; None where none is named."""
    place = given or os.environ.get(SOURCE)
    return Path(place) if place and (Path(place) / "convert_hf_to_gguf.py").is_file() else None


def convert(source: Path, files: Mapping[Path, Path], own_vocabulary: bool = True) -> dict[Path, str]:
    """Convert folders (keys) to files (values). `own_vocabulary`: they have the zoo's, which the converter does not know. Returns
    what went wrong, by file."""
    pairs = [str(each) for pair in files.items() for each in pair]
    given = {**os.environ, "ZOO_VOCABULARY": "1" if own_vocabulary else "", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, __file__, str(source), *pairs], env=given, capture_output=True, text=True, check=False, timeout=3600
    )
    told = {Path(each["out"]): each["error"] for line in done.stdout.splitlines() if (each := _object(line))}
    lost = done.stderr.strip().splitlines()[-1:] or ["the converter ended early"]
    return {out: error for out in files.values() if (error := told.get(out, lost[0]))}


def _object(line: str) -> dict[str, str] | None:
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _child(source: Path, pairs: list[tuple[Path, Path]]) -> None:
    sys.path[:0] = [str(source), str(source / "gguf-py")]
    import gguf
    import torch
    from conversion import ModelBase, ModelType, get_model_architecture, get_model_class  # type: ignore[import-not-found]

    loads = ModelBase.load_hparams

    def with_raw_keys(folder: Path, is_mistral_format: bool) -> dict[str, object]:
        """What transformers 5 renames in a configuration, the converter asks for by its older name (GPT-NeoX: rotary_pct)."""
        return {**json.loads((folder / "config.json").read_text()), **loads(folder, is_mistral_format)}

    ModelBase.load_hparams = staticmethod(with_raw_keys)
    for folder, out in pairs:
        error = ""
        try:
            with torch.inference_mode():
                name = get_model_architecture(ModelBase.load_hparams(folder, False), ModelType.TEXT)
                kind = get_model_class(name)
                if getattr(kind, "supports_mtp_export", False):
                    kind.no_mtp = True  # the blocks that only predict further tokens
                if os.environ["ZOO_VOCABULARY"]:
                    kind.set_vocab = lambda self: self._set_vocab_gpt2()
                    kind.get_vocab_base_pre = lambda _self, _tokenizer: "gpt-2"
                kind(folder, gguf.LlamaFileType.ALL_F32, out).write()
        except BaseException as failure:
            at = traceback.extract_tb(failure.__traceback__)[-1]
            error = f"{type(failure).__name__}: {str(failure)[:160].splitlines()[:1]} ({Path(at.filename).name}:{at.lineno})"
        print(json.dumps({"out": str(out), "error": error}), flush=True)


if __name__ == "__main__":
    given = [Path(each) for each in sys.argv[1:]]
    _child(given[0], list(zip(given[1::2], given[2::2], strict=True)))
