"""A training that was stopped, or died, goes on as if it had never stopped, and tells what is not as it was."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from irm_lite.config import TrainConfig
from irm_lite.core.errors import Interrupted
from irm_lite.data.dataset import load_dataset
from irm_lite.runs.directory import RunDirectory
from irm_lite.runs.trained import load_run
from irm_lite.training import train as training
from irm_lite.training.checkpointing_trainer import page_again
from irm_lite.training.step import injected_model
from support.same_run import events, result
from support.small_training import config

Event = dict[str, Any]


@pytest.mark.slow
def test_a_resumed_run_ends_where_the_uninterrupted_one_does(llama_folder: Path, tmp_path: Path) -> None:
    settings = config(llama_folder, max_steps=8, eval_steps=2, gradient_accumulation_steps=2, num_train_epochs=1)
    training.train(settings, tmp_path / "whole")
    seen: list[Event] = []

    def steps() -> int:
        return sum(event["kind"] == "step" for event in seen)

    with pytest.raises(Interrupted) as stop:
        training.train(settings, tmp_path / "broken", on_event=seen.append, should_stop=lambda: steps() >= 4)
    assert stop.value.exit_code == 130
    assert steps() == 5  # the step in progress is finished
    training.resume(tmp_path / "broken")
    whole, broken = (load_file(tmp_path / name / "checkpoints" / "step-8" / "irm.safetensors") for name in ("whole", "broken"))
    assert all(torch.equal(whole[name], broken[name]) for name in whole)
    best_whole, best_broken = (load_file(tmp_path / name / "irm.safetensors") for name in ("whole", "broken"))
    assert all(torch.equal(best_whole[name], best_broken[name]) for name in best_whole)


class Died(BaseException):
    """A process that is gone: nothing of ours may catch it and go on."""


def whole_and_broken(settings: TrainConfig, folder: Path, *deaths: int) -> tuple[Path, Path]:
    """A training, and one that dies after so many events each time, before it is resumed to its end."""
    training.train(settings, folder / "whole")
    left = 0

    def live(_event: Event) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            raise Died

    for after in deaths:
        left = after
        with pytest.raises(Died):
            if RunDirectory(folder / "broken").started():
                training.resume(folder / "broken", on_event=live)
            else:
                training.train(settings, folder / "broken", on_event=live)
    training.resume(folder / "broken")
    return folder / "whole", folder / "broken"


def same(whole: Path, broken: Path) -> bool:
    assert result(whole).keys() == result(broken).keys()
    assert [name for name, content in result(whole).items() if result(broken)[name] != content] == []
    assert events(whole, warned=True) == events(broken, warned=True)
    return True


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "deaths"),
    [
        ({"eval_steps": 5, "save_steps": 3, "sample_tokens": 3}, (14, 8)),
        (
            {
                "layers": "2",
                "site": "attn",
                "irm": "paper",
                "eval_steps": 4,
                "save_steps": 6,
                "learning_rate": 1e-3,
                "mask_indices": "5",
            },
            (15, 12),
        ),
        ({"layers": "1-2", "optim": "adamw_bnb_8bit", "gradient_accumulation_steps": 2, "save_steps": 5}, (22,)),
        (
            {
                "irm": "static",
                "layers": "2",
                "irm_dtype": "bfloat16",
                "save_steps": 1,
                "lr_scheduler_type": "linear",
                "mask_indices": "5,9",
            },
            (5, 30),
        ),
    ],
)
def test_a_training_that_dies_is_resumed_to_the_same_bits(
    llama_folder: Path, tmp_path: Path, changes: dict[str, Any], deaths: tuple[int, ...]
) -> None:
    """Over three epochs, whose samples come in other company: what of the frozen prefix is computed must not depend on that."""
    few = tmp_path / "few.jsonl"
    samples = load_dataset("anger")
    rows = [("train", each) for each in samples.train[:19]] + [("validation", each) for each in samples.validation[:4]]
    few.write_text("\n".join(json.dumps({"question": each.question, "answer": each.answer, "split": name}) for name, each in rows))
    settings = config(llama_folder, data=str(few), **{"max_steps": 15, "learning_rate": 0.05, **changes})
    whole, broken = whole_and_broken(settings, tmp_path, *deaths)
    assert same(whole, broken)
    assert sum(event["kind"] == "start" for event in RunDirectory(broken).events.read()) == len(deaths) + 1


@pytest.mark.slow
def test_patience_is_counted_over_a_death(llama_folder: Path, tmp_path: Path) -> None:
    settings = config(llama_folder, learning_rate=1e-12, max_steps=40, eval_steps=1, early_stopping_patience=4, irm="static")
    whole, broken = whole_and_broken(settings, tmp_path, 10)
    assert same(whole, broken)
    assert list(RunDirectory(broken).events.read())[-1]["reason"] == "no more improvement"


@pytest.mark.slow
@pytest.mark.parametrize("patience", [0, 2])
def test_a_training_that_dies_at_its_end_takes_no_further_step(llama_folder: Path, tmp_path: Path, patience: int) -> None:
    """Once with the last checkpoint's event lost, too."""
    rate = 1e-12 if patience else 0.01
    settings = config(llama_folder, learning_rate=rate, max_steps=6, eval_steps=2, early_stopping_patience=patience, irm="static")
    training.train(settings, tmp_path / "whole")
    shutil.copytree(tmp_path / "whole", tmp_path / "broken")
    log = tmp_path / "broken" / "events.jsonl"
    log.write_text("".join(log.read_text().splitlines(keepends=True)[:-2]))
    training.resume(tmp_path / "broken")
    training.resume(tmp_path / "broken")
    assert same(tmp_path / "whole", tmp_path / "broken")
    kinds = [event["kind"] for event in RunDirectory(tmp_path / "broken").events.read()]
    assert kinds[-4:] == ["checkpoint", "end", "start", "end"]


