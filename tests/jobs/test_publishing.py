"""A published folder: read by the hub's own parser, free of this machine, made again to the last bit, refused where damaged."""

import json
import logging
import platform
import shutil
import tomllib
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import numpy as np
import pytest
import tomli_w
import yaml
from huggingface_hub import ModelCard

from irm_lite.base.load import load_base
from irm_lite.cli import main as cli
from irm_lite.config import TrainConfig
from irm_lite.core.errors import InputError, IrmLiteError
from irm_lite.core.files.manifest import damage
from irm_lite.core.types import FloatArray
from irm_lite.jobs.publishing.comparing import compare
from irm_lite.jobs.publishing.gathered import Wishes, gather
from irm_lite.jobs.publishing.lead import VectorLead
from irm_lite.jobs.publishing.leaks import leaks, public
from irm_lite.jobs.publishing.model_card import model_card
from irm_lite.jobs.publishing.publish import publish
from irm_lite.jobs.publishing.reproduce import Places, reproduce
from irm_lite.runs.trained import load_run
from irm_lite.steering.control_vector import ControlVector
from irm_lite.training import train as training
from irm_lite.vectors.export import export_vector
from support.users_folder import HOME, WISHES, Own, write_moods


def filled(value: float, size: int) -> FloatArray:
    return np.full(size, value, dtype=np.float32)


