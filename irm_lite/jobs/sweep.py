"""A sweep: the runs that one TOML file names, trained one after the other on a base that is loaded once."""

import dataclasses
import itertools
import math
import re
import reprlib
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from irm_lite.base.load import Base
from irm_lite.base.presets import presets
from irm_lite.config import TrainConfig, check_keys, read_toml_file
from irm_lite.core.errors import InputError, Interrupted, IrmLiteError, RunError
from irm_lite.core.files.atomic import require_folder
from irm_lite.runs.directory import RunDirectory
from irm_lite.runs.trained import base_settings, load_base_of
from irm_lite.training import train as training
from irm_lite.training.setup.settings import absolute

_TABLES = ("train", "grid", "setting")
_MOST_RUNS = 10_000
_ENDLESS = 1e18  # no count, time or NLL comes near it; NaN is not less
Settings = dict[str, Any]


@dataclass(frozen=True)
class Planned:
    """One run of a sweep; `name` is its directory's."""

    name: str
    config: TrainConfig


@dataclass(frozen=True)
class Outcome:
    """What became of a run. NLL in nats a token on the validation samples; None where the run did not come so far."""

    name: str
    run: Path
    state: Literal["trained", "was there", "failed"]
    nll_base: float | None
    best_nll: float | None
    best_step: int | None
    steps: int | None
    seconds: float  # of all its sessions that ended by themselves or were interrupted
    error: str | None = None

    def to_dict(self) -> dict[str, Any]:
        return {**dataclasses.asdict(self), "run": str(self.run)}


def read_sweep(path: Path) -> list[Planned]:
    """The runs that a file names: every combination of the lists in [grid], each with every [[setting]].

        [train]                           # common to all runs, by the names of run.toml
        max_steps = 40
        [grid]
        data = ["anger", "sadness"]
        [[setting]]
        name = "first-quarter"
        layers = "1/4"

    A run is named by its grid values and its setting: anger-first-quarter. Where the file names no seed, a run's is its place
    in it: runs that share a seed share the weights that they start from, and are no independent repetitions. A preset's own
    settings fill what is left open, as `train` has it; paths are meant from where the command is started. Raises InputError
    naming table and key.
    """
    data = _toml(path)
    common, grid, settings = data.get("train", {}), data.get("grid", {}), data.get("setting", [{}])
    if not isinstance(common, dict) or not isinstance(grid, dict) or not _are_tables(settings):
        raise InputError(f"{path}: [train] and [grid] are tables, [[setting]] are several", "fix it")
    check_keys(common, f"{path}, [train]")
    for key, values in grid.items():
        if not isinstance(values, list) or not values:
            raise InputError(f"{path}, [grid]: {key} must be a list of values", f"write {key} = [..., ...]")
        for value in values:
            check_keys({key: value}, f"{path}, [grid]")
    for setting in settings:
        _check_setting(setting, grid, path, needs_name="setting" in data)
    if math.prod(map(len, grid.values())) * len(settings) > _MOST_RUNS:
        raise InputError(f"{path} names more than {_MOST_RUNS} runs", "give shorter lists")
    combinations = [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]
    planned = [
        _plan({"seed": number, **common}, chosen, setting, path)
        for number, (chosen, setting) in enumerate(itertools.product(combinations, settings))
    ]
    names = [each.name.lower() for each in planned]  # some file systems know no case
    counts = Counter(names)
    twice = next((name for name in names if counts[name] > 1), None)
    if twice is not None:
        raise InputError(f"{path}: two runs are called {twice}", "give the settings names of their own, the values once")
    return planned


def only_these(planned: list[Planned], asked: list[str]) -> list[Planned]:
    """Those runs, by name or by number from 1, as schedulers count their jobs. Raises InputError where there is none such."""
    by_number = {str(number): each for number, each in enumerate(planned, 1)}
    by_name = by_number | {each.name: each for each in planned}
    both = next((name for name in asked if name in by_number and by_name[name] is not by_number[name]), None)
    if both is not None:
        raise InputError(
            f"run {both} of the sweep is called {by_number[both].name}, and another {both}", "name settings with a letter"
        )
    unknown = next((name for name in asked if name not in by_name), None)
    if unknown is not None:
        raise InputError(f"the sweep has no run {reprlib.repr(unknown)}", f"give a number from 1 to {len(planned)}, or see --list")
    return [by_name[name] for name in asked]


