"""The settings of a training: types, ranges, files, documentation, and the names that transformers has too."""

import ast
import importlib.util
import json
import tomllib
from dataclasses import fields
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
import tomli_w
from hypothesis import given, settings
from hypothesis import strategies as st

import irm_lite.config
from irm_lite.config import TrainConfig, check_keys, read_config_file
from irm_lite.core.errors import InputError

quick = settings(deadline=None, max_examples=60)

# The settings that carry transformers' names, and those that are irm-lite's own.
SHARED = {
    "num_train_epochs",
    "max_steps",
    "gradient_accumulation_steps",
    "learning_rate",
    "lr_scheduler_type",
    "weight_decay",
    "max_grad_norm",
    "optim",
    "gradient_checkpointing",
    "seed",
    "eval_steps",
    "save_steps",
    "save_total_limit",
    "report_to",
}
CHOICES = {name: get_args(hint) for name, hint in get_type_hints(TrainConfig).items() if get_args(hint)}


def class_in(module: str, name: str) -> ast.ClassDef:
    """A class of transformers, from its source: importing it takes seconds."""
    spec = importlib.util.find_spec("transformers")
    assert spec is not None
    assert spec.origin is not None
    tree = ast.parse((Path(spec.origin).parent / f"{module}.py").read_text(encoding="utf-8"))
    return next(node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name)


def names_in(node: ast.ClassDef) -> set[str]:
    return {item.target.id for item in node.body if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name)}


def values_in(node: ast.ClassDef) -> set[str]:
    """An enumeration's text values."""
    values = [item.value for item in node.body if isinstance(item, ast.Assign)]
    return {value.value for value in values if isinstance(value, ast.Constant) and isinstance(value.value, str)}


# Names and documentation


def test_settings_named_as_in_transformers_are_there_and_no_other_name_is_taken_by_chance() -> None:
    theirs = names_in(class_in("training_args", "TrainingArguments"))
    assert {field.name for field in fields(TrainConfig)} & theirs == SHARED


def test_every_learning_rate_course_exists_in_transformers() -> None:
    assert set(CHOICES["lr_scheduler_type"]) <= values_in(class_in("trainer_utils", "SchedulerType"))


def test_every_setting_has_a_docstring_of_one_sentence_that_ends() -> None:
    tree = ast.parse(Path(irm_lite.config.__file__).read_text(encoding="utf-8"))
    body = next(node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "TrainConfig").body
    documented = {}
    for item, after in pairwise(body):
        if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name):
            is_text = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
            documented[item.target.id] = str(after.value.value) if is_text else ""  # type: ignore[attr-defined]
    assert set(documented) == {field.name for field in fields(TrainConfig)}
    assert [name for name, text in documented.items() if not text.strip().endswith(".")] == []


# From a mapping


def test_the_defaults_go_through_toml_and_json_and_come_back() -> None:
    config = TrainConfig()
    assert TrainConfig.from_dict(json.loads(json.dumps(config.to_dict())), "here") == config
    assert TrainConfig.from_dict(tomllib.loads(tomli_w.dumps(config.to_dict())), "here") == config


@quick
@given(
    st.builds(
        TrainConfig,
        model=st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=10),
        irm=st.sampled_from(CHOICES["irm"]),
        quant=st.sampled_from(CHOICES["quant"]),
        rank=st.integers(1, 65536),
        max_steps=st.integers(-(2**31), 2**31),
        learning_rate=st.floats(0, 100),
        warmup_ratio=st.floats(0, 0.99),
        seed=st.integers(0, 2**32 - 1),
        double_quant=st.booleans(),
    )
)
def test_any_settings_go_through_toml_and_come_back(config: TrainConfig) -> None:
    assert TrainConfig.from_dict(tomllib.loads(tomli_w.dumps(config.to_dict())), "here") == config


def test_missing_keys_take_the_defaults_and_whole_numbers_pass_for_real_ones() -> None:
    config = TrainConfig.from_dict({"learning_rate": 1, "rank": 4}, "here")
    assert config == TrainConfig(learning_rate=1.0, rank=4)


