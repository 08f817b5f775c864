"""What the chat and the export screens are made of, without a screen."""

import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from irm_lite.base.fingerprint import Fingerprint
from irm_lite.config import TrainConfig
from irm_lite.core.errors import RunError
from irm_lite.runs.directory import RunDirectory
from irm_lite.steering.adapter import Adapter, Factors
from irm_lite.steering.control_vector import ControlVector
from irm_lite_tui.chat.conversation import Answer, Steering, Turn, history
from irm_lite_tui.chat.markdown import markdown
from irm_lite_tui.chat.server import read_event
from irm_lite_tui.export.fidelity import load_measured, read_measured
from irm_lite_tui.export.ready_lines import adapter_lines, baked_lines, name_problem, vector_lines
from irm_lite_tui.watch.chat_sources import name_of, question_for, sources_of
from support.export_app import FIGURES, NO_FIDELITY
from support.imports import loaded_by


def turn(prompt: str, **answers: str) -> Turn:
    answered = {name: Answer([text], [2.0], whole=text, reason="turn") for name, text in answers.items()}
    return Turn(prompt, 1.0, "all", 0, 0.0, {"model": "m`.gguf"}, answered)


def test_each_column_has_its_own_answers_behind_it() -> None:
    turns = [turn("one?", base="1", irm="ONE!"), turn("two?", base="2"), turn("three?", base="", irm="3!")]
    assert [each["content"] for each in history(turns, "base", "four?")] == ["one?", "1", "two?", "2", "four?"]
    assert [each["content"] for each in history(turns, "irm", "four?")] == ["one?", "ONE!", "three?", "3!", "four?"]
    assert [each["role"] for each in history(turns, "irm", "?")] == ["user", "assistant"] * 2 + ["user"]


@given(st.lists(st.sampled_from(["`", "```", "~~~", "\n", "# x", "<b>", "text", " "]), max_size=12).map("".join))
def test_nothing_said_leaves_its_fence(said: str) -> None:
    text = markdown([turn(said, base=said)])
    fences = re.findall(r"^(`{3,})text\n(.*?)\n\1$", text, re.MULTILINE | re.DOTALL)
    assert [inside for _, inside in fences] == [said, said]


def test_a_saved_answer_tells_where_it_was_steered_otherwise() -> None:
    moved = turn("?", base="1", irm="1")
    moved.answers["irm"] = Answer(["x"] * 20, [1.0] * 20, whole="x" * 20)
    asked = Steering(0, 1.0, "1-29")
    moved.answers["irm"].steered = [asked]
    assert "; " not in markdown([moved])  # the line below the turn's number says it already
    later = [Steering(16, 0.7, "1-29"), Steering(16, 0.5, "1-29"), Steering(17, 0.5, "5-9"), Steering(20, 2.0, "5-9")]
    moved.answers["irm"].steered = [asked, *later]  # the last one came behind the last token
    assert "mean added norm 1; strength 1, from token 17: 0.5; layers 1-29, from token 18: 5-9\n" in markdown([moved])
    moved.answers["irm"].steered = [asked, Steering(0, -1.0, "1-29")]
    assert "mean added norm 1; strength -1\n" in markdown([moved])


def test_a_saved_turn_names_its_files_where_they_were_changed() -> None:
    turns = [turn("one?", base="1"), turn("two?", base="2")]
    assert markdown(turns).count("- model: `` m`.gguf ``") == 1
    turns[1].sources = {"model": "m`.gguf", "vector": "v.gguf:0.5"}
    head, first, second = re.split("^## ", markdown(turns), flags=re.MULTILINE)
    assert "gguf" not in head
    assert "vector" not in first
    assert "- model: `` m`.gguf ``\n- vector: `v.gguf:0.5`" in second


def test_a_saved_answer_keeps_what_was_written_before_it_failed() -> None:
    failed = turn("?", base="half an")
    failed.answers["base"] = Answer(["half", " an"], [None, None], error="the server ended")
    assert "```text\nhalf an\n```\n\nwent wrong:\n\n```text\nthe server ended\n```" in markdown([failed])


