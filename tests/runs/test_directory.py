"""The run directory: its files as json and tomllib see them."""

import json
import os
import tomllib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from irm_lite.config import TrainConfig
from irm_lite.core.errors import InputError, RunError
from irm_lite.runs.directory import RunDirectory, find_runs, require_unlinked
from irm_lite.runs.trained import TrainedRun
from irm_lite.steering.irm import build_irm
from irm_lite.vectors.export import export_vector
from support.created_run import CONFIG, PRINT


def rewrite(file: Path, old: str, new: str) -> None:
    text = file.read_text(encoding="utf-8")
    assert old in text
    file.write_text(text.replace(old, new), encoding="utf-8")


# Starting one


def test_a_new_run_holds_its_configuration_and_its_base(run: RunDirectory) -> None:
    document = tomllib.loads((run.path / "run.toml").read_text(encoding="utf-8"))
    assert document["format"] == 1
    assert document["versions"] == {"torch": "2.13"}
    assert document["train"] == CONFIG.to_dict()
    assert json.loads((run.path / "base.json").read_text(encoding="utf-8")) == {
        "architecture": "llama",
        "n_layers": 30,
        "hidden_size": 576,
        "weights": "ab" * 32,
        "quantisation": "nf4",
        "graph": "",
    }
    assert sorted(path.name for path in run.path.iterdir()) == ["base.json", "run.toml"]


def test_what_was_created_reads_back(run: RunDirectory) -> None:
    again = RunDirectory(str(run.path))
    assert again.config() == CONFIG
    assert again.fingerprint() == PRINT
    assert datetime.now(UTC) - datetime.fromisoformat(again.created()) < timedelta(minutes=5)


def test_an_empty_folder_may_become_a_run(tmp_path: Path) -> None:
    RunDirectory(tmp_path).create(CONFIG, PRINT, {})
    assert RunDirectory(tmp_path).config() == CONFIG


def test_a_folder_that_holds_anything_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(RunError, match="exists: choose another --out, or go on with --resume") as caught:
        RunDirectory(tmp_path).create(CONFIG, PRINT, {})
    assert caught.value.exit_code == 2
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_run_is_never_started_over(run: RunDirectory) -> None:
    with pytest.raises(RunError, match="exists: choose another --out, or go on with --resume"):
        run.create(TrainConfig(), PRINT, {})
    assert run.config() == CONFIG


def test_a_file_in_its_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("a file")
    with pytest.raises(RunError, match="exists: choose another --out"):
        RunDirectory(tmp_path / "run").create(CONFIG, PRINT, {})


def test_a_place_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("a file")
    with pytest.raises(RunError, match="cannot be written .*: choose another --out"):
        RunDirectory(tmp_path / "file" / "run").create(CONFIG, PRINT, {})


# Damage


@pytest.mark.parametrize("read", [RunDirectory.config, RunDirectory.created])
@pytest.mark.parametrize(
    ("content", "fragment"),
    [
        (b"format = ", "cannot be read"),
        (b"\xff\xfe", "cannot be read"),
        (b"", "is not a run's file: the run is damaged"),
        (b"format = 1\n", "is not a run's file: the run is damaged"),
        (b"format = 1\ntrain = 3\n", "is not a run's file: the run is damaged"),
        (b"format = '1'\n[train]\n", "is not a run's file: the run is damaged"),
        (b"format = 2\n[train]\n", "was written by a newer irm-lite: pip install -U irm-lite"),
    ],
)
def test_a_damaged_or_newer_run_is_refused(
    run: RunDirectory, read: Callable[[RunDirectory], Any], content: bytes, fragment: str
) -> None:
    (run.path / "run.toml").write_bytes(content)
    with pytest.raises(RunError) as caught:
        read(run)
    assert caught.value.exit_code == 2
    assert str(run.path) in str(caught.value)
    assert fragment in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "fragment"),
    [
        ("rank = 0", "rank = -1", "--rank -1 makes no sense"),
        ("rank = 0", "rank = 'x'", "rank must be of type int"),
        ("rank = 0", "rang = 0", "there is no setting 'rang'"),
        ('irm = "static"', 'irm = "bogus"', "bogus"),
    ],
)
def test_a_setting_spoilt_by_hand_is_refused(run: RunDirectory, old: str, new: str, fragment: str) -> None:
    rewrite(run.path / "run.toml", old, new)
    with pytest.raises(InputError) as caught:
        run.config()
    assert fragment in str(caught.value)


