"""What a hostile or unlucky user did to record, heatmap, analyze, ablate, sweep and data once, and what they say now."""

import errno
import json
import shutil
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from safetensors.numpy import load_file, save_file

from irm_lite import train
from irm_lite.analysis.ablation_files import load_subsets
from irm_lite.analysis.pictures.figures import pictures
from irm_lite.analysis.recordings.record import record
from irm_lite.analysis.recordings.recording import load_recording
from irm_lite.analysis.recordings.run_recordings import with_recordings
from irm_lite.analysis.statistics.ranking import importance
from irm_lite.cli import main as cli
from irm_lite.cli.output import Output
from irm_lite.cli.progress import progress
from irm_lite.config import TrainConfig
from irm_lite.core.errors import DataError, Interrupted, RunError
from irm_lite.core.files.atomic import atomic_folder
from irm_lite.core.files.jsonl import read_rows
from irm_lite.core.visible_text import safe
from irm_lite.data.dataset import load_dataset, load_questions
from irm_lite.jobs import rewrite as rewriting
from irm_lite.runs.directory import RunDirectory

FEW = ["--limit", "2", "--new-tokens", "2", "--quiet"]
Change = Callable[[dict[str, Any]], object]


def trained(base: Path, out: Path, **settings: Any) -> Path:
    options: dict[str, Any] = {"quant": "none", "dtype": "float32", "max_steps": 2, "sample_tokens": 0, "learning_rate": 0.05}
    run = train(TrainConfig(model=str(base), **{**options, **settings}), out)
    record(run, run.held_out_questions[:2], new_tokens=2, keep=1).save(run.directory.recordings / "held-out")
    return out


