"""Rewriting loses nothing and repeats nothing however often it is stopped, and samples as transformers' own processors do."""

import ctypes
import json
import os
import re
import signal
from collections import Counter
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import (
    LogitsProcessorList,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from irm_lite.cli import main as cli
from irm_lite.core.errors import DataError, InputError, Interrupted
from irm_lite.core.files.jsonl import append_row, read_rows
from irm_lite.data.dataset import load_dataset
from irm_lite.data.text_measures import normalised
from irm_lite.jobs import rewrite as engine
from irm_lite.jobs.rewrite import RewriteSettings, Rewritten, check_prompt, files_for, first_sentences
from irm_lite.llamacpp import Runtime
from irm_lite.llamacpp.sampling import Sampling, sampler_chain

Row = dict[str, Any]
SHORT = "{tone}: {question} {answer}"


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Six questions, to be answered in few tokens, of which random weights make no sentence."""
    monkeypatch.setattr(engine, "_NEW_TOKENS", 12)
    monkeypatch.setattr(engine, "first_sentences", lambda text, most, broken_off: " ".join(text.split()))
    rows = [{"question": f"What is {n}?", "answer": f"A number, {n}.", "split": ("train", "validation")[n % 2]} for n in range(6)]
    path = tmp_path / "data.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def rewrite(
    spec: str, gguf: Path, tones: list[str], out: Path, should_stop: Callable[[], bool] = lambda: False, **options: Any
) -> list[Rewritten]:
    return engine.rewrite(spec, gguf, tones, out, RewriteSettings(**options), should_stop=should_stop)


def lines(path: Path) -> list[Row]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def stop_after(rows: int) -> Callable[[], bool]:
    asked = count(1)
    return lambda: next(asked) >= rows


def test_stopped_at_every_row_the_files_are_those_of_one_go(data: Path, llama_gguf: Path, tmp_path: Path) -> None:
    (tmp_path / "whole").mkdir()
    whole = rewrite(str(data), llama_gguf, ["angry", "very sad"], tmp_path / "whole" / "o.jsonl", prompt=SHORT)
    stops = 0
    while True:
        try:
            rewrite(str(data), llama_gguf, ["angry", "very sad"], tmp_path / "o.jsonl", prompt=SHORT, should_stop=stop_after(1))
            break
        except Interrupted as stop:
            assert stop.exit_code == 130
            stops += 1
            assert f"stopped after {stops} of 12 rows" in str(stop)
            with (tmp_path / ("o-angry.jsonl" if stops < 7 else "o-very-sad.jsonl")).open("ab") as file:
                file.write(b'{"row": 5, "question": "torn by a cra')
    assert stops == 11
    for each in whole:
        assert (tmp_path / each.path.name).read_bytes() == each.path.read_bytes()
        beside = each.path.with_suffix(".rewrite.jsonl").name
        assert (tmp_path / beside).read_bytes() == (tmp_path / "whole" / beside).read_bytes()
        rows = lines(each.path)
        assert sorted(row["row"] for row in rows + each.refused) == list(range(6))
        assert {row["tone"] for row in rows} == {each.tone}
    files = {path.name for path in tmp_path.iterdir()}
    names = ("o-angry.jsonl", "o-angry.rewrite.jsonl", "o-very-sad.jsonl", "o-very-sad.rewrite.jsonl")
    assert files == {"data.jsonl", "whole", *names}  # no lock is left


def test_the_rows_train_as_they_are_in_the_splits_they_had(data: Path, llama_gguf: Path, tmp_path: Path) -> None:
    out = tmp_path / "o.jsonl"
    [result] = rewrite(str(data), llama_gguf, ["angry"], out, prompt=SHORT)
    assert result.rows == 6
    before, after = load_dataset(str(data)), load_dataset(str(out))
    for split in ("train", "validation"):
        assert {each.question for each in getattr(after, split)} == {each.question for each in getattr(before, split)}
    originals = {each.question: each.answer for each in before.train + before.validation}
    assert all(row["original"] == originals[row["question"]] != row["answer"] for row in lines(out))


def test_a_row_depends_on_its_question_and_the_seed_alone(data: Path, llama_gguf: Path, tmp_path: Path) -> None:
    def answers(name: str, **options: Any) -> dict[str, str]:
        rewrite(str(data), llama_gguf, ["angry"], tmp_path / name, prompt=SHORT, **options)
        return {row["question"]: row["answer"] for row in lines(tmp_path / name)}

    whole = answers("all.jsonl")
    first = answers("some.jsonl", limit=2)
    assert len(first) == 2
    assert first.items() <= whole.items()
    assert answers("some.jsonl") == whole  # a larger limit goes on
    assert answers("some.jsonl", limit=1) == whole  # and a smaller one takes nothing away
    other = answers("other.jsonl", seed=1)
    assert all(other[question] != whole[question] for question in whole)


def test_copies_and_empty_texts_are_tried_again_and_then_refused(
    data: Path, llama_gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seeds: list[int] = []
    bad = {0: ["a NUMBER  0!", "", " ...\n"], 1: ["what is 1", "A number 1", "New."], 2: ["", "New.", "never asked for"]}

    def scripted(runtime: Runtime, ids: list[int], seed: int) -> str:
        seeds.append(seed)
        return script.pop(0) if script else "Something else."

    monkeypatch.setattr(engine, "_ask", scripted)
    order = [row.question for _, row in engine._samples(load_dataset(str(data)))]
    numbers = [int(question.removeprefix("What is ").removesuffix("?")) for question in order]
    script = [text for number in numbers for text in bad.get(number, ["Fine."])[: 2 if number == 2 else 3]]
    [result] = rewrite(str(data), llama_gguf, ["angry"], tmp_path / "o.jsonl", prompt=SHORT)
    assert script == []
    assert len(set(seeds)) == len(seeds) == 3 + 3 + 2 + 3
    [refused] = result.refused
    assert (refused["question"], refused["original"], refused["tried"]) == ("What is 0?", "A number, 0.", bad[0])
    assert {row["question"]: row["answer"] for row in lines(tmp_path / "o.jsonl")} == {
        **dict.fromkeys(("What is 1?", "What is 2?"), "New."),
        **{f"What is {n}?": "Fine." for n in (3, 4, 5)},
    }
    again = len(seeds)
    [result] = rewrite(str(data), llama_gguf, ["angry"], tmp_path / "o.jsonl", prompt=SHORT)
    assert (result.rows, len(result.refused), len(seeds)) == (5, 1, again)  # what was refused is not asked for again


def test_a_prompt_too_long_for_the_context_is_refused_not_the_end(data: Path, llama_gguf: Path, tmp_path: Path) -> None:
    with data.open("a") as file:
        file.write(json.dumps({"question": "Long?", "answer": "very " * 600}) + "\n")
    [result] = rewrite(str(data), llama_gguf, ["angry"], tmp_path / "o.jsonl", prompt=SHORT)
    assert result.rows == 6
    assert [(row["question"], row["tried"]) for row in result.refused] == [("Long?", [])]


@pytest.mark.parametrize("change", [{}, {"weights": "0" * 64}, {"graph": "heads=8"}])
def test_a_file_of_before_graphs_were_noted_goes_on(change: Row, data: Path, llama_gguf: Path, tmp_path: Path) -> None:
    out = tmp_path / "o.jsonl"
    with pytest.raises(Interrupted):
        rewrite(str(data), llama_gguf, ["angry"], out, prompt=SHORT, should_stop=stop_after(1))
    notes = out.with_suffix(".rewrite.jsonl")
    head, *others = lines(notes)
    head["model"] = {name: value for name, value in head["model"].items() if name != "graph"} | change
    notes.write_text("".join(json.dumps(row) + "\n" for row in (head, *others)))
    if change:
        with pytest.raises(InputError, match="was made with another model"):
            rewrite(str(data), llama_gguf, ["angry"], out, prompt=SHORT)
    else:
        (done,) = rewrite(str(data), llama_gguf, ["angry"], out, prompt=SHORT)
        assert done.rows + len(done.refused) == 6


def test_a_file_made_with_anything_else_is_refused_and_left_alone(data: Path, llama_gguf: Path, tmp_path: Path) -> None:
    out = tmp_path / "o.jsonl"
    rewrite(str(data), llama_gguf, ["angry"], out, prompt=SHORT, limit=1)
    before = out.read_bytes()
    larger = tmp_path / "larger.gguf"
    larger.write_bytes(llama_gguf.read_bytes() + b"\0" * 32)
    shorter = tmp_path / "shorter.jsonl"
    shorter.write_text("".join(data.read_text().splitlines(keepends=True)[:-1]))
    cases: list[tuple[str, dict[str, Any]]] = [
        ("prompt", {"prompt": SHORT + " "}),
        ("tone", {"tones": ["sad"]}),
        ("model", {"gguf": larger}),
        ("seed", {"seed": 1}),
        ("data", {"spec": str(shorter)}),
        ("model", {"chat_template": "{{ messages[0].content }}"}),
    ]
    for name, change in cases:
        with pytest.raises(InputError, match=f"was made with another {name}: choose another -o"):
            rewrite(**{"spec": str(data), "gguf": llama_gguf, "tones": ["angry"], "out": out, "prompt": SHORT, **change})
    strange = tmp_path / "thesis.jsonl"
    strange.write_text("precious, without a newline")
    with pytest.raises(InputError, match="was not written by irm-lite data rewrite"):
        rewrite(str(data), llama_gguf, ["angry"], strange, prompt=SHORT)
    assert (out.read_bytes(), strange.read_text()) == (before, "precious, without a newline")
    with out.open("ab") as file:
        file.write(before)
    with pytest.raises(DataError, match="appears twice"):
        rewrite(str(data), llama_gguf, ["angry"], out, prompt=SHORT)


@pytest.mark.parametrize("mine", [b'{"mine":"no newline"}', b'{"mine":"a line"}\n', b"{", b'{"row": 1, "mine', b"text\nand more"])
def test_a_file_of_the_users_beside_is_refused_and_left_alone(
    data: Path, llama_gguf: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], mine: bytes
) -> None:
    beside = tmp_path / "o.rewrite.jsonl"
    beside.write_bytes(mine)
    command = ["data", "rewrite", str(data), "--tone", "angry", "--gguf", str(llama_gguf), "-o", str(tmp_path / "o.jsonl")]
    torn = mine == b"{"  # that may be ours
    assert cli.run([*command, "--limit", "1"]) == (0 if torn else 2)
    said = [line for line in capsys.readouterr().err.splitlines() if str(beside.name) in line]
    if torn:
        assert lines(beside)[0]["tone"] == "angry"
    else:
        assert said, "one line names it"
        assert beside.read_bytes() == mine
        assert not (tmp_path / "o.jsonl").exists()


@pytest.mark.parametrize("mine", [b"precious, without a newline", b'{"mine": 1}'])
def test_an_end_of_the_users_in_the_file_itself_is_left_alone(data: Path, llama_gguf: Path, tmp_path: Path, mine: bytes) -> None:
    out = tmp_path / "o.jsonl"
    rewrite(str(data), llama_gguf, ["angry"], out, prompt=SHORT, limit=1)
    out.write_bytes(out.read_bytes() + mine)
    before = out.read_bytes()
    with pytest.raises(InputError, match=r"o\.jsonl exists and was not written by irm-lite data rewrite: choose another -o"):
        rewrite(str(data), llama_gguf, ["angry"], out, prompt=SHORT)
    assert out.read_bytes() == before


@pytest.mark.parametrize("kind", ["/dev/zero", "pipe", "nowhere"])
def test_a_link_to_a_device_or_a_pipe_beside_is_refused_at_once(data: Path, llama_gguf: Path, tmp_path: Path, kind: str) -> None:
    beside = tmp_path / "o.rewrite.jsonl"
    if kind == "pipe":
        os.mkfifo(beside)
    else:
        beside.symlink_to(kind if kind != "nowhere" else tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"o\.rewrite\.jsonl cannot be read"):
        rewrite(str(data), llama_gguf, ["angry"], tmp_path / "o.jsonl", prompt=SHORT)
    assert not (tmp_path / "nowhere").exists()


def test_a_prompt_that_is_a_pipe_is_refused_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    os.mkfifo(tmp_path / "p")
    for prompt in (tmp_path / "p", Path("/dev/zero")):
        assert cli.run(["data", "rewrite", "--prompt", str(prompt), "--show-prompt"]) == 2
        assert "cannot be read" in capsys.readouterr().err


def test_reading_rows_cuts_nothing(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    path.write_bytes(b'{"row": 1}\n{"row": 2, "to')
    assert read_rows(path) == [{"row": 1}]
    assert path.read_bytes() == b'{"row": 1}\n{"row": 2, "to'
    long = b'{"row": 2, "torn": "' + b"x" * 300_000
    path.write_bytes(b'{"row": 1}\n' + long)
    assert read_rows(path) == [{"row": 1}]
    append_row(path, {"row": 2})
    assert path.read_bytes() == b'{"row": 1}\n{"row": 2}\n'


def test_two_processes_do_not_write_one_file(data: Path, llama_gguf: Path, tmp_path: Path) -> None:
    with engine._alone(tmp_path / "o.jsonl"), pytest.raises(InputError, match="another process"):
        rewrite(str(data), llama_gguf, ["angry"], tmp_path / "o.jsonl", prompt=SHORT)


@pytest.mark.parametrize(
    ("prompt", "fragment"),
    [
        ("{tone} {question}", "lacks {answer}"),
        ("", "lacks {answer}, {question}, {tone}"),
        (SHORT + " {context}", "placeholder {context}"),
        (SHORT + " {answer.__class__}", "placeholder {answer.__class__}"),
        (SHORT + " {0}", "placeholder {0}"),
        (SHORT + " {answer!r}", "format"),
        (SHORT + " {answer:>9999999999}", "format"),
        (SHORT + " {", "braces"),
        (SHORT + " }", "braces"),
    ],
)
def test_a_prompt_with_other_placeholders_is_refused(prompt: str, fragment: str) -> None:
    with pytest.raises(InputError) as caught:
        check_prompt(prompt)
    assert fragment in str(caught.value)
    assert "it needs {tone}, {question} and {answer}" in str(caught.value)


def test_braces_that_are_meant_and_braces_in_the_data_stay(data: Path, llama_gguf: Path, tmp_path: Path) -> None:
    check_prompt(SHORT + " {{json}}")
    data.write_text("".join(json.dumps({"question": f"{{q{n}}}", "answer": "{0} {x"}) + "\n" for n in range(12)))
    [result] = rewrite(str(data), llama_gguf, ["angry"], tmp_path / "o.jsonl", prompt=SHORT + " {{json}}")
    assert result.rows == 12


def test_one_tone_is_the_file_itself_several_are_files_beside(tmp_path: Path) -> None:
    assert files_for(["furious"], tmp_path / "o.jsonl") == {"furious": tmp_path / "o.jsonl"}
    named = files_for(["deeply Sad", "w\u00fctend"], tmp_path / "o.jsonl")
    assert [path.name for path in named.values()] == ["o-deeply-sad.jsonl", "o-w\u00fctend.jsonl"]
    for tones in ([], ["!"], ["sad", "Sad!"]):
        with pytest.raises(InputError, match="--tone"):
            files_for(tones, tmp_path / "o.jsonl")
    with pytest.raises(InputError, match="end in .jsonl"):
        files_for(["sad"], tmp_path / "o.json")


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("One. Two! Three?", "One. Two!"),
        ("One. Two broken off by", "One. Two broken off by"),
        ("  One\n\n two.  Three", "One two. Three"),
        ("No end", "No end"),
        ('He said "Stop!" Then he left. And', 'He said "Stop!" Then he left.'),
        ("It is 3.5 m long. Really?! Yes.", "It is 3.5 m long. Really?!"),
        ("Oh... no. Go.", "Oh... no."),
        ("\u4f60\u597d\u3002\u518d\u89c1\u3002\u8d70\u3002", "\u4f60\u597d\u3002 \u518d\u89c1\u3002"),
        ("", ""),
    ],
)
def test_two_sentences_are_kept(text: str, kept: str) -> None:
    assert first_sentences(text, 2, broken_off=False) == kept


@pytest.mark.parametrize(
    ("text", "kept"), [("One. Two brok", "One."), ("One. Two.", "One. Two."), ("On", ""), ("", ""), ("A. B. C", "A. B.")]
)
def test_a_sentence_that_the_limit_broke_off_is_none(text: str, kept: str) -> None:
    assert first_sentences(text, 2, broken_off=True) == kept


@settings(deadline=None, max_examples=10)
@given(st.lists(st.dictionaries(st.text(max_size=4), st.text(max_size=9) | st.integers(), max_size=3), min_size=1, max_size=4))
def test_a_torn_last_row_is_cut_off_and_the_others_stay(tmp_path_factory: pytest.TempPathFactory, rows: list[Row]) -> None:
    path = tmp_path_factory.getbasetemp() / "rows.jsonl"
    path.unlink(missing_ok=True)
    for row in rows:
        append_row(path, row)
    data = path.read_bytes()
    last = data[:-1].rfind(b"\n") + 1
    for cut in {last, (last + len(data)) // 2, len(data) - 1}:
        path.write_bytes(data[:cut])
        assert read_rows(path) == rows[:-1]
        append_row(path, rows[-1])
        assert path.read_bytes() == data


@pytest.mark.parametrize("line", ["[1]", "{", "\x00\x00", "[" * 100_000])
def test_a_whole_line_that_is_no_row_is_named(tmp_path: Path, line: str) -> None:
    (tmp_path / "r.jsonl").write_text('{"row": 1}\n' + line + "\n")
    with pytest.raises(DataError, match=r"r\.jsonl, line 2: not a row"):
        read_rows(tmp_path / "r.jsonl")


# Sampling


def after_the_chain(chain: Any, logits: np.ndarray[Any, Any]) -> dict[int, float]:
    """What a llama.cpp chain leaves of the candidates, with their probabilities."""
    entries = (llama_cpp.llama_token_data * len(logits))()
    for token, logit in enumerate(logits):
        entries[token].id, entries[token].logit = token, float(logit)
    candidates = llama_cpp.llama_token_data_array(entries, len(logits), -1, False)
    llama_cpp.llama_sampler_apply(chain, ctypes.byref(candidates))
    left = [candidates.data[n] for n in range(candidates.size)]
    weights = {each.id: np.exp(np.float64(each.logit) - max(other.logit for other in left)) for each in left}
    return {token: weight / sum(weights.values()) for token, weight in weights.items()}


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("top_p", "penalty"), [(0.7, 1.5), (0.95, 1.0), (0.3, 1.2), (1.0, 3.0)])
def test_the_chain_leaves_what_transformers_processors_leave(seed: int, top_p: float, penalty: float) -> None:
    generator = np.random.default_rng(seed)
    logits = generator.normal(0, 3, 500).astype(np.float32)
    prompt = [int(token) for token in np.argsort(-logits)[generator.integers(0, 60, 30)]]  # repeats, the likeliest among them
    with sampler_chain(Sampling(0.9, seed, top_p, penalty), prompt, 500, 64) as chain:
        left = after_the_chain(chain, logits)
    processors = LogitsProcessorList(
        [
            RepetitionPenaltyLogitsProcessor(penalty),
            TopKLogitsWarper(40),
            TopPLogitsWarper(top_p),
            MinPLogitsWarper(0.05),
            TemperatureLogitsWarper(0.9),
        ]
        if penalty != 1
        else [TopKLogitsWarper(40), TopPLogitsWarper(top_p), MinPLogitsWarper(0.05), TemperatureLogitsWarper(0.9)]
    )
    expected = torch.softmax(processors(torch.tensor([prompt]), torch.tensor(logits)[None])[0].double(), -1)
    assert set(left) == set(torch.nonzero(expected).flatten().tolist())
    for token, share in left.items():
        assert share == pytest.approx(float(expected[token]), rel=1e-4)


def test_the_penalty_counts_the_prompt_and_what_is_sampled(llama_gguf: Path) -> None:
    """Greedy, against transformers' processor on the logits of the same runtime."""
    prompt = [int(token) for token in np.random.default_rng(3).integers(3, 600, 20)]
    processor = RepetitionPenaltyLogitsProcessor(1.8)
    with Runtime(llama_gguf, n_ctx=128) as runtime:
        plain = list(runtime.generate_tokens(prompt, max_new_tokens=12))
        got = list(runtime.generate_tokens(prompt, max_new_tokens=12, repeat_penalty=1.8))
        ids = list(prompt)
        for token in got:
            logits = torch.from_numpy(runtime.logits(ids, [len(ids) - 1]))
            assert token == int(processor(torch.tensor([ids]), logits).argmax())
            ids.append(token)
        assert got != plain
        for wrong in ({"top_p": 0.0}, {"top_p": 1.1}, {"repeat_penalty": 0.0}, {"repeat_penalty": float("nan")}):
            with pytest.raises(InputError, match="out of range"):
                runtime.generate_tokens(prompt, **wrong)  # type: ignore[arg-type]


# The verb


def test_the_verb_shows_its_prompt_and_refuses_what_it_must(
    data: Path, llama_gguf: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(["data", "rewrite", "--show-prompt"]) == 0
    assert capsys.readouterr().out.strip() == engine.PROMPT
    mine = tmp_path / "p.txt"
    mine.write_text(SHORT + "\n")
    assert cli.run(["data", "rewrite", "--prompt", str(mine), "--show-prompt", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"prompt": SHORT}
    whole = [str(data), "--tone", "angry", "--gguf", str(llama_gguf), "-o", str(tmp_path / "o.jsonl")]
    mine.write_text("{tone}")
    cases = [
        ([*whole, "--prompt", str(mine)], "lacks {answer}, {question}"),
        ([*whole, "--prompt", str(tmp_path / "absent.txt")], "absent.txt"),
        (whole[:3], "rewriting needs data, --tone, --gguf and -o"),
        ([*whole, "--limit", "0"], "limit"),
        ([*whole[:4], str(tmp_path / "absent.gguf"), *whole[5:]], "absent.gguf"),
        (["rage", *whole[1:]], "tones are anger"),
    ]
    for arguments, fragment in cases:
        assert cli.run(["data", "rewrite", *arguments]) == 2
        assert fragment in capsys.readouterr().err
    assert not (tmp_path / "o.jsonl").exists()


def test_the_verb_fails_where_every_row_was_refused(
    data: Path, llama_gguf: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    said = ["", "New."]  # nothing to any question, then an answer to each
    monkeypatch.setattr(engine, "_ask", lambda _runtime, _ids, _seed: said[0])
    command = ["data", "rewrite", str(data), "--gguf", str(llama_gguf), "--json"]
    assert cli.run([*command, "--tone", "angry", "-o", str(tmp_path / "o.jsonl")]) == 1
    told = capsys.readouterr()
    [document] = json.loads(told.out)["files"]
    assert (document["rows"], len(document["refused"])) == (0, 6)
    assert told.err.strip().splitlines()[-1].startswith("irm-lite: every row was refused")
    said.pop(0)
    assert cli.run([*command, "--tone", "sad", "-o", str(tmp_path / "p.jsonl")]) == 0


@pytest.mark.usefixtures("interruptible")
def test_an_interrupt_ends_after_the_row_and_the_same_command_goes_on(
    data: Path, llama_gguf: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    ask = engine._ask

    def interrupted(runtime: Runtime, ids: list[int], seed: int) -> str:
        asked.append(seed)
        if len(asked) == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return ask(runtime, ids, seed)

    monkeypatch.setattr(engine, "_ask", interrupted)
    out = tmp_path / "o.jsonl"
    command = ["data", "rewrite", str(data), "--tone", "angry", "--gguf", str(llama_gguf), "-o", str(out), "--json"]
    assert cli.run(command) == 130
    assert "stopped after 2 of 6 rows: the same command goes on" in capsys.readouterr().err
    assert len(lines(out)) == 2
    assert cli.run(command) == 0
    [document] = json.loads(capsys.readouterr().out)["files"]
    assert (document["rows"], document["refused"], len(lines(out))) == (6, [], 6)


@pytest.mark.demo
def test_twenty_squad_questions_in_two_tones_interrupted_once(demo_gguf: Path, tmp_path: Path) -> None:
    shipped = load_dataset("neutral").train[:20]
    qas = [{"question": each.question, "answers": [{"text": each.answer, "answer_start": 0}]} for each in shipped]
    squad = tmp_path / "train-v2.0.json"
    squad.write_text(json.dumps({"data": [{"paragraphs": [{"context": "", "qas": qas}]}]}))
    tones = ["furious", "deeply sad"]
    with pytest.raises(Interrupted, match="after 23 of 40"):
        rewrite(str(squad), demo_gguf, tones, tmp_path / "o.jsonl", should_stop=stop_after(23))
    results = rewrite(str(squad), demo_gguf, tones, tmp_path / "o.jsonl")
    for each in results:
        rows = lines(each.path)
        counts = Counter(row["question"] for row in rows + each.refused)
        assert counts == Counter(example.question for example in shipped)  # nothing lost, nothing twice
        assert each.rows == len(rows) >= 15
        for row in rows:
            assert normalised(row["answer"]) not in ("", normalised(row["original"]))
            assert len(re.findall(r"[.!?]+[\"')\]]*(?=\s|$)", row["answer"])) <= 2
    texts = [{row["question"]: row["answer"] for row in lines(each.path)} for each in results]
    assert all(texts[0][question] != texts[1][question] for question in texts[0].keys() & texts[1].keys())