def test_what_is_no_event_becomes_an_error() -> None:
    good = {"kind": "token", "column": "base", "token": 3, "text": "x", "norm": None}
    assert read_event(json.dumps(good).encode()) == good
    assert read_event(b'{"kind": "new one"}') is None
    bad = [b"x", b"[1]", b"7", b"{}", b'{"kind": ["a"]}', b"\xff", b"[" * 100_000]
    bad += [json.dumps({**good, key: []}).encode() for key in ("column", "token", "text", "norm")]
    ready = {"kind": "ready", "protocol": 1, "model": {"path": "m", "n_layers": 3}, "columns": {"base": {}}}
    spoilt: list[dict[str, object]] = [{"model": {}}, {"columns": {"base": 1}}, {"protocol": "1"}]
    bad += [json.dumps({**ready, **wrong}).encode() for wrong in spoilt]
    moved = {"kind": "set", "chat": 1, "columns": {"base": {"token": 1}, "irm": {"token": 1, "strength": 0.5, "layers": "1-29"}}}
    for wrong in (
        {"token": 1, "strength": "0.5", "layers": "all"},
        {"token": 1, "strength": 1, "layers": None},
        {"token": None},
        7,
    ):
        bad.append(json.dumps({**moved, "columns": {"irm": wrong}}).encode())
    bad.append(b'{"kind": "start", "column": "irm", "strength": 1, "layers": 3}')
    assert read_event(json.dumps(ready).encode()) == ready
    assert read_event(json.dumps(moved).encode()) == moved
    for line in bad:
        event = read_event(line)
        assert event is not None
        assert event["kind"] == "error"


def test_the_lines_name_the_files_whatever_they_are_called(tmp_path: Path) -> None:
    vector = tmp_path / "it's mine; rm -rf.gguf"
    for _, command in vector_lines("my model.gguf", vector, 0.8):
        words = shlex.split(command)
        assert "my model.gguf" in words
        assert f"{vector}:0.8" in words
    for _, command in adapter_lines("my model.gguf", vector, 0.8):
        words = shlex.split(command)
        assert words[0] == "curl" or {f"{vector}:0", f"{vector}:0.8"} & {*words}
        assert words[0] != "curl" or json.loads(words[-1])["lora"] == [{"id": 0, "scale": 0.8}]
    assert "--control-vector" in shlex.split(vector_lines("m.gguf", vector, 1)[0][1])
    assert name_problem(vector) == ""
    assert "another name" in name_problem(Path("a,b.gguf"))
    ollama = dict(baked_lines(Path("Große Wut.gguf")))["Ollama with the baked file"]
    assert shlex.split(ollama.split("&&")[2]) == ["ollama", "run", "gro-e-wut"]


def test_sources_are_found_beside_a_run_a_vector_or_nothing(tmp_path: Path, llama_gguf: Path) -> None:
    run = RunDirectory(tmp_path / "angry")
    run.create(TrainConfig(model=str(llama_gguf)), Fingerprint("llama", 3, 64, "0" * 64), {})
    assert "no trained IRM" in sources_of(run.path).wrong
    assert sources_of(run.path).vector == ""  # none ships for this model
    (run.path / "irm.safetensors").write_bytes(b"")
    ControlVector({1: np.ones(64, np.float32)}, "llama").save(run.default_vector)
    found = sources_of(run.path)
    assert (found.gguf, found.vector, found.irm, found.wrong) == (str(llama_gguf), str(run.default_vector), str(run.path), "")
    assert sources_of(run.default_vector).vector == str(run.default_vector)
    assert sources_of(llama_gguf).gguf == str(llama_gguf)
    assert name_of(str(run.default_vector)) == name_of(str(run.path)) == "angry"
    assert (found.adapter, found.template) == ("", "")
    run.default_adapter.write_bytes(llama_gguf.read_bytes())
    run.chat_template.write_text("{{ messages }}")
    found = sources_of(run.path)
    assert (found.adapter, found.template) == (str(run.default_adapter), str(run.chat_template))
    assert name_of(found.adapter) == "angry"
    assert sources_of(run.export).adapter == str(run.default_adapter)  # a folder as `export --as adapter` writes it
    Adapter({"blk.1.ffn_down": Factors(np.ones((1, 64), np.float32), np.ones((64, 1), np.float32))}, "llama").save(
        tmp_path / "a.gguf"
    )
    assert sources_of(tmp_path / "a.gguf").adapter == str(tmp_path / "a.gguf")
    folder = RunDirectory(tmp_path / "folder")
    folder.create(TrainConfig(model="some/hub-id"), Fingerprint("llama", 3, 64, "0" * 64), {})
    (folder.path / "irm.safetensors").write_bytes(b"")
    assert "give its GGUF" in sources_of(folder.path).wrong
    (tmp_path / "half.gguf").write_bytes(b"GGUF\3")
    for place in (tmp_path / "none", tmp_path / "half.gguf"):
        assert sources_of(place).wrong


