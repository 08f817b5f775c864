"""Looks at this machine: what works, what is missing, and the line that fixes it."""

import importlib.metadata
import platform
import sys
from dataclasses import dataclass

from irm_lite.base.presets import found_at, presets
from irm_lite.core.machine.device import DeviceFacts, DevicePlan, decide, fallbacks, probe
from irm_lite.core.machine.quiet import import_bitsandbytes
from irm_lite.llamacpp import amx

_NEEDED = ("torch", "transformers", "bitsandbytes", "llama-cpp-python", "gguf", "textual", "rich", "numpy")
_EXTRAS = {
    "datasets": "Parquet and hub datasets: pip install 'irm-lite[data]'",
    "tensorboard": "--report-to: pip install 'irm-lite[tensorboard]'",
}


@dataclass(frozen=True)
class Check:
    """One thing looked at. `hint` is a line to run or read where it is not ok; `needed` ones fail the examination."""

    name: str
    ok: bool
    found: str
    hint: str = ""
    needed: bool = False

    def to_dict(self) -> dict[str, object]:
        """As `doctor --json` prints it: the hint's key is "mend" since version 0.1, and programs read it."""
        return {"name": self.name, "ok": self.ok, "found": self.found, "mend": self.hint, "needed": self.needed}


def examine() -> list[Check]:
    """All checks, in the order to read them."""
    facts = probe()
    checks = [Check("Python", sys.version_info >= (3, 11), platform.python_version(), needed=True)]
    checks += [_package(name, needed=True) for name in _NEEDED]
    checks += [_package(name, hint=hint) for name, hint in _EXTRAS.items()]
    checks += [_device(facts), *_fallbacks(facts), _bitsandbytes(facts), _llamacpp()]
    checks += [_model(name) for name in presets()]
    return checks


def _package(name: str, hint: str = "", needed: bool = False) -> Check:
    try:
        return Check(name, True, importlib.metadata.version(name), needed=needed)
    except importlib.metadata.PackageNotFoundError:
        return Check(name, False, "not installed", hint or f"pip install {name}", needed)


def _fallbacks(facts: DeviceFacts) -> list[Check]:
    return [Check("fallback", True, text) for text in fallbacks(facts, _plan(facts))]


def _plan(facts: DeviceFacts) -> DevicePlan:
    return decide(facts, quant="nf4" if facts.bitsandbytes else "none")


def _device(facts: DeviceFacts) -> Check:
    plan = _plan(facts)
    import torch

    name = torch.cuda.get_device_name() if facts.cuda else platform.processor() or platform.machine()
    return Check("device", True, f"{plan.device} ({name}); activations {plan.dtype}, optimiser {plan.optim}", needed=True)


def _bitsandbytes(facts: DeviceFacts) -> Check:
    """A real NF4 layer, forward and backward."""
    try:
        import torch

        from irm_lite.core.machine.bitsandbytes_layout import keep_differentiable

        import_bitsandbytes()
        from bitsandbytes.nn import Linear4bit

        plan = decide(facts)
        layer = Linear4bit(64, 64, bias=False, compute_dtype=getattr(torch, plan.dtype), quant_type="nf4").to(plan.device)
        keep_differentiable(layer)
        x = torch.ones(1, 64, device=plan.device, dtype=getattr(torch, plan.dtype), requires_grad=True)
        layer(x).sum().backward()
        works = x.grad is not None and bool(x.grad.isfinite().all())
    except Exception as error:  # any failure is the finding
        return Check("NF4 forward and backward", False, " ".join(str(error).split())[:160], "or say --quant none", needed=False)
    return Check("NF4 forward and backward", works, f"works on {plan.device}", needed=True)


def _llamacpp() -> Check:
    try:
        import llama_cpp
    except Exception as error:  # a library that does not load raises OSError or RuntimeError
        return Check("llama.cpp", False, str(error)[:160], "pip install --no-binary :all: --force-reinstall llama-cpp-python", True)
    where = "with GPU offload" if llama_cpp.llama_supports_gpu_offload() else "on the CPU"
    if amx.is_broken():
        # Not failed: all works, more slowly.
        slow = f"{where}, without its AMX kernels, which an old GCC compiled wrongly: they end it (faster: {amx.REMEDY})"
        return Check("llama.cpp", True, slow, needed=True)
    return Check("llama.cpp", True, where, needed=True)


def _model(name: str) -> Check:
    preset = presets()[name]
    place = found_at(preset)
    return Check(f"model {name}", place is not None, str(place or "not on this machine"), "" if place else preset.hint)
