"""irm_lite's own kinds, trained by its own `train`, and what its export makes of them. Runs are kept beside the results."""

import time
from contextlib import ExitStack
from pathlib import Path

from irm_lite.config import Kind, TrainConfig
from irm_lite.core.errors import InputError, TrainingFailed
from irm_lite.data.encoding import Sample, encode_all
from irm_lite.runs.directory import RunDirectory
from irm_lite.runs.trained import TrainedRun, load_run
from irm_lite.steering.control_vector import ControlVector
from irm_lite.steering.irm import StaticIRM
from irm_lite.training.setup.settings import absolute
from irm_lite.training.train import resume, train
from irm_lite.vectors.distil import Fitting, distil
from irm_lite.vectors.mean import block_directions, observe
from steering_methods.arena import BATCH_SIZE, MAX_LENGTH, Arena, runtime_voice
from steering_methods.method import Made, Variant


def static(arena: Arena, seed: int, variant: Variant, held: ExitStack) -> Made:
    """Its vectors are the control vector."""
    run = trained(arena, "static", seed, variant)
    assert isinstance(run.irm, StaticIRM)
    directions = {layer: run.irm.added[at].detach().float().cpu().numpy() for at, layer in enumerate(run.irm.layers)}
    return _vector(arena, run, ControlVector(directions, arena.base.fingerprint.architecture), 0.0)


def lite(arena: Arena, seed: int, variant: Variant, held: ExitStack) -> Made:
    return _dynamic(arena, trained(arena, "lite", seed, variant), held)


def lora(arena: Arena, seed: int, variant: Variant, held: ExitStack) -> Made:
    return _dynamic(arena, trained(arena, "lora", seed, variant), held)


def paper(arena: Arena, seed: int, variant: Variant, held: ExitStack) -> Made:
    return _dynamic(arena, trained(arena, "paper", seed, variant), held)


def lite_mean(arena: Arena, seed: int, variant: Variant, held: ExitStack) -> Made:
    run = trained(arena, "lite", seed, variant)
    started = time.monotonic()
    directions = block_directions(observe(arena.base, run.irm, arena.samples).mean, run.irm, arena.base.n_layers)
    vector = ControlVector({n: each.float().cpu().numpy() for n, each in directions.items()}, arena.base.fingerprint.architecture)
    return _vector(arena, run, vector, time.monotonic() - started)


def lite_distilled(arena: Arena, seed: int, variant: Variant, held: ExitStack) -> Made:
    return _distilled(arena, trained(arena, "lite", seed, variant), seed)


def paper_distilled(arena: Arena, seed: int, variant: Variant, held: ExitStack) -> Made:
    return _distilled(arena, trained(arena, "paper", seed, variant), seed)


def _distilled(arena: Arena, run: TrainedRun, seed: int) -> Made:
    started = time.monotonic()
    blocks = tuple(range(1, arena.base.n_layers))
    found = distil(arena.base, run.irm, arena.samples, _validation(arena), blocks, Fitting(seed=seed))
    directions = {n: each.float().cpu().numpy() for n, each in found.directions.items()}
    return _vector(arena, run, ControlVector(directions, arena.base.fingerprint.architecture), time.monotonic() - started)


def _validation(arena: Arena) -> list[Sample]:
    return encode_all(arena.base.tokenizer, arena.dataset.validation, MAX_LENGTH)[0]


def _vector(arena: Arena, run: TrainedRun, vector: ControlVector, more_seconds: float) -> Made:
    return Made(lambda strength: arena.vector_voice(vector, strength), seconds_of(run) + more_seconds, parameters_of(run))


def _dynamic(arena: Arena, run: TrainedRun, held: ExitStack) -> Made:
    """The network itself inside llama.cpp, in a runtime of its own."""
    runtime = held.enter_context(arena.new_runtime(run.irm))
    dynamic = runtime.dynamic
    assert dynamic is not None

    def steer(strength: float) -> None:
        dynamic.strength = strength

    return Made(lambda strength: runtime_voice(runtime, lambda: steer(strength)), seconds_of(run), parameters_of(run))


def trained(arena: Arena, kind: Kind, seed: int, variant: Variant) -> TrainedRun:
    """The run of this kind, seed and rate: trained, gone on with, or as it lies there."""
    place = arena.work / f"{kind}-{seed}-{float(variant):g}"
    config = TrainConfig(
        model=arena.model,
        data=arena.data,
        irm=kind,
        max_steps=arena.extents.steps,
        seed=seed,
        learning_rate=float(variant),
        batch_size=BATCH_SIZE,
        max_length=MAX_LENGTH,
        sample_tokens=0,
    )
    return _run(arena, config, place)


def _run(arena: Arena, config: TrainConfig, place: Path) -> TrainedRun:
    if not place.exists():
        return train(config, place, base=arena.base)
    _require_same(absolute(config), place)
    if RunDirectory(place).events.finished() is None:
        return resume(place, base=arena.base)
    run = load_run(place)
    run.base = arena.base
    run.irm.to(arena.base.plan.device)
    return run


def _require_same(config: TrainConfig, place: Path) -> None:
    """Raise InputError where the run that lies there is of another comparison."""
    start = next((each for each in RunDirectory(place).events.read() if each["kind"] == "start"), {})
    if any(start.get(name, value) != value for name, value in config.to_dict().items() if name in ("model", "data", "max_steps")):
        raise InputError(f"{place} is a run of another comparison", "remove the folder, or give another --json")


def seconds_of(run: TrainedRun) -> float:
    """Of the training, over all its sittings."""
    return sum(float(each["seconds"]) for each in run.directory.events.read() if each["kind"] == "end" and "seconds" in each)


def parameters_of(run: TrainedRun) -> int:
    start = next((each for each in run.directory.events.read() if each["kind"] == "start"), None)
    if start is None:
        raise TrainingFailed(f"{run.directory.path} does not say how many parameters it has", "remove it, and train again")
    return int(start["parameters"])