@pytest.fixture(scope="module")
def own(llama_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Own:
    home = tmp_path_factory.mktemp("users") / HOME
    model = Path(shutil.copytree(llama_folder, home / "models" / "tiny-llama"))
    data = write_moods(home)
    common: dict[str, Any] = {"quant": "none", "dtype": "float32", "device": "cpu", "sample_tokens": 0, "loop_penalty": 0.0}
    config = TrainConfig(model=str(model), data=str(data), max_steps=4, batch_size=4, eval_steps=4, **common)
    run = training.train(config, home / "runs" / "moods")
    run.directory.export.mkdir()
    export_vector(run, run.directory.default_vector)
    publish(run.directory.path, home / "published", WISHES)
    return Own(home, model, data, run.directory.path, home / "published")


@pytest.fixture
def heeded() -> Iterator[list[str]]:
    """What huggingface_hub's loggers say meanwhile; any warning of Python's is an error."""
    said: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("huggingface_hub")
    logger.addHandler(handler)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield said
    logger.removeHandler(handler)


@pytest.mark.slow
def test_the_hubs_parser_reads_the_card_without_a_warning(own: Own, heeded: list[str]) -> None:
    card = ModelCard.load(own.folder / "README.md")
    assert heeded == []
    assert (card.data.base_model, card.data.license) == ("nobody/tiny-llama", "apache-2.0")
    assert {"control-vector", "irm-lite", "llama-cpp"} <= set(card.data.tags or [])
    again = ModelCard(str(card))
    assert yaml.safe_load(card.data.to_yaml()) == yaml.safe_load(again.data.to_yaml())
    assert again.text == card.text
    for line in (
        "llama-cli -m ",
        "llama-server -m ",
        "irm-lite generate ",
        "irm-lite bake ",
        "from irm_lite import",
        "vector.gguf:0.8",
    ):
        assert line in card.text
    assert "CC0-1.0" in card.text
    assert load_run(own.run).fingerprint.weights in card.text


@pytest.mark.slow
def test_the_card_has_a_line_for_each_program_that_takes_an_adapter(own: Own) -> None:
    gathered = gather(own.run, WISHES)
    measured = {"adapter": "/elsewhere/a.gguf", "fidelity": 0.99125}
    gathered = replace(gathered, adapters=(Path("a.gguf"), Path("peft")), figures={**gathered.figures, "adapter": measured})
    card = model_card(gathered, {"a.gguf": "0", "peft/adapter_config.json": "0"}, {"a.gguf": False, "peft": True})
    assert "| fidelity of `a.gguf` | 0.991 |" in card
    assert "--lora-scaled a.gguf:0 --jinja" in card  # a request that says nothing is not steered
    assert '`"lora": [{"id": 0, "scale": 0.8}]`' in card
    assert "--adapter a.gguf:0.8 " in card
    assert "vllm serve nobody/tiny-llama --enable-lora --lora-modules steer=./peft" in card
    assert "PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained('nobody/tiny-llama'), 'peft')" in card
    assert "peft/adapter.gguf" not in card  # that folder has none
    assert "a.gguf" not in model_card(replace(gathered, adapters=()), {}, {})


@pytest.mark.slow
def test_what_the_card_says_to_do_in_python_works(
    own: Own, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(own.folder, tmp_path / "got")
    shutil.copytree(own.model, tmp_path / "got" / "nobody" / "tiny-llama")  # where the card's base is found without the hub
    monkeypatch.chdir(tmp_path / "got")
    code = (tmp_path / "got" / "README.md").read_text().split("```python\n")[1].split("```")[0]
    exec(compile(code, "README.md", "exec"), {})
    assert capsys.readouterr().out.strip()


@pytest.mark.slow
def test_nothing_published_names_this_machine(own: Own) -> None:
    private = [HOME, str(own.home), str(Path.home()) + "/", "/tmp/", str(Path.cwd()), platform.node()]
    for path in (each for each in own.folder.rglob("*") if each.is_file()):
        content = path.read_bytes()
        assert [name for name in private if name.encode() in content] == [], path
    assert ControlVector.load(own.folder / "vector.gguf").metadata["data"] == "moods.jsonl"
    assert damage(own.folder, ("README.md", "run.toml", "vector.gguf", "irm.safetensors", "fidelity.json")) == ""


@pytest.mark.slow
def test_the_folder_is_a_run_that_opens(own: Own) -> None:
    there = load_run(own.folder)
    assert (there.config.seed, there.config.data, there.config.model) == (0, "moods.jsonl", "nobody/tiny-llama")
    assert there.fingerprint == load_run(own.run).fingerprint


@pytest.mark.slow
def test_it_is_made_again_to_the_last_bit(own: Own, tmp_path: Path) -> None:
    again = reproduce(own.folder / "README.md", tmp_path / "again", own.places)
    assert again.compared.same
    assert again.compared.same_file
    assert again.compared.changed == []
    assert (tmp_path / "again/export/vector.gguf").read_bytes() == (own.folder / "vector.gguf").read_bytes()
    assert (tmp_path / "again/irm.safetensors").read_bytes() == (own.folder / "irm.safetensors").read_bytes()
    assert [each.relative for each in again.compared.off] == [0.0, 0.0]
    assert [each.cosine for each in again.compared.off] == pytest.approx([1.0, 1.0])


@pytest.mark.slow
def test_another_result_is_told_by_block_and_by_what_differs(own: Own, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = Path(shutil.copytree(own.folder, tmp_path / "other"))
    document = tomllib.loads((other / "run.toml").read_text())
    document["train"]["seed"] = 1
    document["versions"]["torch"] = "2.9.0"
    (other / "run.toml").write_text(tomli_w.dumps(document))
    places = ["--model", str(own.model), "--data", str(own.data)]
    assert cli.run(["reproduce", str(other), *places, "-o", str(tmp_path / "again"), "--json", "--quiet"]) == 1
    captured = capsys.readouterr()
    found = json.loads(captured.out)
    assert "is not the published vector" in captured.err
    assert any(each.startswith("torch 2.9.0 -> ") for each in found["changed"])
    assert not found["same"]
    before, now = (
        ControlVector.load(path).directions for path in (own.folder / "vector.gguf", tmp_path / "again/export/vector.gguf")
    )
    for each in found["blocks"]:
        u, v = (direction.astype("f8") for direction in (before[each["block"]], now[each["block"]]))
        assert each["cosine"] == pytest.approx(np.dot(u, v) / np.sqrt(np.dot(u, u) * np.dot(v, v)))
        assert each["relative"] == pytest.approx(np.sqrt(np.sum((v - u) ** 2) / np.sum(u**2)))
    assert cli.run(["reproduce", str(other), *places, "-o", str(tmp_path / "again")]) == 2  # it is there


def complaint(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """The one line of what cannot be done."""
    assert cli.run([str(each) for each in arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    return line


@pytest.mark.slow
def test_bad_input_is_one_line_with_the_fix(
    own: Own, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    empty, taken = tmp_path / "empty", tmp_path / "taken"
    empty.mkdir()
    taken.mkdir()
    (taken / "thesis.tex").touch()
    changed = tmp_path / "changed.jsonl"
    changed.write_bytes(own.data.read_bytes() + b"\n")
    sha = json.loads((own.folder / "manifest.json").read_text())["files"]["vector.gguf"]["sha256"]
    assert len(sha) == 64
    known = tomllib.loads((own.folder / "run.toml").read_text())["reproduction"]["data_sha256"]
    again = ["reproduce", own.folder, "-o", tmp_path / "again"]
    model = ["--model", own.model]
    assert "thesis.tex" in complaint(capsys, "publish", own.run, "--to", taken)
    assert "--force" in complaint(capsys, "publish", own.run, "--to", own.folder)
    assert "run.toml" in complaint(capsys, "publish", empty, "--to", tmp_path / "new")
    assert "hf auth login" in complaint(capsys, "publish", own.run, "--to", tmp_path / "new", "--push", "ann/moods")
    assert "owner/name" in complaint(capsys, "publish", own.run, "--to", tmp_path / "new", "--base-model", "not an id")
    assert "irm-lite publish" in complaint(capsys, "reproduce", empty, "-o", tmp_path / "again")
    assert "--model" in complaint(capsys, *again, "--data", own.data)
    assert known in complaint(capsys, *again, *model)
    told = complaint(capsys, *again, *model, "--data", changed)
    assert known in told
    assert "--data" in told
    assert sorted(each.name for each in tmp_path.iterdir()) == ["changed.jsonl", "empty", "taken"]


@pytest.mark.slow
def test_a_changed_vector_or_another_base_is_refused(own: Own, llama_folder: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(own.folder, tmp_path / "other"))
    (ControlVector.load(other / "vector.gguf") * 1.5).save(other / "vector.gguf")
    with pytest.raises(InputError, match="is not what was published: SHA-256"):
        reproduce(other, tmp_path / "again", own.places)
    base = load_base(str(llama_folder), quant="none", device="cpu", dtype="float32")
    base.model.model.norm.weight.data += 0.5
    shutil.copytree(llama_folder, tmp_path / "fine-tuned")
    base.model.save_pretrained(tmp_path / "fine-tuned")
    with pytest.raises(InputError, match="not the base that this was trained on"):
        reproduce(own.folder, tmp_path / "again", Places(str(tmp_path / "fine-tuned"), str(own.data)))
    assert not (tmp_path / "again").exists()


@pytest.mark.slow
def test_it_is_published_anew_only_by_force(own: Own, tmp_path: Path) -> None:
    publish(own.run, tmp_path / "p", WISHES)
    first = (tmp_path / "p/README.md").read_text()
    with pytest.raises(InputError, match="--force"):
        publish(own.run, tmp_path / "p", WISHES)
    publish(own.run, tmp_path / "p", Wishes(strength=-0.5, title="Sour"), force=True)
    assert (tmp_path / "p/README.md").read_text() != first
    assert "\n# Sour\n" in (tmp_path / "p/README.md").read_text()


def test_a_vector_alone_says_that_it_cannot_be_made_again(tmp_path: Path, heeded: list[str]) -> None:
    vector = ControlVector({1: filled(1, 64), 2: filled(0, 64)}, "llama", {"data": "/home/ann/moods.jsonl"})
    vector.save(tmp_path / "moods.gguf")
    done = publish(tmp_path / "moods.gguf", tmp_path / "p", Wishes())
    assert sorted(each.name for each in (tmp_path / "p").iterdir()) == ["README.md", "manifest.json", "moods.gguf"]
    assert len(done.warnings) == 4
    copied = ControlVector.load(tmp_path / "p/moods.gguf")
    assert copied.metadata["data"] == "moods.jsonl"
    assert np.array_equal(copied.directions[1], vector.directions[1])
    card = ModelCard.load(tmp_path / "p/README.md")
    assert card.data.base_model is None  # the hub refuses names that are no ids
    assert heeded == []
    with pytest.raises(InputError, match="published from a vector alone"):
        reproduce(tmp_path / "p", tmp_path / "again")


def test_pushing_is_one_commit_to_a_repository_that_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    calls: list[tuple[str, dict[str, Any]]] = []

    def create_repo(self: object, repo_id: str, **options: Any) -> None:
        calls.append((repo_id, options))

    def upload_folder(self: object, *, repo_id: str, folder_path: Path, commit_message: str) -> Any:
        calls.append((repo_id, {"files": sorted(each.name for each in folder_path.iterdir())}))
        assert commit_message
        return SimpleNamespace(commit_url="https://example.org/ann/moods/commit/1")

    monkeypatch.setattr(huggingface_hub, "get_token", lambda: "hf_x")
    monkeypatch.setattr(huggingface_hub.HfApi, "create_repo", create_repo)
    monkeypatch.setattr(huggingface_hub.HfApi, "upload_folder", upload_folder)
    ControlVector({1: filled(1, 8)}, "llama").save(tmp_path / "v.gguf")
    pushed = ["--push", "ann/moods", "--private"]
    assert cli.run(["publish", str(tmp_path / "v.gguf"), "--to", str(tmp_path / "p"), *pushed, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["pushed_to"] == "https://example.org/ann/moods/commit/1"
    assert calls == [
        ("ann/moods", {"private": True, "exist_ok": True}),
        ("ann/moods", {"files": ["README.md", "manifest.json", "v.gguf"]}),
    ]
    assert "hf download ann/moods" in (tmp_path / "p/README.md").read_text()


def test_paths_in_any_file_are_found(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("see https://example.org/a/b and owner/name, /think\n")
    ControlVector({1: filled(1, 8)}, "llama", {"data": "moods.jsonl"}).save(tmp_path / "v.gguf")
    assert leaks(tmp_path) == []
    ControlVector({1: filled(1, 8)}, "llama", {"note": "from /srv/ann/moods.jsonl"}).save(tmp_path / "v.gguf")
    (tmp_path / "run.toml").write_text('data = "C:\\\\Users\\\\ann\\\\moods.jsonl"\n')
    assert [each.split(":")[0] for each in leaks(tmp_path)] == ["run.toml", "v.gguf"]
    assert public({"gguf": "/srv/ann/tiny.gguf", "told": ["in /srv/ann/x: no"]}) == {"gguf": "tiny.gguf", "told": ["in <path>: no"]}


def test_a_zero_direction_has_no_cosine() -> None:
    def lead(**directions: FloatArray) -> VectorLead:
        return VectorLead("v.gguf", ControlVector({int(name[1:]): each for name, each in directions.items()}, "llama"))

    off, only = compare(lead(b1=filled(0, 4), b2=filled(1, 4)), lead(b2=filled(1, 4), b3=filled(1, 4)))
    assert only == [1, 3]
    assert [(each.block, each.relative) for each in off] == [(2, 0.0)]
    off, _ = compare(lead(b1=filled(0, 4)), lead(b1=filled(1, 4)))
    assert np.isnan(off[0].cosine)


def test_a_failed_check_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ControlVector({1: filled(1, 8)}, "llama").save(tmp_path / "v.gguf")
    monkeypatch.setattr("irm_lite.jobs.publishing.publish.leaks", lambda folder: ["README.md: /home/ann"])
    with pytest.raises(IrmLiteError, match="would be published"):
        publish(tmp_path / "v.gguf", tmp_path / "p", Wishes())
    assert not (tmp_path / "p").exists()
