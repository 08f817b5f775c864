"""The run directory: its files as json, tomllib and a second process see them."""

import json
import os
import platform
import subprocess
import sys
import threading
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from irm_lite.base.fingerprint import Fingerprint
from irm_lite.config import TrainConfig
from irm_lite.core.errors import InputError, RunError, TrainingFailed
from irm_lite.core.files.manifest import write_manifest
from irm_lite.core.timestamp import now
from irm_lite.runs.directory import RunDirectory, find_runs
from irm_lite.runs.write_failure import write_failure_named

quick = settings(deadline=None, max_examples=60)

CONFIG = TrainConfig(data="joy", irm="static", layers="0-3,7", learning_rate=0.25, seed=7)
PRINT = Fingerprint("llama", 30, 576, "ab" * 32, "nf4")
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**60), 2**60)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
event_lists = st.lists(st.dictionaries(st.sampled_from(["step", "loss", "text"]), json_values, max_size=3), min_size=1, max_size=5)


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    directory = RunDirectory(tmp_path / "runs" / "joy")
    directory.create(CONFIG, PRINT, {"torch": "2.13"})
    return directory


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    return RunDirectory(tmp_path_factory.mktemp("run"))


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


def test_the_time_is_utc_with_seconds() -> None:
    moment = datetime.fromisoformat(now())
    assert moment.utcoffset() == timedelta(0)
    assert abs(datetime.now(UTC) - moment) < timedelta(minutes=1)
    assert moment.microsecond == 0


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
        ("rank = 16", "rank = 0", "--rank 0 makes no sense"),
        ("rank = 16", "rank = 'x'", "rank must be of type int"),
        ("rank = 16", "rang = 16", "there is no setting 'rang'"),
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


# Events


def test_a_run_without_events_has_none(run: RunDirectory) -> None:
    assert list(run.events.read()) == []


def test_an_event_is_one_line_of_json_with_its_time_and_kind(run: RunDirectory) -> None:
    returned = [run.events.append("step", step=1, loss=2.5), run.events.append("sample", text="two\nlines \u2028 \u00fc")]
    lines = (run.path / "events.jsonl").read_bytes().decode("utf-8").split("\n")
    assert lines.pop() == ""
    assert [json.loads(line) for line in lines] == returned
    assert {key: value for key, value in returned[0].items() if key != "time"} == {"kind": "step", "step": 1, "loss": 2.5}
    assert datetime.fromisoformat(returned[1]["time"]).utcoffset() == timedelta(0)


@quick
@given(event_lists)
def test_events_read_back_in_order(scratch: RunDirectory, values: list[dict[str, Any]]) -> None:
    (scratch.path / "events.jsonl").unlink(missing_ok=True)
    for item in values:
        scratch.events.append("step", **item)
    read = [{key: value for key, value in event.items() if key != "time"} for event in scratch.events.read()]
    assert read == [{"kind": "step", **item} for item in values]


@quick
@given(event_lists, st.integers(0, 10**6))
def test_after_a_cut_at_any_byte_every_whole_event_and_every_later_one_is_read(
    scratch: RunDirectory, values: list[dict[str, Any]], place: int
) -> None:
    file = scratch.path / "events.jsonl"
    file.unlink(missing_ok=True)
    written = [scratch.events.append("step", **item) for item in values]
    whole = file.read_bytes()
    length = place % (len(whole) + 1)
    file.write_bytes(whole[:length])
    ends = [sum(len(json.dumps(event)) + 1 for event in written[: n + 1]) - 1 for n in range(len(written))]
    kept = [event for event, end in zip(written, ends, strict=True) if end <= length]
    assert list(scratch.events.read()) == kept
    later = [scratch.events.append("checkpoint", step=5), scratch.events.append("end")]
    assert list(scratch.events.read()) == kept + later


