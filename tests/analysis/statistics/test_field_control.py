"""The control by the gradient field: regressions against scipy, resamples against plain columns, planted striations apart."""

import json

import numpy as np
import pytest
from scipy import stats

from irm_lite.analysis.statistics.field_control import against_field
from irm_lite.analysis.statistics.striations import correlations, layer_normalised, striation_test, two_way
from irm_lite.core.bootstrap import resampled_counts
from irm_lite.core.errors import InputError
from irm_lite.core.types import DoubleArray
from support.rates import TRIALS, most

LAYERS, WIDTH = 5, 150


def striated_field(generator: np.random.Generator, layers: int = LAYERS, width: int = WIDTH) -> DoubleArray:
    """A walk from layer to layer: neighbours are alike, as in a residual stream. Unit variance."""
    field = generator.standard_normal((layers, width))
    for layer in range(1, layers):
        field[layer] = 0.8 * field[layer - 1] + 0.6 * field[layer]
    return field


def follows(generator: np.random.Generator, field: DoubleArray) -> DoubleArray:
    """An IRM that is the field and noise, of another sign and scale in each layer."""
    noisy = field + generator.standard_normal(field.shape)
    return -(10.0 ** generator.uniform(-3, 1, (len(field), 1))) * noisy


def test_regressions_are_scipys_and_what_they_leave_is_tested() -> None:
    generator = np.random.default_rng(0)
    field = striated_field(generator) + 0.3
    values = follows(generator, field)
    got = against_field(values, field, 50, 199, seed=3)
    left = np.empty_like(values)
    for layer, (y, x) in enumerate(zip(layer_normalised(values), layer_normalised(field), strict=True)):
        line = stats.linregress(x, y)
        assert got.slopes[layer] == pytest.approx(line.slope, abs=1e-9)
        assert got.r2[layer] == pytest.approx(line.rvalue**2, abs=1e-9)
        left[layer] = y - line.intercept - line.slope * x
    assert got.r2_mean == pytest.approx(np.mean(got.r2))
    expected = striation_test(layer_normalised(left), 199, seed=3)
    assert vars(got.left.index_share) == pytest.approx(vars(expected.index_share), abs=1e-9)
    assert vars(got.left.neighbour_correlation) == pytest.approx(vars(expected.neighbour_correlation), abs=1e-9)


def test_intervals_are_those_of_columns_drawn_together() -> None:
    generator = np.random.default_rng(1)
    field = striated_field(generator, 3, 20) - 0.5
    values = follows(generator, field)
    got = against_field(values, field, 40, 9, seed=5)
    shares, neighbours = [], []
    for counts in resampled_counts(20, 40, seed=5):
        pair = [layer_normalised(np.repeat(each, counts, axis=1)) for each in (values, field)]
        shares.append(two_way(pair[0]).index - two_way(pair[1]).index)
        neighbours.append(correlations(pair[0]).neighbours - correlations(pair[1]).neighbours)
    assert got.index_share_added_95 == pytest.approx(np.percentile(shares, (2.5, 97.5)).tolist(), abs=1e-9)
    assert got.neighbour_correlation_added_95 == pytest.approx(np.percentile(neighbours, (2.5, 97.5)).tolist(), abs=1e-9)
    assert got.added.index_share == pytest.approx(got.values.index_share - got.field.index_share)
    assert got.field.neighbour_correlation == pytest.approx(correlations(field).neighbours)


@pytest.mark.slow
def test_intervals_cover_the_difference_of_all_indices() -> None:
    """The truth is that of 400,000 indices, of which each trial sees 400."""

    def draw(generator: np.random.Generator, width: int) -> tuple[DoubleArray, DoubleArray]:
        field = striated_field(generator, LAYERS, width)
        values = field + 0.7 * generator.standard_normal(width) + generator.standard_normal(field.shape)
        return values, field

    all_values, all_field = draw(np.random.default_rng(99), 400_000)
    share = two_way(layer_normalised(all_values)).index - two_way(layer_normalised(all_field)).index
    neighbours = correlations(all_values).neighbours - correlations(all_field).neighbours
    missed = np.zeros(2)
    for seed in range(TRIALS):
        got = against_field(*draw(np.random.default_rng(seed), 400), 300, 1, seed)
        intervals = (got.index_share_added_95, got.neighbour_correlation_added_95)
        missed += [not low <= truth <= high for truth, (low, high) in zip((share, neighbours), intervals, strict=True)]
    assert missed.max() <= most(0.05)


def test_the_field_and_noise_leave_no_striations() -> None:
    found = np.zeros(2)
    for seed in range(TRIALS):
        generator = np.random.default_rng(seed)
        field = striated_field(generator)
        got = against_field(follows(generator, field), field, 1, 99, seed)
        found += [got.left.index_share.p <= 0.05, got.left.neighbour_correlation.p <= 0.05]
        assert got.values.neighbour_correlation > 0.2  # striated all the same: permutations alone would call it so
    assert found.max() <= most(0.05)


def test_striations_beyond_the_field_are_found() -> None:
    for seed in range(20):
        generator = np.random.default_rng(seed)
        field = striated_field(generator)
        values = field + 2.0 * generator.standard_normal(WIDTH) + 0.5 * generator.standard_normal(field.shape)
        got = against_field(values, field, 200, 199, seed)
        assert got.left.index_share.p == got.left.neighbour_correlation.p == 1 / 200
        assert got.index_share_added_95[0] > 0


def test_the_field_itself_adds_nothing() -> None:
    field = striated_field(np.random.default_rng(2))
    field[3] = 0  # a silent layer in both
    scales = np.array([[1e-4], [-2.0], [3.0], [1.0], [50.0]])
    got = against_field(field * np.abs(scales), field, 100, 99)
    assert got.index_share_added_95 == pytest.approx((0, 0), abs=1e-12)
    assert got.slopes == pytest.approx([1, 1, 1, 0, 1])
    assert got.r2 == pytest.approx([1, 1, 1, 0, 1])
    assert got.left.index_share.observed == 0
    assert got.left.index_share.p == got.left.neighbour_correlation.p == 1
    json.dumps(got.to_dict(), allow_nan=False)
    assert against_field(field * scales, field, 1, 9).slopes == pytest.approx([1, -1, 1, 0, 1])


def test_what_cannot_be_used_is_refused() -> None:
    field = striated_field(np.random.default_rng(3))
    cases = [
        ((field[:, :-1], field), "the values of shape (5, 149) and the field of (5, 150)"),
        ((field * np.nan, field), "float32 in the values"),
        ((field, field * np.inf), "float32 in the field"),
        ((field[:1], field[:1]), "give at least 2"),
    ]
    for (values, other), expected in cases:
        with pytest.raises(InputError) as caught:
            against_field(values, other)
        assert expected in str(caught.value)
    with pytest.raises(InputError, match="0 bootstraps"):
        against_field(field, field, bootstraps=0)
    with pytest.raises(InputError, match="0 permutations"):
        against_field(field, field, permutations=0)
