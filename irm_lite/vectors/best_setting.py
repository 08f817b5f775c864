"""A control vector at the best setting of its calibration: as a vector, and as flags of llama.cpp's programs."""

from pathlib import Path

from irm_lite.steering.control_vector import ControlVector
from irm_lite.steering.layers import parse_layers
from irm_lite.vectors.calibration import Setting


def at_setting(vector: ControlVector, setting: Setting) -> ControlVector:
    """The vector's directions at the setting's layers, scaled so that strength 1 is the setting's."""
    return vector.select(_layers(vector, setting)) * setting.strength


def at_strength(vector: ControlVector, strength: float) -> ControlVector:
    """The vector scaled so that strength 1 is this one; itself, with what is known of it, where it is that already."""
    return vector if strength == 1 else vector * strength


def llamacpp_flags(vector: ControlVector, path: Path, setting: Setting) -> list[str] | None:
    """The flags that load the vector of that path at the setting; None where llama.cpp has none for it: it takes one range of
    layers, and splits a path at ":" and ","."""
    return flags_at(path, _layers(vector, setting), setting.strength)


def flags_at(path: Path, layers: tuple[int, ...], strength: float) -> list[str] | None:
    """The same for layers, ascending, and a strength."""
    if layers != tuple(range(layers[0], layers[-1] + 1)) or {":", ","} & set(str(path)):
        return None
    scaled = ["--control-vector-scaled", f"{path}:{strength:g}"]
    return [*scaled, "--control-vector-layer-range", str(layers[0]), str(layers[-1])]


def _layers(vector: ControlVector, setting: Setting) -> tuple[int, ...]:
    return parse_layers(setting.layers, max(vector.layers) + 1, first=1)
