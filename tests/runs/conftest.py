"""A run directory that has been created, and one that is only a folder."""

from pathlib import Path

import pytest

from irm_lite.runs.directory import RunDirectory
from support.created_run import CONFIG, PRINT


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    directory = RunDirectory(tmp_path / "runs" / "joy")
    directory.create(CONFIG, PRINT, {"torch": "2.13"})
    return directory


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    return RunDirectory(tmp_path_factory.mktemp("run"))
