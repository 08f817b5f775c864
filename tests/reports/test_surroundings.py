"""Folders that cannot be written, a user without a home, settings that mean nothing."""

from pathlib import Path

import numpy as np
import pytest

from irm_lite.core.files.paths import cache_folder, system_folder
from irm_lite.steering.control_vector import ControlVector
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
        (["train", "--model", llama_gguf, *flags, "--out", tmp_path / "run"], b"best validation NLL"),
        (["heatmap", vector, "-o", tmp_path / "figures"], b"v.png"),
    ):
        done = irm_lite(*arguments, cwd="/proc", **odd)
        assert done.returncode == 0, (arguments, done.stderr)
        assert shown in done.stdout, arguments
        assert b"unexpected" not in done.stderr
