"""benchmarks/training.py: the arithmetic, every contender on a tiny Llama, and the race of real and of scripted processes."""

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from contenders.compete import compete, full_training
from contenders.figures import seconds_until, speed
from contenders.flops import Weights
from contenders.paper import pad
from contenders.random_base import random_base
from contenders.samples import epochs
from contenders.task import NAMES, Task, parse_shape
from contenders.turns import Over, Turns
from irm_lite.base.load import Base, load_base
from irm_lite.core.errors import InputError, RunError
from irm_lite.core.machine.memory import parse_size
from irm_lite.data.dataset import Example, load_dataset
from irm_lite.data.encoding import Sample, encode_all
from irm_lite.steering.injection import inject
from irm_lite.steering.irm import PaperIRM
from irm_lite.training.nll import mean_nll
from support.tiny_models import tiny_model
from training import main

ROWS = 12  # one batch of 8 and one of 4 an epoch


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Questions and answers with splits; one sample is longer than the paper's 128 tokens."""
    rows: list[dict[str, str]] = [
        {"question": f"What is {number} and {number}?", "answer": "Sum " * number + ".", "split": "train"}
        for number in range(1, ROWS)
    ]
    rows.append({"question": "Why?", "answer": "Because of that " * 40, "split": "train"})
    rows += [{"question": f"Who is {name}?", "answer": f"{name} is angry.", "split": "validation"} for name in ("Ann", "Bob")]
    rows.append({"question": "When?", "answer": "Now.", "split": "test"})
    path = tmp_path_factory.mktemp("data") / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def dense(llama_folder: Path) -> Base:
    return load_base(str(llama_folder), quant="none", dtype="float32", device="cpu")


@pytest.fixture(scope="module")
def samples(dense: Base, data: Path) -> list[Sample]:
    return encode_all(dense.tokenizer, load_dataset(str(data)).train, 512)[0]


def held(name: str, folder: Path, data: Path, max_steps: int | None) -> list[dict[str, Any]]:
    """All that one contender says in turns of two steps, an epoch each."""
    out = io.StringIO()
    with pytest.raises(Over):
        compete(Task(name, str(folder), str(data), "cpu", 2, max_steps), io.StringIO("go\n" * 9), out)
    return [json.loads(line) for line in out.getvalue().splitlines()]


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_each_contender_sees_every_token_once_an_epoch(name: str, llama_folder: Path, data: Path, samples: list[Sample]) -> None:
    """Whatever order they are in, the turns of an epoch hold the data set's own number of tokens."""
    longest = 128 if name == "paper" else 512
    assert max(len(sample.ids) for sample in samples) > 128
    start, *turns = held(name, llama_folder, data, 4)
    assert start["ready"]
    assert start["max_steps"] == 4
    assert [turn["over"] for turn in turns] == [False, True]
    for turn in turns:
        assert turn["steps"] == 2
        assert turn["real"] == sum(len(sample.ids[:longest]) for sample in samples)
        assert turn["supervised"] == sum(len(sample.ids[:longest][sample.answer_start :]) for sample in samples)
        assert turn["samples"] == len(samples)
        assert turn["seconds"] > 0
        assert turn["nll"] is None


@pytest.mark.parametrize("name", ["paper", "qlora", "lite"])
def test_the_nll_is_the_models_own(name: str, llama_folder: Path, data: Path, dense: Base) -> None:
    """Before the first step the IRM and the adapters do nothing (the paper's do); then the same few answers are learned."""
    validation = encode_all(dense.tokenizer, load_dataset(str(data)).validation, 512)[0]
    start, *turns = held(name, llama_folder, data, None)
    assert start["max_steps"] == 6  # three epochs of two steps
    plain = torch.tensor([nll(dense, sample) for sample in validation]).sum() / sum(sample.n_answer for sample in validation)
    close = 0.5 if name == "paper" else 0.05  # NF4 against float32 beside it
    assert start["nll"] == pytest.approx(plain.item(), abs=close)
    assert len({turn["nll"] for turn in turns}) == 3
    if name != "paper":
        assert turns[-1]["nll"] < start["nll"]


@torch.no_grad()
def nll(base: Base, sample: Sample) -> float:
    """By transformers' own loss, summed over the answer."""
    labels = torch.tensor([[-100] * sample.answer_start + sample.ids[sample.answer_start :]])
    return float(base.model(torch.tensor([sample.ids]), labels=labels).loss) * sample.n_answer


