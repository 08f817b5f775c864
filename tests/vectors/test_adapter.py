"""Adapters do in llama.cpp what PEFT does with the same folder, and what their vectors do."""

import json
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from sklearn.linear_model import Ridge
from torch.nn import functional as F
from transformers import AutoModelForCausalLM

from architectures import RESULT
from irm_lite.base.architecture import gguf_architecture
from irm_lite.base.maps import module_names, require_maps_of
from irm_lite.base.presets import presets
from irm_lite.cli import main as cli
from irm_lite.core.errors import InputError, LlamaCppError, VectorError
from irm_lite.core.log_probabilities import kl
from irm_lite.llamacpp import Runtime
from irm_lite.llamacpp.adapters import LoadedAdapter
from irm_lite.llamacpp.module_inputs import WatchedRuntime
from irm_lite.steering.adapter import Adapter, Factors
from irm_lite.steering.control_vector import ControlVector
from irm_lite.steering.injection import inject
from irm_lite.vectors.adapter.closed_form import closed_form, spread
from irm_lite.vectors.adapter.inputs import LlamaCppSource, Text
from irm_lite.vectors.adapter.job import require_out
from irm_lite.vectors.adapter.peft_folder import write_peft
from irm_lite.vectors.adapter.place import help_of
from irm_lite.vectors.adapter.predictor import RIDGES, fit, solutions
from irm_lite.vectors.bake import bake
from irm_lite.vectors.biases import Biases
from support.gguf_files import write_gguf as write_plain_gguf
from support.once import Once
from support.tiny_models import write_gguf, write_hf_folder
from support.vllm_checks import complaints, smallest_rank
from zoo.configs import ZOO
from zoo.conversion import SOURCE, converter
from zoo.models import write_folder

ARCHITECTURES = {"llama": "llama", "mistral": "llama", "qwen2": "qwen2", "qwen3": "qwen3"}  # Hugging Face's and GGUF's


def ids(seed: int = 1, count: int = 40) -> list[int]:
    return [1, *(int(token) for token in np.random.default_rng(seed).integers(3, 600, count))]


def vector(layers: tuple[int, ...] = (1, 2), architecture: str = "llama") -> ControlVector:
    generator = np.random.default_rng(0)
    return ControlVector({n: (0.3 * generator.standard_normal(64)).astype(np.float32) for n in layers}, architecture)


def random_adapter(modules: dict[str, int], architecture: str = "llama", rank: int = 1, seed: int = 0) -> Adapter:
    """On maps that read so many numbers and put out 64."""
    generator = np.random.default_rng(seed)

    def some(*shape: int) -> Any:
        return (0.2 * generator.standard_normal(shape)).astype(np.float32)

    return Adapter({name: Factors(some(rank, size), some(64, rank)) for name, size in modules.items()}, architecture)


MAPS = {"blk.0.ffn_down": 128, "blk.1.ffn_down": 128, "blk.2.attn_output": 64}


def said(path: Path, adapters: list[tuple[Path, float]], steered: ControlVector | None = None) -> torch.Tensor:
    """Log-probabilities in llama.cpp under these adapters."""
    with Runtime(path, n_ctx=64) as runtime:
        loaded = [(LoadedAdapter(runtime.model, each), scale) for each, scale in adapters]
        runtime.set_vector(steered)
        runtime.set_adapters(loaded)
        logits = runtime.logits(ids())
        runtime.set_adapters([])
        for each, _ in loaded:
            each.close()
        return F.log_softmax(torch.from_numpy(logits), -1)


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_peft_and_llamacpp_do_the_same_with_an_adapter(kind: str, once: Once, tmp_path: Path) -> None:
    folder = once(f"adapter-{kind}", lambda place: write_hf_folder(place / kind, kind)) / kind
    model_file = write_gguf(folder, tmp_path / "model.gguf", architecture=ARCHITECTURES[kind])
    base = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    heads = base.model.layers[2].self_attn.o_proj.in_features  # Qwen3's are wider than its stream
    adapter = random_adapter({**MAPS, "blk.2.attn_output": heads}, ARCHITECTURES[kind])
    adapter.save(tmp_path / "adapter.gguf")
    (tmp_path / "peft").mkdir()
    write_peft(tmp_path / "peft", adapter, module_names(base, ARCHITECTURES[kind]), str(folder))
    hooked = hooked_logits(base, adapter.factors)
    from peft import PeftModel

    with torch.no_grad():
        plain = base(torch.tensor([ids()])).logits[0]
        by_peft = PeftModel.from_pretrained(base, str(tmp_path / "peft"))(torch.tensor([ids()])).logits[0]
    assert float((by_peft - hooked).abs().max()) < 1e-4
    expected = F.log_softmax(by_peft, -1)
    assert float(kl(expected, said(model_file, [(tmp_path / "adapter.gguf", 1.0)])).mean()) < 1e-5
    assert float(kl(expected, F.log_softmax(plain, -1)).mean()) > 1e-2


