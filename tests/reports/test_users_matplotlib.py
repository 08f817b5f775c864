"""Pictures under a notebook's backend, a matplotlibrc and a style that are the user's own."""

from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest

from irm_lite.analysis.pictures.heatmap import save_heatmap
from irm_lite.analysis.pictures.own_style import own_style
from irm_lite.steering.control_vector import ControlVector
from support.elsewhere import irm_lite

NOTEBOOK = "module://matplotlib_inline.backend_inline"
ODD_RC = """backend: tkagg
text.usetex: True
font.family: Nonsense Sans
figure.dpi: nonsense
savefig.dpi: 30
savefig.bbox: tight
image.cmap: nonsense
unknown.key: 3
axes.prop_cycle: cycler('color', ['zzz'])
"""


@pytest.fixture
def vector(tmp_path: Path) -> Path:
    values = np.random.default_rng(0).standard_normal((2, 64)).astype(np.float32)
    ControlVector({1: values[0], 2: values[1]}, "llama").save(tmp_path / "v.gguf")
    return tmp_path / "v.gguf"


def draw(vector: Path, out: Path, cwd: Path | None = None, **environment: str) -> bytes:
    done = irm_lite("heatmap", vector, "-o", out, cwd=cwd, **environment)
    assert done.returncode == 0, done.stderr
    return (out / "v.png").read_bytes()


@pytest.mark.slow
def test_a_notebooks_backend_and_a_matplotlibrc_change_no_picture(vector: Path, tmp_path: Path) -> None:
    """From a notebook's terminal every picture failed once all work was done; a matplotlibrc asked for LaTeX and odd fonts."""
    plain = draw(vector, tmp_path / "plain")
    (tmp_path / "rc").mkdir()
    (tmp_path / "rc" / "matplotlibrc").write_text(ODD_RC)
    assert draw(vector, tmp_path / "notebook", MPLBACKEND=NOTEBOOK) == plain
    assert draw(vector, tmp_path / "folder", cwd=tmp_path / "rc", MPLBACKEND="no-backend") == plain
    (tmp_path / "rc" / "matplotlibrc").write_bytes(b"backend: agg\n\xff\xfe")
    done = irm_lite("heatmap", vector, "-o", tmp_path / "figures", cwd=tmp_path / "rc")
    assert done.returncode == 2
    assert b"matplotlibrc in this folder" in done.stderr


@pytest.mark.slow
def test_a_users_own_rc_is_left_as_it_is(tmp_path: Path) -> None:
    """Somebody draws our pictures in a script with a style of their own."""
    values = np.random.default_rng(0).standard_normal((2, 64)).astype(np.float32)
    save_heatmap(values, (1, 2), tmp_path / "plain.png", "a title")
    odd: dict[str, Any] = {"text.usetex": True, "font.size": 40, "image.cmap": "gray", "savefig.dpi": 20, "axes.facecolor": "red"}
    params: Any = matplotlib.rcParams
    with matplotlib.rc_context():
        params.update(odd)
        save_heatmap(values, (1, 2), tmp_path / "styled.png", "a title")
        assert all(params[name] == value for name, value in odd.items())
        with pytest.raises(ZeroDivisionError), own_style():
            _ = 1 / 0
        assert params["font.size"] == 40
    assert (tmp_path / "styled.png").read_bytes() == (tmp_path / "plain.png").read_bytes()
