"""Will it fit? A rough answer from a preset's sizes, before anything is loaded."""

from irm_lite.config import TrainConfig
from irm_lite.errors import IrmLiteError
from irm_lite.layers import parse_layers
from irm_lite.presets import Preset, presets

_BYTES_A_WEIGHT = {"nf4": 0.6, "fp4": 0.6, "int8": 1.1, "none": 2.0}  # with scales and the unquantised embeddings
_PROGRAM = 0.8e9  # torch, transformers and Python themselves
_ADAM = 16  # bytes a trained weight: itself, its gradient and two moments in float32
_SAMPLE_TOKENS = 128  # a question with its answer; packing leaves no padding


def irm_parameters(config: TrainConfig, preset: Preset, n_layers: int) -> int:
    """Trained weights of the IRM (irm_lite/irm.py), biases left out."""
    hidden = preset.hidden_size
    if config.irm == "paper":
        return 3 * hidden * hidden + 3 * (3 * hidden) ** 2 + 3 * hidden * hidden * n_layers
    if config.irm == "lite":
        trunk = hidden * config.width + config.width**2
        return trunk + n_layers * config.rank * (config.width + hidden)
    return n_layers * hidden


def estimate(config: TrainConfig, preset: Preset) -> float:
    """Bytes that a training needs at its peak, roughly.

    Activations: 34 bytes a token, layer and hidden index (Korthikanti et al. 2022, arXiv 2205.05198, without its attention
    term), an eighth of it with gradient checkpointing.
    """
    try:
        n_layers = len(parse_layers(config.layers, preset.layers))
    except IrmLiteError:
        n_layers = preset.layers
    weights = preset.parameters * 1e9 * _BYTES_A_WEIGHT[config.quant]
    if config.quant == "none" and config.dtype == "float32":
        weights *= 2
    tokens = config.batch_size * min(config.max_length, _SAMPLE_TOKENS)
    activations = 34 * tokens * preset.layers * preset.hidden_size * (1 / 8 if config.gradient_checkpointing else 1)
    return _PROGRAM + weights + activations + _ADAM * irm_parameters(config, preset, n_layers)


def memory_line(config: TrainConfig) -> tuple[str, bool]:
    """A line on whether it fits, and False where it looks as if it does not."""
    import psutil

    free = psutil.virtual_memory().available
    preset = presets().get(config.model)
    if preset is None:
        return f"Memory: {free / 1e9:.1f} GB are free here; what this model needs is not known before it is loaded.", True
    needed = estimate(config, preset)
    fits = needed <= free
    verdict = "Should fit" if fits else "Too little, it seems"
    gpu = " (GPUs are not looked at)" if config.device in ("auto", "cuda") else ""
    return f"Memory: roughly {needed / 1e9:.1f} of {free / 1e9:.1f} GB free here. {verdict}{gpu}.", fits
