"""The fault harness, briefly: each command of tests/faults/ with few tries. Its figures are in docs/reliability.md."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

FAULTS = Path(__file__).parent

pytestmark = [
    pytest.mark.faults,
    pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="the harness watches its children as Linux does"),
]


def figures(command: str, *arguments: str) -> dict[str, Any]:
    path = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), str(FAULTS.parents[1] / "tui")]))
    done = subprocess.run(
        [sys.executable, str(FAULTS / command), *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.parametrize("flags", [[], ["--quantised"]])
def test_a_training_that_is_killed_is_resumed_to_the_same_bits(flags: list[str]) -> None:
    assert figures("kill.py", "--kills", "3", "--seed", "1", *flags)["kills"] == 3


@pytest.mark.parametrize("verb", ["export", "bake", "record"])
def test_what_a_killed_verb_leaves_is_absent_or_whole(verb: str) -> None:
    found = figures("kill.py", "--kills", "3", "--seed", "1", "--verb", verb)
    assert found["absent"] + found["whole"] == 3


@pytest.mark.parametrize("flags", [[], ["--resume"]])
def test_of_two_trainings_on_one_directory_exactly_one_works(flags: list[str]) -> None:
    assert figures("lock.py", "--tries", "2", *flags)["exactly_one_worked"] == 2


def test_a_disk_that_fills_up_costs_a_line_and_no_step() -> None:
    """On a tmpfs too, where one may be mounted."""
    assert "all resumed to the same bits" in figures("disk.py", "--tries", "3", "--seed", "1")["limited"]
