"""Chooses device, number format and optimiser from facts that are passed in, so that it is tested without the device."""

from dataclasses import dataclass

from irm_lite.core.errors import InputError

DEVICES = ("cuda", "mps", "cpu")
QUANTS = ("nf4", "fp4", "int8", "none")
DTYPES = ("auto", "bfloat16", "float16", "float32")


@dataclass(frozen=True)
class DeviceFacts:
    """What this machine has, as `probe` finds it."""

    cuda: bool = False
    cuda_capability: tuple[int, int] = (0, 0)
    mps: bool = False
    mps_bf16: bool = False  # macOS 14 or newer, where Metal has bfloat16
    cpu_bf16: bool = False  # the CPU multiplies bfloat16 in hardware
    bitsandbytes: bool = False


@dataclass(frozen=True)
class DevicePlan:
    """What to run on. `dtype` is the number format of activations and of what is not quantised."""

    device: str
    dtype: str  # a torch dtype's name
    quant: str
    optim: str  # a name of transformers.TrainingArguments.optim


def decide(facts: DeviceFacts, device: str = "auto", dtype: str = "auto", quant: str = "nf4") -> DevicePlan:
    """Fill in what the user left at `auto`. Raises InputError where what the user asked for cannot run."""
    for what, value, choices in (("quantisation", quant, QUANTS), ("dtype", dtype, DTYPES)):
        if value not in choices:
            raise InputError(f"there is no {what} {value!r}", f"choose one of {', '.join(choices)}")
    if device == "auto":
        device = next(name for name in DEVICES if available(facts, name))
    if not available(facts, device):
        usable = ", ".join(name for name in DEVICES if available(facts, name))
        raise InputError(f"device {device!r} is not available here", f"choose auto or one of: {usable}")
    if quant != "none" and not facts.bitsandbytes:
        raise InputError(f"quantisation {quant} needs bitsandbytes", "pip install bitsandbytes, or say --quant none")
    if dtype == "auto":
        if device == "cuda":
            dtype = "bfloat16" if facts.cuda_capability >= (8, 0) else "float16"
        elif device == "cpu":
            dtype = "bfloat16" if facts.cpu_bf16 else "float32"
        else:
            dtype = "bfloat16" if facts.mps_bf16 else "float32"  # float16 would need its loss scaled
    if device == "mps" and dtype == "bfloat16" and not facts.mps_bf16:
        raise InputError("bfloat16 on MPS needs macOS 14", "say --dtype auto, or update macOS")
    # Paged states need a GPU that bitsandbytes pages for; 8-bit AdamW has no MPS kernels; on a CPU torch's is faster.
    optim = "paged_adamw_8bit" if device == "cuda" and facts.bitsandbytes else "adamw_torch"
    return DevicePlan(device, dtype, quant, optim)


def fallbacks(facts: DeviceFacts, plan: DevicePlan) -> list[str]:
    """What runs in a slower or larger way under this plan than it would on a new CUDA GPU, a line each: what, and why."""
    found = []
    if plan.device == "mps" and plan.quant in ("nf4", "fp4"):
        found.append("4-bit weights unpacked by PyTorch: bitsandbytes would fetch its Metal kernels from the hub unasked")
    if plan.device == "mps" and plan.quant == "int8":
        found.append("int8 products computed in float32: bitsandbytes has no int8 kernels for MPS")
    if plan.device == "mps":
        found.append("32-bit AdamW: bitsandbytes has no 8-bit optimisers for MPS")
    if plan.dtype == "float32":
        missing = {"mps": not facts.mps_bf16, "cpu": not facts.cpu_bf16}.get(plan.device, False)
        why = {"mps": "bfloat16 on MPS needs macOS 14", "cpu": "this CPU does not multiply bfloat16 in hardware"}
        found += [f"float32 activations: {why[plan.device]}"] if missing else []
    return found


def available(facts: DeviceFacts, device: str) -> bool:
    """Whether this machine has the device; always true for `auto`."""
    return {"cuda": facts.cuda, "mps": facts.mps, "cpu": True, "auto": True}.get(device, False)


def probe() -> DeviceFacts:
    """Look at this machine. Imports torch."""
    import importlib.util

    import torch

    cuda = torch.cuda.is_available()
    return DeviceFacts(
        cuda=cuda,
        cuda_capability=torch.cuda.get_device_capability() if cuda else (0, 0),
        mps=torch.backends.mps.is_available(),
        mps_bf16=torch.backends.mps.is_available() and torch.backends.mps.is_macos_or_newer(14, 0),
        cpu_bf16=_cpu_bf16(),
        bitsandbytes=importlib.util.find_spec("bitsandbytes") is not None,
    )


def _cpu_bf16() -> bool:
    import torch

    flags = torch.backends.cpu.get_cpu_capability()
    return bool(flags.startswith("AVX512") and torch.ops.mkldnn._is_mkldnn_bf16_supported())
