"""The gradient field in parts: what goes through the norms' gains and what goes through their denominators.

RMSNorm y = g * x / r, r = sqrt(mean(x^2) + eps), hands back dL/dx = (g * dL/dy) / r - x * <g * dL/dy, x> / (H r^3): a direct part,
and a scale part along x itself, so that a loud channel gets a large one whatever its gain. Behind several norms the paths multiply;
they are told apart by the first denominator that they pass, counted from the loss: with the denominators of the norms
below one fixed, and those above it free, less the same with its own fixed too. The parts add up to the whole field.
"""

from collections.abc import Sequence

from irm_lite.analysis.base_controls.denominators import held, stream_norms
from irm_lite.analysis.base_controls.gradient_field import gradient_field
from irm_lite.analysis.statistics.channels import BLOCKS, DIRECT, FINAL
from irm_lite.base.load import Base
from irm_lite.core.types import FloatArray, Progress
from irm_lite.data.encoding import Sample
from irm_lite.steering.irm import Site


def gradient_split(
    base: Base,
    samples: Sequence[Sample],
    layers: tuple[int, ...],
    site: Site,
    *,
    each_norm: bool = False,
    whole: FloatArray | None = None,
    on_progress: Progress = lambda done, of, what: None,
) -> dict[str, FloatArray]:
    """Parts (L, H) of `gradient_field`, which they sum to: DIRECT, FINAL and BLOCKS; with `each_norm` one of every norm in
    the place of BLOCKS, at the price of a pass over the samples each. `whole`: the gradient field of the same, where it is known.
    Raises BaseModelError where the base has other norms."""
    norms = stream_norms(base.model)
    below = [name for name in reversed(norms) if name != FINAL]
    groups = [(FINAL, [FINAL]), *((name, [name]) for name in below)] if each_norm else [(FINAL, [FINAL]), (BLOCKS, below)]
    fixed = list(norms)
    parts: dict[str, FloatArray] = {}
    before: FloatArray | None = None
    for title, freed in [(DIRECT, []), *groups]:
        fixed = [name for name in fixed if name not in freed]
        if fixed or whole is None:
            with held(norms, fixed):
                field = gradient_field(base, samples, layers, site, on_progress)
        else:
            field = whole
        parts[title] = field if before is None else field - before
        before = field
    return parts
