"""What `import irm_lite` offers: each name is there, documented, and its example runs as it is printed."""

import doctest
import inspect
from pathlib import Path
from types import ModuleType

import pytest

import irm_lite
from irm_lite.training.train import train

OBJECTS = [name for name in irm_lite.__all__ if not isinstance(getattr(irm_lite, name), str)]


def test_every_exported_name_resolves_and_is_listed() -> None:
    assert set(irm_lite.__all__) <= set(dir(irm_lite))
    for name in irm_lite.__all__:
        exported = getattr(irm_lite, name)
        assert not isinstance(exported, ModuleType), f"{name} is a module"
        assert isinstance(exported, str) or exported.__name__ == name


def test_what_type_checkers_see_is_what_is_exported() -> None:
    """The imports under TYPE_CHECKING name the same homes as the lazy ones."""
    source = inspect.getsource(irm_lite)
    for name in OBJECTS:
        assert f"    from {getattr(irm_lite, name).__module__} import {name} as {name}\n" in source


@pytest.fixture(scope="module")
def workshop(llama_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as the examples have it: a model `my-llama` and a trained run `runs/anger`."""
    folder = tmp_path_factory.mktemp("workshop")
    (folder / "my-llama").symlink_to(llama_folder, target_is_directory=True)
    config = irm_lite.TrainConfig(
        irm="lite", model=str(folder / "my-llama"), quant="none", device="cpu", max_steps=3, sample_tokens=0, learning_rate=0.02
    )
    train(config, folder / "runs" / "anger")
    return folder


@pytest.fixture
def inside(workshop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(workshop)


@pytest.mark.slow
@pytest.mark.usefixtures("inside")
@pytest.mark.parametrize("name", OBJECTS)
def test_its_example_runs(name: str) -> None:
    exported = getattr(irm_lite, name)
    names = vars(inspect.getmodule(exported))
    own = [each for each in doctest.DocTestFinder(recurse=False).find(exported, name, globs=dict(names)) if each.examples]
    assert own, f"{name} has no example in its docstring"
    report: list[str] = []
    assert doctest.DocTestRunner(verbose=False).run(own[0], out=report.append).failed == 0, "".join(report)
