"""Recordings: statistics in constant memory against direct computation, both runtimes against one forward, files."""

import dataclasses
import hashlib
import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from irm_lite import train
from irm_lite.analysis.recordings.record import in_transformers, record
from irm_lite.analysis.recordings.recording import Recording, load_recording, recording_name
from irm_lite.analysis.recordings.running_statistics import Running
from irm_lite.cli.main import run as command
from irm_lite.config import TrainConfig
from irm_lite.core.errors import DataError, RunError
from irm_lite.data.encoding import encode_prompt
from irm_lite.runs.trained import TrainedRun, load_run
from irm_lite.steering.injection import inject
from irm_lite.steering.irm_files import read_saved, untrained

Change = Callable[[dict[str, Any]], object]


@pytest.fixture(scope="module")
def run(llama_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainedRun:
    """A few steps on the tiny Llama, in fp32 and not quantised, so that llama.cpp computes the same."""
    config = TrainConfig(
        irm="lite", model=str(llama_folder), quant="none", dtype="float32", max_steps=3, sample_tokens=0, learning_rate=0.05
    )
    return train(config, tmp_path_factory.mktemp("runs") / "angry")


@pytest.fixture(scope="module")
def recorded(run: TrainedRun) -> Recording:
    return record(run, run.held_out_questions[:3], new_tokens=6, keep=2)


@settings(deadline=None)
@given(
    st.lists(st.integers(1, 7), min_size=1, max_size=5),
    st.integers(0, 2**32 - 1),
    st.sampled_from([1e-5, 1.0, 1e4]),
    st.sampled_from([0.0, 100.0]),
)
def test_running_statistics_are_those_of_all_tokens_at_once(sizes: list[int], seed: int, scale: float, shift: float) -> None:
    """However the tokens are cut into batches, and where the mean is far larger than the spread."""
    values = (scale * np.random.default_rng(seed).standard_normal((sum(sizes), 3, 16)) + shift).astype(np.float32)
    running = Running(3, 16, top=4)
    at = 0
    for size in sizes:
        running.add(torch.from_numpy(values[at : at + size]))
        at += size
    got, exact, magnitude = running.statistics, values.astype(np.float64), np.abs(values)
    tolerance = 1e-6 * (scale + shift)
    assert got.tokens == len(values)
    np.testing.assert_allclose(got.mean, exact.mean(0), atol=tolerance)
    np.testing.assert_allclose(got.mean_abs, np.abs(exact).mean(0), atol=tolerance)
    np.testing.assert_allclose(got.std, exact.std(0), atol=10 * tolerance)
    np.testing.assert_array_equal(got.minimum, values.min(0))
    np.testing.assert_array_equal(got.maximum, values.max(0))
    np.testing.assert_allclose(got.near_zero, (magnitude < 1e-4).mean((0, 2)), atol=1e-12)
    if any(len(set(row)) < 16 for token in magnitude for row in token) or len(set(magnitude.ravel())) < magnitude.size:
        return  # who comes first among equals is nobody's business
    order = np.argsort(-magnitude, axis=-1)
    direct = np.zeros((2, 3, 16), dtype=int)
    for token in range(len(values)):
        for layer in range(3):
            direct[0, layer, order[token, layer, :4]] += 1
            direct[1, layer, order[token, layer, 0]] += 1
    np.testing.assert_array_equal(got.in_top, direct[0])
    np.testing.assert_array_equal(got.largest_in_layer, direct[1])
    winners = np.bincount(magnitude.reshape(len(values), -1).argmax(1), minlength=48).reshape(3, 16)
    np.testing.assert_array_equal(got.largest_of_all, winners)


@pytest.mark.slow
def test_a_recording_is_what_one_forward_over_prompt_and_answer_shows(run: TrainedRun, recorded: Recording) -> None:
    """Token by token with a cache, against the whole text at once without one."""
    for number, question in enumerate(run.held_out_questions[:2]):
        prompt = recorded.about.prompts[number]
        ids = encode_prompt(run.tokenizer, ({"role": "user", "content": question},))
        assert prompt.n_prompt == len(ids)
        at_first = untrained(read_saved(run.directory.path), run.config.seed)
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # of names that transformers is about to drop
            fed = [token for step, *_ in in_transformers(run, ids, 6, at_first) for token in step]
        seen: dict[int, Tensor] = {}
        with torch.no_grad(), inject(run.base.model, run.irm) as injection:
            injection.observers.append(seen.__setitem__)
            logits = run.base.model(torch.tensor([fed])).logits[0]
        expected = torch.stack([seen[layer][0] for layer in run.irm.layers], 1)
        np.testing.assert_allclose(recorded.outputs[number], expected, atol=2e-3 * float(expected.abs().max()))
        assert fed[len(ids) :] == logits.argmax(-1)[len(ids) - 1 : -1].tolist()
        assert "".join(prompt.tokens) == run.tokenizer.decode(fed)
        assert prompt.answer == "".join(prompt.tokens[len(ids) :])


def test_statistics_count_all_prompts_and_outputs_the_kept_ones(recorded: Recording) -> None:
    about, statistics = recorded.about, recorded.statistics
    assert (about.n_prompts, len(about.prompts), len(recorded.outputs)) == (3, 2, 2)
    kept = [outputs[: prompt.n_prompt].astype(float) for prompt, outputs in zip(about.prompts, recorded.outputs, strict=True)]
    assert statistics["prompt"].tokens > sum(len(each) for each in kept)
    assert statistics["generated"].tokens <= 18
    assert (statistics["prompt"].maximum >= np.concatenate(kept).max(0) - 1e-3).all()


@pytest.mark.slow
def test_the_untrained_irm_is_the_one_that_training_started_from(llama_folder: Path, tmp_path: Path) -> None:
    """Recorded beside the trained one on the same tokens, where it changes nothing of what is generated."""
    settings: Any = {"quant": "none", "dtype": "float32", "sample_tokens": 0, "irm": "paper", "layers": "0,2", "seed": 5}
    still = train(TrainConfig(model=str(llama_folder), learning_rate=1e-12, max_steps=1, **settings), tmp_path / "still")
    moved = train(TrainConfig(model=str(llama_folder), learning_rate=1e-2, max_steps=3, **settings), tmp_path / "moved")
    for run in (still, moved):
        made = untrained(read_saved(run.directory.path), 5)
        for name, weight in made.state_dict().items():
            torch.testing.assert_close(weight, still.irm.state_dict()[name], rtol=0, atol=1e-9)
    question = moved.held_out_questions[0]
    found = record(moved, [question], new_tokens=3, keep=1)
    ids = torch.tensor([encode_prompt(moved.tokenizer, ({"role": "user", "content": question},))])
    h0: list[Tensor] = []
    block = moved.base.model.model.layers[0]
    handle = block.post_attention_layernorm.register_forward_pre_hook(lambda _module, args: h0.append(args[0]))
    with torch.no_grad():
        moved.base.model(ids)  # without injection: nothing of it is before layer 0's attention
        expected = still.irm(h0[0])[0]
    handle.remove()
    np.testing.assert_allclose(found.untrained["prompt"].mean, expected.mean(0), atol=1e-6)
    assert not np.allclose(found.untrained["prompt"].mean, found.statistics["prompt"].mean, atol=1e-3)
    found.save(tmp_path / "one")
    loaded = load_recording(tmp_path / "one")
    np.testing.assert_array_equal(loaded.untrained["generated"].mean_abs, found.untrained["generated"].mean_abs)
    assert loaded.about.irm_sha256 == hashlib.sha256((moved.directory.path / "irm.safetensors").read_bytes()).hexdigest()


def test_an_irm_that_starts_silent_has_no_untrained_side(recorded: Recording) -> None:
    assert recorded.about.kind == "lite"
    assert recorded.untrained == {}


@pytest.mark.parametrize("n_batch", [512, 8])
def test_llamacpp_records_what_transformers_does(
    run: TrainedRun, recorded: Recording, llama_gguf: Path, monkeypatch: pytest.MonkeyPatch, n_batch: int
) -> None:
    """On the same weights in F32, whole prompts and in micro-batches; llama.cpp keeps K and V in F16."""
    from irm_lite.llamacpp import Runtime

    monkeypatch.setitem(cast(dict[str, Any], Runtime.__init__.__kwdefaults__), "n_batch", n_batch)
    there = record(run, run.held_out_questions[:3], new_tokens=6, keep=2, gguf=llama_gguf)
    assert there.about.measured_in == "llama.cpp"
    assert [each.tokens for each in there.about.prompts] == [each.tokens for each in recorded.about.prompts]
    for phase, one in recorded.statistics.items():
        other = there.statistics[phase]
        assert one.tokens == other.tokens
        for name in ("mean", "mean_abs", "std", "minimum", "maximum"):
            np.testing.assert_allclose(getattr(other, name), getattr(one, name), atol=2e-3 * np.abs(one.maximum).max())


def test_an_irm_that_reads_nothing_is_heard_on_the_kept_prompts_alone(llama_folder: Path, tmp_path: Path) -> None:
    config = TrainConfig(model=str(llama_folder), irm="static", quant="none", dtype="float32", max_steps=2, sample_tokens=0)
    static = train(config, tmp_path / "static")
    questions = static.held_out_questions[:3]
    short, long = (record(static, questions, new_tokens=2, keep=keep) for keep in (1, 3))
    assert (short.about.n_prompts, long.about.n_prompts) == (1, 3)
    for phase, all_three in long.statistics.items():
        np.testing.assert_allclose(short.statistics[phase].mean_abs, all_three.mean_abs, rtol=1e-6)


def test_the_prompts_alone(run: TrainedRun) -> None:
    found = record(run, run.held_out_questions[:1], new_tokens=0, keep=0)
    assert list(found.statistics) == ["prompt"]
    assert found.outputs == found.about.prompts == []


def test_a_folder_gives_back_what_was_written(recorded: Recording, tmp_path: Path) -> None:
    for _ in range(2):  # the second time over the first
        recorded.save(tmp_path / "one")
    loaded = load_recording(tmp_path / "one")
    assert loaded.about == recorded.about
    for phase, one in recorded.statistics.items():
        for name, value in vars(one).items():
            np.testing.assert_array_equal(getattr(loaded.statistics[phase], name), value)
    for one_output, other in zip(recorded.outputs, loaded.outputs, strict=True):
        np.testing.assert_array_equal(one_output, other)
    assert [path.name for path in tmp_path.iterdir()] == ["one"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda document: document.update(format=3), "was written by a newer irm-lite"),
        (lambda document: document.update(phases={}), "has no tokens"),
        (lambda document: document["phases"]["prompt"].update(tokens=0), "the prompt phase has no tokens"),
        (lambda document: document.update(hidden_size=65), "has the shape"),
        (lambda document: document["prompts"][0]["tokens"].pop(), "tokens and outputs of shape"),
        (lambda document: document.update(extra=1), "is damaged"),
        (lambda document: document.update(site="somewhere"), "is damaged"),
        (lambda document: document.pop("base"), "is damaged"),
    ],
)
def test_another_recording_json_is_refused(recorded: Recording, tmp_path: Path, change: Change, said: str) -> None:
    recorded.save(tmp_path / "one")
    file = tmp_path / "one" / "recording.json"
    document = json.loads(file.read_text())
    change(document)
    file.write_text(json.dumps(document))
    with pytest.raises(RunError, match=said):
        load_recording(tmp_path / "one")


