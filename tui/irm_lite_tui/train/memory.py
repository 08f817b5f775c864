"""Will it fit? The prediction of irm_lite/training/memory_fit.py as a line, before anything is loaded."""

from irm_lite.base.sources.shape import base_shape
from irm_lite.config import TrainConfig
from irm_lite.core.errors import IrmLiteError
from irm_lite.core.machine.available_memory import available_bytes
from irm_lite.training.kept_share import room
from irm_lite.training.memory_fit import SAMPLE_TOKENS, Step, predict, with_text


def needed(config: TrainConfig, free: int) -> int:
    """Bytes at the higher of the two peaks, loading and training, on the CPU with so many free. Raises IrmLiteError where the
    model's sizes are not known, or it lacks the layers."""
    dtype = "float32" if config.dtype == "float32" else "bfloat16"
    length = min(config.max_length, SAMPLE_TOKENS)
    step = with_text(Step(config.batch_size * length), config, length // 2)
    fit = predict(base_shape(config.model), config, step, "cpu", dtype, config.chosen_optim("adamw_torch"), room(free))
    return max(fit.load_peak, fit.training_peak)


def memory_line(config: TrainConfig) -> tuple[str, bool]:
    """A line on whether it fits, and False where it probably does not."""
    free = available_bytes()
    try:
        wanted = needed(config, free)
    except IrmLiteError:
        return f"Memory: {free / 1e9:.1f} GB are free here; what this model needs is not known before it is loaded.", True
    fits = wanted <= free
    verdict = "Should fit" if fits else "Probably too little"
    gpu = " (GPUs are not looked at)" if config.device in ("auto", "cuda") else ""
    return f"Memory: roughly {wanted / 1e9:.1f} of {free / 1e9:.1f} GB free here. {verdict}{gpu}.", fits
