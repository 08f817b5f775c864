"""irm-lite: train a small network that steers a frozen Llama's residual stream, and take its effect to llama.cpp.

    base = irm_lite.load_base("demo")
    run = irm_lite.train(irm_lite.TrainConfig(model="demo", data="anger"), Path("runs/anger"), base=base)
    with irm_lite.inject(base.model, run.irm, strength=0.8):
        base.model.generate(...)
    irm_lite.export_vector(run, Path("anger.gguf"))

The names of `__all__` are the public face: each has an example in its docstring, which a test runs. Nothing heavy is
imported until it is used: `import irm_lite` loads no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from irm_lite.core.version import __version__

_HOMES = {
    "load_base": "irm_lite.base.load",
    "load_run": "irm_lite.runs.trained",
    "inject": "irm_lite.steering.injection",
    "train": "irm_lite.training.train",
    "TrainConfig": "irm_lite.config",
    "export_vector": "irm_lite.vectors.export",
    "ControlVector": "irm_lite.steering.control_vector",
    "IrmLiteError": "irm_lite.core.errors",
}

__all__ = [*_HOMES, "__version__"]

if TYPE_CHECKING:
    from irm_lite.base.load import load_base as load_base
    from irm_lite.config import TrainConfig as TrainConfig
    from irm_lite.core.errors import IrmLiteError as IrmLiteError
    from irm_lite.runs.trained import load_run as load_run
    from irm_lite.steering.control_vector import ControlVector as ControlVector
    from irm_lite.steering.injection import inject as inject
    from irm_lite.training.train import train as train
    from irm_lite.vectors.export import export_vector as export_vector


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'irm_lite' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
