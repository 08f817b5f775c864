"""A sweep's runs are those that single trainings give, stopped or not, failing neighbours or not."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from irm_lite.base.fingerprint import Fingerprint
from irm_lite.base.load import Base
from irm_lite.cli import main as cli
from irm_lite.config import TrainConfig
from irm_lite.core.errors import InputError, Interrupted, LayerError, RunError
from irm_lite.jobs import sweep
from irm_lite.jobs.sweep import Outcome, Planned, only_these, read_sweep, run_sweep
from irm_lite.runs.directory import RunDirectory
from irm_lite.runs.events import Events
from irm_lite.runs.trained import load_base_of
from irm_lite.steering.layers import parse_layers
from irm_lite.training import train as training
from irm_lite.training.setup.settings import absolute

Event = dict[str, Any]
QUICK: dict[str, Any] = {
    **{"quant": "none", "dtype": "float32", "device": "cpu", "max_steps": 4, "batch_size": 4, "rank": 4},
    **{"eval_steps": 2, "sample_tokens": 0},
}


def write(path: Path, text: str, model: Path | None = None) -> Path:
    """A sweep's file; with a model, [train] is filled with quick settings."""
    settings = "\n".join(f"{key} = {json.dumps(value)}" for key, value in {**QUICK, "model": str(model)}.items())
    path.write_text((f"[train]\n{settings}\n" if model else "") + text)
    return path


TWO_BY_TWO = """
[grid]
data = ["anger", "sadness"]
[[setting]]
name = "last"
layers = "3/3"
[[setting]]
name = "every-2"
layers = "every 2"
irm = "static"
"""


@pytest.fixture
def planned(llama_folder: Path, tmp_path: Path) -> list[Planned]:
    return read_sweep(write(tmp_path / "s.toml", TWO_BY_TWO, llama_folder))


@contextmanager
def hearing(title: str, heard: list[tuple[str, Event]]) -> Iterator[training.Listener]:
    yield lambda event: heard.append((title, event))


def weights(run: Path) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = load_file(run / "irm.safetensors")
    return found


def same(a: Path, b: Path) -> bool:
    one, other = weights(a), weights(b)
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def count_loads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The models of the bases that a sweep loads from now on."""
    loads: list[str] = []

    def load(config: TrainConfig) -> Base:
        loads.append(config.model)
        return load_base_of(config)

    monkeypatch.setattr(sweep, "load_base_of", load)
    return loads


# The file


@pytest.mark.parametrize(
    ("file", "model", "data"),
    [
        ("paper", "demo", {"anger": "anger", "sadness": "sadness", "neutral": "neutral"}),
        (
            "llama-2-7b-chat",
            "llama-2-7b-chat",
            {"squad-angry": "squad-angry.jsonl", "squad-sad": "squad-sad.jsonl", "squad-neutral": "squad-neutral.jsonl"},
        ),
    ],
)
def test_the_papers_files_name_its_24_runs(file: str, model: str, data: dict[str, str]) -> None:
    planned = read_sweep(Path(__file__).parents[2] / "docs" / "paper" / f"{file}.toml")
    assert len({each.config.seed for each in planned}) == 24
    assert {each.config.data for each in planned} == set(data.values())
    assert {(each.config.irm, each.config.site, each.config.model) for each in planned} == {("paper", "attn", model)}
    plain = {"all": "0-31", "quarter-1": "0-7", "quarter-2": "8-15", "quarter-3": "16-23", "quarter-4": "24-31"}  # of 32 layers
    expected = {**plain, "every-4": "3,7,11,15,19,23,27,31", "quarter-1-l1": "0-7", "all-l1": "0-31"}
    for tone, answers in data.items():
        runs = {each.name.removeprefix(f"{tone}-"): each.config for each in planned if each.config.data == answers}
        assert runs.keys() == expected.keys()
        for name, config in runs.items():
            assert parse_layers(config.layers, 32) == parse_layers(expected[name], 32)
            assert config.l1 == (1e-4 if name.endswith("-l1") else 0.0)


def test_lists_multiply_and_settings_override(tmp_path: Path) -> None:
    text = """