@pytest.mark.parametrize("name", ["recording.json", "statistics.safetensors", "outputs.safetensors"])
def test_a_file_cut_short_or_missing_is_refused(recorded: Recording, tmp_path: Path, name: str) -> None:
    recorded.save(tmp_path / "one")
    file = tmp_path / "one" / name
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(RunError, match="is damaged"):
        load_recording(tmp_path / "one")
    file.unlink()
    with pytest.raises(RunError, match=f"is not a recording \\({name} is missing\\)"):
        load_recording(tmp_path / "one")


def test_nan_is_refused(recorded: Recording, tmp_path: Path) -> None:
    spoilt = Recording(recorded.about, recorded.statistics, [each.copy() for each in recorded.outputs])
    spoilt.outputs[1][3, 0, 5] = np.nan
    spoilt.save(tmp_path / "one")
    with pytest.raises(RunError, match="NaN or infinity in the outputs of prompt 1"):
        load_recording(tmp_path / "one")


@pytest.mark.slow
def test_the_command_records_several_runs_on_one_base(
    run: TrainedRun, recorded: Recording, llama_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = train(dataclasses.replace(run.config, seed=1), tmp_path / "other").directory.path
    arguments = [
        "record",
        str(run.directory.path),
        str(other),
        "--limit",
        "3",
        "--new-tokens",
        "6",
        "--keep",
        "2",
        "--name",
        "both",
    ]
    assert command([*arguments, "--json"]) == 0
    documents = json.loads(capsys.readouterr().out)["recordings"]
    assert [Path(each["recording"]).parent.parent for each in documents] == [run.directory.path, other]
    directly = record(load_run(other), run.held_out_questions[:3], new_tokens=6)
    for path, direct in ((run.directory.path, recorded), (other, directly)):
        found = load_recording(path / "recordings" / "both")
        assert found.about.run == path.name
        np.testing.assert_array_equal(found.statistics["generated"].mean, direct.statistics["generated"].mean)
    assert command(arguments) == 2
    assert "choose another --name, or say --force or --skip-existing" in capsys.readouterr().err
    shutil.rmtree(other / "recordings")
    assert command([*arguments, "--skip-existing", "--json"]) == 0
    (left,) = json.loads(capsys.readouterr().out)["recordings"]
    assert Path(left["recording"]).parent.parent == other
    assert command([*arguments, "--skip-existing", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"recordings": []}


def test_a_base_is_shared_only_with_a_run_on_the_same_one(run: TrainedRun) -> None:
    again, coarser = load_run(run.directory.path), load_run(run.directory.path)
    coarser.config = dataclasses.replace(run.config, dtype="bfloat16")
    for each in (again, coarser):
        each.share_base(run)
    assert again.base is run.base
    assert "base" not in vars(coarser)


def test_no_prompts(run: TrainedRun) -> None:
    with pytest.raises(DataError, match="no prompts"):
        record(run, [])


@pytest.mark.parametrize("name", ["", "..", "a/b", "/x", ".hidden", "a" * 65, "a\nb"])
def test_a_name_cannot_leave_the_folder(name: str) -> None:
    with pytest.raises(RunError, match="cannot name a recording"):
        recording_name(name)