@pytest.mark.parametrize(
    ("data", "fragment"),
    [
        ({"rnak": 4}, "run.toml: there is no setting 'rnak': the settings are model, data, answer_column"),
        ({"--rank": 4}, "there is no setting '--rank'"),
        ({"rank": "4"}, "run.toml: rank must be of type int, not '4': fix that line"),
        ({"rank": 4.0}, "rank must be of type int, not 4.0"),
        ({"rank": True}, "rank must be of type int, not True"),
        ({"rank": None}, "rank must be of type int, not None"),
        ({"learning_rate": "1e-3"}, "learning_rate must be of type float, not '1e-3'"),
        ({"learning_rate": True}, "learning_rate must be of type float, not True"),
        ({"download": 1}, "download must be of type bool, not 1"),
        ({"download": "yes"}, "download must be of type bool, not 'yes'"),
        ({"layers": [0, 1]}, "layers must be of type str, not [0, 1]"),
        ({"layers": 3}, "layers must be of type str, not 3"),
        ({"model": {}}, "model must be of type str, not {}"),
    ],
)
def test_a_wrong_key_or_type_is_refused_by_name(data: dict[str, Any], fragment: str) -> None:
    for check in (check_keys, TrainConfig.from_dict):
        with pytest.raises(InputError) as caught:
            check(data, "run.toml")
        assert caught.value.exit_code == 2
        assert fragment in str(caught.value)


@pytest.mark.parametrize("name", sorted(CHOICES))
def test_a_value_that_is_none_of_the_choices_is_refused_by_name(name: str) -> None:
    with pytest.raises(InputError, match=name) as caught:
        TrainConfig.from_dict({name: "something else"}, "run.toml")
    assert all(choice in str(caught.value) for choice in CHOICES[name])


@pytest.mark.parametrize(("name", "choice"), [(name, choice) for name, choices in sorted(CHOICES.items()) for choice in choices])
def test_every_choice_is_taken(name: str, choice: str) -> None:
    assert getattr(TrainConfig.from_dict({name: choice}, "run.toml"), name) == choice


# Ranges


@pytest.mark.parametrize(
    ("settings", "fragment"),
    [
        ({"rank": -1}, "--rank -1 makes no sense: give at least 0"),
        ({"batch_size": 0}, "--batch-size 0 makes no sense: give at least 1"),
        ({"gradient_accumulation_steps": -1}, "--gradient-accumulation-steps -1 makes no sense: give at least 1"),
        ({"batch_size": 10**6, "gradient_accumulation_steps": 2}, "is absurdly large: give at most 1000000"),
        ({"save_total_limit": 0}, "--save-total-limit 0 makes no sense: give at least 1"),
        ({"mask_indices": "15a"}, "--mask-indices '15a' names no indices: write them as 1512,7"),
        ({"mask_indices": "-1"}, "--mask-indices '-1' names no indices"),
        ({"mask_indices": "1,,2"}, "--mask-indices '1,,2' names no indices"),
        ({"width": 0}, "--width 0 makes no sense: give at least 1"),
        ({"learning_rate": -1e-3}, "--learning-rate -0.001 makes no sense: give at least 0"),
        ({"learning_rate": float("nan")}, "--learning-rate nan makes no sense"),
        ({"learning_rate": float("inf")}, "--learning-rate inf"),
        ({"weight_decay": -0.1}, "--weight-decay -0.1 makes no sense: give at least 0"),
        ({"weight_decay": float("inf")}, "--weight-decay inf"),
        ({"max_grad_norm": -1.0}, "--max-grad-norm -1.0 makes no sense: give at least 0"),
        ({"l1": -1.0}, "--l1 -1.0 makes no sense: give at least 0"),
        ({"l1": float("nan")}, "--l1 nan makes no sense"),
        ({"l1": float("inf")}, "--l1 inf"),
        ({"dependence_penalty": -0.5}, "--dependence-penalty -0.5 makes no sense: give 0 to 1000, or -1"),
        ({"dependence_penalty": float("nan")}, "--dependence-penalty nan"),
        ({"seed": -1}, "--seed -1 makes no sense: give at least 0"),
        ({"eval_steps": -1}, "--eval-steps -1 makes no sense: give at least 0"),
        ({"save_steps": -1}, "--save-steps -1 makes no sense: give at least 0"),
        ({"save_minutes": float("nan")}, "--save-minutes nan makes no sense: give at least 0"),
        ({"early_stopping_patience": -1}, "--early-stopping-patience -1 makes no sense: give at least 0"),
        ({"sample_tokens": -1}, "--sample-tokens -1 makes no sense: give at least 0"),
        ({"num_train_epochs": 0.0}, "there is nothing to train: give --max-steps or --num-train-epochs above 0"),
        ({"num_train_epochs": -1.0, "max_steps": 0}, "there is nothing to train"),
        ({"num_train_epochs": float("nan")}, "there is nothing to train"),
        ({"num_train_epochs": float("inf")}, "--num-train-epochs"),
        ({"max_length": 7}, "--max-length 7 holds no sample: give at least 8"),
        ({"warmup_ratio": 1.0}, "--warmup-ratio 1.0 is out of range: give 0 to 0.99"),
        ({"warmup_ratio": -0.1}, "--warmup-ratio -0.1 is out of range"),
        ({"warmup_ratio": float("nan")}, "--warmup-ratio nan is out of range"),
    ],
)
def test_a_value_out_of_range_is_refused_by_its_flag(settings: dict[str, Any], fragment: str) -> None:
    with pytest.raises(InputError) as caught:
        TrainConfig(**settings)
    assert caught.value.exit_code == 2
    assert fragment in str(caught.value)