[train]
model = "some/base"
l1 = 0.5
rank = 8
[grid]
seed = [0, 1]
irm = ["paper", "lite"]
[[setting]]
name = "a"
l1 = 0.25
[[setting]]
name = "b"
"""
    planned = read_sweep(write(tmp_path / "s.toml", text))
    assert [each.name for each in planned] == [
        *("seed-0-paper-a", "seed-0-paper-b", "seed-0-lite-a", "seed-0-lite-b"),
        *("seed-1-paper-a", "seed-1-paper-b", "seed-1-lite-a", "seed-1-lite-b"),
    ]
    assert planned[2].config == TrainConfig(model="some/base", seed=0, irm="lite", l1=0.25, rank=8)
    assert planned[7].config == TrainConfig(model="some/base", seed=1, irm="lite", l1=0.5, rank=8)
    named = read_sweep(write(tmp_path / "s.toml", '[grid]\ndata = ["x/My data.jsonl", "hf:owner/set"]\nl1 = [1e-4]\n'))
    assert [each.name for each in named] == ["My-data-l1-0.0001", "set-l1-0.0001"]


def test_a_presets_settings_fill_what_is_open_as_in_train(tmp_path: Path) -> None:
    text = '[grid]\nmodel = ["demo", "llama-2-13b-chat"]\n[[setting]]\nname = "mine"\nbatch_size = 3\n'
    small, large = (each.config for each in read_sweep(write(tmp_path / "s.toml", text)))
    assert (small.gradient_checkpointing, small.batch_size) == (False, 3)
    assert (large.gradient_checkpointing, large.batch_size, large.gradient_accumulation_steps) == (True, 3, 2)


@pytest.mark.parametrize(
    ("text", "fragment"),
    [
        ("", "s.toml names no runs: add [grid]"),
        ("[train]\nrank = 4\n", "s.toml names no runs"),
        ("[grid", "is not readable TOML"),
        ("[gird]\n", "there is no table 'gird'"),
        ("rank = 4\n[grid]\n", "there is no table 'rank'"),
        ("train = 4\n[grid]\n", "are tables"),
        ("grid = 4\n", "are tables"),
        ("setting = []\n", "are tables"),
        ("[setting]\nname = 'a'\n", "are tables"),
        ("[train]\nrnak = 4\n[grid]\n", "[train]: there is no setting 'rnak'"),
        ("[grid]\nrnak = [4]\n", "[grid]: there is no setting 'rnak'"),
        ("[grid]\nrank = 4\n", "[grid]: rank must be a list of values: write rank = [..., ...]"),
        ("[grid]\nrank = []\n", "[grid]: rank must be a list"),
        ("[grid]\nrank = [4, 'many']\n", "rank must be of type int, not 'many'"),
        ("[grid]\nrank = [4, 4]\n", "two runs are called rank-4"),
        ("[grid]\nrank = [4, -1]\n", "run rank--1: --rank -1 makes no sense"),
        ("[[setting]]\nrank = 4\n", "has no name that can name a folder"),
        ("[[setting]]\nname = '../up'\n", "has no name that can name a folder ('../up')"),
        ("[[setting]]\nname = 5\n", "has no name that can name a folder (5)"),
        ("[[setting]]\nname = 'a'\nrnak = 4\n", "setting a: there is no setting 'rnak'"),
        ("[[setting]]\nname = 'a'\n[[setting]]\nname = 'A'\n", "two runs are called a"),
        ("[grid]\nrank = [4]\n[[setting]]\nname = 'a'\nrank = 5\n", "rank stands in [grid] and in setting a"),
    ],
)
def test_a_bad_file_is_one_line_with_table_and_key(tmp_path: Path, text: str, fragment: str) -> None:
    with pytest.raises(InputError) as caught:
        read_sweep(write(tmp_path / "s.toml", text))
    assert fragment in str(caught.value)
    with pytest.raises(InputError, match="there is no file"):
        read_sweep(tmp_path / "absent.toml")


# The runs


@pytest.mark.slow
def test_each_run_is_what_a_single_training_gives_and_the_base_is_loaded_once(
    planned: list[Planned], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loads = count_loads(monkeypatch)
    outcomes = run_sweep(planned, tmp_path / "out")
    assert len(loads) == 1
    assert [each.state for each in outcomes] == ["trained"] * 4
    for each, outcome in zip(planned, outcomes, strict=True):
        assert outcome.run == tmp_path / "out" / each.name
        training.train(each.config, tmp_path / "single" / each.name)
        assert same(outcome.run, tmp_path / "single" / each.name)
        evals = [event for event in RunDirectory(outcome.run).events.read() if event["kind"] == "eval"]
        assert outcome.nll_base == evals[0]["nll"]
        assert outcome.best_nll == min(event["nll"] for event in evals[1:])
        assert outcome.steps == 4
    again = run_sweep(planned, tmp_path / "out")
    assert [each.state for each in again] == ["was there"] * 4
    assert [(each.best_nll, each.seconds) for each in again] == [(each.best_nll, each.seconds) for each in outcomes]
    assert len(loads) == 1  # for runs that are there no base is needed


@pytest.mark.slow
def test_runs_on_one_base_stand_together(
    llama_folder: Path, llama_gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loads = count_loads(monkeypatch)
    configs = [TrainConfig(**{**QUICK, "max_steps": 1, "model": str(model), "irm": "static", "seed": seed})
               for seed in (0, 1) for model in (llama_folder, llama_gguf)]  # fmt: skip
    outcomes = run_sweep([Planned(str(number), config) for number, config in enumerate(configs)], tmp_path / "out")
    assert [each.name for each in outcomes] == ["0", "2", "1", "3"]
    assert loads == [str(llama_folder), str(llama_gguf)]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("steps", "where"),
    [(1, "in run 1"), (2, "in run 1"), (3, "before run 2"), (4, "before run 2"), (5, "in run 2"), (6, "in run 2")],
)
def test_stopped_at_any_step_it_goes_on_to_the_same_weights(
    planned: list[Planned], tmp_path: Path, steps: int, where: str, whole: Callable[[list[Planned]], Path]
) -> None:
    """The step after the wish to stop is finished; the fourth is a run's last."""
    heard: list[tuple[str, Event]] = []
    two = planned[:2]

    def enough() -> bool:
        return len([event for _, event in heard if event["kind"] == "step"]) >= steps

    with pytest.raises(Interrupted, match=f"stopped {where} of 2, .*: the same command goes on there") as stop:
        run_sweep(two, tmp_path / "out", listening=lambda title: hearing(title, heard), should_stop=enough)
    assert stop.value.exit_code == 130
    heard.clear()
    outcomes = run_sweep(two, tmp_path / "out", listening=lambda title: hearing(title, heard))
    for each in outcomes:
        assert same(each.run, whole(two) / each.name)
        events = list(RunDirectory(each.run).events.read())
        assert [event["step"] for event in events if event["kind"] == "step"] == [1, 2, 3, 4]  # none twice
        assert each.seconds == pytest.approx(sum(event["seconds"] for event in events if event["kind"] == "end"), abs=0.06)
    assert {title for title, _ in heard} <= {f"run 1 of 2, {two[0].name}", f"run 2 of 2, {two[1].name}"}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Callable[[list[Planned]], Path]:
    """The same runs in one go, once for all tests."""
    out = tmp_path_factory.mktemp("whole") / "out"

    def trained(planned: list[Planned]) -> Path:
        run_sweep(planned, out)
        return out

    return trained


