"""irm-lite demo"""

import shlex
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from rich.console import Console
from rich.table import Table
from rich.text import Text

from irm_lite.cli.flags import TrainFlags
from irm_lite.cli.interrupt import graceful, raise_if
from irm_lite.cli.output import Common, Output
from irm_lite.cli.progress import progress, training_progress
from irm_lite.cli.tables import comparison_shown, score_shown
from irm_lite.config import TrainConfig
from irm_lite.core.visible_text import safe
from irm_lite.runs.directory import default_run

if TYPE_CHECKING:
    from irm_lite.jobs.demo import Answers, DemoResult, ShippedAnswer


def demo(
    settings: TrainFlags = None,
    *,
    out: Annotated[Path | None, Parameter(alias="-o")] = None,
    gguf: str | None = None,
    long: Annotated[bool, Parameter(negative="")] = False,
    first_answer: bool = True,
    common: Common | None = None,
) -> None:
    """Train an angry IRM on the embedded model, export it, run llama.cpp with it, and show the difference.

    First an answer from the vector that ships with irm-lite: ask it what you like while the training goes on.

    Parameters
    ----------
    out
        The run directory to make [default: runs/DATA-IRM].
    gguf
        The model file for llama.cpp, or a preset's name [default: the one that the base is loaded from].
    long
        Train as long as `train` does, and fit the vectors to the IRM, for the best that it can: some minutes more.
    first_answer
        Ask the vector that ships with irm-lite before the training.
    """
    output = Output(common)
    from irm_lite.jobs.demo import ask_shipped, demo_settings, run_demo
    from irm_lite.vectors.scored import scores_document

    config = demo_settings(settings or TrainConfig(), long)
    shipped = ask_shipped(config, gguf) if first_answer else None
    if shipped is not None:
        output.show(*_first_answer(shipped))
    with (
        graceful(output) as should_stop,
        training_progress(output) as listen,
        progress(output, "exporting") as report,
    ):

        def on_progress(done: int, of: int, what: str) -> None:
            raise_if(should_stop())
            report(done, of, what)

        def on_stage(stage: str) -> None:
            raise_if(should_stop())
            output.note(stage)

        result = run_demo(
            config,
            out or default_run(config),
            gguf=gguf,
            method="distil" if long and config.irm != "static" else "auto",
            on_event=listen,
            on_stage=on_stage,
            on_progress=on_progress,
            should_stop=should_stop,
        )
        raise_if(should_stop())
    output.tell_matches(result.matches)
    for line in [*result.export.warnings, *([result.not_scored] if result.not_scored else [])]:
        output.warn(line)
    document = {
        "run": str(result.run),
        "vector": str(result.export.path),
        "gguf": str(result.gguf),
        "heatmap": str(result.heatmap),
        "nll": {"base": result.comparison.nll_base, "irm": result.comparison.nll_irm, "vector": result.comparison.nll_vector},
        "fidelity": result.comparison.fidelity,
        "score": scores_document(result.scores),
        "seconds": {stage: result.seconds[stage] for stage in ("train", "export", "generate", "score")},
        "shipped": shipped and {"vector": shipped.vector.name, **asdict(shipped.answers), "seconds": shipped.seconds},
    }
    measured = (*comparison_shown(result.comparison), "", *score_shown(result.scores))
    output.result(document, *_answers(result), "", *measured, "", *_picture(result), *_next_steps(result))


def _first_answer(shipped: "ShippedAnswer") -> list[Table | str]:
    name = shipped.vector.name
    return [
        f"before anything is trained, {shipped.seconds:.0f} s: {name}, a vector that ships with irm-lite ({shipped.vector.data})",
        _table(shipped.answers, f"with {name} (llama.cpp)"),
        "ask it yourself, in another terminal, while your own is trained:",
        "  " + shlex.join(["irm-lite", "generate", "--vector", name, "-p", "Why is the sky blue?"]),
        "",
    ]


def _table(answer: "Answers", steered: str) -> Table:
    table = Table(title=safe(answer.question), title_justify="left", title_style="bold", expand=True)
    table.add_column("base (llama.cpp)", ratio=1)
    table.add_column(steered, ratio=1)
    table.add_row(Text(safe(answer.base)), Text(safe(answer.steered)))
    return table


def _answers(result: "DemoResult") -> list[Table]:
    return [_table(answer, "with the vector (llama.cpp)") for answer in result.answers]


def _picture(result: "DemoResult") -> list[Text | str]:
    from irm_lite.analysis.pictures.heatmap import terminal_heatmap

    vector = result.export.vector
    values = vector.as_array(max(vector.layers) + 1)[list(vector.layers)]
    console = Console()
    lines = terminal_heatmap(values, min(console.width, 120), system=console.color_system or "256")
    title = f"The vector: layers {vector.layers[0]}-{vector.layers[-1]} (down), neuron index 0-{vector.hidden_size - 1} (across)"
    return [Text(title, style="bold"), *lines, f"as a picture: {result.heatmap}", ""]


def _next_steps(result: "DemoResult") -> list[str]:
    seconds = result.seconds
    command = ["llama-cli", "-m", str(result.gguf), "--control-vector", str(result.export.path), "-p", "Why is the sky blue?"]
    return [
        f"run {result.run}; vector {result.export.path}",
        f"seconds: train {seconds['train']:.0f}, export {seconds['export']:.0f}, llama.cpp {seconds['generate']:.0f}, "
        f"score {seconds['score']:.0f}",
        "elsewhere:",
        "  " + shlex.join(command),
    ]
