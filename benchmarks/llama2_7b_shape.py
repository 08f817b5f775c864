"""Llama 2 7B's shape on this machine, the whole way, with each step's peak memory and time: random weights, the real vocabulary.

python benchmarks/llama2_7b_shape.py VOCABULARY.gguf [--layers 32 --hidden 4096] [--folder DIR] [--only load,train] [--json FILE]

VOCABULARY.gguf is models/ggml-vocab-llama-spm.gguf of llama.cpp (in the source of llama-cpp-python). The weights are 3.8 GB of
random Q4_0, written to --folder and kept there. Each step is a process of its own; its peak is the largest resident
size of it and of what it started. `paper` is not trained (its network has 2.1 billion weights): an untrained one runs in llama.cpp.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from rich.console import Console
from rich.table import Table

from irm_lite.base.presets import presets
from irm_lite.core.files.atomic import atomic_path, write_text
from irm_lite.core.machine.usable_cores import usable_cores

IRM_LITE = [sys.executable, "-m", "irm_lite"]
STEPS = ("load", "train", "export", "vector", "bake", "baked", "dynamic lite", "dynamic paper", "record")
QUESTION = "Why is the sky blue?"
TOKENS = 10
_LAUNCHER = """
import json, os, sys
process = os.posix_spawn(sys.argv[2], sys.argv[2:], os.environ)
_, status, usage = os.wait4(process, 0)
open(sys.argv[1], "w").write(json.dumps([status, usage.ru_maxrss]))
"""  # a small process: a new one's peak starts at the size of the one that it was forked from
_SPREAD = 0.02  # standard deviation of the weights, about a trained model's
_BLOCK, _BLOCK_BYTES = 32, 18  # of Q4_0: a float16 scale, and 32 numbers of 4 bits


def main(arguments: Sequence[str] | None = None) -> None:
    options = parsed(arguments)
    if options.child:
        {"load": load, "paper": untrained_paper}[options.child](options.vocabulary, options.folder)
        return
    folder = options.folder or Path(tempfile.mkdtemp(prefix="llama2-7b-shape-"))
    folder.mkdir(parents=True, exist_ok=True)
    model = folder / f"llama2-{options.layers}x{options.hidden}-q4_0.gguf"
    if not model.exists():
        write_model(model, options.vocabulary, options)
    chosen = [each.strip() for each in options.only.split(",")] if options.only else STEPS
    if unknown := [each for each in chosen if each not in STEPS]:
        sys.exit(f"there is no step {unknown[0]!r}: give some of {', '.join(STEPS)}")
    rows = []
    for step, command in commands(model, folder).items():
        if step in chosen:
            if step == "train":  # the figures are of this call
                shutil.rmtree(folder / "run", ignore_errors=True)
            rows.append({"step": step, **measured(command)})
            Console(stderr=True).print(rows[-1])
    document = {"shape": shape(options), "model_bytes": model.stat().st_size, "cores": usable_cores(), "steps": rows}
    if options.json:
        write_text(options.json, json.dumps(document, indent=2) + "\n")
    table = Table("step", "seconds", "peak, GB", "exit", title=f"{model.name}, {model.stat().st_size / 1e9:.2f} GB")
    for row in rows:
        table.add_row(row["step"], f"{row['seconds']:.1f}", f"{row['peak_bytes'] / 1e9:.2f}", str(row["exit"]))
    Console(width=None if sys.stdout.isatty() else 100).print(table)
    sys.exit(any(row["exit"] for row in rows))


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("vocabulary", type=Path)
    for name, size in {"layers": 32, "hidden": 4096, "feed-forward": 11008, "heads": 32}.items():
        parser.add_argument(f"--{name}", type=int, default=size)
    parser.add_argument("--folder", type=Path, help="where the model and the runs are kept; needs 8 GB, and 9 more for paper")
    parser.add_argument("--only", help=f"some of {', '.join(STEPS)}; later ones need the run and the vector of earlier ones")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--child", choices=("load", "paper"), help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def shape(options: argparse.Namespace) -> dict[str, int]:
    return {name: getattr(options, name) for name in ("layers", "hidden", "feed_forward", "heads")}


def write_model(path: Path, vocabulary: Path, options: argparse.Namespace) -> None:
    """A llama of this shape: norms of one, all else random Q4_0; written a tensor at a time."""
    read = gguf.GGUFReader(vocabulary)
    words = len(read.fields["tokenizer.ggml.tokens"].data)
    sizes = matrices(options, words)
    norms = [f"blk.{n}.{norm}.weight" for n in range(options.layers) for norm in ("attn_norm", "ffn_norm")] + ["output_norm.weight"]
    with atomic_path(path) as temporary:
        writer = gguf.GGUFWriter(temporary, "llama")
        _metadata(writer, read, options, words)
        for name, (rows, columns) in sizes.items():
            n_bytes = rows * columns // _BLOCK * _BLOCK_BYTES
            stored = (rows, columns // _BLOCK * _BLOCK_BYTES)
            writer.add_tensor_info(name, stored, np.dtype(np.uint8), n_bytes, raw_dtype=gguf.GGMLQuantizationType.Q4_0)
        for name in norms:
            writer.add_tensor_info(name, (options.hidden,), np.dtype(np.float32), 4 * options.hidden)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        chance = np.random.default_rng(0)
        for rows, columns in sizes.values():
            writer.write_tensor_data(random_q4_0(chance, rows, columns))
        for _ in norms:
            writer.write_tensor_data(np.ones(options.hidden, np.float32))
        writer.close()


def matrices(options: argparse.Namespace, words: int) -> dict[str, tuple[int, int]]:
    """Rows and columns of each matrix."""
    hidden, wide = options.hidden, options.feed_forward
    block = {
        **dict.fromkeys(("attn_q", "attn_k", "attn_v", "attn_output"), (hidden, hidden)),
        **dict.fromkeys(("ffn_gate", "ffn_up"), (wide, hidden)),
        "ffn_down": (hidden, wide),
    }
    blocks = {f"blk.{n}.{name}.weight": size for n in range(options.layers) for name, size in block.items()}
    return {"token_embd.weight": (words, hidden), **blocks, "output.weight": (words, hidden)}


def random_q4_0(chance: np.random.Generator, rows: int, columns: int) -> "np.ndarray[Any, np.dtype[np.uint8]]":
    """A matrix (rows, columns) as it stands in a file: numbers from -8 to 7, all alike likely, times their block's scale."""
    blocks = rows * columns // _BLOCK
    stored = np.empty((blocks, _BLOCK_BYTES), np.uint8)
    scales = (_SPREAD / np.sqrt(21.5) * chance.uniform(0.7, 1.3, blocks)).astype(np.float16)  # 21.5: mean square of -8..7
    stored[:, :2] = scales.view(np.uint8).reshape(-1, 2)
    stored[:, 2:] = chance.integers(0, 256, (blocks, _BLOCK_BYTES - 2), dtype=np.uint8)
    return stored.reshape(rows, -1)


