"""An IRM's striations held against those of the untouched base's gradient field at the same sites."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from irm_lite.analysis.statistics.checks import require_positive, require_same_shape, table
from irm_lite.analysis.statistics.striations import StriationTest, correlations, layer_normalised, striation_test, two_way
from irm_lite.core.bootstrap import RESAMPLES, Interval, interval, resampled_counts
from irm_lite.core.types import DoubleArray, IntArray, Reals

_NOTHING = 1e-12  # of a layer's variance; less is the rounding of a perfect fit, or of a constant


@dataclass(frozen=True)
class Striation:
    """Index share of the layer-normalised values, and mean Pearson r of neighbouring layers."""

    index_share: float
    neighbour_correlation: float


@dataclass(frozen=True)
class FieldControl:
    """`added` is values less field, with 95% bootstrap intervals over indices. `slopes` and `r2` (L,): each layer's
    normalised values regressed on its normalised field. `left`: what that leaves, normalised again, against permutations."""

    values: Striation
    field: Striation
    added: Striation
    index_share_added_95: Interval
    neighbour_correlation_added_95: Interval
    slopes: list[float]
    r2: list[float]
    r2_mean: float
    left: StriationTest

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def against_field(
    values: Reals, field: Reals, bootstraps: int = RESAMPLES, permutations: int = 1000, seed: int = 0
) -> FieldControl:
    """How much striation is in an IRM's mean output (L, H) beyond the base's gradient field (L, H) at the same sites?

    Two answers. `added`: the difference of the two striations. Its interval draws whole columns, the same of both, so it
    says whether the difference would hold on other indices of this base. It says nothing of another training, other
    data or another base; where a few indices outweigh the rest it is too narrow (of columns with the tails of a t with 3
    degrees of freedom it covered 90%, BCa no more); and noise in either array, of few samples, lowers that one's
    striation and moves the difference. `left`: the striation of what a regression of each
    layer's values on that layer's field leaves. A p that is not small says that the field and noise suffice. A small one
    says that they do not, if the field is exact: noise in the field, or values that follow another layer's field, leave
    some of the field's own striation behind. Raises InputError where the arrays cannot be used.
    """
    values, field = table(values, "the values"), table(field, "the field")
    require_same_shape(values, "the values", field, "the field")
    require_positive(bootstraps, "bootstraps")
    values, field = layer_normalised(values), layer_normalised(field)
    slopes, r2, left = _regress(values, field)
    counts = resampled_counts(values.shape[1], bootstraps, seed)
    drawn = _resampled_striation(values, counts) - _resampled_striation(field, counts)
    of_values, of_field = (_striation(each) for each in (values, field))
    added = Striation(
        of_values.index_share - of_field.index_share, of_values.neighbour_correlation - of_field.neighbour_correlation
    )
    return FieldControl(
        of_values,
        of_field,
        added,
        interval(drawn[0]),
        interval(drawn[1]),
        slopes.tolist(),
        r2.tolist(),
        float(r2.mean()),
        striation_test(layer_normalised(left), permutations, seed),
    )


def _striation(values: DoubleArray) -> Striation:
    return Striation(two_way(values).index, correlations(values).neighbours)


def _regress(values: DoubleArray, field: DoubleArray) -> tuple[DoubleArray, DoubleArray, DoubleArray]:
    """Least squares with intercept, layer by layer: slopes (L,), R2 (L,), residuals (L, H). Of a constant field: 0, 0."""
    y, x = (each - each.mean(1, keepdims=True) for each in (values, field))
    variance, power = np.square(x).mean(1), np.square(y).mean(1)
    slopes = np.where(variance > _NOTHING, (x * y).mean(1) / np.maximum(variance, _NOTHING), 0.0)
    left = y - slopes[:, None] * x
    unexplained = np.square(left).mean(1) / np.maximum(power, _NOTHING)
    left[unexplained <= _NOTHING] = 0.0
    return slopes, np.where(power > _NOTHING, 1.0 - unexplained, 0.0), left


def _resampled_striation(values: DoubleArray, counts: IntArray) -> DoubleArray:
    """Index share and neighbour correlation (2, B) of the columns of (L, H) drawn as often as `counts` (B, H) says.

    Both follow from the layers' means and second moments alone: nothing larger than (L, L) is kept of a resample.
    """
    layers, width = values.shape
    first, second = np.empty((len(counts), layers)), np.empty((len(counts), layers, layers))
    for resample, weights in enumerate(counts):
        first[resample] = values @ weights / width
        second[resample] = (values * weights) @ values.T / width
    rms = np.sqrt(np.diagonal(second, axis1=1, axis2=2))
    scale = 1.0 / np.where(rms > 0, rms, 1.0)
    first, second = first * scale, second * scale[:, :, None] * scale[:, None, :]  # layer-normalised anew
    grand = np.square(first.mean(1))
    power = np.diagonal(second, axis1=1, axis2=2)
    total = power.mean(1) - grand
    share = (second.mean((1, 2)) - grand) / np.where(total > _NOTHING, total, np.inf)
    variance = power - np.square(first)
    products = np.diagonal(second, 1, axis1=1, axis2=2) - first[:, :-1] * first[:, 1:]
    pairs = variance[:, :-1] * variance[:, 1:]
    r = products / np.where(pairs > _NOTHING**2, np.sqrt(np.maximum(pairs, 0.0)), np.inf)
    return np.stack([share, r.mean(1)])
