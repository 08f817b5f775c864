"""Chat templates as people have them: refused, misread, or another at every start."""

import json
import shutil
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from irm_lite.base.load import load_base, load_tokenizer
from irm_lite.cli.main import run as irm_lite
from irm_lite.config import TrainConfig
from irm_lite.core.errors import BaseModelError, InputError, Interrupted
from irm_lite.data.dataset import Example
from irm_lite.data.encoding import encode, encode_prompt
from irm_lite.llamacpp.model import Model
from irm_lite.runs.directory import RunDirectory
from irm_lite.runs.trained import TrainedRun, base_at, load_run
from irm_lite.steering.irm import build_irm
from irm_lite.training import train as training
from irm_lite.training.resume_point import changes
from support.same_run import result
from support.tiny_models import write_gguf

PLAIN = "{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}{% if add_generation_prompt %}[assistant] {% endif %}"
GEMMA = "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}" + PLAIN
DATED = "{{ strftime_now('%Y-%m-%d %H:%M:%S') }} " + PLAIN
ASKED = ({"role": "user", "content": "Why?"},)
SYSTEM = ({"role": "system", "content": "Be brief."}, *ASKED)


def quick(model: Path, **changes: Any) -> TrainConfig:
    settings: dict[str, Any] = {"model": str(model), "quant": "none", "dtype": "float32", "device": "cpu", "batch_size": 4}
    return TrainConfig(**{**settings, "max_steps": 4, "irm": "lite", "rank": 4, "eval_steps": 2, "sample_tokens": 0, **changes})


def written(folder: Path, source: str) -> str:
    (folder / "t.jinja").write_text(source)
    return str(folder / "t.jinja")


def folder_with(llama_folder: Path, target: Path, template: Any) -> Path:
    """A copy of the tiny Llama's folder whose tokenizer_config.json has this chat template."""
    shutil.copytree(llama_folder, target)
    (target / "chat_template.jinja").unlink(missing_ok=True)
    settings = json.loads((target / "tokenizer_config.json").read_text())
    (target / "tokenizer_config.json").write_text(json.dumps({**settings, "chat_template": template}))
    return target


