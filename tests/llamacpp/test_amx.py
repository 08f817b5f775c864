"""llama.cpp's AMX kernels: where they kill, it works without them."""

import json
from pathlib import Path

import numpy as np
import pytest

from irm_lite.llamacpp import Model, Runtime, amx, own_process


@pytest.fixture
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Nothing is known of this library yet."""
    monkeypatch.setenv("IRM_LITE_CACHE", str(tmp_path / "cache"))
    amx.is_broken.cache_clear()
    return tmp_path / "cache" / "amx.json"


@pytest.mark.parametrize("dies", [False, True])
def test_a_library_is_tried_once(fresh: Path, monkeypatch: pytest.MonkeyPatch, dies: bool) -> None:
    monkeypatch.setattr(amx, "compiled_in", lambda: True)
    code = "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)" if dies else ""
    monkeypatch.setattr(own_process, "run_module", lambda _: ["python3", "-c", code])
    assert amx.is_broken() is dies
    assert json.loads(fresh.read_text())["broken"] is dies
    amx.is_broken.cache_clear()
    monkeypatch.setattr(own_process, "run_module", lambda _: ["no-such-program"])
    assert amx.is_broken() is dies  # known
    amx.is_broken.cache_clear()
    monkeypatch.setattr(amx, "_library", lambda: ["another build"])
    assert amx.is_broken() is True  # nothing says that it works


def test_without_them_a_model_computes_the_same(fresh: Path, demo_gguf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there are none, another layout of the weights is compared with the file's."""

    def logits() -> "np.ndarray[tuple[int, ...], np.dtype[np.float32]]":
        with Model(demo_gguf) as model, Runtime(model, n_ctx=64) as runtime:
            return np.asarray(runtime.logits([1, 2, 3]))

    here = logits()
    monkeypatch.setattr(amx, "is_broken", lambda: True)
    np.testing.assert_allclose(logits(), here, atol=0.02 * float(np.abs(here).max()))


def test_it_is_asked_of_the_library_that_is_here(fresh: Path) -> None:
    assert amx.is_broken() is (amx.compiled_in() and amx._exit_code() != 0)


@pytest.mark.parametrize("code", ["raise SystemExit(3)", "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"])
def test_what_says_nothing_of_the_kernels_is_not_kept(fresh: Path, monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    monkeypatch.setattr(amx, "compiled_in", lambda: True)
    monkeypatch.setattr(own_process, "run_module", lambda _: ["python3", "-c", code])
    assert amx.is_broken()
    assert not fresh.exists()
