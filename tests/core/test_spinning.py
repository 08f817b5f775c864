"""How long threads spin, as OpenMP's runtime itself tells it."""

import os
import re
import subprocess
import sys

import pytest

from irm_lite.core.machine.spinning import TRAINING, WRITING

_VERB_THEN_TORCH = "import sys; from irm_lite.cli.main import run; run(sys.argv[1:]); import torch"


@pytest.mark.skipif(sys.platform != "linux", reason="torch brings the GNU runtime on Linux alone")
@pytest.mark.parametrize(
    ("verb", "said", "turns"),
    [
        ("models list", {}, TRAINING),
        ("generate --help", {}, WRITING),
        ("generate --help", {"GOMP_SPINCOUNT": str(TRAINING)}, WRITING),  # as the UI's child inherits it
        ("models list", {"GOMP_SPINCOUNT": "77"}, 77),
        ("models list", {"OMP_WAIT_POLICY": "passive"}, 0),
    ],
)
def test_a_verbs_threads_spin_briefly_unless_the_user_says_otherwise(verb: str, said: dict[str, str], turns: int) -> None:
    unsaid = {name: value for name, value in os.environ.items() if name not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    done = subprocess.run(
        [sys.executable, "-c", _VERB_THEN_TORCH, *verb.split()],
        env={**unsaid, **said, "OMP_DISPLAY_ENV": "verbose"},
        capture_output=True,
        text=True,
        check=True,
    )
    told = re.search(r"GOMP_SPINCOUNT = '(\d+)'", done.stderr)
    assert told is not None
    assert int(told[1]) == turns
