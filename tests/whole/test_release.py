"""What `make release` demands of the checkout before it builds, and that the checkout has it. The release itself is no test: it
installs everything twice."""

import importlib.util
import re
import shutil
import tomllib
from pathlib import Path
from types import ModuleType

import pytest
import yaml

ROOT = Path(__file__).parents[2]
KINDS = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}  # Keep a Changelog's


@pytest.fixture(scope="module")
def release() -> ModuleType:
    spec = importlib.util.spec_from_file_location("release", ROOT / "tools" / "release.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    for name in ("CHANGELOG.md", "CITATION.cff", "SECURITY.md", "irm_lite/core/version.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def test_all_files_name_the_same_release(release: ModuleType, copy: Path) -> None:
    from irm_lite import __version__

    assert release.require_ready(copy, dirty=True) == __version__


@pytest.mark.parametrize(
    ("name", "before", "after", "told"),
    [
        ("CHANGELOG.md", "## [0.1.0] - 2", "## [0.0.9] - 2", r"CHANGELOG.md has no section '## \[0.1.0\]"),
        ("CITATION.cff", "version: 0.1.0", "version: 0.0.9", "write version: 0.1.0"),
        ("CITATION.cff", "date-released", "date-of", "date-released"),
        ("SECURITY.md", "| 0.1.x |", "| 0.0.x |", "0.1.x is supported"),
    ],
)
def test_a_file_that_lags_is_named_with_the_fix(
    release: ModuleType, copy: Path, name: str, before: str, after: str, told: str
) -> None:
    text = (copy / name).read_text(encoding="utf-8")
    assert before in text
    (copy / name).write_text(text.replace(before, after), encoding="utf-8")
    with pytest.raises(SystemExit, match=told):
        release.require_ready(copy, dirty=True)


def test_the_changelog_is_as_keep_a_changelog_has_it() -> None:
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    versions = re.findall(r"^## (.+)$", text, re.M)
    assert versions[0] == "[Unreleased]"
    assert all(re.fullmatch(r"\[\d+\.\d+\.\d+\] - \d{4}-\d\d-\d\d", each) for each in versions[1:])
    assert set(re.findall(r"^### (.+)$", text, re.M)) <= KINDS


def test_issue_forms_ask_for_the_doctor(release: ModuleType) -> None:
    """Their form is held against the hub's schema by make release."""
    for name in release.SCHEMAS["github-issue-forms"]:
        form = yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))
        asked = {field["attributes"].get("label") for field in form["body"]}
        assert "irm-lite doctor --json" in asked


def test_what_was_not_installed_is_found(release: ModuleType, tmp_path: Path) -> None:
    source, site = tmp_path / "source", tmp_path / "site"
    for place, name in release.PACKAGES.items():
        for folder in (source / place, site / name):
            folder.mkdir(parents=True)
            (folder / "__init__.py").write_text("")
    assert release.missing(source, site) == []
    (source / "models" / "new.toml").write_text("")
    (site / "irm_lite" / "__init__.py").write_text("other")
    assert release.missing(source, site) == ["irm_lite/__init__.py", "models/new.toml"]


def test_extras_are_by_the_names_they_are_imported_by(release: ModuleType) -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    assert {"fastapi", "prometheus_client", "datasets"} <= set(release.extras())
    assert len(declared["serve"]) == 3
