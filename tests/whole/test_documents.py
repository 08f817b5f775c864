"""The documents: their links lead somewhere, the files and names that they tell of are there, their commands have those flags."""

import contextlib
import io
import re
from functools import cache
from pathlib import Path
from urllib.parse import unquote

import pytest

from irm_lite.cli.main import run as irm_lite

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
HISTORY = {"CHANGELOG.md", "docs/log.md"}  # tell of what was
OF_A_RUN = {"runs/", "checkpoints/", "recordings/"}  # folders that no checkout has
PLACES = [ROOT, ROOT / "irm_lite", ROOT / "tui" / "irm_lite_tui"]

documents = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
of_today = pytest.mark.parametrize(
    "document", [each for each in DOCUMENTS if each.relative_to(ROOT).as_posix() not in HISTORY], ids=lambda path: path.name
)


def prose(document: Path) -> str:
    """The text without code."""
    text = re.sub(r"^```.*?^```", "", document.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    return re.sub(r"`[^`\n]*`", "", re.sub(r"^    .*$", "", text, flags=re.MULTILINE))


def anchors(document: Path) -> set[str]:
    """Of its headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", document.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@documents
def test_relative_links_lead_to_files_and_headings(document: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(document)):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (document.parent / unquote(path)).resolve() if path else document
        assert file.exists(), f"{document.name}: {target}"
        assert not anchor or anchor in anchors(file), f"{document.name}: {target} has no such heading"


@of_today
def test_files_and_names_in_code_are_there(document: Path) -> None:
    """`path/file.py` from the repository's top, from irm_lite/ or from the UI's package, and `file.py:name` in it."""
    for path, name in re.findall(r"`([\w./-]+/[\w.-]*|[\w-]+\.py)(?::(\w+))?(?: [^`]*)?`", document.read_text(encoding="utf-8")):
        if not (path.endswith((".py", ".sh", ".toml", ".tcss", ".jsonl")) or path.endswith("/")) or path in OF_A_RUN:
            continue
        files = [place / path for place in (*PLACES, document.parent) if (place / path).exists()]
        assert files, f"{document.name}: there is no {path}"
        defined = rf"^(?:    )?(?:def|class) {name}\b|^{name}\b"
        assert not name or re.search(defined, files[0].read_text(encoding="utf-8"), re.MULTILINE), f"{path} has no {name}"


@cache
def help_of(verb: tuple[str, ...]) -> str:
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        assert irm_lite([*verb, "--help"]) == 0, said.getvalue()
    return said.getvalue()


@of_today
def test_commands_have_the_flags_that_are_written(document: Path) -> None:
    for line in re.findall(r"^ {4,}(?:\$ )?irm-lite (.*)$", document.read_text(encoding="utf-8"), flags=re.MULTILINE):
        words = re.sub(r"[\[\]]", "", re.split(r"\s(?:#|[<>|]|&&)\s", line)[0]).split()
        verb = words[:2] if words[0] in ("data", "models", "vector") else words[:1]
        text = help_of(tuple(verb))
        for flag in (word.split("=")[0] for word in words if re.fullmatch(r"--?[a-z][a-z-]*(=.*)?", word)):
            assert re.search(rf"(?<![\w-]){flag}(?![\w-])", text), f"{document.name}: irm-lite {' '.join(verb)} has no {flag}"
