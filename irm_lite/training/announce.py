"""What a training says before its first step: the start event, and the warnings."""

from collections.abc import Callable

import torch

from irm_lite.core.machine import processes
from irm_lite.core.machine.described import machine
from irm_lite.core.machine.launch import not_heeded
from irm_lite.data.turn import adaptations
from irm_lite.steering.layers import format_layers
from irm_lite.training.resume_point import ResumedAt
from irm_lite.training.setup.idle_settings import idle_settings
from irm_lite.training.setup.prepare import Job


def announce(job: Job, reached: ResumedAt | None, emit: Callable[..., None]) -> None:
    """`reached`: where a training is resumed."""
    config, base, irm, samples = job.config, job.base, job.irm, job.samples
    predicted, free = job.memory.predicted, job.memory.free
    emit(
        "start",
        model=config.model,
        data=config.data,
        irm=irm.kind,
        parameters=sum(parameter.numel() for parameter in irm.parameters()),
        layers=format_layers(irm.layers),
        device=base.plan.device,
        dtype=base.plan.dtype,
        machine=machine(torch.get_num_threads()),
        samples={"train": len(samples.train), "validation": len(samples.validation), "too_long": sum(samples.too_long.values())},
        data_read=samples.described(),
        data_sha256=samples.digest,
        max_steps=job.arguments.max_steps,
        processes=processes.count(),
        rows=job.memory.rows,
        load_peak_bytes=job.load_peak,
        predicted_load_bytes=predicted and predicted.load_peak,
        predicted_training_bytes=predicted and predicted.training_peak,
        resumed_from=reached.checkpoint.name if reached else None,
    )
    if text := not_heeded():
        emit("warning", text=text)
    if predicted and predicted.training_peak > free:
        hint = (
            "--gradient-checkpointing"
            if config.batch == "auto"
            else "--batch auto, a smaller --batch-size or --gradient-checkpointing"
        )
        needed = f"{predicted.training_peak / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free"
        emit("warning", text=f"this training needs about {needed}: {hint} would need less")
    for text in samples.left_out(config) if reached is None else ():
        emit("warning", text=text)
    if reached is None:
        for text in idle_settings(config, samples.train, job.arguments.max_steps):
            emit("warning", text=text)
        for text in adaptations(sample.adapted for sample in (*samples.train, *samples.validation)):
            emit("warning", text=text)
    for text in job.told:
        emit("warning", text=text, of="runtimes")
