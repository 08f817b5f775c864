"""benchmarks/scaling.py and verbs.py: what is varied, and one point measured on a tiny base."""

import argparse

import pytest

import scaling


def test_one_size_is_varied_at_a_time() -> None:
    options = argparse.Namespace(shape=(8, 512), batch=8, length=128, irm="lite", device="cpu", steps=4, **scaling.AXES)
    found = scaling.points(options)
    usual = {"layers": 8, "hidden_size": 512, "batch": 8, "length": 128}
    assert len(found) == sum(map(len, scaling.AXES.values()))
    for point in found:
        assert sum(point[name] != value for name, value in usual.items()) <= 1


@pytest.mark.slow
def test_a_point_is_measured_as_it_is_described() -> None:
    point = {"layers": 2, "hidden_size": 64, "batch": 3, "length": 60, "irm": "lite", "device": "cpu", "steps": 2, "varied": "x"}
    measured = scaling.measure(point)
    assert measured["tokens"] == pytest.approx(3 * 60, rel=0.1)
    assert measured["rate"] > 0
    assert measured["training_peak"] >= 0.5 * measured["load_peak"]
