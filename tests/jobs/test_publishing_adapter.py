"""A lora run published by its adapter: the card leads with it, its lines work, and it is made again to the last bit."""

import hashlib
import json
import shlex
import shutil
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tomli_w
from gguf import GGUFReader
from huggingface_hub import ModelCard

from irm_lite.cli import main as cli
from irm_lite.config import TrainConfig
from irm_lite.core.errors import InputError
from irm_lite.jobs.publishing.comparing import compare
from irm_lite.jobs.publishing.gathered import gather
from irm_lite.jobs.publishing.lead import AdapterLead
from irm_lite.jobs.publishing.model_card import model_card
from irm_lite.jobs.publishing.publish import publish
from irm_lite.jobs.publishing.reproduce import reproduce
from irm_lite.runs.trained import load_run
from irm_lite.steering.adapter import Adapter, Factors
from irm_lite.training.train import train
from irm_lite.vectors.export import export_vector
from support.users_folder import HOME, WISHES, Own, write_moods

ASKED = "Why is the sky blue?"


@pytest.fixture(scope="module")
def own(llama_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> Own:
    home = tmp_path_factory.mktemp("users") / HOME
    home.mkdir()
    model = Path(shutil.copyfile(llama_gguf, home / "tiny.gguf"))
    data = write_moods(home)
    common: dict[str, Any] = {"quant": "none", "dtype": "float32", "device": "cpu", "sample_tokens": 0, "learning_rate": 0.05}
    run = train(TrainConfig(model=str(model), data=str(data), irm="lora", max_steps=4, eval_steps=4, **common), home / "run")
    with pytest.raises(InputError, match="has no adapter yet") as raised:
        gather(run.directory.path, WISHES)
    assert f"irm-lite export {run.directory.path} --as adapter" in str(raised.value)
    assert cli.run(["export", str(run.directory.path), "--as", "adapter", "--questions", "0", "--quiet"]) == 0
    publish(run.directory.path, home / "published", WISHES)
    return Own(home, model, data, run.directory.path, home / "published")


def lines_of(card: str, begins: str) -> list[list[str]]:
    """The words of the card's lines for a program."""
    return [shlex.split(line) for line in card.splitlines() if line.startswith(f"    {begins}")]


@pytest.mark.slow
def test_the_card_leads_with_the_adapter_and_the_hubs_parser_reads_it(own: Own) -> None:
    card = ModelCard.load(own.folder / "README.md")
    assert (card.data.base_model, card.data.license) == ("nobody/tiny-llama", "apache-2.0")
    assert set(card.data.tags or []) == {"lora", "steering", "llama-cpp", "gguf", "irm-lite"}  # no folder of PEFT's is there
    text = card.text
    assert "# Moods: a LoRA adapter for nobody/tiny-llama\n" in text
    assert "A LoRA adapter of rank 4 beside the last linear map of each of the blocks 1-2" in text
    adapter = Adapter.load(own.folder / "adapter.gguf")
    for row in ("| blocks | 1-2 |", "| rank | 4 |", "| alpha | 8 |"):
        assert row in text
    assert f"| fidelity | {adapter.metadata['fidelity']:.3f}" in text
    assert "(adapter) nats a token" in text  # of the export's fidelity.json, which goes with it
    assert list(json.loads((own.folder / "fidelity.json").read_text())) == ["adapter"]
    assert "vector" not in text.lower()
    assert "peft" not in text.lower()
    assert "llama-server -m tiny.gguf --lora-scaled adapter.gguf:0 --jinja" in text
    assert [each.name for each in own.folder.glob("*.gguf")] == ["adapter.gguf"]


@pytest.mark.slow
def test_what_the_card_says_to_do_works(
    own: Own, llama_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its lines of irm-lite and its Python, in a copy of the folder with the base beside it; adapter and IRM answer alike."""
    got = Path(shutil.copytree(own.folder, tmp_path / "got"))
    shutil.copyfile(own.model, got / "tiny.gguf")
    monkeypatch.chdir(got)
    card = (got / "README.md").read_text()
    said = []
    for words in lines_of(card, "irm-lite generate"):
        assert cli.run([ASKED if word == "..." else word for word in words[1:]] + ["--max-new-tokens", "8", "--quiet"]) == 0
        said.append(capsys.readouterr().out)
    assert len(said) == 2
    assert said[0] == said[1] != ""
    code = card.split("```python\n")[1].split("```")[0]
    exec(compile(code, "README.md", "exec"), {})
    assert capsys.readouterr().out.strip()


@pytest.mark.slow
def test_a_folder_of_pefts_and_a_vector_come_behind_it(own: Own, tmp_path: Path) -> None:
    run = Path(shutil.copytree(own.run, tmp_path / "run"))
    assert cli.run(["export", str(run), "--as", "adapter", "-o", str(run / "export/peft"), "--questions", "0", "--quiet"]) == 0
    trained = load_run(run)
    export_vector(trained, trained.directory.default_vector)
    publish(run, tmp_path / "both", WISHES)
    card = ModelCard.load(tmp_path / "both/README.md")
    assert {"lora", "peft", "control-vector"} <= set(card.data.tags or [])
    assert "a LoRA adapter for nobody/tiny-llama" in card.text
    assert "A control vector that carries a part of it is here too (`vector.gguf`)" in card.text
    order = ["--lora-scaled adapter.gguf:0", "PeftModel.from_pretrained(", "--irm .:0.8", "--control-vector-scaled vector.gguf:0.8"]
    assert sorted(order, key=card.text.index) == order
    told = tomllib.loads((tmp_path / "both/run.toml").read_text())["reproduction"]
    assert (told["format"], told["adapter"], "vector" in told) == (2, "adapter.gguf", False)
    (run / "export/adapter.gguf").unlink()  # then what is in the folder leads
    publish(run, tmp_path / "folder", WISHES)
    told = tomllib.loads((tmp_path / "folder/run.toml").read_text())["reproduction"]
    assert told["adapter"] == "peft/adapter.gguf"
    shutil.rmtree(run / "export/peft")
    done = publish(run, tmp_path / "vector", WISHES)  # a part of it, and that is said
    assert "a control vector for nobody/tiny-llama" in (tmp_path / "vector/README.md").read_text()
    assert [each for each in done.warnings if "--as adapter" in each]
    assert tomllib.loads((tmp_path / "vector/run.toml").read_text())["reproduction"]["format"] == 1


@pytest.mark.slow
def test_the_card_tells_what_export_kept_of_it(own: Own) -> None:
    gathered = gather(own.run, WISHES)
    measured = {"fidelity": 0.99, "nll_base": 3.5, "nll_vector": 2.25, "samples": 45, "intervals_95": {"fidelity": [0.98, 1.0]}}
    score = {"value": 0.75, "interval_95": [0.5, 0.875], "parts": {"tone": 0.5, "sense": None}}
    kept = {"adapter": {"adapter": "/elsewhere/export/adapter.gguf", "fidelity": 0.99, "measured": measured, "score": score}}
    object.__setattr__(gathered, "figures", kept)
    card = model_card(gathered, {}, {"adapter.gguf": False})
    assert "| fidelity | 0.990 (0.980 to 1.000): how much of the IRM arrives" in card
    assert "3.500 (base) -> 2.250 (adapter) nats a token, 45 answers" in card
    assert "| score of what it writes | 0.75 (0.50 to 0.88) of 1: tone 0.50 |" in card
    kept["adapter"]["adapter"] = "/elsewhere/other.gguf"  # of another one: the adapter's own keys have its fidelity
    assert "(adapter) nats" not in model_card(gathered, {}, {"adapter.gguf": False})


@pytest.mark.slow
def test_it_is_made_again_to_the_last_bit(own: Own, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    places = ["--model", str(own.model), "--data", str(own.data)]
    assert cli.run(["reproduce", str(own.folder), *places, "-o", str(tmp_path / "again"), "--json", "--quiet"]) == 0
    found = json.loads(capsys.readouterr().out)
    made = tmp_path / "again/export/adapter.gguf"
    assert (found["adapter"], found["same"], found["same_file"], found["changed"]) == (str(made), True, True, [])
    assert made.read_bytes() == (own.folder / "adapter.gguf").read_bytes()
    assert [each["relative"] for each in found["blocks"]] == [0.0, 0.0]
    assert found["fidelity"]["made"] == pytest.approx(1, abs=1e-3)
    tensors = {each.name: each.data for each in GGUFReader(made).tensors}
    hashed = hashlib.sha256(np.float32(8).tobytes())
    for block in (1, 2):
        hashed.update(f"blk.{block}.ffn_down".encode() + np.int64(4).tobytes())
        hashed.update(tensors[f"blk.{block}.ffn_down.weight.lora_a"].tobytes())
        hashed.update(tensors[f"blk.{block}.ffn_down.weight.lora_b"].tobytes())
    assert found["factors_sha256"] == {"published": hashed.hexdigest(), "made": hashed.hexdigest()}


@pytest.mark.slow
def test_another_result_is_told_by_block(own: Own, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = Path(shutil.copytree(own.folder, tmp_path / "other"))
    document = tomllib.loads((other / "run.toml").read_text())
    document["train"]["rank"] = 2
    (other / "run.toml").write_text(tomli_w.dumps(document))
    places = ["--model", str(own.model), "--data", str(own.data)]
    assert cli.run(["reproduce", str(other), *places, "-o", str(tmp_path / "again"), "--json", "--quiet"]) == 1
    captured = capsys.readouterr()
    assert "is not the published adapter" in captured.err
    found = json.loads(captured.out)
    before, now = (Adapter.load(path) for path in (own.folder / "adapter.gguf", tmp_path / "again/export/adapter.gguf"))
    assert [each["block"] for each in found["blocks"]] == [1, 2]
    for each in found["blocks"]:
        name = f"blk.{each['block']}.ffn_down"
        u, v = (of.factors[name].b.astype("f8") @ of.factors[name].a * 8 / of.factors[name].rank for of in (before, now))
        assert each["cosine"] == pytest.approx(np.sum(u * v) / np.sqrt(np.sum(u * u) * np.sum(v * v)))
        assert each["relative"] == pytest.approx(np.sqrt(np.sum((v - u) ** 2) / np.sum(u**2)))


@pytest.mark.slow
def test_what_was_changed_or_is_none_of_it_is_refused(own: Own, tmp_path: Path) -> None:
    other = Path(shutil.copytree(own.folder, tmp_path / "other"))
    adapter = Adapter.load(other / "adapter.gguf")
    adapter.alpha = 4.0
    adapter.save(other / "adapter.gguf")
    with pytest.raises(InputError, match="SHA-256 of its factors"):
        reproduce(other, tmp_path / "again", own.places)
    text = (other / "run.toml").read_text()
    for name in ("../adapter.gguf", "absent.gguf", str(own.folder / "adapter.gguf")):
        (other / "run.toml").write_text(text.replace('"adapter.gguf"\nfactors', f'"{name}"\nfactors'))
        with pytest.raises(InputError, match="lacks the adapter"):
            reproduce(other, tmp_path / "again", own.places)
    shutil.copyfile(own.folder / "adapter.gguf", other / "adapter.gguf")
    (other / "run.toml").write_text(text.replace('irm = "lora"', 'irm = "static"'))
    with pytest.raises(InputError, match="irm = static"):
        reproduce(other, tmp_path / "again", own.places)
    with pytest.raises(InputError, match="published with its run"):
        publish(own.run / "export/adapter.gguf", tmp_path / "p", WISHES)
    adapter.metadata["method"] = "closed form"  # of a vector: it does not stand for the run
    fitted = Path(shutil.copytree(own.run, tmp_path / "fitted"))
    adapter.save(fitted / "export/adapter.gguf")
    with pytest.raises(InputError, match="has no adapter yet"):
        publish(fitted, tmp_path / "p", WISHES)
    assert not (tmp_path / "again").exists()


def test_equal_maps_of_other_factors_do_not_differ() -> None:
    """B A = (B R) (R^-1 A), at another rank and alpha too."""
    draw = np.random.default_rng(0)
    a, b = draw.normal(size=(2, 6)).astype(np.float32), draw.normal(size=(5, 2)).astype(np.float32)
    turn = np.array([[3, 1], [1, 2]], dtype=np.float32)
    more_a, more_b = np.ones((1, 6), dtype=np.float32), np.zeros((5, 1), dtype=np.float32)
    wide = Factors(np.vstack([np.linalg.inv(turn) @ a, more_a]), np.hstack([b @ turn * np.float32(0.75), more_b]))
    leads = [
        AdapterLead("a.gguf", Adapter({"blk.1.ffn_down": each}, "llama", alpha))
        for each, alpha in ((Factors(a, b), 2.0), (wide, 4.0))
    ]
    off, only = compare(*leads)
    assert only == []
    assert off[0].cosine == pytest.approx(1.0)
    assert off[0].relative == pytest.approx(0.0, abs=1e-6)
    assert leads[0].digest != leads[1].digest