@pytest.fixture(scope="module")
def made(llama_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three recorded runs: anger, sadness, and one of a single layer."""
    folder = tmp_path_factory.mktemp("made")
    trained(llama_folder, folder / "anger", data="anger", irm="static")
    trained(llama_folder, folder / "sadness", data="sadness", irm="static")
    trained(llama_folder, folder / "single", data="anger", layers="2")
    return folder


@pytest.fixture
def runs(made: Path, tmp_path: Path) -> Path:
    """A copy of them to spoil."""
    shutil.copytree(made, tmp_path / "runs")
    return tmp_path / "runs"


def complaint(capsys: pytest.CaptureFixture[str], *arguments: object, code: int = 2) -> str:
    """The one line that a command line ends with."""
    capsys.readouterr()
    assert cli.run([str(each) for each in arguments]) == code
    said = capsys.readouterr()
    lines = [line for line in said.err.splitlines() if line.startswith("irm-lite: ") and "warning" not in line]
    assert len(lines) == 1, said.err
    assert "unexpected" not in lines[0]
    assert said.out == ""
    return lines[0]


# Runs and recordings


@pytest.mark.slow
def test_a_run_of_one_layer_is_ranked_ablated_and_analysed(runs: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    values = np.arange(1.0, 65.0)[None]
    np.testing.assert_allclose(importance(values), values[0] / values.mean())
    assert cli.run(["ablate", str(runs / "single"), "--samples", "2", "--json", "--quiet"]) == 0
    assert json.loads(capsys.readouterr().out)["effects"]
    both = [str(runs / name) for name in ("single", "anger")]
    assert cli.run(["analyze", *both, "-o", str(tmp_path / "report"), "--samples", "3", "--json", "--quiet"]) == 0
    single, anger = json.loads(capsys.readouterr().out)["runs"]
    assert len(single["top"]) == 10
    assert ("two_way" in single, "two_way" in anger) == (False, True)


@pytest.mark.slow
def test_nothing_is_recorded_where_one_of_the_runs_is_none(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = complaint(capsys, "record", runs / "anger", runs / "absent", *FEW, "--name", "new")
    assert "absent is not a run directory" in said
    assert not (runs / "anger" / "recordings" / "new").exists()
    (runs / "file").write_text("")
    assert "is not a run directory" in complaint(capsys, "record", runs / "file", *FEW)
    assert "cannot be read" in complaint(capsys, "record", runs / "anger", *FEW, "--name", "new", "--gguf", "")


def test_a_run_given_as_a_dot_has_its_folders_name(
    runs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(runs / "anger")
    assert cli.run(["record", ".", *FEW, "--name", "new"]) == 0
    assert load_recording(Path("recordings/new")).about.run == "anger"
    assert [each.name for each in with_recordings([Path(), Path("../sadness")])] == ["anger", "sadness"]
    assert "same name, anger: give it once" in complaint(capsys, "analyze", ".", runs / "anger", "-o", "report")


def test_what_is_no_recording_is_not_written_over(runs: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    notes = runs / "anger" / "recordings" / "notes"
    notes.mkdir()
    (notes / "thesis.txt").write_text("precious")
    assert "not a recording" in complaint(capsys, "record", runs / "anger", *FEW, "--name", "notes", "--force")
    assert (notes / "thesis.txt").read_text() == "precious"
    (tmp_path / "file").write_text("")
    with atomic_folder(tmp_path / "file") as folder:
        (folder / "inside").write_text("new")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "runs"]  # no .file.old


def test_prompt_files_need_no_split_and_name_the_flag_that_names_the_recording(
    runs: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "one.jsonl").write_text('{"question": "b?", "answer": "x"}\n{"question": "a?", "answer": "x"}\n')
    assert load_questions(tmp_path / "one.jsonl") == ["b?", "a?"]
    (tmp_path / "my prompts.txt").write_text("hello\n")
    said = complaint(capsys, "record", runs / "anger", *FEW, "--prompts", tmp_path / "my prompts.txt")
    assert "give a --name of letters" in said


def test_an_interrupted_record_says_what_is_left(
    runs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from irm_lite.analysis.recordings import record as engine

    original = engine.record

    def stopped(run: Any, *arguments: Any, **options: Any) -> Any:
        if run.directory.name == "sadness":
            raise Interrupted("stopped")
        return original(run, *arguments, **options)

    monkeypatch.setattr(engine, "record", stopped)
    names = [runs / "anger", runs / "sadness"]
    capsys.readouterr()
    assert cli.run(["record", *map(str, names), *FEW, "--name", "new"]) == 130
    assert "stopped in run 2 of 2, sadness: --skip-existing goes on there" in capsys.readouterr().err
    assert [(run / "recordings" / "new").exists() for run in names] == [True, False]


@pytest.mark.parametrize(
    "change",
    [
        lambda document: document.update(data=5),
        lambda document: document.update(run=None),
        lambda document: document.update(layers=["1", "2"]),
        lambda document: document.update(n_prompts=-1),
        lambda document: document["prompts"][0].update(question=5),
        lambda document: document["prompts"][0].update(tokens=[5] * len(document["prompts"][0]["tokens"])),
        lambda document: document["prompts"][0].update(n_prompt=-3),
        lambda document: document["prompts"][0].update(n_prompt=10**9),
        lambda document: document["prompts"][0].update(n_prompt="3"),
    ],
)
def test_a_recording_of_wrong_types_is_damaged(runs: Path, capsys: pytest.CaptureFixture[str], change: Change) -> None:
    folder = runs / "anger" / "recordings" / "held-out"
    document = json.loads((folder / "recording.json").read_text())
    change(document)
    (folder / "recording.json").write_text(json.dumps(document))
    assert "is damaged" in complaint(capsys, "heatmap", folder)


@pytest.mark.parametrize("file", ["statistics", "outputs"])
def test_arrays_that_are_no_numbers_are_damage(runs: Path, file: str) -> None:
    path = runs / "anger" / "recordings" / "held-out" / f"{file}.safetensors"
    save_file({name: value.astype(bool) for name, value in load_file(path).items()}, path)
    with pytest.raises(RunError, match="is damaged .*bool"):
        load_recording(path.parent)


def test_a_recording_of_another_run_is_refused(runs: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    shutil.rmtree(runs / "anger" / "recordings")
    shutil.copytree(runs / "sadness" / "recordings", runs / "anger" / "recordings")
    for verb in (["analyze", runs / "anger", "-o", tmp_path / "report"], ["ablate", runs / "anger"]):
        assert "is a recording of another IRM" in complaint(capsys, *verb)
    said = complaint(capsys, "ablate", runs / "single", "--recording", "../../sadness/recordings/held-out")
    assert "cannot name a recording" in said


# What is on disk beside them


@pytest.mark.parametrize(
    "text",
    [
        '{"effects": [{}]}',
        '{"effects": [1]}',
        '{"effects": {"a": 1}}',
        '{"effects": "abc"}',
        '{"effects": [{"index": 1, "where": "irm"}]}',
        "[" * 100_000,
    ],
)
def test_a_damaged_ablation_is_one_line(runs: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path, text: str) -> None:
    (runs / "anger" / "ablations").mkdir()
    (runs / "anger" / "ablations" / "1-irm.json").write_text(text)
    said = complaint(capsys, "analyze", runs / "anger", "-o", tmp_path / "report", "--samples", "3")
    assert "1-irm.json is damaged" in said
    assert "remove it, or ablate again" in said


@pytest.mark.slow
def test_an_ablation_with_nan_is_damaged(runs: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert cli.run(["ablate", str(runs / "anger"), "--index", "3", "--index", "3", "--samples", "2", "--json", "--quiet"]) == 0
    assert len(json.loads(capsys.readouterr().out)["files"]) == 1  # the same index once
    file = runs / "anger" / "ablations" / "3-irm.json"
    document = json.loads(file.read_text())
    document["effects"][0]["p"] = float("nan")
    file.write_text(json.dumps(document))
    assert "3-irm.json is damaged" in complaint(capsys, "analyze", runs / "anger", "-o", tmp_path / "report", "--samples", "3")


def test_events_that_are_none_are_passed_over(runs: Path, tmp_path: Path) -> None:
    run = RunDirectory(runs / "anger")
    before = list(run.events.read())
    with (run.path / "events.jsonl").open("a") as file:
        file.write('{}\n{"kind": ["eval"]}\n[]\n{"kind": "eval", "nll": 1.0, "of": ["irm"]}\n')
    assert list(run.events.read())[:-1] == before
    assert cli.run(["analyze", str(run.path), "-o", str(tmp_path / "report"), "--samples", "3", "--quiet"]) == 0


def test_a_damaged_fingerprint_names_its_file(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (runs / "anger" / "base.json").write_text("{}")
    assert "base.json cannot be read" in complaint(capsys, "record", runs / "anger", *FEW, "--name", "new")


# Before the work, not after it


def test_bad_wishes_are_refused_before_the_base_is_loaded(
    runs: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(*_: object, **__: object) -> None:
        raise AssertionError("the base is loaded")

    monkeypatch.setattr("irm_lite.runs.trained.load_base_of", load)
    monkeypatch.setattr("irm_lite.jobs.sweep.load_base_of", load)
    file = tmp_path / "file"
    file.write_text("precious")
    (tmp_path / "s.toml").write_text("[grid]\nseed = [0, 1]\n")
    anger, report = runs / "anger", tmp_path / "report"
    for arguments, said in (
        (["analyze", anger, "-o", file], "file cannot be written"),
        (["analyze", anger, "-o", file / "below"], "below cannot be written"),
        (["analyze", anger, "-o", report, "--seed", "-1"], "--seed -1 makes no sense"),
        (["ablate", anger, "--seed", "-1"], "--seed -1 makes no sense"),
        (["heatmap", anger, "-o", file], "file cannot be written"),
        (["sweep", tmp_path / "s.toml", "--out", file], "file cannot be written"),
    ):
        assert said in complaint(capsys, *arguments)
    (anger / "ablations").write_text("")
    assert "ablations cannot be written" in complaint(capsys, "ablate", anger)
    shutil.rmtree(anger / "recordings")
    (anger / "recordings").write_text("")
    assert "recordings cannot be written" in complaint(capsys, "record", anger, *FEW)
    assert file.read_text() == "precious"


def test_a_phase_that_a_recording_lacks_is_said_before_the_base_is_loaded(
    runs: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cli.run(["record", str(runs / "sadness"), "--limit", "1", "--new-tokens", "0", "--force", "--quiet"]) == 0
    monkeypatch.setattr("irm_lite.analysis.analyze.load_run", lambda _: pytest.fail("the base is loaded"))
    said = complaint(capsys, "analyze", runs / "anger", runs / "sadness", "-o", tmp_path / "report")
    assert "the recording of sadness has no generated tokens" in said


# What is shown


@pytest.mark.parametrize("name", ["{x}", "[/red]", "[red]x", "\x1b[31mx"])
def test_a_name_is_shown_as_it_stands_on_a_terminal(name: str) -> None:
    output, screen = Output(None), StringIO()
    output.console = Console(file=screen, force_terminal=True, width=200, highlight=False, markup=False, color_system=None)
    with progress(output, f"run 1 of 2, {name}") as report:
        report(1, 2, f"in {name}")
    assert f"run 1 of 2, {safe(name)} " in screen.getvalue()
    assert f" in {safe(name)}" in screen.getvalue()
    assert "\x1b[31m" not in screen.getvalue()


def test_a_runs_name_cannot_act_on_the_terminal(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "\x1b[31mred"
    shutil.copytree(made / "anger", run)
    assert cli.run(["record", str(run), *FEW, "--name", "new"]) == 0
    captured = capsys.readouterr()
    assert "red" in captured.out
    assert "\x1b" not in captured.out + captured.err


@pytest.mark.slow
def test_bars_of_nothing_stand_at_the_foot_and_the_legend_covers_none(runs: Path) -> None:
    recording = load_recording(runs / "anger" / "recordings" / "held-out")
    for each in recording.statistics.values():
        each.near_zero.fill(0)
    for outputs in recording.outputs:
        outputs.fill(0)
    drawn = dict(pictures(recording, (0, 0)))
    for name in ("sparsity", "prompt-0-largest-by-layer", "prompt-0-largest-by-token"):
        assert drawn[name].axes[0].get_ylim()[0] == 0
    full = load_recording(runs / "anger" / "recordings" / "held-out")
    for each in full.statistics.values():
        each.near_zero.fill(0.5)
    figure = dict(pictures(full, (0, 0)))["sparsity"]
    figure.canvas.draw()
    axes = figure.axes[0]
    legend = axes.get_legend()
    assert legend is not None
    assert not any(legend.get_window_extent().overlaps(bar.get_window_extent()) for bar in axes.patches)


# Sweeps and data


def test_a_sweep_file_that_nests_without_end_and_a_folder_in_the_way(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "s.toml").write_text("a = " + "[" * 100_000)
    assert "is not readable TOML" in complaint(capsys, "sweep", tmp_path / "s.toml")
    (tmp_path / "s.toml").write_text("[grid]\nseed = [0]\n")
    (tmp_path / "out" / "seed-0").mkdir(parents=True)
    (tmp_path / "out" / "seed-0" / "thesis.txt").write_text("")
    said = complaint(capsys, "sweep", tmp_path / "s.toml", "--out", tmp_path / "out")
    assert "it is not a run of this sweep" in said
    assert "--resume" not in said


def test_the_verb_that_is_not_there_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert "there is no verb 'chek': irm-lite data --help lists them" in complaint(capsys, "data", "chek", "x.jsonl")
    for more in ([], ["--data", "x"]):
        assert "there is no verb 'trian': irm-lite --help lists them" in complaint(capsys, "trian", *more)


def test_squad_cut_short_or_without_answers(tmp_path: Path) -> None:
    questions = [{"question": f"q {n}?", "answers": [], "is_impossible": True} for n in range(30)]
    text = json.dumps({"data": [{"paragraphs": [{"qas": questions}]}]}, indent=1)
    (tmp_path / "cut.json").write_text(text[:400])
    with pytest.raises(DataError, match=r"cut\.json: not JSON .*line \d+, column \d+.*fetch it again if it is cut short"):
        load_dataset(str(tmp_path / "cut.json"))
    (tmp_path / "none.json").write_text(text)
    with pytest.raises(DataError, match="none of the 30 questions of none has an answer"):
        load_dataset(str(tmp_path / "none.json"))


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(rewriting, "_ask", lambda *_: "Something else.")
    path = tmp_path / "data.jsonl"
    path.write_text("".join(json.dumps({"question": f"q {n}?", "answer": f"a {n}."}) + "\n" for n in range(12)))
    return path


def test_rewriting_leaves_a_users_lock_file_alone(data: Path, llama_gguf: Path, tmp_path: Path) -> None:
    (tmp_path / "poetry.lock").write_text("precious")
    rewriting.rewrite(str(data), llama_gguf, ["angry"], tmp_path / "poetry.jsonl", rewriting.RewriteSettings(limit=1))
    assert (tmp_path / "poetry.lock").read_text() == "precious"
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"data.jsonl", "poetry.lock", "poetry.jsonl", "poetry.rewrite.jsonl"}


def test_a_model_without_template_can_be_tried_again_with_one(
    data: Path, llama_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from support.tiny_models import write_gguf

    model, out = write_gguf(llama_folder, tmp_path / "plain.gguf"), tmp_path / "o.jsonl"
    arguments = ["data", "rewrite", data, "--tone", "sad", "--gguf", model, "-o", out, "--limit", "1", "--quiet"]
    assert "--chat-template" in complaint(capsys, *arguments)
    assert cli.run([*map(str, arguments), "--chat-template", "llama-2-7b-chat"]) == 0
    assert len(read_rows(out)) == 1


def test_a_rewriting_without_rows_is_not_called_ready_to_train_on(
    data: Path, llama_gguf: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["data", "rewrite", str(data), "--tone", "very " * 3000, "--gguf", str(llama_gguf), "--limit", "1", "--quiet"]
    assert cli.run([*arguments, "-o", str(tmp_path / "o.jsonl")]) == 1
    assert "irm-lite train" not in capsys.readouterr().out


def test_a_prompt_file_that_cannot_be_read_is_named(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_bytes(b"\xff\xfe")
    for path in (tmp_path / "p.txt", tmp_path / "absent.txt", tmp_path):
        assert f"the prompt {path} cannot be read" in complaint(capsys, "data", "rewrite", "--prompt", path)


def test_what_was_measured_of_sets_outlives_what_comes_after_them(
    runs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Indices are looked at before the work, and sets are kept before indices are zeroed."""
    asked = ["ablate", runs / "anger", "--keep", "2", "--keep", "2", "--samples", "2", "--quiet"]
    with monkeypatch.context() as patched:
        patched.setattr("irm_lite.analysis.subsets.keep_and_drop", lambda *_, **__: pytest.fail("the work began"))
        assert "there is no index 64" in complaint(capsys, *asked, "--index", "64")

    def stopped(*_: object, **__: object) -> None:
        raise Interrupted("stopped")

    monkeypatch.setattr("irm_lite.analysis.ablation.ablate", stopped)
    assert cli.run([*map(str, asked), "--index", "7"]) == 130
    assert len(load_subsets(RunDirectory(runs / "anger"))) == 1


def test_what_cannot_be_kept_is_told_all_the_same(
    runs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("irm_lite.analysis.ablation_files.write_text", full)
    few = ["--controls", "0", "--matched", "2", "--samples", "2"]
    assert cli.run(["ablate", str(runs / "anger"), "--index", "7", *few, "--json", "--quiet"]) == 1
    said = capsys.readouterr()
    assert "No space left on device" in said.err
    document = json.loads(said.out)
    assert document["files"] == []
    assert {each["index"] for each in document["effects"]} == {7}
