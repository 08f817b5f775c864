"""A container's limit on memory, by both versions of Linux's control groups as they are written."""

from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from irm_lite.core.machine import available_memory
from irm_lite.core.machine.available_memory import available_bytes, left_by_limit
from irm_lite.core.machine.memory import free_bytes

GIB = 2**30


def write(groups: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (groups / name).parent.mkdir(exist_ok=True)
        (groups / name).write_text(text)
    return groups


@pytest.mark.parametrize(
    ("files", "left"),
    [
        (
            {"memory.max": f"{2 * GIB}\n", "memory.current": f"{GIB}\n", "memory.stat": f"anon 5\ninactive_file {GIB // 4}\n"},
            GIB + GIB // 4,
        ),
        ({"memory.max": "max\n", "memory.current": f"{GIB}\n", "memory.stat": "anon 5\n"}, None),
        ({"memory.max": f"{GIB}\n", "memory.current": f"{2 * GIB}\n", "memory.stat": "anon 5\n"}, 0),
        (
            {
                "memory/memory.limit_in_bytes": f"{GIB}",
                "memory/memory.usage_in_bytes": f"{GIB // 2}",
                "memory/memory.stat": "inactive_file 7\ntotal_inactive_file 9\n",
            },
            GIB // 2 + 9,
        ),
        ({}, None),
    ],
)
def test_what_is_left_of_a_limit(files: dict[str, str], left: int | None, tmp_path: Path) -> None:
    assert left_by_limit(write(tmp_path, files)) == left


@pytest.mark.parametrize(("left", "available"), [(3 * GIB, 3 * GIB), (9 * GIB, 5 * GIB), (None, 5 * GIB)])
def test_the_smaller_counts(left: int | None, available: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=5 * GIB))
    monkeypatch.setattr(available_memory, "left_by_limit", lambda: left)
    assert available_bytes() == available
    assert free_bytes("cpu") == pytest.approx(available + psutil.Process().memory_info().rss, rel=0.05)