def hooked_logits(model: Any, factors_by_map: dict[str, Factors]) -> torch.Tensor:
    """With B A x added to each map's output, by hooks: the same a second time."""
    places = {"ffn_down": "mlp.down_proj", "attn_output": "self_attn.o_proj"}
    handles = []
    for name, factors in factors_by_map.items():
        _, block, place = name.split(".")
        a, b = torch.from_numpy(factors.a), torch.from_numpy(factors.b)

        def add(_module: Any, args: Any, output: Any, a: Any = a, b: Any = b) -> Any:
            return output + args[0] @ a.T @ b.T

        handles.append(model.get_submodule(f"model.layers.{block}.{places[place]}").register_forward_hook(add))
    with torch.no_grad():
        logits: torch.Tensor = model(torch.tensor([ids()])).logits[0]
    for handle in handles:
        handle.remove()
    return logits


@pytest.mark.parametrize("scale", [-1.0, 0.5, 1.5])
def test_the_scale_is_the_strength_and_adapters_add_up_with_a_vector(
    scale: float, llama_folder: Path, llama_gguf: Path, tmp_path: Path
) -> None:
    first, second = random_adapter(MAPS), random_adapter({"blk.2.ffn_down": 128}, rank=3, seed=5)
    first.save(tmp_path / "a.gguf")
    second.save(tmp_path / "b.gguf")
    base = AutoModelForCausalLM.from_pretrained(llama_folder, dtype=torch.float32).eval()
    scaled = {name: Factors(each.a, scale * each.b) for name, each in first.factors.items()}
    scaled |= {name: Factors(each.a, each.b * np.float32(0.5 / 3)) for name, each in second.factors.items()}  # alpha 1, of rank 3
    with inject(base, vector()), torch.no_grad():
        expected = F.log_softmax(hooked_logits(base, scaled), -1)
    found = said(llama_gguf, [(tmp_path / "a.gguf", scale), (tmp_path / "b.gguf", 0.5)], vector())
    assert float(kl(expected, found).mean()) < 1e-5


def test_what_a_map_reads_in_llamacpp_is_what_it_reads_in_transformers(llama_folder: Path, llama_gguf: Path) -> None:
    base = AutoModelForCausalLM.from_pretrained(llama_folder, dtype=torch.float32).eval()
    names = {"blk.1.ffn_down": "model.layers.1.mlp.down_proj", "blk.2.attn_output": "model.layers.2.self_attn.o_proj"}
    with WatchedRuntime(llama_gguf, n_ctx=64) as runtime:
        read = LlamaCppSource(runtime, vector()).read(list(names), [Text(ids(), 1.0, 5), Text(ids(2, 9), -0.5, 5)])
    for module, name in names.items():
        expected: list[torch.Tensor] = []
        handle = base.get_submodule(name).register_forward_pre_hook(lambda _, args, seen=expected: seen.append(args[0][0]))
        with torch.no_grad():
            for tokens, strength in ((ids(), 1.0), (ids(2, 9), -0.5)):
                with inject(base, vector(), strength=strength):
                    base(torch.tensor([tokens]))
        handle.remove()
        whole = torch.cat(expected).numpy()
        assert read[module].shape == whole.shape
        np.testing.assert_allclose(read[module], whole, atol=3e-3 * float(np.abs(whole).max()))


