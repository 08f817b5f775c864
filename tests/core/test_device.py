"""The choice of device, number format and optimiser against the design's table."""

import ast
import importlib.util
from itertools import product
from pathlib import Path

import pytest

from irm_lite.core.errors import InputError
from irm_lite.core.machine.device import DeviceFacts, DevicePlan, decide, fallbacks

AMPERE = DeviceFacts(cuda=True, cuda_capability=(8, 0), cpu_bf16=True, bitsandbytes=True)
HOPPER = DeviceFacts(cuda=True, cuda_capability=(9, 0), bitsandbytes=True)
TURING = DeviceFacts(cuda=True, cuda_capability=(7, 5), cpu_bf16=True, bitsandbytes=True)
APPLE = DeviceFacts(mps=True, mps_bf16=True, bitsandbytes=True)
VENTURA = DeviceFacts(mps=True, bitsandbytes=True)  # macOS 13
NEW_CPU = DeviceFacts(cpu_bf16=True, bitsandbytes=True)
OLD_CPU = DeviceFacts(bitsandbytes=True)
BARE = DeviceFacts()

EITHER = (False, True)
capabilities = ((0, 0), (7, 0), (7, 5), (8, 0), (8, 9), (10, 0))  # (0, 0): no CUDA
every_machine = [
    DeviceFacts(capability > (0, 0), capability, mps, mps and mps_bf16, bf16, bitsandbytes)
    for capability, mps, mps_bf16, bf16, bitsandbytes in product(capabilities, EITHER, EITHER, EITHER, EITHER)
]


@pytest.mark.parametrize(
    ("facts", "plan"),
    [
        (AMPERE, DevicePlan("cuda", "bfloat16", "nf4", "paged_adamw_8bit")),
        (HOPPER, DevicePlan("cuda", "bfloat16", "nf4", "paged_adamw_8bit")),
        (TURING, DevicePlan("cuda", "float16", "nf4", "paged_adamw_8bit")),
        (APPLE, DevicePlan("mps", "bfloat16", "nf4", "adamw_torch")),
        (VENTURA, DevicePlan("mps", "float32", "nf4", "adamw_torch")),
        (NEW_CPU, DevicePlan("cpu", "bfloat16", "nf4", "adamw_torch")),
        (OLD_CPU, DevicePlan("cpu", "float32", "nf4", "adamw_torch")),
    ],
    ids=["Ampere", "Hopper", "Turing", "Apple", "Apple, macOS 13", "CPU with bf16", "CPU without bf16"],
)
def test_each_machine_gets_its_column_of_the_design(facts: DeviceFacts, plan: DevicePlan) -> None:
    assert decide(facts) == plan


@pytest.mark.parametrize(
    ("facts", "device", "dtype", "quant", "plan"),
    [
        (AMPERE, "cpu", "auto", "nf4", DevicePlan("cpu", "bfloat16", "nf4", "adamw_torch")),
        (AMPERE, "cuda", "float32", "int8", DevicePlan("cuda", "float32", "int8", "paged_adamw_8bit")),
        (TURING, "auto", "bfloat16", "fp4", DevicePlan("cuda", "bfloat16", "fp4", "paged_adamw_8bit")),
        (APPLE, "cpu", "auto", "nf4", DevicePlan("cpu", "float32", "nf4", "adamw_torch")),
        (APPLE, "mps", "float16", "none", DevicePlan("mps", "float16", "none", "adamw_torch")),
        (OLD_CPU, "auto", "bfloat16", "nf4", DevicePlan("cpu", "bfloat16", "nf4", "adamw_torch")),
    ],
)
def test_what_the_user_said_stands(facts: DeviceFacts, device: str, dtype: str, quant: str, plan: DevicePlan) -> None:
    assert decide(facts, device, dtype, quant) == plan


