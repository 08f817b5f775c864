"""A disk that fills up in the middle of a training, or of a bake; one that is too small, and one that may not be written.

    python tests/faults/disk.py --tries 20 --seed 0

The disk is a tmpfs where this process may mount one, else it is a limit to the size of a file (RLIMIT_FSIZE). Prints one JSON
object; a failure is an assertion.
"""

import argparse
import json
import random
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from faults import bench, forks
from irm_lite.runs.directory import RunDirectory
from support import same_run

Failing = Callable[[Path], AbstractContextManager[Callable[[], object]]]

_FAILED, _REFUSED = 1, 2
_WRITES = 200  # of a training
_ROOM = "40m"  # what a training asks for, and a little more
_LIMIT = 24_000  # bytes: the IRM goes into such a file, the optimiser's states do not


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tries", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    chance = random.Random(asked.seed)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        training, log = bench.prepare(folder, max_steps="20"), folder / "log"
        assert forks.wait(forks.start(["train", *training, "--out", str(folder / "whole")], log)) == 0, log.read_text()
        figures = {"seed": asked.seed, "limited": limited(folder, training, asked.tries, chance)}
        figures["limited_bake"] = limited_bake(folder)
        if mounted(folder / "disk", _ROOM):
            try:
                figures |= {"full": full(folder, training, asked.tries, chance), "full_bake": full_bake(folder)}
                remount(folder / "disk", "ro")
                figures["read_only"] = refused(folder, training, "Read-only file system")
                remount(folder / "disk", "rw,size=20m")
                figures["too_small"] = refused(folder, training, "GB of disk")
            finally:
                subprocess.run(["umount", str(folder / "disk")], check=True)
    print(json.dumps(figures))


def limited(folder: Path, training: list[str], tries: int, chance: random.Random) -> str:
    """No file may grow beyond _LIMIT any more, from a random write on."""

    @contextmanager
    def limit(_place: Path) -> Iterator[Callable[[], object]]:
        yield lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (_LIMIT, _LIMIT))

    return broken(folder, folder, training, tries, chance, limit)


def full(folder: Path, training: list[str], tries: int, chance: random.Random) -> str:
    """The disk is full from a random write on."""
    return broken(folder, folder / "disk", training, tries, chance, forks.ballast)


def broken(folder: Path, disk: Path, training: list[str], tries: int, chance: random.Random, failing: Failing) -> str:
    """Break a training's disk, look at what it says and leaves, fix the disk and resume."""
    expected, told, log, run = same_run.result(folder / "whole"), same_run.events(folder / "whole"), folder / "log", disk / "run"
    hit = 0
    for _ in range(tries):
        shutil.rmtree(run, ignore_errors=True)
        with failing(disk) as act:
            child = forks.start(["train", *training, "--out", str(run)], log, forks.at_write(chance.randrange(2 * _WRITES), act))
            code = forks.wait(child)
        if code != 0:
            hit += 1
            [line] = forks.lines(log)
            assert code == _FAILED or not RunDirectory(run).started(), (code, line)
            assert "cannot be written" in line or "space" in line, line
            assert not run.exists() or not bench.left_overs(run), bench.left_overs(run)
            bench.require_readable(run, "failed")
            assert forks.wait(forks.start(bench.go_on(run, training), log)) == 0, log.read_text()
        assert same_run.result(run) == expected
        assert same_run.events(run, warned=True) == told
    assert hit or tries < 3
    return f"{hit} of {tries} hit, all one line, all resumed to the same bits"


def limited_bake(folder: Path) -> str:
    def limit() -> None:
        size = (folder / "tiny.gguf").stat().st_size // 2
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

    return bake(folder, folder / "baked", limit)


def full_bake(folder: Path) -> str:
    """Full at the first write after the check of the free space."""
    with forks.ballast(folder / "disk") as fill:
        return bake(folder, folder / "disk" / "baked", forks.at_write(1, fill))


def bake(folder: Path, target: Path, first: Callable[[], None]) -> str:
    log, vector = folder / "log", folder / "vector.gguf"
    if not vector.exists():
        export = ["export", str(folder / "whole"), "--method", "mean", "-o", str(vector)]
        assert forks.wait(forks.start(export, log)) == 0, log.read_text()
    target.mkdir()
    command = ["bake", str(vector), "--gguf", str(folder / "tiny.gguf"), "-o", str(target / "b.gguf")]
    assert forks.wait(forks.start(command, log, first)) == _FAILED, log.read_text()
    [line] = forks.lines(log)
    assert str(target / "b.gguf") in line
    assert not list(target.iterdir())
    return line


def refused(folder: Path, training: list[str], words: str) -> str:
    """Before anything is loaded or written."""
    run = folder / "disk" / "another"
    assert forks.wait(forks.start(["train", *training, "--out", str(run)], folder / "log")) == _REFUSED
    [line] = forks.lines(folder / "log")
    assert words in line, line
    assert not run.exists()
    return line


def mounted(place: Path, size: str) -> bool:
    """Whether a tmpfs of this size could be mounted there."""
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)]
    return shutil.which("mount") is not None and subprocess.run(command, capture_output=True, check=False).returncode == 0


def remount(place: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", str(place)], check=True)


if __name__ == "__main__":
    main()