def run_sweep(
    planned: list[Planned],
    out: Path,
    *,
    listening: Callable[[str], AbstractContextManager[training.Listener]] = lambda title: nullcontext(lambda event: None),
    on_outcome: Callable[[str, Outcome], None] = lambda title, outcome: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> list[Outcome]:
    """Train the runs into directories of `out`, those on the same base together.

    A run that is there is not trained again; one that was stopped goes on from its checkpoint; one that fails is
    reported, and the others go on. `listening` gives the listener for the run of a title ("run 3 of 24, anger-all").
    Raises RunError before anything starts where a directory is another run's, and Interrupted where `should_stop` says so.
    """
    require_folder(out)
    for each in planned:
        _require_same(RunDirectory(out / each.name), each.config)
    kinds = [base_settings(each.config) for each in planned]
    outcomes = []
    base: Base | None = None
    loaded: Settings | None = None
    for number, each in enumerate(sorted(planned, key=lambda each: kinds.index(base_settings(each.config))), 1):
        run, title = RunDirectory(out / each.name), f"run {number} of {len(planned)}, {each.name}"
        if run.events.finished() is not None:
            outcome = _outcome(run, each.name, "was there")
        elif should_stop():
            raise Interrupted(f"stopped before {title}", "the same command goes on there")
        else:
            try:
                if base is None or loaded != base_settings(each.config):
                    base = None  # two would not fit
                    base, loaded = load_base_of(each.config), base_settings(each.config)
                with listening(title) as on_event:
                    _train(run, each.config, base, on_event, should_stop)
                outcome = _outcome(run, each.name, "trained")
            except Interrupted as stop:
                raise Interrupted(f"stopped in {title}", "the same command goes on there") from stop
            except Exception as error:  # of whatever kind: it shall not cost the other runs
                outcome = _outcome(run, each.name, "failed", _in_one_line(error))
        outcomes.append(outcome)
        on_outcome(title, outcome)
    return outcomes


def _toml(path: Path) -> Settings:
    data = read_toml_file(path)
    unknown = set(data) - set(_TABLES)
    if unknown:
        raise InputError(f"{path}: there is no table {reprlib.repr(min(unknown))}", "a sweep has [train], [grid] and [[setting]]")
    if "grid" not in data and "setting" not in data:
        raise InputError(f"{path} names no runs", "add [grid] with lists of values, or [[setting]] tables")
    return data


def _are_tables(settings: Any) -> bool:
    return isinstance(settings, list) and bool(settings) and all(isinstance(each, dict) for each in settings)


def _check_setting(setting: Settings, grid: Settings, path: Path, needs_name: bool) -> None:
    name = setting.get("name", "" if needs_name else "unnamed")
    if not isinstance(name, str) or not re.fullmatch(r"\w[\w.-]{0,79}", name):
        raise InputError(
            f"{path}: a [[setting]] has no name that can name a folder ({reprlib.repr(name)})", 'write name = "first-quarter"'
        )
    fields = {key: value for key, value in setting.items() if key != "name"}
    check_keys(fields, f"{path}, setting {name}")
    twice = sorted(set(fields) & set(grid))
    if twice:
        raise InputError(f"{path}: {twice[0]} stands in [grid] and in setting {name}", "keep one of them")


def _plan(common: Settings, chosen: Settings, setting: Settings, path: Path) -> Planned:
    fields = {**common, **chosen, **{key: value for key, value in setting.items() if key != "name"}}
    preset = presets().get(fields.get("model", TrainConfig.model))
    name = "-".join([*itertools.starmap(_word, chosen.items()), *([setting["name"]] if setting else [])])
    try:
        return Planned(name, TrainConfig(**{**(preset.train if preset else {}), **fields}))
    except InputError as error:
        raise InputError(f"{path}, run {name}: {error}") from None


def _word(key: str, value: Any) -> str:
    """What a grid value adds to a run's name."""
    if not isinstance(value, str):
        return f"{key}-{value}"
    return re.sub(r"[^\w.]+", "-", Path(value).stem if key in ("data", "model") else value).strip("-.") or key


def _require_same(run: RunDirectory, config: TrainConfig) -> None:
    """Raise RunError where the directory holds anything but this run."""
    if not run.started():
        run.require_absent("it is not a run of this sweep: choose another --out, or remove it")
        return
    asked, wanted = run.asked(), absolute(config).resolved()
    made = asked.resolved() if asked else {}
    other = [key for key, value in wanted.items() if asked is None or (key != "download" and made[key] != value)]
    if other:
        raise RunError(f"{run.path} was made with another {', '.join(other[:3])}", "choose another --out, or remove it")


def _train(
    run: RunDirectory, config: TrainConfig, base: Base, on_event: training.Listener, should_stop: Callable[[], bool]
) -> None:
    if run.started():
        training.resume(run.path, base=base, on_event=on_event, should_stop=should_stop)
    else:
        training.train(config, run.path, base=base, on_event=on_event, should_stop=should_stop)


def _outcome(run: RunDirectory, name: str, state: Literal["trained", "was there", "failed"], error: str | None = None) -> Outcome:
    events = list(run.events.read())
    of_base = next((event for event in events if event["kind"] == "eval" and event.get("of") == "base"), {})
    end = run.events.finished() or {}
    seconds = sum(_number(event, "seconds") or 0.0 for event in events if event["kind"] == "end")
    best_step, steps = (int(step) if (step := _number(end, key)) is not None else None for key in ("best_step", "step"))
    nlls = _number(of_base, "nll"), _number(end, "best_nll")
    return Outcome(name, run.path, state, *nlls, best_step, steps, round(seconds, 1), error)


def _number(event: Settings, key: str) -> float | None:
    """An event's number, None where it holds anything else: an events.jsonl may be a stranger's."""
    value = event.get(key)
    return value if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < _ENDLESS else None


def _in_one_line(error: Exception) -> str:
    text = " ".join(str(error).split())[:300]
    return text if isinstance(error, IrmLiteError) else f"{type(error).__name__}: {text}"
