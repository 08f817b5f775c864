"""What pyproject.toml puts into a wheel is what is there: a new room, style or data file is not forgotten."""

import tomllib
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).parents[2]
ROOTS = {"irm_lite": "irm_lite", "irm_lite_models": "models", "irm_lite_tui": "tui/irm_lite_tui"}


@pytest.fixture(scope="module")
def declared() -> dict[str, Any]:
    found: dict[str, Any] = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    return found


def packages() -> dict[str, Path]:
    """Every folder with Python in it, by the name it is imported by."""
    found = {}
    for name, place in ROOTS.items():
        root = REPOSITORY / place
        for folder in {file.parent for file in root.rglob("*.py")}:
            found[".".join([name, *folder.relative_to(root).parts])] = folder
    return found


def test_every_folder_of_modules_is_a_listed_package(declared: dict[str, Any]) -> None:
    assert declared["package-dir"] == ROOTS
    assert declared["packages"] == sorted(packages())
    assert [name for name, folder in packages().items() if not (folder / "__init__.py").is_file()] == []


def test_every_other_file_is_package_data(declared: dict[str, Any]) -> None:
    there = {
        file
        for place in ROOTS.values()
        for file in (REPOSITORY / place).rglob("*")
        if file.is_file() and file.suffix not in (".py", ".pyc") and not file.name.startswith(".")
    }
    folders, matched = packages(), {}
    for name, patterns in declared["package-data"].items():
        for pattern in patterns:
            matched[name, pattern] = set(folders[name].glob(pattern))
    assert [each for each, files in matched.items() if not files] == []  # a pattern for files that have moved away
    assert there - set().union(*matched.values()) == set()