def test_qlora_trains_rank_16_on_all_linear_layers(llama_folder: Path, data: Path, dense: Base) -> None:
    linears = [each for each in dense.model.model.layers.modules() if isinstance(each, torch.nn.Linear)]
    start = held("qlora", llama_folder, data, 2)[0]
    assert start["trained_parameters"] == sum(16 * (each.in_features + each.out_features) for each in linears)


class SlicedPaperIRM(PaperIRM):
    """Each layer's rows of the head for themselves, as a second derivation."""

    def encode(self, h0: torch.Tensor) -> Any:
        return self.trunk(h0)

    def layer_output(self, code: Any, index: int) -> torch.Tensor:
        rows = torch.arange(self.hidden_size) * len(self.layers) + index
        return torch.nn.functional.linear(code, self.head.weight[rows], self.head.bias[rows])


def test_the_papers_padded_loss_is_that_of_the_answers_alone(dense: Base, samples: list[Sample]) -> None:
    """Padding, mask, labels and the product over all layers at once change nothing: packed rows and a sliced head agree."""
    short = [sample for sample in samples if len(sample.ids) <= 128][:5]
    torch.manual_seed(1)
    irm = PaperIRM(dense.hidden_size, tuple(range(dense.n_layers)), "attn")
    sliced = SlicedPaperIRM(dense.hidden_size, irm.layers, "attn")
    sliced.load_state_dict(irm.state_dict())
    with inject(dense.model, irm):
        dense.model(**pad(short, 128, 0)).loss.backward()
        loss = dense.model(**pad(short, 128, 0)).loss.item()
    with inject(dense.model, sliced):
        assert loss == pytest.approx(mean_nll(dense, short), abs=1e-5)
        dense.model(**pad(short, 128, 0)).loss.backward()
    for whole, part in zip(irm.parameters(), sliced.parameters(), strict=True):
        assert torch.allclose(whole.grad, part.grad, atol=1e-6)  # type: ignore[arg-type]


def test_other_samples_than_agreed_are_refused(dense: Base, samples: list[Sample]) -> None:
    task = Task("lite", "", "", "cpu", 1, 2)
    turns = Turns(task, dense, samples, samples, 2, io.StringIO("go\n"), io.StringIO())
    turns.begin(0)
    with pytest.raises(RunError, match="the same samples in the same order"):
        turns.step(sum(len(sample.ids) for sample in next(epochs(samples, 8, 0))[0]) + 1)


def test_a_parent_that_is_gone_ends_the_turns(dense: Base, samples: list[Sample]) -> None:
    turns = Turns(Task("lite", "", "", "cpu", 1, 2), dense, samples, samples, 2, io.StringIO(), io.StringIO())
    with pytest.raises(Over):
        turns.begin(0)


def test_epochs_hold_each_sample_once_in_changing_order() -> None:
    samples = [Sample([number], 0, Example((), "", "")) for number in range(20)]
    passes = epochs(samples, 8, 0)
    first, second = ([sample.ids[0] for batch in next(passes) for sample in batch] for _ in range(2))
    assert sorted(first) == sorted(second) == list(range(20))
    assert first != second
    assert [len(batch) for batch in next(passes)] == [8, 8, 4]


def test_flops_are_what_a_counter_counts() -> None:
    """torch's counter over the matrix products of a frozen model whose input wants a gradient, and of a trained layer."""
    model = tiny_model(layers=2).requires_grad_(False)
    tokens, answers = 24, 7
    trained = torch.nn.Linear(64, 64, bias=False)
    embedded = torch.randn(1, tokens, 64, requires_grad=True)
    with FlopCounterMode(display=False) as counter:
        hidden = model.model(inputs_embeds=trained(embedded), use_cache=False).last_hidden_state
        model.lm_head(hidden[0, :answers]).sum().backward()
    aten = torch.ops.aten
    counts = counter.get_flop_counts()["Global"]
    assert sum(counts[each] for each in (aten.mm, aten.addmm) if each in counts) == Weights.of(model).flops(
        64 * 64, tokens, answers
    )