@pytest.mark.parametrize(
    ("facts", "device", "fragment"),
    [
        (BARE, "cuda", "device 'cuda' is not available here: choose auto or one of: cpu"),
        (APPLE, "cuda", "device 'cuda' is not available here: choose auto or one of: mps, cpu"),
        (AMPERE, "mps", "device 'mps' is not available here: choose auto or one of: cuda, cpu"),
        (AMPERE, "tpu", "device 'tpu' is not available here: choose auto or one of: cuda, cpu"),
    ],
)
def test_a_device_that_is_not_there_is_refused_with_those_that_are(facts: DeviceFacts, device: str, fragment: str) -> None:
    with pytest.raises(InputError) as caught:
        decide(facts, device, quant="none")
    assert caught.value.exit_code == 2
    assert fragment in str(caught.value)


@pytest.mark.parametrize("quant", ["nf4", "fp4", "int8"])
def test_quantisation_without_bitsandbytes_is_refused_with_both_ways_out(quant: str) -> None:
    with pytest.raises(InputError) as caught:
        decide(BARE, quant=quant)
    assert caught.value.exit_code == 2
    assert f"quantisation {quant} needs bitsandbytes: pip install bitsandbytes, or say --quant none" in str(caught.value)


def test_without_bitsandbytes_a_gpu_trains_with_torchs_own_optimiser() -> None:
    facts = DeviceFacts(cuda=True, cuda_capability=(9, 0))
    assert decide(facts, quant="none") == DevicePlan("cuda", "bfloat16", "none", "adamw_torch")


def test_every_machine_gets_a_plan_that_it_can_run() -> None:
    for facts in every_machine:
        plan = decide(facts, quant="nf4" if facts.bitsandbytes else "none")
        assert plan.device == ("cuda" if facts.cuda else "mps" if facts.mps else "cpu"), facts
        formats = {
            "cuda": "bfloat16" if facts.cuda_capability[0] >= 8 else "float16",
            "mps": "bfloat16" if facts.mps_bf16 else "float32",
            "cpu": "bfloat16" if facts.cpu_bf16 else "float32",
        }
        assert plan.dtype == formats[plan.device], facts
        assert plan.optim.startswith("paged") == (plan.device == "cuda" and facts.bitsandbytes), facts


def test_bfloat16_that_metal_lacks_is_refused() -> None:
    with pytest.raises(InputError, match=r"bfloat16 on MPS needs macOS 14: say --dtype auto, or update macOS"):
        decide(VENTURA, dtype="bfloat16")
    assert decide(VENTURA, "cpu", "bfloat16").dtype == "bfloat16"


@pytest.mark.parametrize(
    ("facts", "device", "quant", "said"),
    [
        (AMPERE, "auto", "nf4", []),
        (TURING, "auto", "nf4", []),
        (NEW_CPU, "auto", "nf4", []),
        (OLD_CPU, "auto", "nf4", ["this CPU"]),
        (APPLE, "auto", "nf4", ["Metal kernels", "8-bit optimisers"]),
        (APPLE, "auto", "int8", ["int8 kernels", "8-bit optimisers"]),
        (APPLE, "auto", "none", ["8-bit optimisers"]),
        (VENTURA, "auto", "fp4", ["Metal kernels", "8-bit optimisers", "macOS 14"]),
        (APPLE, "cpu", "nf4", ["this CPU"]),
    ],
)
def test_every_fallback_is_named(facts: DeviceFacts, device: str, quant: str, said: list[str]) -> None:
    found = fallbacks(facts, decide(facts, device, quant=quant))
    assert len(found) == len(said)
    assert all(fragment in line for line, fragment in zip(found, said, strict=True))


def test_float32_that_the_user_asked_for_is_no_fallback() -> None:
    for facts in (AMPERE, APPLE, NEW_CPU):
        assert not any("float32" in line for line in fallbacks(facts, decide(facts, dtype="float32")))


def test_transformers_knows_every_optimiser_that_is_chosen() -> None:
    spec = importlib.util.find_spec("transformers")
    assert spec is not None
    assert spec.origin is not None
    source = (Path(spec.origin).parent / "training_args.py").read_text(encoding="utf-8")
    names = next(node for node in ast.parse(source).body if isinstance(node, ast.ClassDef) and node.name == "OptimizerNames")
    known = {item.value.value for item in names.body if isinstance(item, ast.Assign) and isinstance(item.value, ast.Constant)}
    chosen = {decide(facts, quant="none").optim for facts in every_machine}
    assert chosen <= known
