"""Kill a training of a tiny Llama at random moments, resume it each time, and compare with an uninterrupted one, bit by bit.

    python tests/faults/kill.py --kills 50 --seed 0                       about 3 minutes
    python tests/faults/kill.py --kills 50 --seed 0 --quantised           the same with 4 bits, bfloat16 and 8-bit states
    python tests/faults/kill.py --kills 50 --seed 0 --verb export|bake|record    the target is absent or whole

Half of the kills come at a random time, half at a random write. Prints one JSON object; a failure is an assertion.
"""

import argparse
import json
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from faults import bench, forks
from support import same_run

_DIED = -9
_WRITES = 60  # at most so many of a child's writes go by before it is killed at one


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--verb", choices=("train", "export", "bake", "record"), default="train")
    parser.add_argument("--quantised", action="store_true")
    asked = parser.parse_args()
    chance = random.Random(asked.seed)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        if asked.verb == "train":
            figures = kill_training(folder, asked.kills, chance, bench.QUANTISED if asked.quantised else {})
        else:
            figures = kill_verb(folder, asked.verb, asked.kills, chance)
    print(json.dumps({"verb": asked.verb, "quantised": asked.quantised, "seed": asked.seed, **figures}))


def kill_training(folder: Path, kills: int, chance: random.Random, settings: dict[str, str]) -> dict[str, object]:
    """One training after another until so many kills have been; each is brought to its end and compared."""
    training, log = bench.prepare(folder, **settings), folder / "log"
    began = time.monotonic()
    assert forks.wait(forks.start(["train", *training, "--out", str(folder / "whole")], log)) == 0, log.read_text()
    seconds = time.monotonic() - began
    expected, told = same_run.result(folder / "whole"), same_run.events(folder / "whole")
    killed, ended, by_write, most = 0, 0, 0, 0
    while killed < kills:
        run, before = folder / f"run-{ended}", killed
        while True:
            at_write = chance.random() < 0.5
            first = forks.at_write(chance.randrange(2 * _WRITES), forks.die) if at_write else lambda: None
            child = forks.start(bench.go_on(run, training), log, first if killed < kills else lambda: None)
            code = forks.wait(child, chance.uniform(0, seconds / 2) if killed < kills and not at_write else None)
            if code is None:
                forks.kill(child)
            if code == 0:
                break
            assert code in (None, _DIED), log.read_text()
            killed, by_write = killed + 1, by_write + at_write
            bench.require_readable(run)
        found = same_run.result(run)
        assert found.keys() == expected.keys(), (found.keys(), expected.keys())
        assert found == expected, [name for name in found if found[name] != expected[name]]
        assert same_run.events(run) == told
        assert not bench.left_overs(run), bench.left_overs(run)
        ended, most = ended + 1, max(most, killed - before)
        shutil.rmtree(run)
    return {
        "kills": killed,
        "of_them_at_a_write": by_write,
        "trainings": ended,
        "most_kills_of_one_training": most,
        "bit_identical": ended,
        "unreadable": 0,
        "seconds_of_the_uninterrupted": round(seconds, 1),
    }


def kill_verb(folder: Path, verb: str, kills: int, chance: random.Random) -> dict[str, object]:
    """A verb that writes one thing, killed again and again."""
    training, log = bench.prepare(folder, max_steps="5"), folder / "log"
    run, vector = folder / "run", folder / "vector.gguf"
    assert forks.wait(forks.start(["train", *training, "--out", str(run)], log)) == 0, log.read_text()
    export = ["export", str(run), "--method", "mean", "-o"]
    assert forks.wait(forks.start([*export, str(vector)], log)) == 0, log.read_text()
    target, arguments = {
        "export": (folder / "out" / "v.gguf", [*export, str(folder / "out" / "v.gguf")]),
        "bake": (
            folder / "out" / "b.gguf",
            ["bake", str(vector), "--gguf", str(folder / "tiny.gguf"), "-o", str(folder / "out" / "b.gguf")],
        ),
        "record": (run / "recordings" / "r", ["record", str(run), "--name", "r", "--limit", "3", "--new-tokens", "4"]),
    }[verb]
    began = time.monotonic()
    assert forks.wait(forks.start(arguments, log)) == 0, log.read_text()
    seconds = time.monotonic() - began
    expected = contents(target)
    counts = {"absent": 0, "whole": 0}
    for _ in range(kills):
        shutil.rmtree(target.parent, ignore_errors=True)
        at_write = chance.random() < 0.5
        first = forks.at_write(chance.randrange(24), forks.die) if at_write else lambda: None
        child = forks.start(arguments, log, first)
        code = forks.wait(child, None if at_write else chance.uniform(0, seconds))
        if code is None:
            forks.kill(child)
        assert code in (None, 0, _DIED), log.read_text()
        found = contents(target)
        assert found in ({}, expected), sorted(found)
        counts["whole" if found else "absent"] += 1
        bench.require_readable(run)
    left = [path for path in target.parent.glob("*") if path.name.startswith(".")] if target.parent.exists() else []
    assert forks.wait(forks.start([*arguments, "--force"], log)) == 0, log.read_text()
    assert contents(target) == expected
    return {"kills": kills, **counts, "left_over_after_the_last": len(left)}


def contents(target: Path) -> dict[str, bytes]:
    """A file's or a folder's; nothing where it is not there."""
    files = target.rglob("*") if target.is_dir() else [target] if target.exists() else []
    return {path.name: path.read_bytes() for path in files}


if __name__ == "__main__":
    main()