@pytest.mark.slow
def test_the_best_irm_is_put_back_to_what_the_checkpoint_knows_of(llama_folder: Path, tmp_path: Path) -> None:
    """Validated at 2 and 4, saved at 3: what died after 4 offers the IRM of 4, the resumed one that of 2 until it comes by."""
    settings = config(llama_folder, max_steps=5, eval_steps=2, save_steps=3, learning_rate=0.02)
    irms: dict[int, bytes] = {}
    run = tmp_path / "run"

    def keep(event: Event) -> None:
        if event["kind"] == "step" and event["step"] in (3, 5):
            irms[event["step"] - 1] = (run / "irm.safetensors").read_bytes()
        if event["kind"] == "step" and event["step"] == 5:
            raise Died

    with pytest.raises(Died):
        training.train(settings, run, on_event=keep)
    assert irms[2] != irms[4] == (run / "irm.safetensors").read_bytes()
    with pytest.raises(Died):
        training.resume(run, on_event=lambda event: (_ for _ in ()).throw(Died))
    assert (run / "irm.safetensors").read_bytes() == irms[2]
    training.resume(run)
    assert load_run(run).irm


@pytest.mark.slow
def test_a_split_of_the_rows_outlives_a_death(llama_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory is short only until the death: the rows stay as they were, and with them the last bits."""
    forward, tight, sizes = injected_model.InjectedModel.forward, [True], []

    def short(model: Any, samples: Any, num_items: Any = None) -> torch.Tensor:
        sizes.append(len(samples))
        if tight[0] and len(samples) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(model, samples, num_items)

    monkeypatch.setattr(injected_model.InjectedModel, "forward", short)

    def die(event: Event) -> None:
        if event["kind"] == "checkpoint":
            raise Died

    with pytest.raises(Died):
        training.train(config(llama_folder), tmp_path / "run", on_event=die)
    sizes.clear()
    tight[0] = False
    training.resume(tmp_path / "run")
    assert sizes == [2] * 8


def test_the_states_of_a_paged_optimiser_are_paged_again() -> None:
    """bitsandbytes has pages on a GPU alone: a stand-in notes what it is asked for."""
    weight = torch.nn.Parameter(torch.ones(10))
    before = {"step": 3, "state1": torch.arange(10.0), "state2": torch.arange(10, dtype=torch.uint8)}
    asked = []

    class Paged:
        is_paged = True

        def __init__(self) -> None:
            self.state: dict[torch.nn.Parameter, dict[str, Any]] = {weight: dict(before)}

        def get_state_buffer(self, parameter: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
            asked.append((parameter is weight, dtype))
            return torch.zeros(parameter.shape, dtype=dtype)

    optimiser = Paged()
    page_again(optimiser)
    assert sorted(asked, key=str) == [(True, torch.float32), (True, torch.uint8)]
    for name in ("state1", "state2"):
        assert torch.equal(optimiser.state[weight][name], torch.as_tensor(before[name]))
        assert optimiser.state[weight][name] is not before[name]


def test_a_resumed_training_tells_what_is_not_as_it_was(llama_folder: Path, tmp_path: Path) -> None:
    shipped = load_dataset("anger")
    rows = [{"question": each.question, "answer": each.answer, "split": "train"} for each in shipped.train[:12]]
    rows += [{"question": each.question, "answer": each.answer, "split": "validation"} for each in shipped.validation[:4]]
    rows += [{"question": each.question, "answer": each.answer, "split": "test"} for each in shipped.test[:4]]
    data = tmp_path / "data.jsonl"
    data.write_text("\n".join(map(json.dumps, rows)))
    run = tmp_path / "run"
    count: list[int] = []
    with pytest.raises(Interrupted):
        training.train(
            config(llama_folder, data=str(data)),
            run,
            on_event=lambda event: count.extend([1] if event["kind"] == "step" else []),
            should_stop=lambda: len(count) >= 2,
        )
    rows[0], rows[1] = rows[1], rows[0]
    data.write_text("\n".join(map(json.dumps, rows)))
    toml = (run / "run.toml").read_text()
    (run / "run.toml").write_text(re.sub(r'^torch = ".*"$', 'torch = "1.0"', toml, flags=re.MULTILINE))
    before, threads = (run / "events.jsonl").read_text(), torch.get_num_threads()
    (run / "events.jsonl").write_text(before.replace(f'"threads": {threads}', '"threads": 77'))
    training.resume(run)
    told = [event["text"] for event in RunDirectory(run).events.read() if event["kind"] == "warning"]
    assert any("has changed since the run began" in text for text in told)
    assert any("torch 1.0 -> " in text for text in told)
    assert any(f"(threads 77 -> {threads}): its last digits may differ" in text for text in told)
    assert len(told) == 3


@pytest.mark.slow
def test_a_damaged_best_irm_in_a_checkpoint_costs_no_step(llama_folder: Path, tmp_path: Path) -> None:
    """What the run itself offers stays."""
    run = RunDirectory(tmp_path / "run")
    count: list[int] = []
    with pytest.raises(Interrupted):
        training.train(
            config(llama_folder, eval_steps=2, save_steps=3),
            run.path,
            on_event=lambda event: count.extend([1] if event["kind"] == "step" else []),
            should_stop=lambda: len(count) >= 2,
        )
    best = run.checkpoints.of_step(3) / "best" / "irm.safetensors"
    content = bytearray(best.read_bytes())
    content[-1] ^= 1
    best.write_bytes(content)
    before = (run.path / "irm.safetensors").read_bytes()
    assert before != bytes(content)  # a copy: one damage is not two
    training.resume(run.path)
    events_ = list(run.events.read())
    assert [event["resumed_from"] for event in events_ if event["kind"] == "start"] == [None, "step-3"]
    [told] = [event["text"] for event in events_ if event["kind"] == "warning"]
    assert told.startswith("the best IRM in step-3 is damaged")
    assert run.events.finished()
