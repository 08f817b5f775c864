"""Baked files do in llama.cpp what hooks do in transformers, and give their original back."""

import hashlib
import os
import subprocess
import sys
from collections import namedtuple
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from torch.nn import functional as F
from transformers import LlamaForCausalLM

from irm_lite.base.fingerprint import fingerprint_gguf
from irm_lite.cli import main as cli
from irm_lite.config import TrainConfig
from irm_lite.core.errors import InputError
from irm_lite.core.files.gguf_header import read_header
from irm_lite.core.log_probabilities import kl
from irm_lite.llamacpp import Runtime
from irm_lite.runs.directory import RunDirectory
from irm_lite.steering.control_vector import ControlVector
from irm_lite.steering.injection import inject
from irm_lite.steering.irm import build_irm
from irm_lite.steering.irm_files import save_irm
from irm_lite.vectors.bake import BAKEABLE, bake, unbake
from irm_lite.vectors.biases import Biases, Slot
from support.gguf_files import write_gguf as write_plain_gguf
from support.tiny_models import write_gguf

SITES: dict[Slot, Any] = {"ffn_down": "block", "attn_output": "attn"}


def vectors(layers: tuple[int, ...], hidden_size: int = 64) -> dict[int, Any]:
    generator = np.random.default_rng(0)
    return {layer: (0.3 * generator.standard_normal(hidden_size)).astype(np.float32) for layer in layers}


def biases(layers: tuple[int, ...] = (0, 1, 2), slot: Slot = "ffn_down") -> Biases:
    return Biases(slot, vectors(layers), {"source": "test", "fidelity": 0.5, "count": -3})


def ids() -> list[int]:
    return [int(token) for token in np.random.default_rng(1).integers(3, 600, 40)]


def log_probs(path: Path, vector: ControlVector | None = None) -> torch.Tensor:
    with Runtime(path, n_ctx=64) as runtime:
        runtime.set_vector(vector)
        return F.log_softmax(torch.from_numpy(runtime.logits(ids())), -1)


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("slot", list(SITES))
@pytest.mark.parametrize("architecture", BAKEABLE)
def test_a_baked_file_does_what_hooks_do(architecture: str, slot: Slot, llama_folder: Path, tmp_path: Path) -> None:
    original = write_gguf(llama_folder, tmp_path / "model.gguf", architecture=architecture)
    before = digest(original)
    bake(original, biases((0, 1, 2), slot), tmp_path / "baked.gguf")
    twin = LlamaForCausalLM.from_pretrained(llama_folder, dtype=torch.float32).eval()
    static = build_irm("static", 64, (0, 1, 2), SITES[slot]).requires_grad_(False)
    static.load_state_dict({"vectors": torch.from_numpy(np.stack(list(vectors((0, 1, 2)).values())))})
    with torch.no_grad(), inject(twin, static):
        expected = F.log_softmax(twin(torch.tensor([ids()])).logits[0], -1)
    assert float(kl(expected, log_probs(tmp_path / "baked.gguf")).mean()) < 1e-5
    assert float(kl(expected, log_probs(original)).mean()) > 1e-2
    unbake(tmp_path / "baked.gguf", tmp_path / "again.gguf")
    assert digest(tmp_path / "again.gguf") == before == digest(original)


def test_metadata_and_tensors_of_the_original_are_all_there(llama_gguf: Path, tmp_path: Path) -> None:
    bake(llama_gguf, biases(), tmp_path / "baked.gguf")
    old, new = gguf.GGUFReader(llama_gguf), gguf.GGUFReader(tmp_path / "baked.gguf")
    for name, field in old.fields.items():
        if not name.startswith("GGUF."):
            assert [part.tobytes() for part in field.parts] == [part.tobytes() for part in new.fields[name].parts], name
    by_name = {tensor.name: tensor for tensor in new.tensors}
    for tensor in old.tensors:
        assert by_name[tensor.name].data.tobytes() == tensor.data.tobytes()
    assert set(by_name) - {tensor.name for tensor in old.tensors} == {f"blk.{n}.ffn_down.bias" for n in range(3)}
    assert new.fields["irm.bake.vector.source"].contents() == "test"


def test_biases_that_exist_are_added_to(llama_folder: Path, tmp_path: Path) -> None:
    own = {f"blk.{n}.ffn_down.bias": value for n, value in vectors((1, 2)).items()}
    original = write_gguf(llama_folder, tmp_path / "model.gguf", extra=own)
    bake(original, biases((0, 1)), tmp_path / "baked.gguf")
    sums = {**vectors((0, 1))}
    sums[1] = sums[1] + own["blk.1.ffn_down.bias"]
    sums[2] = own["blk.2.ffn_down.bias"]
    together = write_gguf(llama_folder, tmp_path / "sum.gguf", extra={f"blk.{n}.ffn_down.bias": v for n, v in sums.items()})
    np.testing.assert_array_equal(log_probs(tmp_path / "baked.gguf"), log_probs(together))
    unbake(tmp_path / "baked.gguf", tmp_path / "again.gguf")
    assert digest(tmp_path / "again.gguf") == digest(original)


