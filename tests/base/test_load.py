"""Loading bases: frozen, quantised, from each kind of place; refusals in one line."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer

from irm_lite.base.load import load_base
from irm_lite.base.presets import presets
from irm_lite.core.errors import BaseModelError, InputError
from support.tiny_models import write_gguf


@pytest.mark.parametrize("quant", ["nf4", "fp4", "int8"])
def test_weights_are_quantised_frozen_and_in_eval_mode(quant: str, llama_folder: Path, llama_gguf: Path) -> None:
    import bitsandbytes as bnb

    dense = load_base(str(llama_folder), quant="none", dtype="float32", device="cpu")
    ids = torch.arange(3, 30)[None]
    for source in (llama_folder, llama_gguf):
        base = load_base(str(source), quant=quant, dtype="float32", device="cpu")  # type: ignore[arg-type]
        linears = [module for module in base.model.model.layers.modules() if isinstance(module, nn.Linear)]
        kind = bnb.nn.Linear8bitLt if quant == "int8" else bnb.nn.Linear4bit
        assert len(linears) == 3 * 7
        assert all(isinstance(linear, kind) for linear in linears)
        weights = sum(linear.in_features * linear.out_features for linear in linears)
        stored = sum(linear.weight.numel() * linear.weight.element_size() for linear in linears)
        assert stored == (weights if quant == "int8" else weights // 2)  # bytes: no full-precision copy in their place
        assert not any(parameter.requires_grad for parameter in base.model.parameters())
        assert not any(module.training for module in base.model.modules())
        with torch.no_grad():
            close = (base.model(ids).logits - dense.model(ids).logits).square().mean() / dense.model(ids).logits.var()
        assert 1e-7 < close < 0.3  # quantised, but the same model
        assert base.fingerprint.quantisation == quant


def test_both_quantisers_give_the_same_model(llama_folder: Path, llama_gguf: Path) -> None:
    """Ours on the GGUF path against transformers' integration, weight for weight."""
    ours, theirs = (load_base(str(source), quant="nf4", dtype="float32", device="cpu") for source in (llama_gguf, llama_folder))
    ids = torch.arange(3, 30)[None]
    with torch.no_grad():
        assert torch.equal(ours.model(ids).logits, theirs.model(ids).logits)


def test_a_gguf_without_chat_template_needs_one(llama_folder: Path, tmp_path: Path) -> None:
    bare = write_gguf(llama_folder, tmp_path / "bare.gguf")
    with pytest.raises(BaseModelError, match="--chat-template"):
        load_base(str(bare), quant="none", device="cpu")
    template = presets()["llama-2-7b-chat"].chat_template
    assert load_base(str(bare), quant="none", device="cpu", chat_template=template).tokenizer.chat_template == template


