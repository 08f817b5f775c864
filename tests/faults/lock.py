"""Start two trainings on one run directory at the same moment, again and again: exactly one works.

    python tests/faults/lock.py --tries 100             two new trainings
    python tests/faults/lock.py --tries 100 --resume    two that resume one

Prints one JSON object; a failure is an assertion.
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
from collections import Counter
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from faults import bench, forks
from support import same_run

_DONE, _REFUSED = 0, 2
_STEPS = 60  # longer than the loser waits for the lock, half a second


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tries", type=int, default=100)
    parser.add_argument("--resume", action="store_true")
    asked = parser.parse_args()
    said: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        training = bench.prepare(folder, max_steps=str(_STEPS), sample_tokens="0")
        run, logs = folder / "run", [folder / "first.log", folder / "second.log"]
        for _ in range(asked.tries):
            shutil.rmtree(run, ignore_errors=True)
            if asked.resume:
                assert forks.wait(forks.start(["train", *training, "--out", str(run)], logs[0])) == _DONE, logs[0].read_text()
                shutil.rmtree(run / "checkpoints")
            command = ["train", "--resume", str(run)] if asked.resume else ["train", *training, "--out", str(run)]
            gate, opened = os.pipe()
            both = [forks.start(command, log, partial(os.read, gate, 1)) for log in logs]
            os.write(opened, b"..")
            codes = [forks.wait(child) for child in both]
            os.close(gate)
            os.close(opened)
            assert sorted(map(str, codes)) == [str(_DONE), str(_REFUSED)], (codes, [log.read_text() for log in logs])
            [line] = forks.lines(logs[codes.index(_REFUSED)])
            said["is being written by" if "is being written by process" in line else line.split(": ")[1]] += 1
            bench.require_readable(run)
            steps = [event["step"] for event in same_run.events(run).values() if event["kind"] == "step"]
            assert steps == list(range(1, _STEPS + 1))
    print(json.dumps({"tries": asked.tries, "resume": asked.resume, "exactly_one_worked": asked.tries, "refusals": dict(said)}))


if __name__ == "__main__":
    main()
