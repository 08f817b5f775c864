"""llama.cpp's library as it is loaded: what its OpenMP was told, by its own account."""

import os
import re
import subprocess
import sys

import pytest

from irm_lite.core.machine.spinning import WRITING

LOADED = "from irm_lite.core.machine.llamacpp_log import import_llamacpp as load; load(); import os; print(dict(os.environ))"


def told(**environment: str) -> tuple[str, str]:
    """How often a waiting thread looks before it sleeps, as GNU's OpenMP says it, and the environment that is left behind."""
    clean = {name: value for name, value in os.environ.items() if name not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    done = subprocess.run(
        [sys.executable, "-c", LOADED],
        env=clean | {"OMP_DISPLAY_ENV": "VERBOSE"} | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    found = re.findall(r"GOMP_SPINCOUNT = '(\w+)'", done.stderr)
    if not found:
        pytest.skip("this llama.cpp was built without GNU's OpenMP")
    return found[0], done.stdout


def test_waiting_threads_give_their_core_away_unless_the_user_says_otherwise() -> None:
    spins, left_behind = told()
    assert spins == str(WRITING)
    assert "GOMP_SPINCOUNT" not in left_behind  # nothing of ours is left to a program around us
    assert told(GOMP_SPINCOUNT="77")[0] == "77"
    assert told(OMP_WAIT_POLICY="ACTIVE")[0] != str(WRITING)
