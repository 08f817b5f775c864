"""Pooling against a loop over every neuron."""

import hypothesis.extra.numpy as arrays
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from irm_lite.analysis.pictures.pooling import colour_limit, pool_signed_max
from irm_lite.core.types import FloatArray

quick = settings(deadline=None, max_examples=60)

matrices = arrays.arrays(
    np.float32,
    st.tuples(st.integers(1, 4), st.integers(1, 80)),
    elements=st.floats(width=32, allow_nan=False, allow_infinity=False),
)


def pool_by_hand(values: FloatArray, columns: int) -> FloatArray:
    """Neuron i goes to the last column c whose start, floor(c * H / columns), is not beyond i."""
    layers, width = values.shape
    if width <= columns:
        return values
    pooled = np.zeros((layers, columns), dtype=np.float32)
    for layer in range(layers):
        for index in range(width):
            column = max(c for c in range(columns) if c * width // columns <= index)
            value = values[layer, index]
            if abs(value) > abs(pooled[layer, column]) or value == -pooled[layer, column] > 0:  # of equals the positive
                pooled[layer, column] = value
    return pooled


@quick
@given(matrices, st.integers(1, 90))
def test_pooling_equals_a_loop_over_every_neuron(values: FloatArray, columns: int) -> None:
    np.testing.assert_array_equal(pool_signed_max(values, columns), pool_by_hand(values, columns))


@quick
@given(st.integers(1, 400), st.integers(1, 450), st.data())
def test_a_single_neuron_survives_any_number_of_columns(width: int, columns: int, data: st.DataObject) -> None:
    index = data.draw(st.integers(0, width - 1))
    value = data.draw(st.sampled_from([-1e-30, -2.0, 3.0, 1e30]))
    planted = np.zeros((3, width), dtype=np.float32)
    planted[1, index] = value
    pooled = pool_signed_max(planted, columns)
    assert pooled.shape == (3, min(width, columns))
    assert pooled[1][pooled[1] != 0].tolist() == [np.float32(value)]
    assert not pooled[[0, 2]].any()


@pytest.mark.parametrize(("width", "columns"), [(576, 200), (4096, 173), (100, 99), (100, 7), (7, 1)])
def test_each_column_shows_as_many_neighbours_as_the_next_within_one(width: int, columns: int) -> None:
    column_of = pool_signed_max(np.eye(width, dtype=np.float32), columns).argmax(axis=1)
    assert (np.diff(column_of) >= 0).all()
    sizes = np.bincount(column_of, minlength=columns)
    assert sizes.max() - sizes.min() <= 1


def test_a_strong_negative_neuron_is_not_hidden_by_weaker_positive_ones() -> None:
    values = np.full((1, 64), 0.5, dtype=np.float32)
    values[0, 40] = -0.75
    assert pool_signed_max(values, 2).tolist() == [[0.5, -0.75]]


@quick
@given(matrices)
def test_the_colour_limit_is_the_largest_magnitude_or_one(values: FloatArray) -> None:
    largest = max(abs(float(value)) for value in values.ravel())
    assert colour_limit(values) == (largest or 1.0)


def test_the_robust_limit_is_not_drowned_by_an_outlier() -> None:
    values = np.linspace(-1, 1, 1001, dtype=np.float32).reshape(7, 143)
    values[3, 5] = -1e6
    assert 0.9 < colour_limit(values, robust=True) <= 1.0
    assert colour_limit(values) == 1e6


@pytest.mark.parametrize("robust", [False, True])
@pytest.mark.parametrize("shape", [(3, 5), (0, 5)])
def test_the_colour_limit_of_nothing_is_one(shape: tuple[int, int], robust: bool) -> None:
    assert colour_limit(np.zeros(shape, dtype=np.float32), robust) == 1.0
