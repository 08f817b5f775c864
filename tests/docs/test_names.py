"""The files and names that the documents tell of are there."""

import re
from pathlib import Path

import pytest

from support.documents import HISTORY, ROOT, name, pages

DOCUMENTS = [page for page in pages() if page.suffix == ".md" and name(page) not in HISTORY]
# folders that no checkout has
OF_A_RUN = {
    "runs/",
    "checkpoints/",
    "recordings/",
    "figures/",
    "ablations/",
    "tensorboard/",
    "checkpoints/step-N/",
    "recordings/NAME/",
}
PLACES = [ROOT, ROOT / "irm_lite", ROOT / "tui" / "irm_lite_tui"]


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_files_and_names_in_code_are_there(document: Path) -> None:
    """`path/file.py` from the repository's top, from irm_lite/ or from the UI's package, and `file.py:name` in it."""
    for path, defined in re.findall(r"`([\w./-]+/[\w.-]*|[\w-]+\.py)(?::(\w+))?(?: [^`]*)?`", document.read_text(encoding="utf-8")):
        if not (path.endswith((".py", ".sh", ".toml", ".tcss", ".jsonl")) or path.endswith("/")) or path in OF_A_RUN:
            continue
        files = [place / path for place in (*PLACES, document.parent) if (place / path).exists()]
        assert files, f"there is no {path}"
        line = rf"^(?:    )?(?:def|class) {defined}\b|^{defined}\b"
        assert not defined or re.search(line, files[0].read_text(encoding="utf-8"), re.MULTILINE), f"{path} has no {defined}"
