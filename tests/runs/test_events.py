"""events.jsonl: as json sees it, torn by a crash, and on a full disk."""

import json
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from irm_lite.core.errors import TrainingFailed
from irm_lite.runs.directory import RunDirectory
from irm_lite.runs.write_failure import write_errors_as_failure

quick = settings(deadline=None, max_examples=60)
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**60), 2**60)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
event_lists = st.lists(st.dictionaries(st.sampled_from(["step", "loss", "text"]), json_values, max_size=3), min_size=1, max_size=5)


def test_a_run_without_events_has_none(run: RunDirectory) -> None:
    assert list(run.events.read()) == []


def test_an_event_is_one_line_of_json_with_its_time_and_kind(run: RunDirectory) -> None:
    returned = [run.events.append("step", step=1, loss=2.5), run.events.append("sample", text="two\nlines \u2028 \u00fc")]
    lines = (run.path / "events.jsonl").read_bytes().decode("utf-8").split("\n")
    assert lines.pop() == ""
    assert [json.loads(line) for line in lines] == returned
    assert {key: value for key, value in returned[0].items() if key != "time"} == {"kind": "step", "step": 1, "loss": 2.5}
    assert datetime.fromisoformat(returned[1]["time"]).utcoffset() == timedelta(0)


@pytest.mark.slow
@quick
@given(event_lists)
def test_events_read_back_in_order(scratch: RunDirectory, values: list[dict[str, Any]]) -> None:
    (scratch.path / "events.jsonl").unlink(missing_ok=True)
    for item in values:
        scratch.events.append("step", **item)
    read = [{key: value for key, value in event.items() if key != "time"} for event in scratch.events.read()]
    assert read == [{"kind": "step", **item} for item in values]


@quick
@given(event_lists, st.integers(0, 10**6))
def test_after_a_cut_at_any_byte_every_whole_event_and_every_later_one_is_read(
    scratch: RunDirectory, values: list[dict[str, Any]], place: int
) -> None:
    file = scratch.path / "events.jsonl"
    file.unlink(missing_ok=True)
    written = [scratch.events.append("step", **item) for item in values]
    whole = file.read_bytes()
    length = place % (len(whole) + 1)
    file.write_bytes(whole[:length])
    ends = [sum(len(json.dumps(event)) + 1 for event in written[: n + 1]) - 1 for n in range(len(written))]
    kept = [event for event, end in zip(written, ends, strict=True) if end <= length]
    assert list(scratch.events.read()) == kept
    later = [scratch.events.append("checkpoint", step=5), scratch.events.append("end")]
    assert list(scratch.events.read()) == kept + later


def test_lines_that_are_no_events_are_passed_over(run: RunDirectory) -> None:
    content = b'\n12\n"text"\n[1]\nnull\n\xff\xfe{\n{"kind": "step"}\n{"kind": "torn\n' + b"[" * 100 + b"\n"
    (run.path / "events.jsonl").write_bytes(content)
    assert list(run.events.read()) == [{"kind": "step"}]


def test_events_that_cannot_be_written_are_one_line_and_the_next_is_whole(run: RunDirectory) -> None:
    first = run.events.append("step", step=1)
    full = OSError(28, "No space left on device")
    told = "events.jsonl of .* cannot be written .No space left on device.: make space"
    with pytest.raises(TrainingFailed, match=told) as caught, write_errors_as_failure("events.jsonl", run.path):
        raise full
    assert caught.value.exit_code == 1
    assert str(run.path) in str(caught.value)
    with run.events.path.open("a") as file:
        file.write('{"time": "2026')  # what went onto the disk before it was full
    run.events.sync()
    assert list(run.events.read()) == [first]
    last = run.events.append("end")
    assert list(run.events.read()) == [first, last]
