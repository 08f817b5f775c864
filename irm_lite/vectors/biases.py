"""What can be baked: control vectors, or a static IRM at its own site, as biases by block."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from irm_lite.base.fingerprint import Fingerprint, Match
from irm_lite.core.errors import InputError
from irm_lite.core.types import FloatArray
from irm_lite.steering.control_vector import load_sum, parse_vector_argument, require_scale
from irm_lite.steering.layers import parse_layers

Slot = Literal["ffn_down", "attn_output"]


@dataclass(frozen=True)
class Biases:
    """Vectors (H,) by 0-based block, all in one slot, and where they come from."""

    slot: Slot
    values: dict[int, FloatArray]
    provenance: Mapping[str, str | int | float]
    match: Match = field(default_factory=Match)


def gather(sources: Sequence[str], model: Fingerprint, name: str, *, scale: float = 1.0, layers: str | None = None) -> Biases:
    """What these arguments name: control vectors as PATH[:SCALE], which add up, or one run directory.

    A static run goes in exactly, layer 0 included; any other run by its exported vector. Raises an InputError where
    something is missing or does not fit the model called `name`.
    """
    paths = [parse_vector_argument(source)[0] for source in sources]
    if any(path.is_dir() for path in paths):
        if len(sources) > 1:
            raise InputError("a run is baked alone", "export vectors and bake those together")
        return _of_run(sources[0], model, name, scale, layers)
    return _of_vectors(sources, model, name, scale, layers)


def _of_vectors(sources: Sequence[str], model: Fingerprint, name: str, scale: float, layers: str | None) -> Biases:
    vector = load_sum(sources)
    if vector is None:
        raise InputError("there is nothing to bake", "name a control vector or a run")
    match = vector.require_fit(model, name)
    if layers is not None:
        vector = vector.select(parse_layers(layers, model.n_layers, first=1))
    scaled = vector if scale == 1.0 else vector * scale
    provenance = {**scaled.metadata, "source": " + ".join(Path(source).name for source in sources), "scale": scale}
    return Biases("ffn_down", scaled.directions, provenance, match)


def _of_run(source: str, model: Fingerprint, name: str, scale: float, layers: str | None) -> Biases:
    from irm_lite.runs.trained import load_run
    from irm_lite.steering.irm import StaticIRM

    path, strength = parse_vector_argument(source)
    run = load_run(path)
    if not isinstance(run.irm, StaticIRM):
        if not run.directory.default_vector.exists():
            raise InputError(f"{path} has no vector yet", f"irm-lite export {path}")
        return _of_vectors([f"{run.directory.default_vector}:{strength}"], model, name, scale, layers)
    match = run.match(model, name)
    require_scale(strength * scale)
    chosen = run.irm.layers if layers is None else parse_layers(layers, model.n_layers)
    vectors = run.irm.added.detach().float().cpu().numpy() * strength * scale
    values = {layer: vector for layer, vector in zip(run.irm.layers, vectors, strict=True) if layer in chosen}
    if not values:
        raise InputError(f"{path} has no vector at layers {layers}", "choose others")
    provenance: dict[str, str | float] = {
        "source": path.name,
        "scale": strength * scale,
        "kind": run.irm.kind,
        "base.weights": run.fingerprint.weights,
        "base.graph": run.fingerprint.graph,
    }
    return Biases("attn_output" if run.irm.site == "attn" else "ffn_down", values, provenance, match)
