"""What bitsandbytes does to weights behind one's back, forbidden."""

from torch import nn


def keep_differentiable(model: nn.Module) -> None:
    """Forbid bitsandbytes' AVX512-BF16 inference layout.

    On such CPUs the first forward without gradients repacks the weights in place, and forwards after it have no
    backward (bitsandbytes 0.50, Linear4bit.forward): one evaluation would silently end the training.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False  # type: ignore[assignment]
