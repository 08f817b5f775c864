"""What `export --as adapter` and `vector adapter` do, and how an adapter is shown."""

from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import RenderableType
from rich.table import Table

from irm_lite.cli.output import Output
from irm_lite.cli.progress import stoppable_progress
from irm_lite.cli.tables import comparison_shown, with_interval
from irm_lite.core.errors import InputError
from irm_lite.core.files.atomic import require_new
from irm_lite.core.visible_text import safe

if TYPE_CHECKING:
    from irm_lite.cli.verbs.export import ExportFlags
    from irm_lite.vectors.adapter.make import AdapterExport


def export_adapter(run: Path, flags: "ExportFlags", output: Output) -> None:
    """A run's vector as an adapter; the vector is exported first where there is none."""
    from irm_lite.base.presets import find_gguf
    from irm_lite.runs.trained import load_run
    from irm_lite.steering.control_vector import ControlVector
    from irm_lite.steering.layers import parse_layers
    from irm_lite.vectors.adapter.make import adapter_of_run
    from irm_lite.vectors.distil import Fitting
    from irm_lite.vectors.export import export_vector

    trained = load_run(run)
    default = trained.directory.default_vector
    target = flags.out or trained.directory.default_adapter
    require_free(target, flags.force)
    gguf = find_gguf(flags.gguf) if flags.gguf else None
    with stoppable_progress(output, "making an adapter") as on_progress:
        if not default.exists():
            output.note(f"exporting the run's vector to {default} first")
            export_vector(
                trained,
                default,
                method=flags.method,
                fitting=Fitting(flags.epochs, flags.seed),
                gguf=gguf,
                allow_disagreement=flags.allow_disagreement,
                on_progress=on_progress,
            )
        vector = ControlVector.load(default)
        if flags.layers != "all":
            vector = vector.select(parse_layers(flags.layers, trained.fingerprint.n_layers, first=1))
        result = adapter_of_run(trained, vector, target, gguf=gguf, on_progress=on_progress)
    show(result, output)


def adapter_of(argument: str, out: Path, gguf: str | None, model: str | None, force: bool, output: Output) -> None:
    """A control vector PATH[:SCALE] as an adapter."""
    from irm_lite.base.presets import find_gguf
    from irm_lite.steering.control_vector import load_sum
    from irm_lite.vectors.adapter.make import adapter_of_vector

    if (gguf is None) == (model is None):
        raise InputError(
            "an adapter is made on a model", "give either --gguf FILE.gguf (llama.cpp) or --model MODEL (transformers)"
        )
    require_free(out, force)
    vector = load_sum([argument])
    assert vector is not None
    with stoppable_progress(output, "making an adapter") as on_progress:
        if gguf is not None:
            from irm_lite.base.presets import presets

            name = gguf if gguf in presets() else ""
            result = adapter_of_vector(vector, out, find_gguf(gguf), name=name, on_progress=on_progress)
        else:
            from irm_lite.base.load import load_base

            assert model is not None
            output.note(f"loading {model}")
            result = adapter_of_vector(vector, out, load_base(model, quant="none"), name=model, on_progress=on_progress)
    show(result, output)


def require_free(out: Path, force: bool) -> None:
    """Raise InputError where something is at this place already, and is not to be replaced."""
    require_new(out, force)
    if out.is_dir() and not (out / "adapter_config.json").exists() and any(out.iterdir()):
        raise InputError(f"{out} is a folder of something else", "choose another -o")


def show(result: "AdapterExport", output: Output) -> None:
    """Figures, what is to be told of blocks, and where it lies."""
    output.tell_matches(result.matches)
    for line in result.warnings:
        output.warn(line)
    helped = [fit for fit in result.fits if len(fit.modules) > 1]
    for fit in helped:
        output.note(
            f"block {fit.block}: 1 is predicted badly by {fit.modules[0]} alone (error {fit.unhelped:.3f}); "
            f"{fit.modules[1]} helps (error {fit.error:.3f})"
        )
    worst = max(result.fits, key=lambda fit: fit.error)
    at = worst.worst
    mean = sum(fit.error for fit in result.fits) / len(result.fits)
    strengths = ", ".join(f"{value:.3f} at {strength:g}" for strength, value in result.strengths.items())
    output.result(
        result.to_dict(),
        *_compared(result),
        _by_block(result),
        f"1 is predicted with a mean square error of {mean:.4f}, in block {worst.block} of {worst.error:.4f}; its worst token "
        f"(text {at.text}, position {at.position}) is given {at.added:.2f} times the vector",
        f"of what the vector does at other strengths the adapter does {strengths}",
        f"{safe(str(result.path))}: {len(result.adapter.factors)} maps, {result.n_bytes / 1000:.0f} kB, {result.seconds:.0f} s; "
        f"fitted on {result.texts}",
    )


def _compared(result: "AdapterExport") -> tuple[RenderableType, ...]:
    """The fidelity; of a run beside its vector's."""
    vector, mine = result.compared.get("vector"), result.comparison
    if vector is not None:
        shown = comparison_shown(mine, "adapter")
        of_vector = f"{vector.fidelity:.3f}"
        return (*shown, f"the vector's own fidelity there: {of_vector}")
    size = f"{len(mine.sums)} answers that nothing was fitted to, {mine.tokens} tokens, in {mine.measured_in}"
    kl, fidelity = (with_interval(mine.means[name], mine.intervals[name]) for name in ("kl_irm_vector", "fidelity"))
    return (f"{size}: KL(vector || adapter) {kl} nats a token", f"fidelity to the vector {fidelity}")


def _by_block(result: "AdapterExport") -> Table:
    table = Table(title="mean of (1 - A x)^2 on held-out tokens")
    for column in ("block", "error", "first token", "ridge", "worst token"):
        table.add_column(column, justify="right")
    table.add_column("maps")
    for fit in result.fits:
        figures = (f"{fit.error:.4f}", f"{fit.first_token:.4f}", f"{fit.ridge:g}", f"{fit.worst.added:+.2f}")
        table.add_row(str(fit.block), *figures, " + ".join(fit.modules))
    return table