@pytest.mark.parametrize(
    "settings",
    [
        {"rank": 1, "batch_size": 1, "max_length": 8, "warmup_ratio": 0.0},
        {"max_steps": 1, "num_train_epochs": 0.0},
        {"max_steps": 0, "num_train_epochs": 0.5},
        {"early_stopping_patience": 0, "sample_tokens": 0, "max_grad_norm": 0.0},
    ],
)
def test_the_edges_of_the_ranges_are_allowed(settings: dict[str, Any]) -> None:
    assert TrainConfig(**settings).to_dict() == {**TrainConfig().to_dict(), **settings}


@pytest.mark.parametrize(("irm", "rate"), [("paper", 1e-4), ("lite", 1e-3), ("static", 2e-2)])
def test_the_peak_learning_rate_is_the_documented_one_unless_given(irm: Any, rate: float) -> None:
    assert TrainConfig(irm=irm).peak_learning_rate == rate
    assert TrainConfig(irm=irm, learning_rate=0.5).peak_learning_rate == 0.5


def test_what_the_kind_chooses_and_the_same_written_out_resolve_alike() -> None:
    assert [TrainConfig(irm=kind).chosen_loop_penalty for kind in ("paper", "lite", "static", "lora")] == [0, 0.5, 0.5, 0.5]
    assert [TrainConfig(irm=kind).chosen_phrase_penalty for kind in ("paper", "lite", "static", "lora")] == [0, 0, 0, 0.5]
    out = TrainConfig(
        irm="static",
        learning_rate=2e-2,
        site="block",
        dependence_penalty=0.0,
        loop_penalty=0.5,
        phrase_penalty=0.0,
        fact_weight=4.0,
    )
    assert out.resolved() == TrainConfig(irm="static", rank=9, width=32).resolved()
    assert TrainConfig(irm="lora", rank=4).resolved() == TrainConfig(irm="lora").resolved()
    assert TrainConfig(irm="lora", rank=5).resolved() != TrainConfig(irm="lora").resolved()
    assert TrainConfig(irm="lite", width=32).resolved() != TrainConfig(irm="lite").resolved()


# From a file


@pytest.mark.parametrize("head", ["", "[train]\n", 'format = 1\ncreated = "now"\n[versions]\ntorch = "2"\n[train]\n'])
def test_a_file_gives_the_settings_that_it_names_and_no_others(tmp_path: Path, head: str) -> None:
    (tmp_path / "run.toml").write_text(head + 'irm = "static"\nlearning_rate = 1\n', encoding="utf-8")
    assert read_config_file(tmp_path / "run.toml") == {"irm": "static", "learning_rate": 1}


@pytest.mark.parametrize(
    ("content", "fragment"),
    [
        (b"rank = ", "is not readable TOML"),
        (b"rank = 1\nrank = 2\n", "is not readable TOML"),
        (b"model = '\xff'\n", "is not readable TOML"),
        (b"train = 3\n", "[train] must be a table: fix it"),
        (b"[[train]]\nrank = 1\n", "[train] must be a table: fix it"),
        (b"[train]\nrnak = 1\n", "there is no setting 'rnak'"),
        (b"rank = '1'\n", "rank must be of type int, not '1'"),
        (b"[other]\nrank = 1\n", "there is no setting 'other'"),
        (b"irm = 'bogus'\n", "bogus"),
    ],
)
def test_a_bad_file_is_refused_by_name(tmp_path: Path, content: bytes, fragment: str) -> None:
    path = tmp_path / "my.toml"
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        read_config_file(path)
    assert caught.value.exit_code == 2
    assert str(path) in str(caught.value)
    assert fragment in str(caught.value)


def test_a_missing_file_is_named_with_its_flag(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"there is no file .*nowhere\.toml: check --config"):
        read_config_file(tmp_path / "nowhere.toml")


def test_a_folder_in_place_of_the_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not readable TOML"):
        read_config_file(tmp_path)
