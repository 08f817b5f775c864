"""A control vector as an adapter on one architecture: made in closed form, and the same in PEFT, by hooks, and in llama.cpp."""

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import AutoModelForCausalLM

from irm_lite.base.architecture import decoder_layers, gguf_architecture, text_config
from irm_lite.base.maps import module_names, require_maps_of
from irm_lite.core.errors import IrmLiteError
from irm_lite.core.files.gguf_header import read_header
from irm_lite.core.log_probabilities import kl
from irm_lite.llamacpp import Runtime
from irm_lite.llamacpp.adapters import LoadedAdapter
from irm_lite.llamacpp.module_inputs import WatchedRuntime
from irm_lite.steering.adapter import Adapter, Factors
from irm_lite.steering.control_vector import ControlVector
from irm_lite.vectors.adapter.closed_form import closed_form, spread
from irm_lite.vectors.adapter.inputs import LlamaCppSource
from irm_lite.vectors.adapter.peft_folder import write_peft
from irm_lite.vectors.adapter.place import (
    help_of,
    post_norms,
    post_norms_of,
    require_maps,
    residual_scale,
    residual_scale_of,
)
from zoo.comparing import LIMIT, TOKENS, exact_attention

_TEXTS, _LENGTH = 16, 24  # what the closed form is fitted on, and each text's tokens
GAP = 1e-4  # of a logit
_WHY = {
    "normalises": "no: post norm",
    "mixture of experts": "no: experts",
    "no single last map": "no: experts",
    "ffn_down.weight": "no: no last map",
    "linear map": "no: no last map",
}


@dataclass(frozen=True)
class Adapted:
    """`kl`: KL(PEFT || llama.cpp) under the adapter, mean nats a token. `effect`: KL(PEFT || the base). `gap`: the largest
    difference of a logit between PEFT and the same sums by hooks."""

    kl: float
    effect: float
    gap: float


def adapt(folder: Path, gguf: Path) -> Adapted:
    """Of a folder's model and the F32 GGUF made from it. Raises an IrmLiteError where irm-lite refuses it."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    header, size = read_header(gguf), int(text_config(model).hidden_size)
    layers = tuple(range(1, len(decoder_layers(model))))
    require_maps(header, layers)
    names = module_names(model, gguf_architecture(model))
    norms = post_norms(header, layers)
    for layer, norm in post_norms_of(model, names, layers).items():
        np.testing.assert_allclose(norm.gain, norms[layer].gain, atol=1e-6)
        np.testing.assert_allclose(norm.read_by, norms[layer].read_by, atol=1e-6)
    require_maps_of(model, names, layers)
    scale = residual_scale(header)
    assert math.isclose(scale, residual_scale_of(model), rel_tol=1e-6)
    generator = np.random.default_rng(0)
    directions = {layer: (0.3 * generator.standard_normal(size)).astype(np.float32) for layer in layers}
    vocabulary = int(text_config(model).vocab_size)
    texts = spread([(generator.integers(3, vocabulary, _LENGTH).tolist(), 1) for _ in range(_TEXTS)])
    with WatchedRuntime(gguf, n_ctx=_LENGTH + 8) as runtime:
        source = LlamaCppSource(runtime, ControlVector(directions, header.architecture))
        scaled = {layer: direction / np.float32(scale) for layer, direction in directions.items()}
        made = closed_form(source, scaled, texts, help_with=help_of(header), norms=norms)
    adapter = Adapter(made.factors, header.architecture)
    ids = generator.integers(3, vocabulary, TOKENS).tolist()
    with TemporaryDirectory() as place, torch.no_grad():
        adapter.save(Path(place) / "adapter.gguf")
        write_peft(Path(place), adapter, names, str(folder))
        plain = model(torch.tensor([ids]), use_cache=False).logits[0].float()
        hooked = _hooked(model, names, made.factors, ids)
        found = _in_llamacpp(gguf, Path(place) / "adapter.gguf", ids)[:, : plain.shape[1]]
        by_peft = _in_peft(model, place, ids)
    truth = F.log_softmax(by_peft, -1)
    effect = float(kl(truth, F.log_softmax(plain, -1)).mean())
    return Adapted(float(kl(truth, found).mean()), effect, float((by_peft - hooked).abs().max()))


def adapter_figures(folder: Path, gguf: Path) -> dict[str, Any]:
    """The table's column "adapter": yes, or why not in two or three words; with it the figures, or the whole line."""
    try:
        found = adapt(folder, gguf)
    except IrmLiteError as error:
        line = str(error)
        return {"adapter": next((why for words, why in _WHY.items() if words in line), "no"), "adapter_figures": {"why": line}}
    same = abs(found.kl) < min(LIMIT, found.effect / 100) and found.gap < GAP
    return {"adapter": "yes" if same else "differs", "adapter_figures": asdict(found)}


def _in_peft(model: Any, folder: str, ids: list[int]) -> Tensor:
    from peft import PeftModel

    logits: Tensor = PeftModel.from_pretrained(model, folder)(input_ids=torch.tensor([ids]), use_cache=False).logits[0]
    return logits.float()


def _hooked(model: Any, names: Any, factors: dict[str, Factors], ids: list[int]) -> Tensor:
    """B A x added to each map's output."""
    handles = []
    for name, each in factors.items():
        a, b = torch.from_numpy(each.a), torch.from_numpy(each.b)

        def add(_module: Any, args: Any, output: Any, a: Tensor = a, b: Tensor = b) -> Any:
            return output + args[0] @ a.T @ b.T

        handles.append(model.get_submodule(names[name]).register_forward_hook(add))
    logits: Tensor = model(torch.tensor([ids]), use_cache=False).logits[0]
    for handle in handles:
        handle.remove()
    return logits.float()


def _in_llamacpp(gguf: Path, adapter: Path, ids: list[int]) -> Tensor:
    with exact_attention(), Runtime(gguf, n_ctx=256) as runtime, LoadedAdapter(runtime.model, adapter) as loaded:
        runtime.set_adapters([(loaded, 1.0)])
        logits = runtime.logits(ids)
        runtime.set_adapters([])
        return F.log_softmax(torch.from_numpy(logits), -1)
