"""Folders that cannot be written, a user without a home, settings that mean nothing."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from irm_lite.config import TrainConfig
from irm_lite.core.errors import BaseModelError, InputError
from irm_lite.core.files.paths import cache_folder, system_folder
from irm_lite.llamacpp.trial_load import require_survival
from irm_lite.steering.control_vector import ControlVector
from irm_lite.training import train as training
from support.elsewhere import irm_lite

NOWHERE = "/dev/null/nowhere"  # neither to be written nor made, by root either


@pytest.fixture
def vector(tmp_path: Path) -> Path:
    values = np.random.default_rng(0).standard_normal((2, 64)).astype(np.float32)
    ControlVector({1: values[0], 2: values[1]}, "llama").save(tmp_path / "v.gguf")
    return tmp_path / "v.gguf"


def test_a_user_without_a_home_has_no_folder_of_that_name() -> None:
    """Containers run under numbers that no user has: a library answers with an error then, or with "~", a folder of that name."""

    def unknown(_name: str) -> Path:
        raise RuntimeError("no home")

    for found in (system_folder(unknown), system_folder(lambda name: Path("~/.cache") / name)):
        assert found.is_absolute()
        with pytest.raises(OSError):  # noqa: PT011  # which one is the system's
            found.mkdir(parents=True)
    assert cache_folder().is_absolute()


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="descriptors are POSIX's")
@pytest.mark.parametrize("closed", [(1,), (0, 1, 2)])
def test_closed_streams_are_nowhere(closed: tuple[int, ...], vector: Path, tmp_path: Path) -> None:
    """A service starts its programs without standard streams: the first file that is opened takes their numbers, and what a library
    prints would go into it."""

    def close() -> None:
        for descriptor in closed:
            os.close(descriptor)

    for verb in (["models", "list"], ["heatmap", str(vector), "-o", str(tmp_path / "figures")]):
        done = subprocess.run([sys.executable, "-m", "irm_lite", *verb], preexec_fn=close, check=False)
        assert done.returncode == 0
    assert (tmp_path / "figures" / "v.png").read_bytes()[:4] == b"\x89PNG"


@pytest.mark.slow
def test_a_file_called_like_a_library_is_not_run(llama_gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody worked in a folder with a llama_cpp.py: a model was said to crash llama.cpp, whose trial ran that file."""
    (tmp_path / "llama_cpp.py").write_text("raise SystemExit(3)")
    monkeypatch.chdir(tmp_path)
    require_survival(llama_gguf)
    monkeypatch.syspath_prepend(str(tmp_path))  # where this process looks, the child does
    another = Path(shutil.copy(llama_gguf, tmp_path / "another.gguf"))  # a file is tried once
    with pytest.raises(BaseModelError, match="code 3"):
        require_survival(another)


@pytest.mark.slow
def test_a_place_where_llamacpp_is_not_is_named(llama_gguf: Path) -> None:
    """Somebody had pointed llama-cpp-python at a build of their own, and removed it: the line spoke of the disk's free space."""
    done = irm_lite("generate", "--gguf", llama_gguf, "-p", "Hi", LLAMA_CPP_LIB_PATH=NOWHERE)
    assert done.returncode == 2
    assert b"unset LLAMA_CPP_LIB_PATH" in done.stderr


def test_names_that_are_not_utf_8_are_refused_before_the_work(llama_folder: Path, tmp_path: Path) -> None:
    """Files that an old archive had unpacked under names in Latin-1: the training ended where it was to be read."""
    name = os.fsdecode(b"m\xe9")
    with pytest.raises(InputError, match=r"--model 'm\\udce9' is not UTF-8: rename"):
        TrainConfig(model=name)
    config = TrainConfig(model=str(llama_folder), quant="none", device="cpu", max_steps=1)
    with pytest.raises(InputError, match=r"is not UTF-8, and safetensors could not read it: give another --out"):
        training.train(config, tmp_path / name)
    assert not (tmp_path / name).exists()


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a folder that cannot be written")
def test_everything_at_once(llama_gguf: Path, vector: Path, tmp_path: Path) -> None:
    """Folders that cannot be written, settings that mean nothing, and services that are not to be reported to."""
    hub = dict.fromkeys(("HF_HOME", "HF_HUB_CACHE", "TRANSFORMERS_CACHE", "HF_DATASETS_CACHE", "HF_MODULES_CACHE"), NOWHERE)
    folders = {**hub, "HOME": NOWHERE, "XDG_CACHE_HOME": NOWHERE, "IRM_LITE_CACHE": NOWHERE, "TMPDIR": "/nonexistent/tmp"}
    nonsense = {"PYTORCH_CUDA_ALLOC_CONF": "nonsense:yes", "OMP_NUM_THREADS": "many", "TZ": "No/Where", "HF_HUB_OFFLINE": "perhaps"}
    terminal = {"NO_COLOR": "1", "TERM": "dumb", "COLUMNS": "0", "LINES": "0", "CUDA_VISIBLE_DEVICES": ""}
    services = {"WANDB_API_KEY": "x", "WANDB_MODE": "online", "MLFLOW_TRACKING_URI": "http://127.0.0.1:9", "COMET_API_KEY": "x"}
    odd = {**folders, **nonsense, **terminal, **services}
    flags = ["--quant", "none", "--device", "cpu", "--irm", "static", "--max-steps", "1", "--sample-tokens", "2"]
    for arguments, shown in (
        (["doctor"], b"llama.cpp"),
        (["generate", "--gguf", llama_gguf, "-p", "Hi", "--max-new-tokens", "2"], b"\n"),
        (["train", "--model", llama_gguf, *flags, "--out", tmp_path / "run"], b"is the best, validation NLL"),
        (["heatmap", vector, "-o", tmp_path / "figures"], b"v.png"),
    ):
        done = irm_lite(*arguments, cwd="/proc", **odd)
        assert done.returncode == 0, (arguments, done.stderr)
        assert shown in done.stdout, arguments
        assert b"unexpected" not in done.stderr


@pytest.mark.slow
def test_a_llama_of_ones_own_outlives_irm_lite(llama_gguf: Path) -> None:
    """Someone's script made an `llama_cpp.Llama` beside irm-lite's base, and died of a segmentation fault when it had ended."""
    script = """
import sys, irm_lite, llama_cpp
base = irm_lite.load_base(sys.argv[1], quant="none", dtype="float32", device="cpu")
model = llama_cpp.Llama(sys.argv[1], n_ctx=64, n_threads=1, verbose=False)
print("done")
"""
    done = subprocess.run([sys.executable, "-c", script, str(llama_gguf)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr[-2000:]