@pytest.mark.parametrize("tokens", [20, 200])
def test_the_predictor_is_the_ridge_regression_of_1(tokens: int) -> None:
    generator = np.random.default_rng(3)
    x = generator.standard_normal((tokens, 50)) + 1.0
    for ridge, found in zip(RIDGES, solutions(x, np.ones(tokens)), strict=True):
        alpha = ridge * np.square(x).sum() / 50  # sklearn's is of the sum over tokens
        expected = Ridge(alpha, fit_intercept=False, solver="svd").fit(x, np.ones(tokens)).coef_
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-9)
    other = generator.standard_normal((30, 50)) + 1.0
    chosen = fit(x.astype(np.float32), other.astype(np.float32))
    assert chosen.error == pytest.approx(np.mean((1 - other @ chosen.a) ** 2), rel=1e-4)


def test_a_folders_name_may_have_dots(tmp_path: Path) -> None:
    for name in ("anger-v1.0", "anger.gguf", "anger"):
        require_out(tmp_path / name)
    with pytest.raises(InputError, match="neither"):
        require_out(tmp_path / "adapter.Safetensors")


def test_where_1_can_be_predicted_the_adapter_is_the_vector(steady_gguf: Path, tmp_path: Path) -> None:
    with WatchedRuntime(steady_gguf, n_ctx=64) as runtime:
        texts = spread([(ids(seed), 5) for seed in range(10, 42)])
        made = closed_form(
            LlamaCppSource(runtime, vector()), dict(vector().directions), texts, help_with=dict.fromkeys((1, 2), "attn_output")
        )
    Adapter(made.factors, "llama").save(tmp_path / "adapter.gguf")
    assert {fit.block for fit in made.fits} == {1, 2}
    assert all(fit.error < 0.2 and fit.error <= fit.unhelped for fit in made.fits)
    plain = said(steady_gguf, [])
    for strength in (-1.0, 0.5, 1.0, 1.5):
        steered = said(steady_gguf, [], vector() * strength)
        carried = 1 - float(
            kl(steered, said(steady_gguf, [(tmp_path / "adapter.gguf", strength)])).mean() / kl(steered, plain).mean()
        )
        assert carried > 0.8, strength


def test_a_block_where_1_is_predicted_badly_is_helped_by_another_map() -> None:
    """Its last map reads noise, its attention's output a constant."""

    class Noise:
        def read(self, modules: Any, texts: Any) -> Any:
            generator = np.random.default_rng(0)
            tokens = sum(len(text.ids) for text in texts)
            noise = generator.standard_normal((tokens, 8)).astype(np.float32)
            steady = np.concatenate([np.ones((tokens, 1)), generator.standard_normal((tokens, 3))], 1).astype(np.float32)
            return {module: noise if module.endswith("ffn_down") else steady for module in modules}

        def put_out(self, modules: Any, texts: Any) -> Any:
            raise AssertionError("nothing is normalised here")

    texts = spread([(ids(seed), 5) for seed in range(16)])
    directions = {1: np.ones(4, np.float32)}
    helped = closed_form(Noise(), directions, texts, help_with={1: "attn_output"})
    assert helped.fits[0].modules == ("ffn_down", "attn_output")
    assert helped.fits[0].unhelped > 0.9
    assert helped.fits[0].error < 0.05
    alone = closed_form(Noise(), directions, texts, help_with={0: "attn_output"})  # not this block
    assert set(alone.factors) == {"blk.1.ffn_down"}
    assert alone.fits[0].error == alone.fits[0].unhelped > 0.9


ADAPTER_KEYS = {"general.type": "adapter", "adapter.type": "lora", "adapter.lora.alpha": 1.0, "general.architecture": "llama"}


def test_the_gguf_has_the_names_that_llamacpps_converter_is_known_to_write(tmp_path: Path) -> None:
    adapter = random_adapter(MAPS)
    adapter.save(tmp_path / "ours.gguf")
    ours = gguf.GGUFReader(tmp_path / "ours.gguf")
    names = {f"{name}.weight.lora_{end}" for name in MAPS for end in "ab"}
    assert {tensor.name for tensor in ours.tensors} == names
    assert {key: ours.fields[key].contents() for key in ADAPTER_KEYS} == ADAPTER_KEYS


