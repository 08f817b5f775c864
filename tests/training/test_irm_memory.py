"""The kinds of IRM: what the settings, the networks and the prediction of memory know of them."""

from collections.abc import Iterable
from typing import get_args

import pytest

from irm_lite.config import KINDS, Kind, TrainConfig
from irm_lite.steering.irm import NETWORKS, build_irm
from irm_lite.training.irm_memory import IRM_MEMORY
from support.kinds import read_by


def test_each_kind_is_known_everywhere() -> None:
    tables: dict[str, Iterable[str]] = {
        "config.KINDS": KINDS,
        "training/irm_memory.IRM_MEMORY": IRM_MEMORY,
        "steering/irm.NETWORKS": NETWORKS,
    }
    assert {name: set(get_args(Kind)) ^ set(table) for name, table in tables.items()} == {name: set() for name in tables}


@pytest.mark.parametrize("kind", KINDS)
def test_the_settings_build_it_and_it_comes_back_by_its_options(kind: Kind) -> None:
    config = TrainConfig(irm=kind, rank=3, width=10)
    irm = build_irm(kind, 16, (0, 2), config.chosen_site, **read_by(kind, 48), **config.irm_options)
    assert (irm.kind, irm.site) == (kind, KINDS[kind].site)
    assert irm.options == config.irm_options | read_by(kind, 48)