def test_refusals_name_the_fix(llama_folder: Path, llama_gguf: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(llama_gguf.read_bytes()[:-100])
    odd = tmp_path / "odd"
    shutil.copytree(llama_folder, odd)
    config = json.loads((odd / "config.json").read_text())
    (odd / "config.json").write_text(json.dumps({**config, "model_type": "no_such_model", "architectures": ["NoSuch"]}))
    pickled = tmp_path / "pickled"
    shutil.copytree(llama_folder, pickled)
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    for name, hint in {
        "no-such-preset": "irm-lite models list",
        "owner/name": "--download",
        "llama-2-7b-chat": "ask for access",
        str(tmp_path / "empty"): "config.json",
        str(tmp_path / "absent.gguf"): "no file",
        str(cut): "cut short",
        str(odd): "no_such_model",
        str(pickled): "safetensors",
    }.items():
        with pytest.raises((BaseModelError, InputError), match=hint) as refusal:
            load_base(name, device="cpu")
        assert refusal.value.exit_code == 2
        assert "\n" not in str(refusal.value)


_METAL = """
import platform
import torch
platform.mac_ver = lambda: ("26.0", ("", "", ""), "arm64")
torch.backends.mps.is_available = lambda: True
from irm_lite.core.machine.quiet import import_bitsandbytes
import_bitsandbytes()
from bitsandbytes.backends.mps import ops
assert ops._macos_major == 26
print(ops._get_kernel())
"""


@pytest.mark.slow
def test_no_metal_kernel_is_fetched(tmp_path: Path) -> None:
    """bitsandbytes would get it at its first 4-bit product on MPS, from macOS 26 on; this one believes that it is there."""
    (tmp_path / "kernels.py").write_text("def get_kernel(*a, **k):\n    raise SystemExit('fetching')\n__version__ = '1.0'\n")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run([sys.executable, "-c", _METAL], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip() == "None"


@pytest.mark.slow
def test_nothing_is_fetched_where_the_package_kernels_is_installed(llama_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """bitsandbytes asks the hub for a kernel at import if it finds `kernels`; a fresh process shows that it does not get to."""
    fake = llama_folder.parent / "fake"
    fake.mkdir(exist_ok=True)
    (fake / "kernels.py").write_text("def get_kernel(*a, **k):\n    raise SystemExit('fetching')\n__version__ = '1.0'\n")
    load = f"from irm_lite.base.load import load_base; load_base({str(llama_folder)!r}, device='cpu')"
    code = f"{load}; import kernels; print(kernels.__file__)"
    environment = {**os.environ, "PYTHONPATH": str(fake)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip() == str(fake / "kernels.py")  # and the package is there again afterwards


def patched(gguf: Path, target: Path, key: str, value: int) -> Path:
    """The file with another 32-bit number for a key of its metadata."""
    blob = bytearray(gguf.read_bytes())
    at = blob.index(key.encode()) + len(key) + 4
    blob[at : at + 4] = value.to_bytes(4, "little")
    target.write_bytes(blob)
    return target


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("llama.block_count", 2**31 - 1, "layers"),
        ("llama.block_count", 0, "layers"),
        ("llama.embedding_length", 2**31, "hidden size"),
        ("llama.feed_forward_length", 2**23, "weights, the file has"),
        ("llama.feed_forward_length", 2**24, "absurd sizes"),
    ],
)
def test_a_gguf_of_absurd_sizes_is_refused_before_anything_is_built(
    key: str, value: int, message: str, llama_gguf: Path, tmp_path: Path
) -> None:
    path = patched(llama_gguf, tmp_path / "p.gguf", key, value)
    with pytest.raises((BaseModelError, InputError), match=message) as refusal:
        load_base(str(path), quant="none", device="cpu")
    assert str(path) in str(refusal.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_hidden_layers": 10**6}, "512 layers"),
        ({"num_hidden_layers": 10**12, "model_type": "qwen2"}, "512 layers"),  # whose configuration has a list of them
        ({"vocab_size": 2**31}, "absurd"),
        ({"intermediate_size": 2**23}, "weights, its files have"),
    ],
)
def test_a_folder_of_absurd_sizes_is_refused_before_anything_is_built(
    changes: dict[str, object], message: str, llama_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def built(*_: object, **__: object) -> None:
        pytest.fail("the model was built")

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", built)
    with pytest.raises(BaseModelError, match=message):
        load_base(str(with_config(llama_folder, tmp_path / "folder", **changes)), quant="none", device="cpu")


def test_a_tokenizer_with_ids_beyond_the_embeddings_is_refused(llama_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    shutil.copytree(llama_folder, folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    rows = len(tokenizer)
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    tokenizer.save_pretrained(folder)
    assert load_base(str(folder), quant="none", device="cpu").tokenizer.pad_token_id == rows  # never given to the model
    tokenizer.add_tokens(["beyond"])
    tokenizer.save_pretrained(folder)
    with pytest.raises(BaseModelError, match=rf"ids up to {rows + 1} \('beyond'\), its embeddings end at {rows - 1}: give"):
        load_base(str(folder), quant="none", device="cpu")


_STAND_IN = """
__version__ = {version!r}
class Anything:
    def __init__(self, *a, **k): pass
    def __call__(self, decorated): return decorated
def __getattr__(name):
    if name.startswith("__"):
        raise AttributeError(name)
    return Anything
def get_kernel(*a, **k):
    raise SystemExit(f"asked for {{a}}")
"""


def with_config(folder: Path, target: Path, **changes: object) -> Path:
    shutil.copytree(folder, target)
    config = json.loads((target / "config.json").read_text())
    (target / "config.json").write_text(json.dumps({**config, **changes}))
    return target


@pytest.mark.slow
@pytest.mark.parametrize("key", ["attn_implementation", "_attn_implementation"])
def test_a_configuration_does_not_choose_the_attention(key: str, llama_folder: Path, tmp_path: Path) -> None:
    """A name with a slash is native code of the hub to transformers, which asks the package `kernels` for it."""
    from transformers.utils.import_utils import KERNELS_MIN_VERSION

    folder = with_config(llama_folder, tmp_path / "folder", **{key: "kernels-community/anything"})
    (tmp_path / "kernels.py").write_text(_STAND_IN.format(version=KERNELS_MIN_VERSION))
    code = (
        f"from irm_lite.base.load import load_base; base = load_base({str(folder)!r}, quant='none', device='cpu');"
        "print(base.model.config._attn_implementation)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip() == "irm_lite_packed"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, "quantised by gptq"),
        ({"quantization_config": {"quant_method": "mxfp4"}}, "quantised by mxfp4"),  # transformers fetches kernels for it
        ({"transformers_weights": "other.safetensors.index.json"}, "has transformers_weights"),
        ({"fusion_config": {"fuse": True}}, "has fusion_config"),
    ],
)
def test_a_configuration_that_leads_elsewhere_is_refused(
    changes: dict[str, object], message: str, llama_folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(BaseModelError, match=message):
        load_base(str(with_config(llama_folder, tmp_path / "folder", **changes)), quant="none", device="cpu")