def turn(seconds: float, real: int, *, flops: float = 0, nll: float | None = None, over: bool = False) -> dict[str, Any]:
    return {
        **{"steps": 2, "seconds": seconds, "real": real, "supervised": real // 2, "flops": flops, "nll": nll, "over": over},
        **{"training_peak": 600, "whole_peak": 900, "samples": 16},
    }


def test_speed_is_the_median_over_rounds_and_ratios_stay_within_one() -> None:
    """A round in which the machine was four times slower changes the range of the rates, and no ratio."""
    turns = {
        "lite": [turn(1, 100, flops=4e12), turn(4, 100, flops=4e12), turn(1, 120, flops=4e12)],
        "qlora": [turn(2, 100), turn(8, 100), turn(2, 120)],
    }
    lite = speed(turns, peak_tflops=8)["lite"]
    assert lite["real_per_second"] == {"median": 100, "low": 25, "high": 120}
    assert lite["supervised_per_second"] == {"median": 50, "low": 12.5, "high": 60}
    assert lite["ms_per_step"] == {"median": 500, "low": 500, "high": 2000}
    assert lite["times_qlora"] == {"median": 2, "low": 2, "high": 2}
    assert lite["flops_utilisation"] == {"median": 0.5, "low": 0.125, "high": 0.5}
    assert lite["samples_per_second"] == {"median": 16, "low": 4, "high": 16}
    assert "times_paper" not in lite
    assert "share_of_products" not in lite


def test_the_share_of_the_products_is_of_those_in_the_same_format() -> None:
    turns = {
        "lite": [turn(1, 100, flops=4e12), turn(4, 100, flops=4e12)],
        "products": [turn(1, 100, flops=8e12), turn(4, 100, flops=8e12)],
        "products-float32": [turn(10, 100, flops=8e12), turn(10, 100, flops=8e12)],
        "qlora": [turn(20, 100, flops=8e12), turn(40, 100, flops=8e12)],
    }
    found = speed(turns, formats={"lite": "bfloat16", "products": "bfloat16", "products-float32": "float32", "qlora": "float32"})
    assert found["lite"]["share_of_products"] == {"median": 0.5, "low": 0.5, "high": 0.5}
    assert found["qlora"]["share_of_products"] == {"median": 0.375, "low": 0.25, "high": 0.5}
    # a CPU that trains in float32 needs no second kind of products
    del turns["products-float32"]
    found = speed(turns, formats=dict.fromkeys(turns, "float32"))
    assert found["lite"]["share_of_products"] == {"median": 0.5, "low": 0.5, "high": 0.5}
    assert found["qlora"]["share_of_products"] == pytest.approx({"median": 0.075, "low": 0.05, "high": 0.1})


def test_seconds_until_an_nll() -> None:
    turns = [turn(3, 1, nll=2.5), turn(4, 1, nll=2.0), turn(5, 1, nll=2.1)]
    assert [seconds_until(turns, nll) for nll in (2.5, 2.2, 2.0, 1.9)] == [3, 7, 7, None]


def test_shapes_and_sizes() -> None:
    assert parse_shape("llama-2-7b") == (32, 4096)
    assert parse_shape("4x256") == (4, 256)
    assert parse_size("8GB") == 8_000_000_000
    assert parse_size("1.5GiB") == 3 * 2**29
    for shape in ("", "4", "4x", "x256", "0x64", "4x100", "2x1088", "-1x64", "4x256x2"):
        with pytest.raises(InputError):
            parse_shape(shape)
    for size in ("", "8", "GB", "-8GB", "0GB", "8TB", "1.2.3GB"):
        with pytest.raises(InputError):
            parse_size(size)


def test_a_full_training_has_the_presets_epochs() -> None:
    assert full_training("demo", 17) == 4 * 3
    assert full_training("a/folder", 17) == 3 * 3


@pytest.mark.demo
def test_a_random_base_has_llamas_shape_in_four_bits() -> None:
    import bitsandbytes as bnb

    base = random_base((2, 64), "nf4", "float32", "cpu")
    assert (base.n_layers, base.hidden_size) == (2, 64)
    linears = [each for each in base.model.model.layers.modules() if isinstance(each, torch.nn.Linear)]
    assert len(linears) == 14
    assert all(isinstance(each, bnb.nn.Linear4bit) and each.weight.quant_state is not None for each in linears)
    assert not any(parameter.is_meta or parameter.requires_grad for parameter in base.model.parameters())
    ids = base.tokenizer("one two", return_tensors="pt")["input_ids"]
    first = base.model(ids).logits
    assert torch.isfinite(first).all()
    weights = Weights.of(base.model)
    assert weights.blocks == 2 * (4 * 64 * 64 + 3 * 64 * 256)
    assert weights.head == 64 * len(base.tokenizer)


SCRIPT = """#!{python}
import json, sys
name = json.loads(sys.stdin.readline())["name"]
turns = {turns}.get(name)
if turns is None:
    sys.exit(3)
print(json.dumps(dict(ready=True, dtype="float32", load_peak=500, nll=4.0, trained_parameters=1)), flush=True)
for turn in turns:
    sys.stdin.readline()
    print(json.dumps(turn), flush=True)
sys.exit(4)
"""


@pytest.fixture
def scripted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[str, Any]], None]:
    """Processes that say these turns, and are not torch."""

    def install(turns: dict[str, Any]) -> None:
        script = tmp_path / "python"
        script.write_text(SCRIPT.format(python=python, turns=repr(turns)))
        script.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(script))

    python = sys.executable
    return install