@pytest.mark.parametrize(
    "wrong",
    [
        *("{", "[]", "{}", json.dumps({**FIGURES, "fidelity": "much"}), json.dumps({**FIGURES, "intervals_95": 3})),
        *(json.dumps({**FIGURES, "score": score}) for score in (3, {}, {"vector": {"value": "good"}}, {"vector": None})),
    ],
)
def test_figures_that_cannot_be_read_are_said_to_be(wrong: str, tmp_path: Path) -> None:
    assert load_measured(tmp_path / "none.json") is None
    (tmp_path / "f.json").write_text(wrong)
    with pytest.raises(RunError, match="export again"):
        load_measured(tmp_path / "f.json")
    (tmp_path / "f.json").write_text(json.dumps(FIGURES).replace("0.98", "NaN"))
    with pytest.raises(RunError, match="export again"):
        load_measured(tmp_path / "f.json")
    read = read_measured(FIGURES)
    assert read.fidelity == 0.98
    assert read.score is not None
    assert (read.score.value, read.score.interval, read.score.questions) == (0.84, (0.79, 0.88), 16)
    assert read_measured({**FIGURES, "score": None}).score is None
    read = read_measured({**FIGURES, **NO_FIDELITY})
    assert (read.fidelity, read.fidelity_interval, read.unsteered) == (None, None, "nothing is steered by the IRM")


@pytest.mark.slow
def test_the_screens_load_no_engine() -> None:
    assert loaded_by("import irm_lite_tui.chat.screen, irm_lite_tui.export.screen") == {"textual"}
    assert loaded_by("from irm_lite_tui.watch.chat_sources import sources_of; sources_of(None)") == set()
    assert loaded_by("import irm_lite.serve.request") == set()


def test_a_shipped_vector_stands_in_until_the_run_has_something(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("irm_lite_tui.watch.chat_sources.embedded", lambda: "demo")
    nothing = sources_of(None)
    assert (nothing.gguf, nothing.vector, nothing.wrong) == ("demo", "demo-anger", "")
    assert name_of(nothing.vector) == "demo-anger, ships with irm-lite"
    assert question_for(nothing) == "Is yawning a reflex or something we decide to do?"
    for tone, vector in (("anger", "demo-anger"), ("joy", "")):
        run = RunDirectory(tmp_path / tone)
        run.create(TrainConfig(model="demo", data=tone), Fingerprint("llama", 30, 576, "0" * 64), {})
        assert sources_of(run.path).vector == vector
        (run.path / "irm.safetensors").write_bytes(b"")
        assert (sources_of(run.path).vector, sources_of(run.path).irm) == ("", str(run.path))
    assert question_for(sources_of(run.path)) == ""
    monkeypatch.setattr("irm_lite_tui.watch.chat_sources.embedded", lambda: "")
    assert sources_of(None).vector == ""  # no model, no vector