@pytest.mark.parametrize("place", ["nowhere", "."])
def test_a_folder_that_is_no_run_is_refused(tmp_path: Path, place: str) -> None:
    with pytest.raises(RunError, match=r"is not a run directory \(no run.toml\): give the folder that train wrote"):
        RunDirectory(tmp_path / place).config()


@pytest.mark.parametrize(
    "content", [b"", b'{"architecture": "llama", ', b"\xff", b"[1, 2]", b"null", b"{}", b'{"n_layers": 1e999}']
)
def test_a_damaged_base_is_refused(run: RunDirectory, content: bytes) -> None:
    (run.path / "base.json").write_bytes(content)
    with pytest.raises(InputError, match="damaged") as caught:
        run.fingerprint()
    assert caught.value.exit_code == 2


def test_a_missing_base_is_refused(run: RunDirectory) -> None:
    (run.path / "base.json").unlink()
    with pytest.raises(RunError, match=r"base\.json cannot be read .*: the run is damaged"):
        run.fingerprint()


def test_a_link_inside_a_run_is_not_followed_for_new_files(run: RunDirectory, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    require_unlinked(run.export)  # not there yet
    for inside in (run.export, run.recordings):
        inside.symlink_to(elsewhere)
        for folder in (inside, inside / "new"):
            with pytest.raises(RunError, match=f"{inside.name} is a link inside the run .*joy: what is written there"):
                require_unlinked(folder)
    (tmp_path / "there").symlink_to(run.path)  # the way to the run is the user's own
    require_unlinked(tmp_path / "there" / "ablations")
    require_unlinked(elsewhere)


def test_export_writes_nothing_behind_such_a_link(run: RunDirectory, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    run.export.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RunError, match="is a link inside the run"):
        export_vector(TrainedRun(run, CONFIG, build_irm("static", 64, (1,), "block"), PRINT), run.default_vector)
    assert list((tmp_path / "elsewhere").iterdir()) == []


# What a killed training leaves


def test_a_start_that_was_killed_may_be_started_over(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    for name in ("lock", "lock.holder", "base.json", "chat_template.jinja", ".run.0123abcd.toml"):
        (tmp_path / name).write_text("")
    run.create(CONFIG, PRINT, {})
    assert run.config() == CONFIG


def test_a_base_json_of_somebody_elses_is_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "base.json").write_text("mine")
    with pytest.raises(RunError, match="exists"):
        RunDirectory(tmp_path).require_absent()


def test_left_overs_are_removed_from_the_run_and_its_checkpoints_alone(run: RunDirectory) -> None:
    run.recordings.mkdir()
    for path in (run.path / ".irm.0123abcd.safetensors", run.recordings / ".x.0123abcd.json", run.path / ".old"):
        path.write_text("")
    for name in (".step-3.partial", ".step-1.gone", "step-2"):
        (run.path / "checkpoints" / name).mkdir(parents=True)
    run.remove_left_overs()
    assert {path.name for path in run.path.rglob("*") if path.name[0] == "."} == {".x.0123abcd.json", ".old"}
    assert run.checkpoints.all() == [run.checkpoints.of_step(2)]


# Listing


def test_runs_are_listed_newest_first_without_other_folders(tmp_path: Path) -> None:
    for age, name in enumerate(("new", "older", "oldest")):
        RunDirectory(tmp_path / name).create(CONFIG, PRINT, {})
        os.utime(tmp_path / name / "run.toml", (10**9 - age, 10**9 - age))
    (tmp_path / "other").mkdir()
    (tmp_path / "run.toml").write_text("no folder")
    assert [run.path.name for run in find_runs(tmp_path)] == ["new", "older", "oldest"]
    assert find_runs(tmp_path / "nowhere") == []
