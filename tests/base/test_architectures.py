"""Every architecture of the table on a tiny random model: the stream is what the table says, samples in one row stay apart, blocks
can be left out where it says so. What llama.cpp makes of the same: tests/benchmarks/test_architectures_benchmark.py."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, LlamaConfig

from irm_lite.base import stream as streams
from irm_lite.base.architecture import block_input, decoder_layers, hidden_state, text_config
from irm_lite.base.architectures import TABLE
from irm_lite.base.forward import answer_hidden, answer_logits, row_of, run_base
from irm_lite.base.packed_attention import attend_by_sample
from irm_lite.base.stream import require_injectable, stream_of
from irm_lite.core.errors import BaseModelError
from irm_lite.data.encoding import Sample
from irm_lite.data.example import Example
from irm_lite.data.packing import pack
from irm_lite.steering.injection import inject
from irm_lite.steering.irm import IRM, build_irm
from irm_lite.training.step.answer_loss import answer_nll
from irm_lite.training.step.frozen_prefix import FrozenPrefix, blocks_from
from irm_lite.training.step.injected_model import InjectedModel
from zoo.configs import ZOO, Tiny
from zoo.models import tiny_model

pytestmark = pytest.mark.slow
every = pytest.mark.parametrize("tiny", ZOO, ids=[tiny.name for tiny in ZOO])


def ids(count: int, seed: int) -> list[int]:
    return torch.randint(3, 500, (count,), generator=torch.Generator().manual_seed(seed)).tolist()


def samples() -> list[Sample]:
    """Longer and shorter than the tiny models' windows of 16 tokens."""
    return [Sample(ids(count, count), count // 2, Example((), "", "a text")) for count in (9, 30, 5, 21)]


def irm_of(model: Any, site: str = "block", kind: str = "lite") -> IRM:
    torch.manual_seed(0)
    layers = tuple(range(len(decoder_layers(model))))
    irm = build_irm(kind, text_config(model).hidden_size, layers, site, h0=stream_of(model).h0).requires_grad_(False)  # type: ignore[arg-type]
    for parameter in irm.parameters():
        if not parameter.any():
            parameter.normal_(0, 0.2)
    return irm


def alone(model: Any, sample: Sample) -> Tensor:
    """Logits where the answer is predicted, of this sample through transformers' own forward."""
    logits: Tensor = model(torch.tensor([sample.ids]), use_cache=False).logits[0]
    return logits[sample.answer_start - 1 : len(sample.ids) - 1]


def test_the_zoo_has_every_line_of_the_table() -> None:
    assert {text_config(tiny_model(tiny)).model_type for tiny in ZOO} == set(TABLE)


@every
@torch.no_grad()
def test_the_table_says_how_the_stream_goes(tiny: Tiny) -> None:
    model = tiny_model(tiny)
    require_injectable(model)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    stream, blocks = stream_of(model), decoder_layers(model)
    assert stream.known is TABLE[text_config(model).model_type]
    seen: dict[str, Tensor] = {}
    handles = [
        blocks[0].register_forward_hook(lambda _m, _a, out: seen.update(left=hidden_state(out))),
        blocks[1].register_forward_pre_hook(lambda _m, a, k: seen.update(next=block_input(a, k)), with_kwargs=True),
    ]
    if stream.attn:
        reads: Any = getattr(blocks[0], stream.reads)
        handles.append(reads.register_forward_pre_hook(lambda _m, a, k: seen.update(h0=block_input(a, k)), with_kwargs=True))
    irm, read = irm_of(model), []
    encode = irm.encode
    irm.encode = lambda h0: read.append(h0) or encode(h0)  # type: ignore[method-assign, func-returns-value]
    with inject(model, irm, strength=0.0):
        model(torch.tensor([ids(7, 0)]), use_cache=False)
    for handle in handles:
        handle.remove()
    assert torch.equal(seen["left"], seen["next"])
    torch.testing.assert_close(read[0], seen["h0"] if stream.attn else seen["left"])


@every
@torch.no_grad()
def test_samples_in_one_row_stay_apart_steered_or_not(tiny: Tiny) -> None:
    model = tiny_model(tiny)
    attend_by_sample(model)
    together, row = samples(), pack(samples())
    torch.testing.assert_close(
        answer_logits(model, row), torch.cat([alone(model, each) for each in together]), rtol=1e-4, atol=1e-4
    )
    for site in ("block", "attn") if stream_of(model).attn else ("block",):
        with inject(model, irm_of(model, site)):
            steered = torch.cat([alone(model, each) for each in together])
            torch.testing.assert_close(answer_logits(model, row), steered, rtol=1e-4, atol=1e-4)


@every
@torch.no_grad()
def test_what_samples_share_is_in_a_row_once_or_not_at_all(tiny: Tiny) -> None:
    model = tiny_model(tiny)
    attend_by_sample(model)
    start = samples()[0].ids[:4]
    together = [replace(each, ids=[*start, *each.ids], answer_start=each.answer_start + 4) for each in samples()]
    row = row_of(model, together)
    torch.testing.assert_close(
        answer_logits(model, row), torch.cat([alone(model, each) for each in together]), rtol=1e-4, atol=1e-4
    )


@every
def test_a_training_step_through_the_kept_prefix_is_the_whole_model_s(tiny: Tiny) -> None:
    model = tiny_model(tiny).requires_grad_(False)
    attend_by_sample(model)
    together, row = samples(), pack(samples())
    last = len(decoder_layers(model)) - 1
    irm = irm_of(model)
    irm.layers = tuple(layer for layer in irm.layers if layer == last)
    if not irm.layers:
        pytest.skip("one block")
    prefix = FrozenPrefix(model, irm)
    with inject(model, irm) as injection:
        whole = answer_hidden(model, row)
        with injection.paused():
            states = prefix.states(together, row)
        with injection.fed():
            stream = injection.feed(states.get("h0"), states.get("stream"), prefix.first)
            with blocks_from(model, prefix.first):
                found = run_base(model, row, stream)[0, row["positions"]]
    torch.testing.assert_close(found, whole, rtol=1e-4, atol=1e-4)
    if prefix.first:
        assert stream_of(model).cut


@pytest.mark.parametrize("name", ["mamba", "gpt_oss", "phi", "olmo2", "qwen3_next"])
def test_a_step_that_recomputes_its_blocks_has_the_same_gradients(name: str) -> None:
    """At site attn where there is one: what is inside a block is run again, hooks too; some versions run a block's own again."""
    model = tiny_model(next(tiny for tiny in ZOO if tiny.name == name)).requires_grad_(False)
    attend_by_sample(model)
    base: Any = SimpleNamespace(model=model, plan=SimpleNamespace(device="cpu"))
    irm = irm_of(model, "attn" if stream_of(model).attn else "block").requires_grad_(True)
    found = []
    for recompute in (False, True):
        if recompute:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        with inject(model, irm) as injection:
            injected = InjectedModel(base, injection, dependence=0.1, recompute=recompute)
            irm.zero_grad()
            with injected.stepping():
                loss = injected(samples())
                loss.backward()
        found.append([loss.detach(), *(each.grad.clone() for each in irm.parameters() if each.grad is not None)])
    assert len(found[0]) > 3
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)
        assert one.abs().max() > 0


@pytest.mark.parametrize("name", ["gemma2", "cohere", "granite", "phi"])
def test_the_loss_of_a_finished_head_has_autograd_s_gradient(name: str) -> None:
    from irm_lite.base.heads import head_of

    model = tiny_model(next(tiny for tiny in ZOO if tiny.name == name)).requires_grad_(False)
    hidden = torch.randn(130, 64, requires_grad=True)
    labels = torch.randint(0, 512, (130,))
    weights = torch.rand(130)
    answer_nll(head_of(model), hidden, labels, weights).backward()  # type: ignore[no-untyped-call]
    found, hidden.grad = hidden.grad, None
    losses = torch.nn.functional.cross_entropy(head_of(model)(hidden), labels, reduction="none")
    (weights * losses).sum().backward()  # type: ignore[no-untyped-call]
    assert found is not None
    torch.testing.assert_close(found, hidden.grad, rtol=1e-4, atol=1e-6)


def unknown(monkeypatch: pytest.MonkeyPatch, name: str) -> Any:
    """A tiny model whose line was taken out of the table."""
    model = tiny_model(next(tiny for tiny in ZOO if tiny.name == name))
    monkeypatch.setattr(streams, "TABLE", {})
    return model


@torch.no_grad()
def test_an_architecture_that_is_not_in_the_table_is_probed(monkeypatch: pytest.MonkeyPatch) -> None:
    like_llama = unknown(monkeypatch, "llama")
    require_injectable(like_llama)
    assert stream_of(like_llama).h0 == "attn"
    beside = unknown(monkeypatch, "phi")
    require_injectable(beside)
    assert stream_of(beside).h0 == "block"
    for model in (like_llama, beside):  # not packed, since nobody knows whether they could be
        torch.testing.assert_close(
            answer_logits(model, pack(samples())), torch.cat([alone(model, each) for each in samples()]), rtol=1e-4, atol=1e-4
        )


def test_an_unknown_architecture_is_refused_where_the_probe_says_no(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("irm_lite.base.heads.TABLE", {})
    model = unknown(monkeypatch, "cohere")  # whose logits have a factor that nobody told of
    with pytest.raises(BaseModelError, match="the logits of CohereForCausalLM are not its head's"):
        require_injectable(model)


def test_a_line_of_the_table_that_a_model_does_not_keep_is_seen() -> None:
    model = AutoModelForCausalLM.from_config(
        LlamaConfig(vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2)
    )
    model.model.layers[0].post_attention_layernorm.register_forward_pre_hook(lambda _m, args: (args[0] * 2,))
    with pytest.raises(BaseModelError, match="LlamaForCausalLM does not add its attention's output"):
        require_injectable(model)