@pytest.mark.slow
@pytest.mark.skipif(converter() is None, reason=f"needs llama.cpp's source: {SOURCE}")
def test_the_gguf_is_the_one_that_llamacpps_converter_writes(llama_folder: Path, tmp_path: Path) -> None:
    source, adapter = converter(), random_adapter(MAPS)
    assert source is not None
    adapter.save(tmp_path / "ours.gguf")
    ours = gguf.GGUFReader(tmp_path / "ours.gguf")
    base = AutoModelForCausalLM.from_pretrained(llama_folder)
    (tmp_path / "peft").mkdir()
    write_peft(tmp_path / "peft", adapter, module_names(base, "llama"), str(llama_folder))
    script = [sys.executable, str(source / "convert_lora_to_gguf.py"), str(tmp_path / "peft"), "--base", str(llama_folder)]
    subprocess.run([*script, "--outfile", str(tmp_path / "theirs.gguf")], check=True, capture_output=True)
    theirs = gguf.GGUFReader(tmp_path / "theirs.gguf")
    mine = {tensor.name: tensor for tensor in ours.tensors}
    assert {tensor.name for tensor in theirs.tensors} == set(mine)
    for tensor in theirs.tensors:
        assert tensor.tensor_type == mine[tensor.name].tensor_type
        np.testing.assert_array_equal(tensor.data, mine[tensor.name].data)
    assert {key: theirs.fields[key].contents() for key in ADAPTER_KEYS} == ADAPTER_KEYS
    assert [int(kind) for kind in theirs.fields["adapter.lora.alpha"].types] == [int(gguf.GGUFValueType.FLOAT32)]
    assert Adapter.load(tmp_path / "theirs.gguf").shapes == adapter.shapes