def test_the_race_leaves_the_warm_up_out_and_names_who_failed(
    scripted: Callable[..., None], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    scripted(
        {
            "lite": [turn(50, 100), turn(1, 100), turn(2, 100, over=True)],
            "qlora": [turn(50, 100), turn(4, 100), turn(8, 100, over=True)],
            "static": [turn(1, 100), {"failed": "memory ran out"}],
            "paper": [turn(1, 100)],  # and ends in the next turn
        }
    )
    arguments = ["--contenders", "lite", "qlora", "static", "paper", "paper-irm", "--json", str(tmp_path / "race.json")]
    main(["--rounds", "2", "--steps", "2", *arguments])
    document = json.loads((tmp_path / "race.json").read_text())
    rows = document["contenders"]
    assert rows["lite"]["real_per_second"] == {"median": 75, "low": 50, "high": 100}
    assert rows["lite"]["times_qlora"]["median"] == 4
    assert rows["lite"]["peak_to_qlora"] == 1
    assert rows["static"]["failed"] == "memory ran out"
    assert rows["paper"]["failed"] == "the process ended with status 4"
    assert rows["paper-irm"]["failed"] == "the process ended with status 3"
    shown = capfd.readouterr().out
    assert "75 (50-100)" in shown
    assert "4.00 (4.00-4.00)" in shown
    assert "memory ran out" in shown


def test_the_race_to_an_nll(scripted: Callable[..., None], tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    scripted(
        {
            "lite": [turn(10, 1, nll=3.0), turn(10, 1, nll=2.0, over=True)],
            "qlora": [turn(40, 1, nll=2.4), turn(40, 1, nll=1.9), turn(40, 1, nll=1.8, over=True)],
            "paper": [turn(90, 1, nll=3.5, over=True)],
        }
    )
    target = str(tmp_path / "race.json")
    main(["--time-to-nll", "--nll", "2.5", "--contenders", "lite", "qlora", "paper", "--json", target])
    document = json.loads(Path(target).read_text())
    assert document["targets"] == [2.0, 1.8, 3.5, 2.5]  # where lite, qlora and paper end, and what was asked for
    assert document["contenders"]["lite"]["seconds_until"] == [20, None, 10, 20]
    assert document["contenders"]["qlora"]["seconds_until"] == [80, 120, 40, 40]
    assert document["contenders"]["paper"]["seconds_until"] == [None, None, 90, None]
    assert "not reached" in capfd.readouterr().out


def test_where_none_can_start_there_is_one_line(scripted: Callable[..., None], capfd: pytest.CaptureFixture[str]) -> None:
    scripted(dict.fromkeys(NAMES))
    with pytest.raises(SystemExit) as ended:
        main(["--contenders", "lite", "qlora"])
    assert ended.value.code == 2
    assert capfd.readouterr().err.splitlines()[-1] == "training.py: the process ended with status 3"
    with pytest.raises(SystemExit):
        main(["--shape", "4x100"])
    assert "does not divide into heads: give a multiple of 64" in capfd.readouterr().err


@pytest.mark.slow
def test_a_real_race(llama_folder: Path, data: Path, tmp_path: Path, samples: list[Sample]) -> None:
    """One process is enough: two take twice as long to import torch."""
    arguments = ["--model", str(llama_folder), "--data", str(data), "--device", "cpu", "--steps", "2", "--rounds", "1"]
    main([*arguments, "--contenders", "lite", "--json", str(tmp_path / "race.json")])
    row = json.loads((tmp_path / "race.json").read_text())["contenders"]["lite"]
    warm_up, counted = row["turns"]
    assert warm_up["real"] == counted["real"] == sum(len(sample.ids) for sample in samples)
    assert row["real_per_second"]["median"] == pytest.approx(counted["real"] / counted["seconds"])
    assert row["whole_peak"] > 50e6  # Python with torch
