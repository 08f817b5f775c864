"""The notebooks: they run from an empty folder as they stand, and what is kept of their output is of no machine."""

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from support.documents import ROOT, name

NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))


def _text(path: Path) -> str:
    """All that the notebook's outputs say."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    outputs: list[dict[str, Any]] = [output for cell in cells for output in cell.get("outputs", [])]
    texts = [text for each in outputs for text in (each.get("text"), each.get("data", {}).get("text/plain")) if text]
    return "\n".join("".join(text) for text in texts)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=name)
def test_what_is_kept_is_of_no_machine(path: Path) -> None:
    """No paths, no times, no warnings; and every cell was run, in order."""
    assert not re.findall(r"(?:^|[\s'\"(])/\w+/|\\\\Users|Warning", _text(path))
    cells = [cell for cell in json.loads(path.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    assert not [output for cell in cells for output in cell["outputs"] if output["output_type"] == "error"]
    assert not [cell for cell in cells if cell["metadata"]]


@pytest.mark.demo
@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=name)
def test_it_runs(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nbformat = pytest.importorskip("nbformat", reason="pip install -e '.[docs]'")
    nbclient = pytest.importorskip("nbclient", reason="pip install -e '.[docs]'")
    for variable in ("HOME", "IPYTHONDIR", "JUPYTER_RUNTIME_DIR"):  # the user's own settings play no part
        monkeypatch.setenv(variable, str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    notebook = nbformat.read(path, as_version=4)
    nbclient.NotebookClient(notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}).execute()
    written = {each.name for each in tmp_path.iterdir()}
    assert written >= ({"mine.gguf", "mine.jsonl", "runs"} if path.stem == "quickstart" else {"heatmap.png", "runs"})
