"""The kinds of IRM: what the settings, the networks and the prediction of memory know of them."""

from typing import get_args

import pytest

from irm_lite.config import KINDS, Kind, TrainConfig
from irm_lite.steering.irm import build_irm
from irm_lite.training.irm_memory import IRM_MEMORY


def test_each_kind_is_known_everywhere() -> None:
    assert set(get_args(Kind)) == set(KINDS) == set(IRM_MEMORY)


@pytest.mark.parametrize("kind", KINDS)
def test_the_settings_build_it_and_it_comes_back_by_its_options(kind: Kind) -> None:
    config = TrainConfig(irm=kind, rank=3, width=10)
    irm = build_irm(kind, 16, (0, 2), config.chosen_site, **config.irm_options)
    assert (irm.kind, irm.site) == (kind, KINDS[kind].site)
    assert irm.options == config.irm_options
