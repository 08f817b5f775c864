"""The whole job on one model: train, export, llama.cpp, and the difference in text and numbers."""

import json
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from irm_lite.analysis.pictures.heatmap import save_heatmap
from irm_lite.analysis.pictures.own_style import require_matplotlib
from irm_lite.base.fingerprint import Match, fingerprint_gguf
from irm_lite.base.load import locate
from irm_lite.base.presets import find_gguf, presets
from irm_lite.config import KINDS, TrainConfig
from irm_lite.core.errors import InputError
from irm_lite.core.machine.child import run_module
from irm_lite.core.types import Progress
from irm_lite.llamacpp import Runtime
from irm_lite.llamacpp.likelihood import context_for
from irm_lite.runs.events import Event
from irm_lite.scoring.material import Extent
from irm_lite.scoring.score import Score
from irm_lite.steering.shipped_vectors import ShippedVector, shipped_for
from irm_lite.training.train import train
from irm_lite.vectors.distil import Fitting
from irm_lite.vectors.export import ExportResult, Method, export_vector
from irm_lite.vectors.fidelity.comparison import Comparison
from irm_lite.vectors.fidelity.steerings import Steering
from irm_lite.vectors.scored import score_export

QUESTIONS = 3
ANSWER_TOKENS = 48
EVAL_STEPS = 20  # each validation writes eight answers, which takes as long as five steps


@dataclass(frozen=True)
class Answers:
    """One held-out question with the base's and the steered answer, both from llama.cpp, greedy."""

    question: str
    base: str
    steered: str


@dataclass(frozen=True)
class DemoResult:
    """Everything that `irm-lite demo` shows. NLL in nats a token over the held-out answers."""

    run: Path
    gguf: Path
    heatmap: Path
    export: ExportResult
    answers: list[Answers]
    seconds: dict[str, float]
    matches: list[Match]  # of the run in llama.cpp's model
    scores: dict[Steering, Score]  # of the text of base and vector
    not_scored: str | None  # why there is none

    @property
    def comparison(self) -> Comparison:
        return self.export.comparison


def demo_settings(config: TrainConfig, long: bool = False) -> TrainConfig:
    """The settings for a demo that is not long: few validations, and epochs that only the preset asks for as for any model.
    Raises InputError for a kind that no control vector carries whole."""
    if KINDS[config.irm].leaves_as == "adapter":
        hint = "irm-lite train --irm lora, then export --as adapter"
        raise InputError(f"the demo ends in a control vector, which carries a {config.irm} in part only", hint)
    if long:
        return config
    preset = presets()[config.model].train.get("num_train_epochs") if config.model in presets() else None
    epochs = TrainConfig().num_train_epochs if config.num_train_epochs == preset else config.num_train_epochs
    return replace(config, num_train_epochs=epochs, eval_steps=config.eval_steps or EVAL_STEPS)


@dataclass(frozen=True)
class ShippedAnswer:
    """What a vector that ships with irm-lite makes of a question, and how long both answers took."""

    vector: ShippedVector
    answers: Answers
    seconds: float


def ask_shipped(config: TrainConfig, gguf: str | None = None) -> ShippedAnswer | None:
    """A steered answer before anything is trained; None where no vector ships for this model and data, or it cannot be asked, of
    which the demo itself will tell. Takes seconds, in processes of their own: the training holds no memory of llama.cpp."""
    vector = shipped_for(config.model, config.data)
    if vector is None or gguf is not None:
        return None
    began = time.monotonic()
    base, steered = _written(vector), _written(vector, "--vector", vector.name)
    if base is None or steered is None:
        return None
    return ShippedAnswer(vector, Answers(vector.question, base, steered), round(time.monotonic() - began, 1))


def _written(vector: ShippedVector, *steering: str) -> str | None:
    """What its model answers its question; None where that fails."""
    command = [*run_module("irm_lite"), "generate", "--json", "--quiet", "--gguf", vector.model, "-p", vector.question]
    command += ["--max-new-tokens", str(ANSWER_TOKENS), *steering]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    try:
        return str(json.loads(done.stdout)["text"]).strip()
    except (ValueError, KeyError, TypeError):
        return None


def run_demo(
    config: TrainConfig,
    out: Path,
    *,
    gguf: str | None = None,
    method: Method = "auto",
    on_event: Callable[[Event], None] = lambda event: None,
    on_stage: Callable[[str], None] = lambda stage: None,
    on_progress: Progress = lambda done, of, what: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> DemoResult:
    """Train into `out`, export a vector, run llama.cpp on `gguf`, a path or preset (default: the file the base is loaded from)."""
    seconds: dict[str, float] = {}
    clock = time.monotonic()

    def lap(stage: str) -> None:
        nonlocal clock
        seconds[stage] = round(time.monotonic() - clock, 1)
        clock = time.monotonic()

    require_matplotlib()
    if gguf is None and locate(config.model, config.download).gguf is None:
        raise InputError(f"{config.model} is not a .gguf, which llama.cpp needs", "name one with --gguf")
    model_file = find_gguf(gguf) if gguf else locate(config.model).gguf
    assert model_file is not None
    runs_on = fingerprint_gguf(model_file)  # a bad file shall not be found after the training
    trains_on = locate(config.model, config.download).gguf
    if trains_on is not None:
        base = fingerprint_gguf(trains_on)
        runs_on.require_fit(base.architecture, base.n_layers, base.hidden_size, f"a vector trained on {config.model}")
    on_stage(f"loading {config.model}, then training")
    run = train(config, out, on_event=on_event, should_stop=should_stop)
    lap("train")
    on_stage("exporting a control vector")
    result = export_vector(
        run,
        run.directory.default_vector,
        method=method,
        fitting=Fitting(seed=config.seed),
        gguf=model_file,
        on_progress=on_progress,
    )
    heatmap = run.directory.heatmap
    vector = result.vector
    values = vector.as_array(run.base.n_layers)[list(vector.layers)]
    title = f"Control vector for {config.data}: {result.method} export of a {run.irm.kind} IRM ({config.model})"
    save_heatmap(values, vector.layers, heatmap, title)
    lap("export")
    on_stage("running llama.cpp with and without the vector")
    asked = [sample.example for sample in run.held_out if sample.example.messages][:QUESTIONS]
    with Runtime(model_file, n_ctx=max(context_for(run.held_out) + ANSWER_TOKENS, 512)) as runtime:
        plain = ["".join(runtime.generate(each.messages[:-1], max_new_tokens=ANSWER_TOKENS)) for each in asked]
        runtime.set_vector(vector)
        steered = ["".join(runtime.generate(each.messages[:-1], max_new_tokens=ANSWER_TOKENS)) for each in asked]
    answers = [
        Answers(each.question, before.strip(), after.strip()) for each, before, after in zip(asked, plain, steered, strict=True)
    ]
    lap("generate")
    on_stage("scoring what they write")
    scores, failed = score_export(run, result, Extent(), on_progress)
    lap("score")
    return DemoResult(out, model_file, heatmap, result, answers, seconds, run.matches, scores, failed)