def test_lines_that_are_no_events_are_passed_over(run: RunDirectory) -> None:
    content = b'\n12\n"text"\n[1]\nnull\n\xff\xfe{\n{"kind": "step"}\n{"kind": "torn\n' + b"[" * 100 + b"\n"
    (run.path / "events.jsonl").write_bytes(content)
    assert list(run.events.read()) == [{"kind": "step"}]


def test_events_that_cannot_be_written_are_one_line_and_the_next_is_whole(run: RunDirectory) -> None:
    first = run.events.append("step", step=1)
    full = OSError(28, "No space left on device")
    told = "events.jsonl of .* cannot be written .No space left on device.: make space"
    with pytest.raises(TrainingFailed, match=told) as caught, write_failure_named("events.jsonl", run.path):
        raise full
    assert caught.value.exit_code == 1
    assert str(run.path) in str(caught.value)
    with run.events.path.open("a") as file:
        file.write('{"time": "2026')  # what went onto the disk before it was full
    run.events.sync()
    assert list(run.events.read()) == [first]
    last = run.events.append("end")
    assert list(run.events.read()) == [first, last]


# The lock

HOLDER = """
import sys
from irm_lite.runs.directory import RunDirectory
with RunDirectory(sys.argv[1]).lock.held():
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def another_process_writing(run: RunDirectory) -> Iterator["subprocess.Popen[str]"]:
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(run.path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            process.kill()


def hold(run: RunDirectory) -> bool:
    with run.lock.held():
        return True


def test_a_second_process_is_kept_out_until_the_first_is_done(run: RunDirectory) -> None:
    with another_process_writing(run) as process:
        with pytest.raises(
            RunError, match=f"is being written by process {process.pid} since .*: wait for it, or stop it"
        ) as caught:
            hold(run)
        assert caught.value.exit_code == 2
        process.communicate("")
        assert process.returncode == 0
        assert hold(run)


def test_a_killed_process_leaves_no_lock(run: RunDirectory) -> None:
    with another_process_writing(run) as process:
        process.kill()
        process.wait()
        assert hold(run)


def test_the_lock_is_free_after_an_error(run: RunDirectory) -> None:
    def fail() -> None:
        with run.lock.held():
            raise ValueError("training failed")

    with pytest.raises(ValueError, match="training failed"):
        fail()
    assert hold(run)


def test_one_process_does_not_write_a_run_twice_at_a_time(run: RunDirectory) -> None:
    with run.lock.held():
        with pytest.raises(RunError, match=f"is being written by process {os.getpid()}"):
            hold(RunDirectory(run.path))
        assert (run.path / "lock.holder").read_text(encoding="utf-8").startswith(f"process {os.getpid()} since ")
    assert not (run.path / "lock.holder").exists()


def test_a_stale_line_that_names_another_process_holds_nothing(run: RunDirectory) -> None:
    """The number of a training that has died was given to another process."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        (run.path / "lock.holder").write_text(f"process {other.pid} since 2026-11-22T00:00:00+00:00 on {platform.node()}\n")
        assert run.lock.holder() is None
        with run.lock.held():
            holder = run.lock.holder()
            assert holder is not None
            assert holder.pid == os.getpid()
        other.communicate(b"\n")
    assert not (run.path / "lock.holder").exists()


def test_a_reader_that_tries_the_lock_keeps_no_writer_out(run: RunDirectory) -> None:
    from filelock import FileLock

    lock = FileLock(run.path / "lock", thread_local=False)
    lock.acquire()
    threading.Timer(0.1, lock.release).start()
    assert hold(run)