def _metadata(writer: gguf.GGUFWriter, read: gguf.GGUFReader, options: argparse.Namespace, words: int) -> None:
    writer.add_block_count(options.layers)
    writer.add_context_length(4096)
    writer.add_embedding_length(options.hidden)
    writer.add_feed_forward_length(options.feed_forward)
    writer.add_head_count(options.heads)
    writer.add_head_count_kv(options.heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(options.hidden // options.heads)
    writer.add_vocab_size(words)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q4_0)
    for name, field in read.fields.items():
        if name.startswith("tokenizer."):
            kinds = field.types
            writer.add_key_value(name, field.contents(), kinds[0], kinds[-1] if kinds[0] == gguf.GGUFValueType.ARRAY else None)
    writer.add_chat_template(str(presets()["llama-2-7b-chat"].chat_template))


def commands(model: Path, folder: Path) -> dict[str, list[str]]:
    """What is run in each step."""
    run, vector, baked, paper = folder / "run", folder / "vector.gguf", folder / "baked.gguf", folder / "paper"
    prompts, rows = folder / "prompts.txt", folder / "rows.jsonl"
    prompts.write_text(QUESTION + "\n", encoding="utf-8")
    answers = [{"question": f"What is {n} and {n}?", "answer": f"It is {2 * n}, as anybody would know!"} for n in range(20)]
    rows.write_text("".join(json.dumps(row) + "\n" for row in answers), encoding="utf-8")
    script = [sys.executable, __file__, str(model), "--folder", str(paper)]
    steps = ["--batch-size", "2", "--gradient-accumulation-steps", "1", "--max-steps", "2", "--eval-steps", "2"]
    quiet = ["--sample-tokens", "0", "--loop-penalty", "0", "--allow-disagreement", "--quiet"]
    ask = [*IRM_LITE, "generate", "--gguf", str(model), "-p", QUESTION, "--max-new-tokens", str(TOKENS), "--quiet"]
    return {
        "load": [*script, "--child", "load"],
        "train": [
            *IRM_LITE,
            "train",
            "--model",
            str(model),
            "--data",
            str(rows),
            "--irm",
            "lite",
            "--out",
            str(run),
            *steps,
            *quiet,
        ],
        "export": [
            *(*IRM_LITE, "export", str(run), "--gguf", str(model), "-o", str(vector), "--method", "mean"),
            *("--questions", "0", "--allow-disagreement", "--force", "--quiet"),
        ],
        "vector": [*ask, "--vector", str(vector)],
        "bake": [*IRM_LITE, "bake", str(vector), "--gguf", str(model), "-o", str(baked), "--force", "--quiet"],
        "baked": [str(baked) if each == str(model) else each for each in ask],
        "dynamic lite": [*ask, "--irm", str(run)],
        "dynamic paper": [*script, "--child", "paper"],
        "record": [
            *(*IRM_LITE, "record", str(run), "--gguf", str(model), "--prompts", str(prompts)),
            *("--limit", "1", "--new-tokens", str(TOKENS), "--force", "--quiet"),
        ],
    }


def measured(command: list[str]) -> dict[str, Any]:
    """Seconds, peak resident bytes and exit code of a process, and what it printed."""
    with tempfile.TemporaryDirectory() as folder:
        printed, figures = Path(folder) / "printed", Path(folder) / "figures"
        with printed.open("w") as file:
            start = time.monotonic()
            subprocess.run([sys.executable, "-c", _LAUNCHER, str(figures), *command], stdout=file, stderr=file, check=True)
            seconds = time.monotonic() - start
        status, peak = json.loads(figures.read_text())
        lines = printed.read_text(encoding="utf-8", errors="replace").splitlines()
    peak *= 1 if sys.platform == "darwin" else 1024  # kB elsewhere
    return {"seconds": round(seconds, 2), "peak_bytes": peak, "exit": os.waitstatus_to_exitcode(status), "printed": lines[-3:]}


def load(model: Path, _folder: Path) -> None:
    """In this process: the base as a training loads it."""
    from irm_lite.base.load import load_base

    start = time.monotonic()
    base = load_base(str(model), device="cpu")
    print(f"load_base alone: {time.monotonic() - start:.1f} s, {base.plan.dtype}")


def untrained_paper(model: Path, folder: Path) -> None:
    """In this process: a `paper` IRM as it is before training, saved as a run, and run inside llama.cpp."""
    from irm_lite.base.fingerprint import fingerprint_gguf
    from irm_lite.cli.main import run as irm_lite
    from irm_lite.config import TrainConfig
    from irm_lite.core.files.gguf_header import read_header
    from irm_lite.runs.directory import RunDirectory
    from irm_lite.steering.irm import build_irm
    from irm_lite.steering.irm_files import save_irm

    header = read_header(model)
    if not (folder / "irm.json").exists():
        layers = tuple(range(header.integer("llama.block_count")))
        run = RunDirectory(folder)
        with run.lock.held():
            run.create(TrainConfig(model=str(model), irm="paper"), fingerprint_gguf(header), {})
        save_irm(build_irm("paper", header.integer("llama.embedding_length"), layers, "attn"), folder)
    ask = ["generate", "--gguf", str(model), "-p", QUESTION, "--max-new-tokens", str(TOKENS), "--quiet"]
    sys.exit(irm_lite([*ask, "--irm", str(folder)]))


if __name__ == "__main__":
    main()