@pytest.mark.slow
def test_a_training_resumed_at_another_minute_is_the_same_training(
    llama_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody stopped a training whose template writes the time: gone on with, it said that the data had changed, and ended
    elsewhere."""
    settings = quick(llama_folder, chat_template=written(tmp_path, DATED))
    with monkeypatch.context() as before:
        before.setattr(time, "time", lambda: 1_000_000_000.0)  # in 2001
        training.train(settings, tmp_path / "whole")
        steps: list[int] = []
        with pytest.raises(Interrupted):
            training.train(
                settings,
                tmp_path / "broken",
                on_event=lambda event: steps.append(1) if event["kind"] == "step" else None,
                should_stop=lambda: len(steps) >= 2,
            )
    training.resume(tmp_path / "broken")
    assert not [event for event in RunDirectory(tmp_path / "broken").events.read() if event["kind"] == "warning"]
    whole, broken = (result(tmp_path / each) for each in ("whole", "broken"))
    for name in ("irm.safetensors", "checkpoints/step-4/irm.safetensors"):
        assert whole[name] == broken[name]
    run = load_run(tmp_path / "broken")
    kept = run.directory.rendered_at()
    assert kept is not None
    assert run.tokenizer.decode(run.held_out[0].ids).removeprefix("<s>").strip().startswith(f"{kept:%Y-%m-%d %H:%M:%S}")
    assert encode_prompt(run.base.tokenizer, ASKED) == encode_prompt(run.tokenizer, ASKED)
    assert encode_prompt(load_base(str(llama_folder), quant="none", device="cpu", chat_template=DATED).tokenizer, ASKED) != (
        encode_prompt(run.tokenizer, ASKED)
    )


def test_a_run_that_kept_no_time_is_told_why_its_samples_differ(llama_folder: Path, tmp_path: Path) -> None:
    """Somebody's file had not been touched, and was said to have changed: the template's date had."""
    base = load_base(str(llama_folder), quant="none", device="cpu")
    for source, cause in ((DATED, "its chat template asks for the date"), (PLAIN, "anger has changed since the run began")):
        run = RunDirectory(tmp_path / cause[:3])
        run.create(quick(llama_folder), base.fingerprint, {}, source)
        run.events.append("start", data_sha256="that of then")
        there = base_at(replace(base, tokenizer=load_tokenizer(str(llama_folder), chat_template=source)), run.rendered_at())
        job: Any = SimpleNamespace(base=there, samples=SimpleNamespace(digest="that of now"), config=run.config())
        told = list(changes(run, job))
        assert len(told) == 1
        assert cause in told[0]


def test_a_template_file_without_a_word_is_refused(llama_folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Somebody's download had failed, and the empty file that it left was trained with as if none had been given."""
    empty = written(tmp_path, "\ufeff \n")
    assert irm_lite(["train", "--model", str(llama_folder), "--chat-template", empty, "--out", str(tmp_path / "run")]) == 2
    assert f"the chat template {empty} is empty: give a file with Jinja text" in capfd.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_run_that_kept_no_time_is_rendered_as_it_was(llama_folder: Path, tmp_path: Path) -> None:
    """Runs of an older irm-lite saw no `date_string`: Llama 3's templates have a date of their own for that."""
    source = "{% if date_string is not defined %}{% set date_string = '26 Jul 2024' %}{% endif %}{{ date_string }} " + PLAIN
    run = RunDirectory(tmp_path / "run")
    fingerprint = load_base(str(llama_folder), quant="none", device="cpu").fingerprint
    run.create(quick(llama_folder), fingerprint, {}, source)
    (run.path / "irm.json").write_text("{}")
    assert run.rendered_at() is None
    trained = TrainedRun(run, run.config(), build_irm("static", 64, (1,)), fingerprint)
    assert "26 Jul 2024" in trained.tokenizer.decode(encode_prompt(trained.tokenizer, ASKED))


def test_a_system_text_that_a_template_refuses_stands_in_front_of_the_first_turn(
    llama_folder: Path, llama_gguf: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Gemma's template raises an exception at a system role: no row with one could be used, and `generate --system` failed."""
    gguf = write_gguf(llama_folder, tmp_path / "gemma.gguf", GEMMA)
    example = Example((*SYSTEM, {"role": "assistant", "content": "So."}), None, "row 1")
    tokenizer = load_tokenizer(str(gguf))
    sample = encode(tokenizer, example)
    assert "[user] Be brief.\nWhy?" in tokenizer.decode(sample.ids)
    with Model(gguf) as model:
        assert model.encode_prompt(SYSTEM) == sample.ids[: sample.answer_start]
    assert irm_lite(["generate", "--gguf", str(gguf), "--system", "Be brief.", "-p", "Why?", "--max-new-tokens", "1"]) == 0
    assert capfd.readouterr().err.count("it stands in front of") == 1


def test_a_list_of_templates_is_read(llama_folder: Path, tmp_path: Path) -> None:
    """Cohere's and Hermes' folders hold several templates by name, and so do the GGUFs that are made of them."""
    listed = [{"name": "tool_use", "template": "tools {{ messages[0].content }}"}, {"name": "default", "template": PLAIN}]
    folder = folder_with(llama_folder, tmp_path / "listed", listed)
    assert load_tokenizer(str(folder)).chat_template == PLAIN
    named = {f"tokenizer.chat_template.{each['name']}": each["template"] for each in listed[:1]}
    with_default = write_gguf(llama_folder, tmp_path / "a.gguf", PLAIN, keys=named)
    without = write_gguf(llama_folder, tmp_path / "b.gguf", keys=named)  # llama.cpp takes that for tools then
    for gguf, expected in ((with_default, PLAIN), (without, listed[0]["template"])):
        with Model(gguf) as model:
            assert load_tokenizer(str(gguf)).chat_template == model.chat_template.source == expected
    only = [{"name": "rag", "template": PLAIN}, {"name": "json", "template": PLAIN}]
    with pytest.raises(
        BaseModelError, match="has only the chat templates rag, json, and no default: give one with --chat-template"
    ):
        load_tokenizer(str(folder_with(llama_folder, tmp_path / "only", only)))


def test_a_template_in_a_file_of_its_own_is_read(llama_folder: Path, tmp_path: Path) -> None:
    """transformers now writes chat_template.jinja, and not into tokenizer_config.json."""
    folder = folder_with(llama_folder, tmp_path / "own", None)
    (folder / "chat_template.jinja").write_text(PLAIN)
    assert load_tokenizer(str(folder)).chat_template == PLAIN


@pytest.mark.parametrize("source", ["hello world", "{% for m in %}", "{{ raise_exception('no way') }}", "{{ 1 / 0 }}"])
def test_train_and_generate_refuse_the_same_templates_and_blame_no_row(source: str, llama_gguf: Path, tmp_path: Path) -> None:
    """A broken template was "row 0: ..." in training, and `generate` answered with a template that has no question in it."""
    template = written(tmp_path, source)
    with pytest.raises(InputError, match="the chat template") as trained:
        training.train(quick(llama_gguf, chat_template=template), tmp_path / "run")
    with Model(llama_gguf, chat_template=source) as model, pytest.raises(InputError) as generated:
        model.encode_prompt(ASKED)
    assert str(trained.value) == str(generated.value)
    assert "row" not in str(trained.value)


@pytest.mark.parametrize("source", ["{{ messages[0].content }}", "{{ messages[-1].content }}", "{{ messages | length }}" + PLAIN])
def test_train_takes_the_templates_that_generate_takes(source: str, llama_gguf: Path) -> None:
    """Templates without memory were refused in training ("leaves the answer out"), and used by `generate`."""
    tokenizer = load_tokenizer(str(llama_gguf), chat_template=source)
    sample = encode(tokenizer, Example((*ASKED, {"role": "assistant", "content": "So."}), None, "row 1"))
    with Model(llama_gguf, chat_template=source) as model:
        assert model.encode_prompt(ASKED) == sample.ids[: sample.answer_start]
    assert tokenizer.decode(sample.ids[sample.answer_start :], skip_special_tokens=True).strip() == "So."


@pytest.mark.parametrize(("key", "value"), [("rope.freq_base", 0.0), ("rope.freq_base", -1.0), ("rope.scaling.factor", -2.0)])
def test_train_and_generate_refuse_the_same_rotations(key: str, value: float, llama_folder: Path, tmp_path: Path) -> None:
    """A file with a negative rope factor: refused in training, answered with nonsense by `generate`."""
    gguf = write_gguf(llama_folder, tmp_path / "a.gguf", PLAIN, keys={f"llama.{key}": value})
    with pytest.raises(BaseModelError, match="a rope base of") as trained:
        load_base(str(gguf), quant="none", device="cpu")
    with pytest.raises(BaseModelError) as generated:
        Model(gguf)
    assert str(trained.value) == str(generated.value)


def test_a_role_that_the_template_does_not_know_is_the_rows_fault(llama_gguf: Path) -> None:
    """Of a row that the template refuses, it is the row that is named."""
    raising = "{% if m.role == 'system' %}{{ raise_exception('Unknown role') }}{% endif %}"
    source = "{% for m in messages %}" + raising + "{{ m.content }}{% endfor %}"
    tokenizer = load_tokenizer(str(llama_gguf), chat_template=source)
    late = (*ASKED, {"role": "assistant", "content": "So."}, {"role": "system", "content": "Hm."}, *ASKED)
    with pytest.raises(InputError, match=r"row 7: the chat template refuses this conversation \(Unknown role\)"):
        encode(tokenizer, Example((*late, {"role": "assistant", "content": "So."}), None, "row 7"))


def test_the_loss_ends_at_the_first_of_the_ends_that_generation_config_lists(llama_folder: Path, tmp_path: Path) -> None:
    """Llama 3's folders list two ends of generation; the tokenizer's own is not the one that ends a turn."""
    folder = tmp_path / "listed"
    shutil.copytree(llama_folder, folder)
    tokenizer = load_tokenizer(str(folder))
    ends = tokenizer.convert_tokens_to_ids("?")
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [2, ends]}))
    tokenizer = load_tokenizer(str(folder), chat_template="{% for m in messages %}{{ m.content }}?\n{% endfor %}")
    sample = encode(tokenizer, Example((*ASKED, {"role": "assistant", "content": "So."}), None, "row 1"))
    assert tokenizer.turn_end_ids == {2, ends}
    assert (sample.ids[-1], sample.ids.count(2)) == (ends, 0)