def test_a_lock_whose_holder_cannot_be_noted_is_given_back(run: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(RunError, match="cannot be written .No space left on device.: check the place"):
        hold(run)
    monkeypatch.undo()
    assert hold(run)


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


# Checkpoints and listing


PARTS = [f"{part}.{kind}" for part in ("irm", "optimizer", "scheduler", "rng") for kind in ("json", "safetensors")]
PARTS.append("trainer_state.json")


def sound(run: RunDirectory, step: int) -> Path:
    folder = run.checkpoints.of_step(step)
    (folder / "best").mkdir(parents=True)
    for name in (*PARTS, "best/irm.json"):
        (folder / name).write_text(f"{name} of step {step}")
    write_manifest(folder, {})
    return folder


def test_the_newest_sound_checkpoint_is_taken_and_the_damaged_are_told(run: RunDirectory) -> None:
    for step in (1, 2, 3, 4, 5):
        sound(run, step)
    (run.checkpoints.of_step(5) / "manifest.json").unlink()
    (run.checkpoints.of_step(4) / "manifest.json").write_text('{"format": 1, "files": {}}')
    (run.checkpoints.of_step(3) / "irm.json").write_text("irm.json of step 4")
    (run.checkpoints.of_step(2) / "rng.json").unlink()
    told: list[str] = []
    assert run.checkpoints.newest_sound(told.append) == run.checkpoints.of_step(1)
    assert told == [
        "the checkpoint step-5 is damaged (manifest.json is missing) and skipped",
        "the checkpoint step-4 is damaged (manifest.json does not list irm.json) and skipped",
        "the checkpoint step-3 is damaged (irm.json has another SHA-256) and skipped",
        "the checkpoint step-2 is damaged (rng.json is missing) and skipped",
    ]
    (run.checkpoints.of_step(1) / "irm.json").write_text("")
    assert run.checkpoints.newest_sound() is None


def test_a_checkpoint_whose_best_irm_alone_is_damaged_is_taken(run: RunDirectory) -> None:
    for step in (1, 2):
        sound(run, step)
    (run.checkpoints.of_step(2) / "best" / "irm.json").write_text("irm.json of another step")
    told: list[str] = []
    assert run.checkpoints.newest_sound(told.append) == run.checkpoints.of_step(2)
    assert told == ["the best IRM in step-2 is damaged (best/irm.json has 24 bytes, not 23): the run keeps the one it has"]


def test_thinning_keeps_the_newest_written_and_no_damaged_one_that_was_passed_over(run: RunDirectory) -> None:
    for step in (5, 10, 12, 20):
        sound(run, step)
    run.checkpoints.thin(12, 2)
    assert [path.name for path in run.checkpoints.all()] == ["step-10", "step-12"]
    run.checkpoints.thin(12, 1)
    assert [path.name for path in (run.path / "checkpoints").iterdir()] == ["step-12"]


def test_the_newest_checkpoint_is_that_of_the_highest_step(run: RunDirectory) -> None:
    assert run.checkpoints.newest_sound() is None
    for step in (9, 100, 20):
        sound(run, step)
    for name in (".step-300.partial", "step-400.partial", "step-", "step-last", "step-0500", "other-500"):
        (run.path / "checkpoints" / name).mkdir(parents=True)
    assert run.checkpoints.newest_sound() == run.path / "checkpoints" / "step-100"


@quick
@given(st.sets(st.integers(0, 10**7), min_size=1, max_size=6))
def test_checkpoints_are_in_the_order_of_their_numbers(scratch: RunDirectory, steps: set[int]) -> None:
    for old in (scratch.path / "checkpoints").glob("*"):
        old.rmdir()
    for step in steps:
        scratch.checkpoints.of_step(step).mkdir(parents=True)
    assert [path.name for path in scratch.checkpoints.all()] == [f"step-{step}" for step in sorted(steps)]


def test_runs_are_listed_newest_first_without_other_folders(tmp_path: Path) -> None:
    for age, name in enumerate(("new", "older", "oldest")):
        RunDirectory(tmp_path / name).create(CONFIG, PRINT, {})
        os.utime(tmp_path / name / "run.toml", (10**9 - age, 10**9 - age))
    (tmp_path / "other").mkdir()
    (tmp_path / "run.toml").write_text("no folder")
    assert [run.path.name for run in find_runs(tmp_path)] == ["new", "older", "oldest"]
    assert find_runs(tmp_path / "nowhere") == []