@pytest.mark.slow
def test_a_run_that_fails_costs_the_others_nothing(
    planned: list[Planned], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: Callable[[list[Planned]], Path]
) -> None:
    train = training.train

    def unlucky(config: TrainConfig, out: Path, **options: Any) -> Any:
        if out.name == planned[0].name:
            raise RuntimeError("cuBLAS is\nunwell")
        return train(config, out, **options)

    told: list[tuple[str, Outcome]] = []
    with monkeypatch.context() as patch:
        patch.setattr(training, "train", unlucky)
        outcomes = run_sweep(planned[:2], tmp_path / "out", on_outcome=lambda title, outcome: told.append((title, outcome)))
    assert [each.state for each in outcomes] == ["failed", "trained"]
    assert (outcomes[0].error, outcomes[0].best_nll) == ("RuntimeError: cuBLAS is unwell", None)
    assert [outcome for _, outcome in told] == outcomes
    again = run_sweep(planned[:2], tmp_path / "out")
    assert [each.state for each in again] == ["trained", "was there"]
    assert all(same(each.run, whole(planned[:2]) / each.name) for each in again)


@pytest.mark.slow
def test_a_run_that_died_before_its_first_checkpoint_begins_again(
    planned: list[Planned], tmp_path: Path, whole: Callable[[list[Planned]], Path]
) -> None:
    run_sweep(planned[:1], tmp_path / "out")
    run = RunDirectory(tmp_path / "out" / planned[0].name)
    shutil.rmtree(run.path / "checkpoints")
    events = [event for event in run.events.read() if event["kind"] in ("start", "step")][:2]
    (run.path / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    [outcome] = run_sweep(planned[:1], tmp_path / "out")
    assert outcome.state == "trained"
    assert same(outcome.run, whole(planned[:2]) / planned[0].name)


def test_a_directory_that_is_another_runs_is_refused_before_anything_starts(
    planned: list[Planned], llama_folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    last = planned[-1]
    training.train(TrainConfig(**{**QUICK, "model": str(llama_folder), "max_steps": 1, "seed": 7, "irm": "lite"}), out / last.name)
    with pytest.raises(RunError, match=rf"{last.name} was made with another data, irm, layers: choose another --out"):
        run_sweep(planned, out)
    shutil.rmtree(out)
    (out / last.name).mkdir(parents=True)
    (out / last.name / "thesis.txt").write_text("precious")
    with pytest.raises(RunError, match=f"{last.name} exists"):
        run_sweep(planned, out)
    shutil.rmtree(out / last.name)
    RunDirectory(out / last.name).create(last.config, Fingerprint("llama", 3, 64, "0" * 64), {})  # by an older irm-lite
    with pytest.raises(RunError, match="was made with another"):
        run_sweep(planned, out)
    assert [path.name for path in out.iterdir()] == [last.name]


def test_a_run_of_a_version_that_wrote_out_its_defaults_is_there_already(planned: list[Planned], tmp_path: Path) -> None:
    [static] = [each for each in planned if each.config.irm == "static"][:1]
    run_sweep([static], tmp_path)
    settings = tmp_path / static.name / "run.toml"
    written = settings.read_text(encoding="utf-8")
    older = written.replace("rank = 4", "rank = 16").replace("learning_rate = 0.0", "learning_rate = 0.02")
    assert older.count("rank = 16") == written.count("rank = 4") >= 1
    settings.write_text(older, encoding="utf-8")
    assert [each.state for each in run_sweep([static], tmp_path)] == ["was there"]


@pytest.mark.slow
def test_at_site_block_layer_0_is_in_only_where_it_is_named(llama_folder: Path, tmp_path: Path) -> None:
    found = {}
    for site, layers in (("attn", "1/1"), ("block", "1/1"), ("block", "0-2")):
        config = TrainConfig(
            **{**QUICK, "model": str(llama_folder), "max_steps": 1, "irm": "static", "layers": layers, "site": site}
        )
        found[site, layers] = training.train(config, tmp_path / f"{site}-{layers[0]}").irm.layers
    assert found == {("attn", "1/1"): (0, 1, 2), ("block", "1/1"): (1, 2), ("block", "0-2"): (0, 1, 2)}
    first_third = TrainConfig(**{**QUICK, "model": str(llama_folder), "layers": "1/3", "site": "block"})
    with pytest.raises(LayerError, match="this model's are 1-2"):
        training.train(first_third, tmp_path / "none")


@pytest.mark.parametrize(
    "odd", ["null", '"text"', "[]", "{}", "true", "NaN", "Infinity", "-Infinity", "1" + "0" * 400], ids=lambda odd: odd[:9]
)
def test_events_of_odd_types_are_not_counted(
    llama_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], odd: str
) -> None:
    file = write(tmp_path / "s.toml", "[grid]\nseed = [0]\n", llama_folder)
    [planned] = read_sweep(file)
    run = RunDirectory(tmp_path / "out" / planned.name)
    run.create(planned.config, Fingerprint("llama", 3, 64, "0" * 64), {}, asked=absolute(planned.config))
    known = '{"kind": "eval", "of": "base", "nll": 2.5}\n{"kind": "end", "seconds": 2.0}\n'
    wrong = ", ".join(f'"{key}": {odd}' for key in ("best_nll", "best_step", "step", "seconds"))
    run.events.path.write_text(f'{known}{{"kind": "end", {wrong}}}\n')
    assert cli.run(["sweep", str(file), "--out", str(tmp_path / "out"), "--json"]) == 0
    [row] = json.loads(capsys.readouterr().out)["runs"]
    assert [row[key] for key in ("nll_base", "best_nll", "best_step", "steps", "seconds")] == [2.5, None, None, None, 2.0]
    run.events.path.write_text(f'{{"kind": "eval", "of": "base", "nll": {odd}}}\n{{"kind": "end", "best_nll": 1}}\n')
    assert cli.run(["sweep", str(file), "--out", str(tmp_path / "out"), "--json"]) == 0
    [row] = json.loads(capsys.readouterr().out)["runs"]
    assert (row["nll_base"], row["best_nll"]) == (None, 1)


# The verb


@pytest.mark.slow
def test_the_verb_gives_a_table_fails_with_1_and_goes_on(
    llama_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "two.toml", '[grid]\ndata = ["late.jsonl", "anger"]\n', llama_folder)
    assert cli.run(["sweep", "two.toml"]) == 1
    captured = capsys.readouterr()
    assert "run 1 of 2, late: there is no file" in captured.err
    assert "run 2 of 2, anger: step 4: validation NLL" in captured.err
    assert "1 of 2 runs failed (late)" in captured.err
    assert "anger" in captured.out
    rows = [{"question": f"q {n}?", "answer": f"a {n}"} for n in range(30)]
    (tmp_path / "late.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert cli.run(["sweep", "two.toml", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["out"] == "runs/two"
    assert [(each["name"], each["state"]) for each in document["runs"]] == [("late", "trained"), ("anger", "was there")]
    assert (tmp_path / "runs" / "two" / "late" / "irm.safetensors").exists()
    write(tmp_path / "two.toml", '[grid]\ndata = ["late.jsonl", "anger"]\nrank = [4]\n', llama_folder)
    assert cli.run(["sweep", "absent.toml"]) == 2


@pytest.mark.usefixtures("interruptible")
def test_an_interrupt_saves_the_run_and_ends_with_130(
    llama_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write(tmp_path / "s.toml", "[grid]\nseed = [0, 1]\n", llama_folder)
    append = Events.append

    def interrupting(events: Events, kind: str, **values: Any) -> Event:
        if kind == "step" and values["step"] == 1:
            os.kill(os.getpid(), signal.SIGINT)
        return append(events, kind, **values)

    monkeypatch.setattr(Events, "append", interrupting)
    assert cli.run(["sweep", str(file), "--out", str(tmp_path / "out")]) == 130
    assert "stopped in run 1 of 2, seed-0: the same command goes on there" in capsys.readouterr().err
    assert RunDirectory(tmp_path / "out" / "seed-0").checkpoints.newest_sound() is not None
    assert not (tmp_path / "out" / "seed-1").exists()


@pytest.mark.slow
def test_runs_as_jobs_of_a_scheduler_are_the_sweeps_own(
    planned: list[Planned], llama_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One by number, one by name, in processes of their own at once; the sweep then finds them and trains the others."""
    file, out = str(tmp_path / "s.toml"), tmp_path / "out"
    assert cli.run(["sweep", file, "--list"]) == 0
    names = capsys.readouterr().out.split()
    assert names == [each.name for each in planned]
    command = [sys.executable, "-m", "irm_lite", "sweep", file, "-o", str(out), "--only"]
    jobs = [subprocess.Popen([*command, which], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) for which in ("2", names[2])]
    assert [job.wait(timeout=300) for job in jobs] == [0, 0]
    assert {path.name for path in out.iterdir()} == {names[1], names[2]}
    assert cli.run(["sweep", file, "-o", str(out), "--json"]) == 0
    found = {run["name"]: run["state"] for run in json.loads(capsys.readouterr().out)["runs"]}
    assert found == {names[0]: "trained", names[1]: "was there", names[2]: "was there", names[3]: "trained"}
    assert cli.run(["sweep", file, "-o", str(out), "--only", "5"]) == 2
    assert "no run '5'" in capsys.readouterr().err


def test_a_name_that_is_another_runs_number_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "grid.toml"
    path.write_text('[[setting]]\nname = "2"\n[[setting]]\nname = "all"\n[[setting]]\nname = "3"\n', encoding="utf-8")
    planned = read_sweep(path)
    assert [each.name for each in only_these(planned, ["1", "3", "all"])] == ["2", "3", "all"]
    with pytest.raises(InputError, match="run 2 of the sweep is called all, and another 2"):
        only_these(planned, ["2"])
