"""`irm-lite --help` is drawn without cyclopts: as cyclopts would draw it, and faster."""

import subprocess
import sys

import pytest

from irm_lite.cli.app import app
from irm_lite.cli.main import run


@pytest.mark.parametrize("flag", ["--help", "-h"])
@pytest.mark.parametrize("columns", ["30", "60", "80", "120", "200"])
@pytest.mark.parametrize("colours", ["truecolor", None])
def test_the_overview_looks_as_cyclopts_would_draw_it(
    flag: str, columns: str, colours: str | None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    if colours is not None:
        monkeypatch.setenv("FORCE_COLOR", "1")
        monkeypatch.setenv("COLORTERM", colours)
        monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setattr(app, "_fallback_console", None)
    app.help_print([])
    expected = capsys.readouterr().out
    assert run([flag]) == 0
    assert capsys.readouterr().out == expected
    assert ("\x1b[" in expected) == (colours is not None)


def test_the_overview_imports_no_cyclopts() -> None:
    code = "import sys; from irm_lite.cli.main import run; run(['--help']); sys.exit('cyclopts' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0
