"""One architecture in both runtimes: the same weights and ids, steered alike."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import AutoModelForCausalLM

from irm_lite.base.architecture import decoder_layers, text_config
from irm_lite.base.model_fingerprint import fingerprint_model
from irm_lite.base.stream import require_injectable, stream_of
from irm_lite.core.errors import IrmLiteError
from irm_lite.core.log_probabilities import kl
from irm_lite.llamacpp import Model, Runtime
from irm_lite.steering.control_vector import ControlVector
from irm_lite.steering.injection import inject
from irm_lite.steering.irm import IRM, Site, build_irm

TOKENS = 40
LIMIT = 1e-5  # nats a token between the runtimes


@dataclass
class Compared:
    """KL(transformers || llama.cpp), mean nats a token: as it is, with a vector, with an IRM by site. `effects`: KL(steered || not)
    in transformers of the same. `why`: what is missing, by the name of the figure."""

    name: str
    gguf: str = ""
    sites: tuple[str, ...] = ()
    h0: str = ""
    kls: dict[str, float] = field(default_factory=dict)
    effects: dict[str, float] = field(default_factory=dict)
    same_fingerprint: bool | None = None
    why: dict[str, str] = field(default_factory=dict)


@torch.no_grad()
def compare(name: str, folder: Path, gguf: Path | None) -> Compared:
    """Compare a folder's model with the GGUF made from it; None: what transformers alone says. What a runtime refuses is told."""
    found = Compared(name)
    try:
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        require_injectable(model)
    except IrmLiteError as error:
        found.why["steering"] = str(error)
        return found
    stream = stream_of(model)
    found.sites, found.h0 = ("block", "attn") if stream.attn else ("block",), stream.h0
    if gguf is None:
        found.why["llama.cpp"] = "not converted"
        return found
    ids = np.random.default_rng(0).integers(3, text_config(model).vocab_size, TOKENS).tolist()
    plain = _log_probabilities(model, ids)
    try:
        with Model(gguf) as loaded:
            found.gguf = loaded.fingerprint.architecture
            found.same_fingerprint = _same(fingerprint_model(model), loaded)
            for what, steer in [("plain", None), *_steers(model, loaded, found.sites)]:
                try:
                    _compare_one(found, what, steer, (model, loaded, ids, plain))
                except IrmLiteError as error:
                    found.why[what] = str(error)
    except IrmLiteError as error:
        found.why["llama.cpp"] = str(error)
    return found


def _compare_one(found: Compared, what: str, steer: Any, context: tuple[Any, Model, list[int], Tensor]) -> None:
    model, loaded, ids, plain = context
    truth = plain
    if steer is not None:
        with inject(model, steer):
            truth = _log_probabilities(model, ids)
        found.effects[what] = float(kl(truth, plain).mean())
    with exact_attention(), Runtime(loaded, irm=steer if isinstance(steer, IRM) else None, n_ctx=256) as runtime:
        if isinstance(steer, ControlVector):
            runtime.set_vector(steer)
        got = F.log_softmax(torch.from_numpy(runtime.logits(ids)), -1)
    found.kls[what] = float(kl(truth, got[:, : truth.shape[1]]).mean())


@contextmanager
def exact_attention() -> Iterator[None]:
    """Within: contexts keep K and V in F32 and attend without the fused kernel. By default llama.cpp rounds them to F16: that is
    1e-7 in a KL, but where two experts are as good as level it chooses another one."""
    import llama_cpp

    usual = llama_cpp.llama_context_default_params

    def exact() -> Any:
        parameters = usual()
        parameters.type_k = parameters.type_v = 0  # GGML_TYPE_F32
        parameters.flash_attn_type = 0
        return parameters

    llama_cpp.llama_context_default_params = exact
    try:
        yield
    finally:
        llama_cpp.llama_context_default_params = usual


def _steers(model: Any, loaded: Model, sites: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    """What to steer with: a vector at every block that llama.cpp has one for, an IRM on all layers at each site."""
    layers, size = len(decoder_layers(model)), int(text_config(model).hidden_size)
    rng = np.random.default_rng(1)
    directions = {layer: rng.normal(0, 0.3, size).astype(np.float32) for layer in range(1, layers)}
    yield "vector", ControlVector(directions, loaded.fingerprint.architecture)
    for site in sites:
        yield f"dynamic {site}", _irm(size, tuple(range(layers)), site, stream_of(model).h0)  # type: ignore[arg-type]


def _irm(size: int, layers: tuple[int, ...], site: Site, h0: Site) -> IRM:
    torch.manual_seed(2)
    irm = build_irm("lite", size, layers, site, h0=h0).requires_grad_(False)
    for parameter in irm.parameters():
        if not parameter.any():
            parameter.normal_(0, 0.2)
    return irm


def _same(fingerprint: Any, loaded: Model) -> bool | None:
    """None where neither has gains by which weights are told apart."""
    of_file = loaded.fingerprint.weights
    return fingerprint.weights == of_file if fingerprint.weights or of_file else None


def _log_probabilities(model: Any, ids: list[int]) -> Tensor:
    return F.log_softmax(model(torch.tensor([ids]), use_cache=False).logits[0].float(), -1)
