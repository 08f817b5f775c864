"""The IRM inside llama.cpp against the same IRM injected in transformers."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import LlamaForCausalLM

from irm_lite.base.load import load_base
from irm_lite.cli import main as cli
from irm_lite.config import KINDS, Kind, TrainConfig
from irm_lite.core.errors import InputError, LlamaCppError
from irm_lite.core.log_probabilities import kl
from irm_lite.data.dataset import load_dataset
from irm_lite.data.encoding import encode_prompt
from irm_lite.llamacpp import Model, Runtime
from irm_lite.llamacpp.graph_plan import GraphPlan, Nodes, Place
from irm_lite.steering.injection import inject
from irm_lite.steering.irm import IRM, Site, build_irm
from irm_lite.training import train as training
from support.kinds import read_by, sites_of
from support.tiny_models import write_gguf, write_hf_folder

BOTH_SITES: tuple[Site, ...] = ("attn", "block")


def irm_for(kind: str, hidden_size: int, layers: tuple[int, ...], site: Site = "attn", size: float = 0.2, **options: Any) -> IRM:
    """An IRM with an effect that depends on the token in every layer."""
    torch.manual_seed(0)
    irm = build_irm(kind, hidden_size, layers, site, **options).requires_grad_(False)
    for parameter in irm.parameters():
        if not parameter.any():  # a kind may start at zero, where it would have no effect
            parameter.normal_(0, size)
    return irm


def ids(count: int) -> list[int]:
    return [int(token) for token in np.random.default_rng(1).integers(3, 600, count)]


@pytest.fixture(scope="module")
def twin(llama_folder: Path) -> LlamaForCausalLM:
    return LlamaForCausalLM.from_pretrained(llama_folder, dtype=torch.float32).eval()


@torch.no_grad()
def expected(twin: LlamaForCausalLM, irm: IRM, tokens: list[int], **options: Any) -> Tensor:
    with inject(twin, irm, **options):
        return F.log_softmax(twin(torch.tensor([tokens])).logits[0], -1)


def apart(runtime: Runtime, truth: Tensor, tokens: list[int], positions: list[int] | None = None) -> float:
    got = F.log_softmax(torch.from_numpy(runtime.logits(tokens, positions)), -1)
    return float(kl(truth if positions is None else truth[positions], got).mean())


def test_the_plan_names_the_nodes_and_refuses_what_cannot_be() -> None:
    attn, block = GraphPlan("attn", (0, 2), 3).actions, GraphPlan("block", (0, 2), 3).actions
    assert [*attn] == [b"ffn_inp-0", b"ffn_inp-2"]
    assert [*block] == [b"ffn_inp-0", b"l_out-0", b"l_out-2"]
    assert [(each.layer, each.index, each.reads_h0, each.is_last) for each in attn.values()] == [
        (0, 0, True, False),
        (2, 1, False, True),
    ]
    assert [(each.index, each.reads_h0) for each in block.values()] == [(None, True), (0, False), (1, False)]
    for layers in ((), (2, 0), (1, 1), (0, 3), (-1, 1)):
        with pytest.raises(ValueError, match="the layers"):
            GraphPlan("attn", layers, 3)
    with pytest.raises(ValueError, match="site"):
        GraphPlan("mlp", (0,), 3)  # type: ignore[arg-type]


@pytest.mark.parametrize(("kind", "site"), [(kind, site) for kind in KINDS for site in sites_of(kind)])
def test_the_irm_does_in_llamacpp_what_it_does_in_transformers(
    kind: Kind, site: Site, twin: LlamaForCausalLM, llama_gguf: Path
) -> None:
    irm = irm_for(kind, 64, (0, 1, 2), site, **read_by(kind, 128))
    first, second = irm(torch.eye(128 if kind == "lora" else 64)[None, :2])[0]
    assert torch.equal(first, second) == (KINDS[kind].reads == "nothing")
    tokens = ids(40)
    truth = expected(twin, irm, tokens)
    with Runtime(llama_gguf, irm=irm, n_ctx=128) as runtime:
        assert apart(runtime, truth, tokens) < 1e-5
        assert apart(runtime, truth, tokens, [5, 6, 39]) < 1e-5  # the last layer has these rows alone
        assert runtime.dynamic is not None
        runtime.dynamic.enabled = False
        assert apart(runtime, truth, tokens) > 1e-3


def test_strength_and_layers_change_between_calls(twin: LlamaForCausalLM, llama_gguf: Path) -> None:
    irm = irm_for("lite", 64, (0, 2))
    tokens = ids(24)
    with Runtime(llama_gguf, irm=irm, n_ctx=64) as runtime:
        dynamic = runtime.dynamic
        assert dynamic is not None
        for strength, layers in ((1.0, None), (-0.7, None), (0.5, [2]), (1.0, [0])):
            dynamic.strength, dynamic.layers = strength, layers
            assert apart(runtime, expected(twin, irm, tokens, strength=strength, layers=layers), tokens) < 1e-5
        with pytest.raises(InputError, match="its layers are 0,2"):
            dynamic.layers = [1]


def test_micro_batches_and_layer_by_layer_are_the_same(
    twin: LlamaForCausalLM, llama_gguf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    irm = irm_for("lite", 64, (0, 1, 2))
    tokens = ids(50)
    truth = expected(twin, irm, tokens)
    with Runtime(llama_gguf, irm=irm, n_ctx=128, n_batch=16) as runtime:
        assert apart(runtime, truth, tokens) < 1e-5
        assert apart(runtime, truth, tokens, [49]) < 1e-5  # micro-batches without any output before it
        monkeypatch.setattr("irm_lite.llamacpp.dynamic._AT_ONCE", 0)
        assert apart(runtime, truth, tokens) < 1e-5


def test_a_graph_that_has_changed_is_read_anew(twin: LlamaForCausalLM, llama_gguf: Path) -> None:
    """Generation keeps the places of the nodes; wrong ones are found out by their names, and the token is decoded again."""
    irm = irm_for("lite", 64, (0, 1, 2))
    tokens = ids(8)
    with Runtime(llama_gguf, irm=irm, n_ctx=64) as runtime:
        dynamic = runtime.dynamic
        assert dynamic is not None
        for spoil in (0, 3, -2):
            written = []
            for number, token in enumerate(runtime.generate_tokens(tokens, max_new_tokens=12)):
                written.append(token)
                if number == 4:
                    assert len(dynamic._walk.places) == 3
                    dynamic._walk.places = tuple(Place(each.position + spoil, each.name) for each in dynamic._walk.places)
            logits = expected(twin, irm, tokens + written)
            assert logits[len(tokens) - 1 : -1].argmax(-1).tolist() == written


def test_contexts_on_one_model_do_not_meet(twin: LlamaForCausalLM, llama_gguf: Path) -> None:
    one, other = irm_for("lite", 64, (1,)), irm_for("paper", 64, (0, 2))
    tokens = ids(20)
    with torch.no_grad():
        plain = F.log_softmax(twin(torch.tensor([tokens])).logits[0], -1)
    with (
        Model(llama_gguf) as model,
        Runtime(model, irm=one, n_ctx=64) as a,
        Runtime(model, irm=other, n_ctx=64) as b,
        Runtime(model, n_ctx=64) as c,
    ):
        for _ in range(2):
            assert apart(a, expected(twin, one, tokens), tokens) < 1e-5
            assert apart(b, expected(twin, other, tokens), tokens) < 1e-5
            assert apart(c, plain, tokens) < 1e-5


def test_observers_see_what_transformers_shows(twin: LlamaForCausalLM, llama_gguf: Path) -> None:
    irm = irm_for("lite", 64, (0, 2))
    tokens = ids(12)
    seen: dict[str, dict[int, Tensor]] = {"transformers": {}, "llama.cpp": {}}
    with torch.no_grad(), inject(twin, irm) as injection:
        injection.observers.append(lambda layer, output: seen["transformers"].update({layer: output[0]}))
        twin(torch.tensor([tokens]))
    with Runtime(llama_gguf, irm=irm, n_ctx=64) as runtime:
        assert runtime.dynamic is not None
        runtime.dynamic.observers.append(lambda layer, output: seen["llama.cpp"].update({layer: output}))
        runtime.logits(tokens)
    for layer in (0, 2):
        torch.testing.assert_close(
            seen["llama.cpp"][layer], seen["transformers"][layer], atol=5e-4, rtol=0
        )  # llama.cpp keeps K and V in F16


def test_what_is_raised_inside_the_callback_surfaces(llama_gguf: Path) -> None:
    class Broken(Exception):
        pass

    def breaks(_layer: int, _output: Tensor) -> None:
        raise Broken

    with Runtime(llama_gguf, irm=irm_for("lite", 64, (1,)), n_ctx=64) as runtime:
        assert runtime.dynamic is not None
        before = runtime.logits(ids(8))
        runtime.dynamic.observers.append(breaks)
        with pytest.raises(Broken):
            runtime.logits(ids(8))
        with pytest.raises(Broken):
            list(runtime.generate_tokens(ids(8), max_new_tokens=4))
        for failure in (Broken, KeyboardInterrupt):  # while it generates: Ctrl-C arrives inside the callback
            calls: list[int] = []

            def breaks_later(_layer: int, _output: Tensor, failure: type = failure, calls: list[int] = calls) -> None:
                calls.append(1)
                if len(calls) == 6:
                    raise failure

            runtime.dynamic.observers[:] = [breaks_later]
            with pytest.raises(failure):
                list(runtime.generate_tokens(ids(8), max_new_tokens=20))
            assert len(calls) == 6
        runtime.dynamic.observers.clear()
        np.testing.assert_array_equal(runtime.logits(ids(8)), before)


def test_an_irm_that_does_not_fit_is_refused(llama_gguf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for wrong in (irm_for("lite", 32, (1,)), irm_for("lite", 64, (1, 3))):
        with pytest.raises(InputError, match="use the model that it was trained on"):
            Runtime(llama_gguf, irm=wrong)
    monkeypatch.setattr("irm_lite.llamacpp.dynamic.nodes_of", lambda *_: Nodes(h0="hidden"))
    hidden = irm_for("lite", 64, (1,), "block")
    with Runtime(llama_gguf, irm=hidden, n_ctx=64) as runtime, pytest.raises(LlamaCppError, match="hides what the IRM reads"):
        runtime.logits(ids(8))
    monkeypatch.undo()
    monkeypatch.setattr("irm_lite.llamacpp.dynamic.nodes_of", lambda *_: Nodes(attn="no_such_node"))
    with Runtime(llama_gguf, irm=irm_for("lite", 64, (1,)), n_ctx=64) as runtime, pytest.raises(LlamaCppError, match="0 of 1"):
        runtime.logits(ids(8))


@pytest.mark.slow
def test_the_verb_runs_a_run_inside_llamacpp(
    llama_folder: Path, llama_gguf: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    config = TrainConfig(
        irm="lite",
        model=str(llama_folder),
        device="cpu",
        max_steps=10,
        batch_size=8,
        eval_steps=10,
        learning_rate=0.02,
        sample_tokens=0,
    )
    trained = training.train(config, run)

    def generate(*arguments: str) -> str:
        assert cli.run(["generate", "--gguf", str(llama_gguf), "-p", "Why?", "--max-new-tokens", "12", *arguments, "--json"]) == 0
        return str(json.loads(capsys.readouterr().out)["text"])

    plain, steered = generate(), generate("--irm", str(run))
    assert plain != steered
    assert generate("--irm", f"{run}:0") == plain
    assert generate("--irm", str(run), "--layers", "1-2") == steered
    with Runtime(llama_gguf, irm=trained.irm, n_ctx=256) as runtime:
        assert "".join(runtime.generate([{"role": "user", "content": "Why?"}], max_new_tokens=12)) == steered
    other = write_gguf(write_hf_folder(tmp_path / "deep", layers=4), tmp_path / "deep.gguf")
    cases = [
        (["--gguf", str(llama_gguf), "--irm", str(run), "--vector", "v.gguf"], "give one of them"),
        (["--gguf", str(llama_gguf), "--irm", str(tmp_path / "none")], "no run.toml"),
        (["--gguf", str(llama_gguf), "--irm", str(run), "--layers", "0-9"], "0-2"),
        (["--gguf", str(other), "--irm", str(run)], "this model is llama with 4 layers"),
    ]
    for arguments, expected in cases:
        assert cli.run(["generate", "-p", "Why?", *arguments]) == 2
        assert expected in capsys.readouterr().err


@pytest.mark.demo
@pytest.mark.parametrize("kind", ["lite", "paper"])
def test_demo_on_f32_gguf_says_the_same_as_transformers(kind: str, demo_gguf: Path, demo_gguf_f32: Path) -> None:
    """The figures of the issue: KL below 1e-5 a token over prompt and 64 generated tokens, and the same greedy text."""
    base = load_base(str(demo_gguf), quant="none", dtype="float32", device="cpu")
    irm = irm_for(kind, base.hidden_size, tuple(range(base.n_layers)), size=0.02)
    divergences = []
    with Runtime(demo_gguf_f32, irm=irm, n_ctx=256) as runtime:
        for example in load_dataset("anger").test[:3]:
            prompt = encode_prompt(base.tokenizer, example.messages[:-1])
            written = list(runtime.generate_tokens(prompt, max_new_tokens=64))
            with torch.no_grad(), inject(base.model, irm):
                logits = base.model(torch.tensor([prompt + written])).logits[0]
            assert logits[len(prompt) - 1 : -1].argmax(-1).tolist() == written
            got = torch.from_numpy(runtime.logits(prompt + written))
            divergences.append(kl(F.log_softmax(logits, -1), F.log_softmax(got, -1)))
    worst = max(float(each.mean()) for each in divergences)
    print(f"KL(transformers || llama.cpp), dynamic {kind}: at most {worst:.2e} nats a token, 3 prompts and 64 tokens each")
    assert worst < 1e-5