@pytest.mark.slow
def test_the_verb_writes_a_folder_for_every_program(
    steady_gguf: Path, steady_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    vector().save(tmp_path / "v.gguf")
    out = tmp_path / "adapter"
    assert cli.run(["vector", "adapter", str(tmp_path / "v.gguf"), "--gguf", str(steady_gguf), "-o", str(out), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert {path.name for path in out.iterdir()} == {
        *("adapter_config.json", "adapter_model.safetensors", "README.md", "adapter.gguf", "fidelity.json")
    }
    loaded = Adapter.load(out / "adapter.gguf")
    assert loaded.metadata["fidelity"] == pytest.approx(document["fidelity"], rel=1e-6)
    assert json.loads((out / "fidelity.json").read_text())["fidelity"] == document["fidelity"]
    card = (out / "README.md").read_text()
    assert f"fidelity {document['fidelity']:.3f}" in card
    assert """AutoModelForCausalLM.from_pretrained("THE BASE'S FOLDER")""" in card  # the .gguf is none
    assert set(document["strengths"]) == {"-1", "0.5", "1", "1.5"}
    config = json.loads((out / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"], config["peft_type"]) == (1, 1.0, "LORA")
    assert "model.layers.1.mlp.down_proj" in config["target_modules"]
    assert complaints(out) == complaints(out, max_lora_rank=1) == []
    assert smallest_rank(out) == 1
    assert complaints(out, max_lora_rank=4)  # vLLM has no such rank
    assert len(complaints(out, supported={"q_proj", "v_proj"})) == 4  # two maps, two factors each
    stored = load_file(out / "adapter_model.safetensors")
    np.testing.assert_array_equal(
        stored["base_model.model.model.layers.2.mlp.down_proj.lora_B.weight"].numpy()[:, 0], vector().directions[2]
    )
    assert cli.run(["generate", "--gguf", str(steady_gguf), "--adapter", str(out), "-p", "Hello"]) == 2
    assert f"give the file in it, {out / 'adapter.gguf'}" in capsys.readouterr().err
    again = ["vector", "adapter", str(tmp_path / "v.gguf"), "--gguf", str(steady_gguf), "-o", str(out)]
    assert cli.run(again) == 2
    assert "exists" in capsys.readouterr().err


def test_no_adapter_is_written_over_what_it_is_made_of_or_over_what_is_none(
    llama_gguf: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, model_file, folder = tmp_path / "v.gguf", tmp_path / "model.gguf", tmp_path / "mine"
    vector().save(source)
    model_file.write_bytes(llama_gguf.read_bytes())
    folder.mkdir()
    (tmp_path / "folder.gguf").mkdir()
    (folder / "adapter_config.json").write_text("{}")
    (folder / "optimizer.pt").write_text("days of work")  # of somebody's own training with PEFT
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    read = "is read for this"
    places = ((source, read), (model_file, read), (folder, "optimizer.pt"), (tmp_path / "folder.gguf", "is a folder"))
    for place, line in places:
        asked = ["vector", "adapter", str(source), "--gguf", str(model_file), "-o", str(place), "--force"]
        assert cli.run(asked) == 2
        assert line in capsys.readouterr().err
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


@pytest.mark.slow
def test_an_adapter_made_in_transformers_is_the_one_made_in_llamacpp(
    steady_folder: Path, steady_gguf: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    vector().save(tmp_path / "v.gguf")
    out = tmp_path / "theirs"
    assert cli.run(["vector", "adapter", str(tmp_path / "v.gguf"), "--model", str(steady_folder), "-o", str(out), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["measured"]["measured_in"] == "transformers"
    assert "measured in transformers, not quantised on" in (out / "README.md").read_text()
    assert document["fidelity"] > 0.8
    steered, plain = said(steady_gguf, [], vector()), said(steady_gguf, [])
    found = said(steady_gguf, [(out / "adapter.gguf", 1.0)])
    assert 1 - float(kl(steered, found).mean() / kl(steered, plain).mean()) > 0.8


def bad_adapter(tmp_path: Path, what: str) -> Path:
    path = tmp_path / "bad.gguf"
    keys: dict[str, Any] = {"general.type": "adapter", "adapter.type": "lora", "adapter.lora.alpha": 1.0}
    a, b = np.ones((1, 128), np.float32), np.ones((64, 1), np.float32)
    tensors = {"blk.1.ffn_down.weight.lora_a": a, "blk.1.ffn_down.weight.lora_b": b}
    match what:
        case "of another architecture":
            return write_plain_gguf(path, "qwen2", tensors, keys)
        case "with names that the model has not":
            return write_plain_gguf(path, "llama", {name.replace("blk.1", "blk.7"): each for name, each in tensors.items()}, keys)
        case "of another shape":
            return write_plain_gguf(path, "llama", {**tensors, "blk.1.ffn_down.weight.lora_a": a[:, :64]}, keys)
        case "with half a pair":
            return write_plain_gguf(path, "llama", {"blk.1.ffn_down.weight.lora_a": a}, keys)
        case "with an alpha that is no float":
            return write_plain_gguf(path, "llama", tensors, {**keys, "adapter.lora.alpha": 1})
        case "with NaN":
            return write_plain_gguf(path, "llama", {**tensors, "blk.1.ffn_down.weight.lora_b": b * np.nan}, keys)
        case "of too high a rank":
            wide = {"blk.1.ffn_down.weight.lora_a": np.ones((129, 128), np.float32)}
            return write_plain_gguf(path, "llama", {**wide, "blk.1.ffn_down.weight.lora_b": np.ones((64, 129), np.float32)}, keys)
        case "with an alpha of 0":
            return write_plain_gguf(path, "llama", tensors, {**keys, "adapter.lora.alpha": 0.0})
        case "so strong that NaN comes out":
            return write_plain_gguf(path, "llama", tensors, {**keys, "adapter.lora.alpha": 3e38})
        case "of another type":
            return write_plain_gguf(path, "llama", tensors, {**keys, "adapter.type": "loha"})
        case "that works behind certain tokens alone":
            return write_plain_gguf(path, "llama", tensors, {**keys, "adapter.alora.invocation_tokens": [5, 6]})
        case "of token embeddings":  # as convert_lora_to_gguf.py writes them
            embedding = {"token_embd.weight.lora_a": np.ones((640, 1), np.float32), "token_embd.weight.lora_b": b}
            return write_plain_gguf(path, "llama", {**tensors, **embedding}, keys)
        case "in PEFT's file" | "in a folder of PEFT's" | "in a folder of ours":
            (tmp_path / "peft").mkdir()
            (tmp_path / "peft" / "adapter_model.safetensors").write_bytes(b"nothing")
            if what == "in a folder of ours":
                random_adapter(MAPS).save(tmp_path / "peft" / "adapter.gguf")
            return tmp_path / "peft" / ("adapter_model.safetensors" if what == "in PEFT's file" else "")
    vector().save(path)
    return path


BAD = {
    "of another architecture": "made for qwen2",
    "with names that the model has not": "blk.7.ffn_down, which",
    "of another shape": "goes from 64 to 64",
    "with half a pair": "one factor of two",
    "with an alpha that is no float": "no float32",
    "with NaN": "NaN",
    "of too high a rank": "rank 129 is beyond",
    "with an alpha of 0": "alpha is 0",
    "so strong that NaN comes out": "the model puts out NaN",
    "of another type": "an adapter of type 'loha'",
    "that works behind certain tokens alone": "an activated LoRA",
    "of token embeddings": "changes the token embeddings",
    "in PEFT's file": "convert_lora_to_gguf.py",
    "in a folder of PEFT's": "convert_lora_to_gguf.py",
    "in a folder of ours": "peft/adapter.gguf",
    "a control vector": "not a LoRA adapter",
}


@pytest.mark.parametrize("what", BAD)
def test_an_adapter_that_cannot_be_used_is_refused_in_a_line(
    what: str, llama_gguf: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = bad_adapter(tmp_path, what)
    code = cli.run(["generate", "--gguf", str(llama_gguf), "--adapter", str(path), "-p", "Hello"])
    assert code == (LlamaCppError.exit_code if "NaN comes" in what else VectorError.exit_code)
    error = capsys.readouterr().err.strip()
    assert BAD[what] in error
    assert "\n" not in error


def test_ranks_beyond_a_maps_smaller_side_are_taken(llama_gguf: Path, tmp_path: Path) -> None:
    """As people's adapters have them on k_proj, which puts out little: the same as their product of the lesser rank."""
    narrow = (0.1 * np.random.default_rng(4).standard_normal((48, 96))).astype(np.float32)
    wide = Factors(narrow[:, :64].copy(), narrow[:32, 48:].copy())
    full = wide.b @ wide.a
    Adapter({"blk.1.attn_k": wide}, "llama", 48.0).save(tmp_path / "wide.gguf")
    Adapter({"blk.1.attn_k": Factors(full, np.eye(32, dtype=np.float32))}, "llama", 32.0).save(tmp_path / "same.gguf")
    found, same, plain = (said(llama_gguf, each) for each in ([(tmp_path / "wide.gguf", 1.0)], [(tmp_path / "same.gguf", 1.0)], []))
    assert float(kl(same, found).mean()) < 1e-6 < 1e-4 < float(kl(plain, found).mean())


def test_a_model_that_cannot_carry_a_vector_so_is_refused_before_any_work(
    llama_folder: Path, llama_gguf: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    vector().save(tmp_path / "v.gguf")
    bake(llama_gguf, Biases("ffn_down", dict(vector().directions), {}), tmp_path / "baked.gguf")
    normed = {f"blk.{n}.post_ffw_norm.weight": np.ones(64, np.float32) for n in range(3)}
    write_gguf(llama_folder, tmp_path / "normed.gguf", extra=normed)
    write_gguf(llama_folder, tmp_path / "experts.gguf", keys={"llama.expert_count": 4})
    out = tmp_path / "a.gguf"
    for name, line in (("baked", "baked already"), ("normed", "normalises"), ("experts", "mixture of experts")):
        asked = ["vector", "adapter", str(tmp_path / "v.gguf"), "--gguf", str(tmp_path / f"{name}.gguf"), "-o", str(out)]
        assert cli.run(asked) == 2, name
        assert line in capsys.readouterr().err
    assert cli.run([*asked[:-1], str(tmp_path / "a.txt")]) == 2
    assert cli.run(["vector", "adapter", str(tmp_path / "v.gguf"), "-o", str(out)]) == 2
    assert not out.exists()


@pytest.mark.parametrize("name", ["phi", "olmo2", "glm4", "mixtral", "glm4_moe", "jamba"])
def test_transformers_and_the_gguf_say_alike_whether_a_model_can_carry_a_vector(name: str, tmp_path: Path) -> None:
    """Norms of other names, and mixtures that begin with a dense block. What the files say was found with llama.cpp's converter."""
    tiny = next(each for each in ZOO if each.name == name)
    model = AutoModelForCausalLM.from_pretrained(write_folder(tiny, tmp_path / name), dtype=torch.float32)
    kept = json.loads(RESULT.read_text(encoding="utf-8"))
    taken = next(row["adapter"] for row in kept if row["name"] == name) == "yes"
    with nullcontext() if taken else pytest.raises(InputError, match="last"):
        require_maps_of(model, module_names(model, gguf_architecture(model)), (1, 2))


@pytest.mark.parametrize(("architecture", "helped"), [("seed_oss", True), ("gemma2", False), ("nobody-s", False)])
def test_attention_helps_where_what_it_puts_out_is_added_as_it_is(architecture: str, helped: bool) -> None:
    """By the table: in Seed-OSS the MLP's norm is called post_attention_norm, in Gemma the one behind attention."""
    tensors = dict.fromkeys(("blk.0.post_attention_norm.weight", "blk.0.attn_output.weight", "blk.1.ssm_out.weight"))
    header: Any = SimpleNamespace(architecture=architecture, tensors=tensors, integer=lambda key, default: 2)
    assert help_of(header) == ({0: "attn_output"} if helped else {})  # block 1 is recurrent


def test_what_peft_cannot_be_told_of_is_refused_in_a_line(llama_base: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="knows no architecture 'nonsense'"):
        module_names(llama_base.model, "nonsense")
    names = module_names(llama_base.model, "llama")
    assert names["blk.1.ffn_down"] == "model.layers.1.mlp.down_proj"
    with pytest.raises(InputError, match=r"no blk\.9\.ffn_down"):
        write_peft(tmp_path, random_adapter({"blk.9.ffn_down": 128}), names, "x")
    mixed = {**random_adapter({"blk.1.ffn_down": 128}).factors, **random_adapter({"blk.2.ffn_down": 128}, rank=2).factors}
    with pytest.raises(InputError, match="different ranks"):
        write_peft(tmp_path, Adapter(mixed, "llama"), names, "x")


def test_an_adapter_in_the_place_of_a_model_or_a_vector_is_named(
    llama_gguf: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    random_adapter(MAPS).save(tmp_path / "a.gguf")
    assert cli.run(["generate", "--gguf", str(tmp_path / "a.gguf"), "-p", "Hello"]) == 2
    assert "is a LoRA adapter, not a model" in capsys.readouterr().err
    assert cli.run(["generate", "--gguf", str(llama_gguf), "--vector", str(tmp_path / "a.gguf"), "-p", "Hello"]) == 2
    assert "is a LoRA adapter, not a control vector" in capsys.readouterr().err


def test_another_base_is_told_and_a_baked_one_refused(llama_gguf: Path, llama_folder: Path, tmp_path: Path) -> None:
    adapter = random_adapter({"blk.1.ffn_down": 128})
    adapter.metadata |= {"base.weights": "f" * 64, "base.n_layers": 3, "base.hidden_size": 64}
    adapter.save(tmp_path / "a.gguf")
    bake(llama_gguf, Biases("ffn_down", dict(vector().directions), {}), tmp_path / "baked.gguf")
    with Runtime(llama_gguf, n_ctx=64) as runtime, LoadedAdapter(runtime.model, tmp_path / "a.gguf") as loaded:
        assert loaded.match.warning is not None
        assert "other weights" in loaded.match.warning
    with Runtime(tmp_path / "baked.gguf", n_ctx=64) as runtime, pytest.raises(VectorError, match="baked into it"):
        LoadedAdapter(runtime.model, tmp_path / "a.gguf")
    deeper = Adapter(adapter.factors, "llama", 1.0, {**adapter.metadata, "base.n_layers": 5})
    deeper.save(tmp_path / "deeper.gguf")
    with Runtime(llama_gguf, n_ctx=64) as runtime, pytest.raises(InputError, match="5 layers"):
        LoadedAdapter(runtime.model, tmp_path / "deeper.gguf")


@pytest.mark.slow
def test_a_run_is_exported_and_measured_as_an_adapter(
    steady_folder: Path, once: Once, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Against figures that are taken in transformers with PEFT on the same weights."""
    from irm_lite.base.fingerprint import fingerprint_gguf
    from irm_lite.base.load import load_base
    from irm_lite.config import TrainConfig
    from irm_lite.runs.directory import RunDirectory
    from irm_lite.runs.trained import load_run
    from irm_lite.steering.injection import static_irm
    from irm_lite.steering.irm_files import save_irm
    from irm_lite.vectors.adapter.measuring import peft_at_work
    from irm_lite.vectors.fidelity.comparing import compared
    from irm_lite.vectors.fidelity.in_transformers import SteeredBase

    template = presets()["llama-2-7b-chat"].chat_template
    model_file = write_gguf(steady_folder, tmp_path / "steady.gguf", chat_template=template)
    directory = RunDirectory(tmp_path / "run")
    options: Any = {
        "model": str(model_file),
        "data": "neutral",
        "irm": "static",
        "layers": "1-2",
        "quant": "none",
        "dtype": "float32",
    }
    directory.create(TrainConfig(**options, site="block", device="cpu"), fingerprint_gguf(model_file), {})
    save_irm(static_irm(vector()), directory.path)
    out = tmp_path / "adapter"
    assert cli.run(["export", str(directory.path), "--as", "adapter", "-o", str(out), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert directory.default_vector.exists()  # made first
    assert document["vector"]["fidelity"] == pytest.approx(1, abs=1e-3)
    assert document["fidelity"] > 0.9
    base, run = load_base(str(steady_folder), quant="none", device="cpu", dtype="float32"), load_run(directory.path)
    with peft_at_work(base, out) as peft:
        expected = compared(SteeredBase(base, run.irm, vector(), peft), run.held_out, students=("adapter",))["adapter"]
    assert document["fidelity"] == pytest.approx(expected.fidelity, abs=5e-3)
    assert document["measured"]["nll_vector"] == pytest.approx(expected.nll_vector, abs=5e-3)
    asked = ["eval", str(directory.path), "--adapter", str(out / "adapter.gguf"), "--questions", "0", "--json"]
    assert cli.run(asked) == 0
    assert json.loads(capsys.readouterr().out)["adapter"]["fidelity"] == pytest.approx(document["fidelity"], abs=1e-6)
    assert cli.run(["export", str(directory.path), "--as", "adapter"]) == 0
    assert "the vector that is there is used" in capsys.readouterr().err
    unmeasured = pytest.MonkeyPatch()
    unmeasured.setattr("irm_lite.vectors.evaluation.evaluate_run", lambda *_, **__: pytest.fail("measured first"))
    assert cli.run(["eval", str(directory.path), "--adapter", str(directory.default_vector)]) == 2
    unmeasured.undo()
    assert "not a LoRA adapter" in capsys.readouterr().err
    assert "adapter" in json.loads(directory.fidelity.read_text())
    directory.default_vector.unlink()
    assert cli.run(asked) == 0  # alone
    alone = json.loads(capsys.readouterr().out)
    assert alone["vectors"] == []
    assert alone["fidelity"] == pytest.approx(document["fidelity"], abs=1e-6)
    assert cli.run([each for each in asked if each != "--json"]) == 0
    assert "KL(IRM || adapter)" in " ".join(capsys.readouterr().out.split())
    assert cli.run([*asked, "--layers", "1"]) == 2
    assert "has no vector yet" in capsys.readouterr().err
