"""Whether llama.cpp's products by AMX, the matrix unit of newer Intel CPUs, can be run here, tried in a process of its own.

Compiled by GCC before 11.5, 12.4, 13.3 or 14, Debian 12's among them, llama.cpp ends with a segmentation fault at the first such
product: GCC's header says of `_tile_loadconfig` that it reads 8 bytes of the 64 that it does (GCC bug 114098), so what is written
to the others is optimised away, and the CPU refuses the tiles (llama.cpp issue 20824). Without those kernels
it computes by AVX-512.

python -m irm_lite.llamacpp.amx ends with 0 where they work.
"""

import json
import os
import signal
import tempfile
from contextlib import suppress
from functools import cache
from pathlib import Path

from irm_lite.core.files.atomic import write_text
from irm_lite.core.files.paths import cache_folder
from irm_lite.core.files.reading import read_json
from irm_lite.core.machine.llamacpp_log import import_llamacpp, library_folder
from irm_lite.llamacpp.own_process import ended

_SECONDS = 120
_DEADLY = (-signal.SIGSEGV, -signal.SIGILL)  # what a process ends with that the CPU refuses an instruction
_SIZE, _INNER, _WORDS = 256, 512, 64  # what the kernels take: whole tiles, and whole blocks of 4-bit weights

REMEDY = (
    "CMAKE_ARGS='-DCMAKE_CXX_FLAGS=-mno-amx-int8' pip install --force-reinstall --no-deps --no-cache-dir "
    "--no-binary :all: llama-cpp-python"
)


def compiled_in() -> bool:
    """Whether this llama.cpp has such kernels, and the CPU the unit."""
    return b"AMX_INT8 = 1" in import_llamacpp().llama_print_system_info()


@cache
def is_broken() -> bool:
    """Whether llama.cpp would die of its AMX kernels. Where it has any, a process of about a second finds out, once a library."""
    if not compiled_in():
        return False
    library, kept = _library(), cache_folder() / "amx.json"
    with suppress(OSError, ValueError, AttributeError):
        known = read_json(kept, 1 << 16)
        if known.get("library") == library:
            return known.get("broken") is not False
    code = _exit_code()
    if code == 0 or code in _DEADLY:  # anything else says nothing of the kernels: they are left out this once
        with suppress(OSError):  # then it is tried again
            write_text(kept, json.dumps({"library": library, "broken": code != 0}) + "\n")
    return code != 0


def _library() -> list[str]:
    """What tells one build from another: the files with the kernels."""
    files = sorted(library_folder().glob("*ggml*"))
    return [f"{file.resolve()} {file.stat().st_size} {file.stat().st_mtime_ns}" for file in files]


def _exit_code() -> int | None:
    """Of the process that tries them. None: it did not end, or could not begin."""
    try:
        done = ended("irm_lite.llamacpp.amx", seconds=_SECONDS)
    except OSError:
        return None
    return None if done is None else done.code


def write_model(path: Path) -> None:
    """A Llama of one block without a vocabulary, its matrices in Q4_0."""
    import gguf
    import numpy as np

    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(64)
    writer.add_block_count(1)
    writer.add_embedding_length(_SIZE)
    writer.add_feed_forward_length(_INNER)
    writer.add_head_count(4)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(_WORDS)
    writer.add_tokenizer_model("no_vocab")
    drawn = np.random.default_rng(0)
    attention = {f"blk.0.attn_{each}.weight": (_SIZE, _SIZE) for each in ("q", "k", "v", "output")}
    mlp = {
        "blk.0.ffn_gate.weight": (_INNER, _SIZE),
        "blk.0.ffn_up.weight": (_INNER, _SIZE),
        "blk.0.ffn_down.weight": (_SIZE, _INNER),
    }
    kind = gguf.GGMLQuantizationType.Q4_0
    for name, shape in {"token_embd.weight": (_WORDS, _SIZE), "output.weight": (_WORDS, _SIZE), **attention, **mlp}.items():
        weights = gguf.quants.quantize(drawn.standard_normal(shape, dtype=np.float32) / 16, kind)
        writer.add_tensor(name, weights, raw_dtype=kind)
    for name in ("output_norm.weight", "blk.0.attn_norm.weight", "blk.0.ffn_norm.weight"):
        writer.add_tensor(name, np.ones(_SIZE, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _main() -> None:
    """Two tokens through such a model, with the kernels."""
    llama_cpp = import_llamacpp()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "amx.gguf"
        write_model(file)
        llama_cpp.llama_backend_init()
        options = llama_cpp.llama_model_default_params()
        options.n_gpu_layers, options.use_extra_bufts = 0, True
        model = llama_cpp.llama_model_load_from_file(os.fsencode(file), options)
    if not model:
        raise SystemExit(3)
    about = llama_cpp.llama_context_default_params()
    about.n_ctx = about.n_batch = about.n_ubatch = 64
    context = llama_cpp.llama_init_from_model(model, about)
    if not context:
        raise SystemExit(3)
    code = llama_cpp.llama_decode(context, llama_cpp.llama_batch_get_one((llama_cpp.llama_token * 2)(1, 2), 2))
    if code:
        raise SystemExit(2)


if __name__ == "__main__":
    _main()
