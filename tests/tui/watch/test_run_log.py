"""What is read of events.jsonl: as run.events.read() sees it, in bounded memory, whatever the lines hold."""

import json
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from irm_lite_tui.watch.curve import LIMIT, Curve
from irm_lite_tui.watch.run_log import RunLog
from support.tui_helpers import plant_run, step_event, training

quick = settings(deadline=None, max_examples=50)


def test_a_training_read_at_once(tmp_path: Path) -> None:
    run = plant_run(tmp_path / "run", training(40, 40, ended="done"))
    log = RunLog(run.events.path)
    assert log.read()
    events = list(run.events.read())
    assert log.loss.points == [(event["step"], event["loss"]) for event in events if event["kind"] == "step"]
    assert log.validation.points == [(event["step"], event["nll"]) for event in events if event["kind"] == "eval"]
    assert [(sample.step, sample.text) for sample in log.samples] == [
        (step, f"Because of step {step}!") for step in (10, 20, 30, 40)
    ]
    assert (log.step, log.max_steps, log.base_nll, log.best_nll, log.sound) == (40, 40, 4.0, 2.5, (7, 8))
    assert log.end is not None
    assert log.end.reason == "done"
    assert not log.read()


def test_the_best_step_is_the_one_that_the_training_takes(tmp_path: Path) -> None:
    """A step that babbles has the lowest NLL; an older run knows no figures."""
    run = plant_run(tmp_path / "run", training(10, 40))
    run.events.append("eval", step=20, nll=1.5, perplexity=4.5, figure=2.9, of="irm")
    run.events.append("eval", step=30, nll=2.0, perplexity=7.4, figure=2.0, of="irm")
    log = RunLog(run.events.path)
    log.read()
    assert log.best_nll == 2.0


@quick
@given(cuts=st.lists(st.integers(0, 4000), max_size=8))
def test_reading_on_gives_what_reading_at_once_gives(tmp_path_factory: pytest.TempPathFactory, cuts: list[int]) -> None:
    folder = tmp_path_factory.mktemp("cuts")
    whole = plant_run(folder / "run", training(20, 40)).events.path
    data, grown = whole.read_bytes(), folder / "grown.jsonl"
    log = RunLog(grown)
    for cut in [*sorted(cuts), len(data)]:
        with grown.open("ab") as file:
            file.write(data[grown.stat().st_size : cut])
        log.read()
    at_once = RunLog(whole)
    at_once.read()
    assert (log.loss.points, log.validation.points, log.samples, log.bad_lines) == (
        at_once.loss.points,
        at_once.validation.points,
        at_once.samples,
        0,
    )


def test_a_resumed_run_cuts_the_curve_back(tmp_path: Path) -> None:
    run = plant_run(tmp_path / "run", training(30, 40, ended="interrupted"))
    log = RunLog(run.events.path)
    log.read()
    run.events.append("start", max_steps=40, resumed_from="step-20")
    for step in range(21, 26):
        run.events.append("step", **{**step_event(step, 40), "loss": 9.0})
    log.read()
    assert [x for x, _ in log.loss.points] == list(range(1, 26))
    assert [y for _, y in log.loss.points[20:]] == [9.0] * 5
    assert log.end is None


def test_a_file_that_was_replaced_is_read_anew(tmp_path: Path) -> None:
    run = plant_run(tmp_path / "run", training(30, 40))
    log = RunLog(run.events.path)
    log.read()
    run.events.path.write_text(json.dumps({"kind": "step", **step_event(3, 7)}) + "\n")
    assert log.read()
    assert (log.loss.points, log.max_steps, len(log.samples)) == ([(3, step_event(3, 7)["loss"])], 7, 0)


def test_a_warning_about_answers_lasts_until_the_next_ones(tmp_path: Path) -> None:
    run = plant_run(tmp_path / "run", training(20, 40))
    log = RunLog(run.events.path)
    run.events.append("warning", text="the data is small")
    for step, sound in ((20, 5), (40, 8), (60, 4)):
        run.events.append("text", step=step, answers=8, sound=sound)
        if sound < 8:
            run.events.append("warning", text=f"step {step} writes babble", of="text")
        log.read()
        babble = [f"step {step} writes babble"] if sound < 8 else []
        assert list(log.warnings)[-len(babble) - 1 :] == ["the data is small", *babble]


@pytest.mark.parametrize(
    "line",
    [
        b'{"kind": "step", "step": "x", "loss": [], "max_steps": {}}',
        b'{"kind": "step", "step": 1e400, "loss": null}',
        b'{"kind": "step", "step": 1' + b"0" * 400 + b"}",
        b'{"kind": ["step"]}',
        b'{"kind": "eval", "step": null, "nll": "low"}',
        b'{"kind": "sample", "step": 3, "text": 7, "prompt": {}}',
        b'{"kind": "end", "reason": ["done"], "best_nll": true}',
        b'{"kind": "warning"}',
    ],
)
def test_events_of_the_wrong_shape_do_no_harm(tmp_path: Path, line: bytes) -> None:
    file = tmp_path / "events.jsonl"
    file.write_bytes(line + b"\n" + json.dumps({"kind": "step", **step_event(5, 9)}).encode() + b"\n")
    log = RunLog(file)
    assert log.read()
    assert log.loss.last == step_event(5, 9)["loss"]


def test_lines_that_cannot_be_read_are_counted(tmp_path: Path) -> None:
    file = tmp_path / "events.jsonl"
    good = json.dumps({"kind": "step", **step_event(5, 9)}).encode()
    file.write_bytes(b"\n".join([b"torn {", b"[1]", b"\xff\xfe", b"[" * 100_000, b"", good, b"7", b"x" * (3 << 20), good, b"half"]))
    log = RunLog(file)
    log.read()
    assert log.bad_lines == 6
    assert log.loss.points == [(5, step_event(5, 9)["loss"])]


def test_a_huge_file_is_sampled(tmp_path: Path) -> None:
    steps = 40_000
    run = plant_run(tmp_path / "run", training(1, steps))
    with run.events.path.open("a") as file:
        file.writelines(json.dumps({"kind": "step", **step_event(step, steps)}) + "\n" for step in range(2, steps + 1))
    log = RunLog(run.events.path)
    assert log.read()
    assert log.sampled
    assert (log.step, log.base_nll, log.bad_lines) == (steps, 4.0, 0)
    xs = [x for x, _ in log.loss.points]
    assert len(xs) <= LIMIT + 1
    assert xs == sorted(xs)
    assert all(y == step_event(int(x), steps)["loss"] for x, y in log.loss.points)
    assert max(later - earlier for earlier, later in pairwise(xs)) < steps / 50
    run.events.append("end", reason="done", best_nll=2.0)
    assert log.read()
    assert log.end is not None


@quick
@given(count=st.integers(1, 3 * LIMIT))
def test_a_curve_keeps_its_ends_and_its_order_in_bounded_memory(count: int) -> None:
    curve = Curve()
    for x in range(count):
        curve.add(x, -x)
    points = curve.points
    assert [points[0], points[-1]] == [(0, 0), (count - 1, 1 - count)]
    assert len(points) <= LIMIT + 1
    assert [x for x, _ in points] == sorted({x for x, _ in points})
    assert all(y == -x for x, y in points)