def test_vectors_of_other_tools_load_merge_and_bake(llama_gguf: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """repeng writes Hugging Face's name as the hint, cvector-generator ggml's; both write direction.1 on."""
    for name, hint in (("repeng", "mistral"), ("cvector", "llama")):
        writer = gguf.GGUFWriter(tmp_path / f"{name}.gguf", "controlvector")
        writer.add_string("controlvector.model_hint", hint)
        writer.add_uint32("controlvector.layer_count", 2)
        for layer, value in vectors((1, 2)).items():
            writer.add_tensor(f"direction.{layer}", value)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    sources = [f"{tmp_path / 'repeng.gguf'}:0.75", f"{tmp_path / 'cvector.gguf'}:-0.25"]
    assert cli.run(["vector", "merge", *sources, "-o", str(tmp_path / "sum.gguf")]) == 0
    half = ControlVector(vectors((1, 2)), "llama") * 0.5
    merged = ControlVector.load(tmp_path / "sum.gguf")
    for layer in (1, 2):
        np.testing.assert_allclose(merged.directions[layer], half.directions[layer], rtol=1e-6)
    assert cli.run(["bake", *sources, "--gguf", str(llama_gguf), "-o", str(tmp_path / "baked.gguf")]) == 0
    assert "2 biases" in capsys.readouterr().out
    baked = log_probs(tmp_path / "baked.gguf")
    assert float(kl(log_probs(llama_gguf, half), baked).mean()) < 1e-5


def test_what_cannot_be_baked_is_one_line_and_writes_nothing(
    llama_gguf: Path, llama_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out.gguf"
    sizes = {"block_count": 3, "embedding_length": 64}
    norms = {f"blk.{n}.{norm}.weight": np.ones(64, np.float32) for n in range(3) for norm in ("attn_norm", "ffn_norm")}
    norms["output_norm.weight"] = np.ones(64, np.float32)

    def other(name: str, architecture: str, **fields: Any) -> Path:
        named = {f"{architecture}.{key}": value for key, value in {**sizes, **fields}.items()}
        return write_plain_gguf(tmp_path / name, architecture, norms, named)

    cut = tmp_path / "cut.gguf"
    cut.write_bytes(llama_gguf.read_bytes()[:-4096])
    split = write_plain_gguf(tmp_path / "split.gguf", "llama", norms, {"split.count": 2})
    half = write_gguf(llama_folder, tmp_path / "f16.gguf", extra={"blk.1.ffn_down.bias": np.ones(64, np.float16)})
    bake(llama_gguf, biases(), tmp_path / "baked.gguf")
    trailing, gap = tmp_path / "trailing.gguf", tmp_path / "gap.gguf"
    trailing.write_bytes(llama_gguf.read_bytes() + bytes(64))
    layout, whole = read_header(llama_gguf).layout, llama_gguf.read_bytes()
    assert layout.table_end < layout.data_start
    gap.write_bytes(whole[: layout.table_end] + b"\1" + whole[layout.table_end + 1 :])
    deep = Biases("ffn_down", vectors((3,)), {})
    wide = Biases("ffn_down", vectors((1,), 32), {})
    cases: list[tuple[Path, Biases, Path, str]] = [
        (other("gemma.gguf", "gemma3"), biases(), out, "gemma3, .*: use the control vector with --control-vector, or an adapter"),
        (trailing, biases(), out, "bytes after its last tensor"),
        (gap, biases(), out, "between its header and its data"),
        (other("moe.gguf", "llama", expert_count=8), biases(), out, "mixture of experts"),
        (split, biases(), out, "split GGUF"),
        (cut, biases(), out, "cut short"),
        (half, biases(), out, "not 64 floats"),
        (tmp_path / "baked.gguf", biases(), out, "baked already"),
        (llama_gguf, deep, out, "which has 3 blocks of 64"),
        (llama_gguf, wide, out, "which has 3 blocks of 64"),
        (llama_gguf, biases(), llama_gguf, "is the input"),
        (llama_gguf, biases(), cut, "exists: choose another -o"),
        (llama_gguf, biases(), tmp_path, "is a folder"),
    ]
    before = {path: digest(path) for path in tmp_path.iterdir()}
    for source, what, target, expected in cases:
        with pytest.raises(InputError, match=expected):
            bake(source, what, target, force=target == llama_gguf)
    with pytest.raises(InputError, match="not baked by irm-lite"):
        unbake(llama_gguf, out)
    usage = namedtuple("usage", "free")
    monkeypatch.setattr("shutil.disk_usage", lambda _place: usage(free=1000))
    with pytest.raises(InputError, match="make room"):
        bake(llama_gguf, biases(), out)
    assert {path: digest(path) for path in tmp_path.iterdir()} == before


def test_a_baked_file_that_was_changed_is_not_undone(llama_gguf: Path, tmp_path: Path) -> None:
    baked = tmp_path / "baked.gguf"
    bake(llama_gguf, biases(), baked)
    data = bytearray(baked.read_bytes())
    data[len(data) // 2] ^= 1
    baked.write_bytes(bytes(data))
    with pytest.raises(InputError, match="was changed after it was baked"):
        unbake(baked, tmp_path / "again.gguf")
    assert not (tmp_path / "again.gguf").exists()


@pytest.mark.parametrize("ignored", [["--scale", "1"], ["--scale", "0.5"], ["--layers", "1"]])
def test_undo_refuses_what_it_would_not_heed(
    llama_gguf: Path, tmp_path: Path, ignored: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    baked = tmp_path / "baked.gguf"
    bake(llama_gguf, biases(), baked)
    assert cli.run(["bake", "--undo", str(baked), "-o", str(tmp_path / "again.gguf"), *ignored]) == 2
    assert f"--undo takes no {ignored[0]}" in capsys.readouterr().err
    assert not (tmp_path / "again.gguf").exists()


_LIMITED = """
import resource, sys
resource.setrlimit(resource.{limit}, ({size}, {size}))
from irm_lite.cli.main import run
sys.exit(run(sys.argv[1:]))
"""


def limited(limit: str, size: int, *arguments: object) -> subprocess.CompletedProcess[str]:
    code = _LIMITED.format(limit=limit, size=size)
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}  # each of its threads reserves address space
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


def test_a_disk_that_fills_leaves_nothing_half_written(llama_gguf: Path, tmp_path: Path) -> None:
    pytest.importorskip("resource")
    ControlVector(vectors((1, 2)), "llama").save(tmp_path / "v.gguf")
    before = set(tmp_path.iterdir())
    size = llama_gguf.stat().st_size // 2
    done = limited("RLIMIT_FSIZE", size, "bake", tmp_path / "v.gguf", "--gguf", llama_gguf, "-o", tmp_path / "out.gguf")
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1), done.stderr
    assert set(tmp_path.iterdir()) == before


@pytest.mark.slow
def test_a_file_larger_than_the_memory_limit_bakes(llama_folder: Path, tmp_path: Path) -> None:
    """The model, and after it a tensor of 1.5 GB that takes no space on the disk; llama.cpp never sees it."""
    pytest.importorskip("resource")
    ControlVector(vectors((1, 2)), "llama").save(tmp_path / "v.gguf")
    writer = gguf.GGUFWriter(tmp_path / "big.gguf", "llama")
    writer.add_block_count(3)
    writer.add_embedding_length(64)
    for n in range(3):
        for norm in ("attn_norm", "ffn_norm"):
            writer.add_tensor_info(f"blk.{n}.{norm}.weight", (64,), np.dtype(np.float32), 256)
    writer.add_tensor_info("output_norm.weight", (64,), np.dtype(np.float32), 256)
    writer.add_tensor_info("token_embd.weight", (6_000_000, 64), np.dtype(np.float32), 64 * 24_000_000)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    big = tmp_path / "big.gguf"
    data_start = -(-big.stat().st_size // 32) * 32
    os.truncate(big, data_start + 7 * 256 + 64 * 24_000_000)
    limit = 1_200_000_000
    done = limited("RLIMIT_AS", limit, "bake", tmp_path / "v.gguf", "--gguf", big, "-o", tmp_path / "out.gguf", "--quiet")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out.gguf").stat().st_size > big.stat().st_size > limit
    (tmp_path / "out.gguf").unlink()


def test_a_scale_that_ruins_the_model_is_refused(
    llama_folder: Path, llama_gguf: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = RunDirectory(tmp_path / "run")
    config = TrainConfig(model=str(llama_folder), irm="static", site="attn")
    with run.lock.held():
        run.create(config, fingerprint_gguf(llama_gguf), {})
    irm = build_irm("static", 64, (0, 1), "attn")
    torch.nn.init.ones_(irm.get_parameter("vectors"))
    save_irm(irm, run.path)
    out = tmp_path / "out.gguf"
    bake_it = ["bake", str(run.path), "--gguf", str(llama_gguf), "-o", str(out)]
    for scale in ("nan", "1e300", "inf"):
        assert cli.run([*bake_it, "--scale", scale]) == 2
        assert "scale" in capsys.readouterr().err
    assert not out.exists()
    assert cli.run([*bake_it, "--scale", "0.5"]) == 0
    assert read_header(out).read_f32("blk.0.attn_output.bias").tolist() == [0.5] * 64
    torch.nn.init.constant_(irm.get_parameter("vectors"), float("nan"))
    save_irm(irm, run.path)
    assert cli.run([*bake_it, "--force"]) == 2
    assert "NaN or infinity" in capsys.readouterr().err
    assert cli.run(["eval", str(run.path), "--questions", "-1", "--vector", "none.gguf"]) == 2
