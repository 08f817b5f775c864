"""What is imported when: proved in fresh processes."""

import subprocess
import sys
from pathlib import Path

import pytest

from support.imports import loaded_by


@pytest.mark.slow
@pytest.mark.parametrize(
    "code",
    [
        "import irm_lite",
        "import irm_lite; irm_lite.ControlVector; irm_lite.TrainConfig",
        "from irm_lite.cli.main import run; run(['--help'])",
        "from irm_lite.cli.main import run; run(['train', '--help'])",
        "from irm_lite.cli.main import run; run(['sweep', '--help'])",
        "from irm_lite.cli.main import run; run(['models', 'list'])",
        "from irm_lite.cli.main import run; run(['models', 'fit', '--help'])",
        "import irm_lite.training.memory_fit, irm_lite.base.sources.shape; irm_lite.base.sources.shape.base_shape('demo')",
        "import irm_lite.runs.directory, irm_lite.config, irm_lite.data.dataset, irm_lite.analysis.pictures.pooling",
        "from irm_lite.cli.main import run; run(['heatmap', '--help'])",
        "from irm_lite.cli.main import run; run(['eval', '--help']); run(['export', '--help'])",
        "from irm_lite.scoring import score, prompted; from irm_lite.data.choices import shipped_choices; shipped_choices()",
        "import irm_lite.analysis.pictures.draw_target, irm_lite.analysis.report.page",
        "from irm_lite.analysis.statistics import causality, explanation, field_control, prominence, ranking",
        "from irm_lite.cli.main import run; run(['serve', '--help'])",
        "from irm_lite.cli.main import run; run(['data', 'check', 'anger'])",
        "from irm_lite.cli.main import run; run(['data', 'rewrite', '--show-prompt'])",
    ],
)
def test_nothing_heavy(code: str) -> None:
    assert loaded_by(code) == set()


@pytest.mark.slow
def test_the_ui_loads_no_engine() -> None:
    """Every module of it, the screens too, each in its turn: the last line names what came with all of them."""
    walk = (
        "import importlib, pkgutil, irm_lite_tui\n"
        "names = [each.name for each in pkgutil.walk_packages(irm_lite_tui.__path__, 'irm_lite_tui.')]\n"
        "for name in names: importlib.import_module(name)\n"
        "assert {f'irm_lite_tui.{mode}.screen' for mode in irm_lite_tui.app.IrmLiteApp.MODES} < set(names), names"
    )
    assert loaded_by(walk) == {"textual"}


@pytest.mark.slow
def test_the_engine_loads_no_ui() -> None:
    code = "import irm_lite.jobs.demo, irm_lite.runs.trained, irm_lite.jobs.doctor, irm_lite.cli.verbs.demo"
    assert "textual" not in loaded_by(code)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["training.train", "training.trainer", "training.reporter", "base.load", "analysis.recordings.record"]
)
def test_importing_the_engine_fetches_nothing_and_says_nothing(name: str, tmp_path: Path) -> None:
    """bitsandbytes asks the package `kernels`, where there is one, for kernels from the hub."""
    asked = tmp_path / "asked"
    (tmp_path / "kernels.py").write_text(f"def get_kernel(*_, **__):\n    open({str(asked)!r}, 'w').close()\n")
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import irm_lite.{name}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not asked.exists()
    assert done.stderr == ""
