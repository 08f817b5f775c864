"""A run's checkpoints: which is taken, which are removed."""

from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from irm_lite.core.files.manifest import write_manifest
from irm_lite.runs.directory import RunDirectory

quick = settings(deadline=None, max_examples=60)

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
