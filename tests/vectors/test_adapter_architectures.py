"""Adapters on many architectures: what PEFT says of the folder, hooks of the factors and llama.cpp of the .gguf is the same."""

from pathlib import Path

import pytest

from support.zoo_ggufs import ARCHITECTURES, write_zoo
from zoo.adapting import adapt


@pytest.mark.slow
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_an_adapter_does_the_same_in_every_runtime(name: str, tmp_path: Path) -> None:
    found = adapt(*write_zoo(name, tmp_path))
    assert found.gap < 1e-4
    assert abs(found.kl) < min(1e-5, found.effect / 100)
