"""A container's limit on processor time, by both versions of Linux's control groups as they are written."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from irm_lite.core.machine import usable_cores
from irm_lite.core.machine.usable_cores import cores_of_quota, threads_within_quota


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({"cpu.max": "200000 100000\n"}, 2),
        ({"cpu.max": "150000 100000\n"}, 2),
        ({"cpu.max": "5000 100000\n"}, 1),
        ({"cpu.max": "max 100000\n"}, None),
        ({"cpu.max": "max\n"}, None),
        ({"cpu/cpu.cfs_quota_us": "400000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 4),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        ({"cpu/cpu.cfs_quota_us": "400000\n", "cpu/cpu.cfs_period_us": "0\n"}, None),
        ({"cpu/cpu.cfs_quota_us": "400000\n"}, None),
        ({}, None),
    ],
)
def test_the_cores_of_a_quota(files: dict[str, str], cores: int | None, tmp_path: Path) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert cores_of_quota(tmp_path) == cores


@pytest.mark.parametrize(
    ("said", "quota", "allowed", "usable", "threads"),
    [
        (None, 2, 8, 2, "2"),
        (None, 8, 2, 2, None),  # the runtime itself counts those that it may run on
        (None, None, 8, 8, None),
        ("7", 2, 8, 2, "7"),
    ],
)
def test_the_runtime_is_told_of_a_quota_unless_the_user_said_how_many(
    said: str | None, quota: int | None, allowed: int, usable: int, threads: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = {} if said is None else {"OMP_NUM_THREADS": said}
    monkeypatch.setattr(usable_cores, "os", SimpleNamespace(environ=told, sched_getaffinity=lambda pid: set(range(allowed))))
    monkeypatch.setattr(usable_cores, "cores_of_quota", lambda: quota)
    threads_within_quota()
    assert usable_cores.usable_cores() == usable
    assert told.get("OMP_NUM_THREADS") == threads
