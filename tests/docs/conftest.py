"""The folder in which the documents' examples run."""

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from support.once import Once


@pytest.fixture(scope="session")
def workshop(llama_gguf: Path, once: "Once") -> Path:
    """Made once; tests work in copies of it."""
    from support.workshop import fill

    return once("workshop", lambda folder: fill(folder, llama_gguf))
