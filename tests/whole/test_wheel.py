"""What is installed from a wheel works without the checkout (wheel.py, which tries the demo too)."""

import importlib.util
from importlib.metadata import version
from pathlib import Path

import pytest

from whole.wheel import tried


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("setuptools") is None or int(version("setuptools").split(".")[0]) < 77,
    reason="the wheel is built by the environment's own setuptools",
)
def test_the_wheel_holds_all_that_the_programs_need(tmp_path: Path) -> None:
    tried(tmp_path)
