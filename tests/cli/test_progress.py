"""Progress as lines, with an estimate where there can be one."""

import pytest

from irm_lite.cli.output import Common, Output
from irm_lite.cli.progress import progress


def test_lines_estimate_only_what_has_a_pace(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("irm_lite.cli.progress.time.monotonic", lambda: now)
    with progress(Output(Common(json=True)), "exporting") as report:
        now += 5  # loading
        report(1, 9, "measuring")
        for done in (3, 5):
            now += 8
            report(done, 9, "measuring")
        now += 30  # a second stage, which has its own pace
        report(1, 4, "writing")
    assert capsys.readouterr().err.splitlines() == [
        "exporting: 1/9, measuring",
        "exporting: 3/9, 24 s left, measuring",
        "exporting: 5/9, 16 s left, measuring",
        "exporting: 1/4, writing",
    ]
