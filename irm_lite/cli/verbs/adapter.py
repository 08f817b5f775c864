"""irm-lite export --as adapter, and irm-lite vector adapter"""

from pathlib import Path
from typing import TYPE_CHECKING

from irm_lite.cli.adapter_shown import show
from irm_lite.cli.output import Output
from irm_lite.cli.progress import stoppable_progress
from irm_lite.core.errors import InputError, Interrupted, IrmLiteError
from irm_lite.core.files.atomic import require_new, require_not_read

if TYPE_CHECKING:
    from irm_lite.cli.verbs.export import ExportFlags
    from irm_lite.core.types import Progress
    from irm_lite.runs.trained import TrainedRun
    from irm_lite.scoring.score import Score
    from irm_lite.vectors.adapter.written import AdapterExport


def export_adapter(run: Path, flags: "ExportFlags", output: Output) -> None:
    """A run's vector as an adapter, exported first where there is none; with --rank, and of a lora, the run's IRM itself."""
    from irm_lite.base.presets import find_gguf
    from irm_lite.runs.trained import load_run
    from irm_lite.vectors.adapter.make import keep_with_run

    trained = load_run(run)
    target = flags.out or trained.directory.default_adapter
    _require_free(target, flags.force)
    gguf = find_gguf(flags.gguf) if flags.gguf else None
    require_not_read(target, gguf or trained.gguf_path, trained.directory.default_vector)
    make = _of_lora if trained.irm.leaves_as == "adapter" else _of_vector if flags.rank is None else _of_irm
    with stoppable_progress(output, "making an adapter") as on_progress:
        result = make(trained, target, gguf, flags, output, on_progress)
    score = _scored(trained, result, flags, output) if make is _of_lora else None
    if score is not None:
        keep_with_run(trained, result, score)
    show(result, output, score)


def _scored(run: "TrainedRun", result: "AdapterExport", flags: "ExportFlags", output: Output) -> "Score | None":
    """Of what the adapter of a lora writes, as of an exported vector; None where none was asked for, or where it fails, which is
    told: the export shall not be lost by it."""
    from irm_lite.scoring.material import Extent
    from irm_lite.vectors.adapter.evaluated import score_adapters

    if flags.questions == 0 or result.gguf is None:
        return None
    try:
        with stoppable_progress(output, "scoring") as on_progress:
            return score_adapters(run, [str(result.file)], result.gguf, Extent(flags.questions), on_progress)
    except Interrupted:
        raise
    except IrmLiteError as error:
        output.warn(f"no score of text ({error})")
        return None


def _of_vector(
    run: "TrainedRun", target: Path, gguf: Path | None, flags: "ExportFlags", output: Output, on_progress: "Progress"
) -> "AdapterExport":
    from irm_lite.steering.control_vector import ControlVector
    from irm_lite.steering.layers import parse_layers
    from irm_lite.vectors.adapter.job import require_place
    from irm_lite.vectors.adapter.make import adapter_of_run
    from irm_lite.vectors.distil import Fitting
    from irm_lite.vectors.export import export_vector

    default = run.directory.default_vector
    if default.exists():
        output.note(f"the vector that is there is used: {default}; for another, export it first with --force")
    else:
        require_place(run, target, gguf, flags.layers)  # before the vector is made, not after it
        output.note(f"exporting the run's vector to {default} first")
        exported = export_vector(
            run,
            default,
            method=flags.method,
            fitting=Fitting(flags.epochs, flags.seed),
            gguf=gguf,
            allow_disagreement=flags.allow_disagreement,
            on_progress=on_progress,
        )
        for line in exported.warnings:
            output.warn(line)
    vector = ControlVector.load(default)
    if flags.layers != "all":
        vector = vector.select(parse_layers(flags.layers, run.fingerprint.n_layers, first=1))
    return adapter_of_run(run, vector, target, gguf=gguf, on_progress=on_progress)


def _of_lora(
    run: "TrainedRun", target: Path, gguf: Path | None, flags: "ExportFlags", output: Output, on_progress: "Progress"
) -> "AdapterExport":
    from irm_lite.steering.control_vector import ControlVector
    from irm_lite.vectors.adapter.of_lora import adapter_of_lora

    for flag, given in (("--rank", flags.rank is not None), ("--layers", flags.layers != "all")):
        if given:
            raise InputError(f"{flag} is of what is fitted: a lora run is copied whole", f"leave out {flag}")
    default = run.directory.default_vector
    vector = ControlVector.load(default) if default.exists() else None
    output.note("copying the run's LoRA, then measuring it")
    return adapter_of_lora(run, target, vector=vector, gguf=gguf, on_progress=on_progress)


def _of_irm(
    run: "TrainedRun", target: Path, gguf: Path | None, flags: "ExportFlags", output: Output, on_progress: "Progress"
) -> "AdapterExport":
    from irm_lite.steering.control_vector import ControlVector
    from irm_lite.vectors.adapter.of_irm import Ranks, adapter_of_irm
    from irm_lite.vectors.distil import Fitting

    assert flags.rank is not None
    if flags.layers != "all":
        raise InputError("--rank carries the IRM at all of its layers", "leave out --layers, or --rank")
    if flags.rank != "auto" and not flags.rank.isdecimal():
        raise InputError(f"--rank {flags.rank} is no rank", "give a number, or auto")
    ranks = Ranks(None if flags.rank == "auto" else int(flags.rank), Fitting(flags.epochs, flags.seed))
    default = run.directory.default_vector
    vector = ControlVector.load(default) if default.exists() else None
    output.note(f"loading {run.config.model}")
    return adapter_of_irm(run, target, ranks, vector=vector, gguf=gguf, on_progress=on_progress)


def adapter_of(
    argument: str, out: Path, gguf: str | None, model: str | None, chat_template: str, force: bool, output: Output
) -> None:
    """A control vector PATH[:SCALE] as an adapter."""
    from irm_lite.base.presets import find_gguf, presets
    from irm_lite.steering.control_vector import load_sum, parse_vector_argument
    from irm_lite.vectors.adapter.make import adapter_of_vector

    if (gguf is None) == (model is None):
        raise InputError(
            "an adapter is made on a model", "give either --gguf FILE.gguf (llama.cpp) or --model MODEL (transformers)"
        )
    _require_free(out, force)
    model_file = find_gguf(gguf) if gguf is not None else None
    require_not_read(out, model_file, parse_vector_argument(argument)[0])
    vector = load_sum([argument])
    assert vector is not None
    with stoppable_progress(output, "making an adapter") as on_progress:
        if model_file is not None:
            name = gguf if gguf and gguf in presets() else ""
            result = adapter_of_vector(vector, out, model_file, name=name, on_progress=on_progress)
        else:
            from irm_lite.base.load import load_base
            from irm_lite.base.presets import read_chat_template

            assert model is not None
            output.note(f"loading {model}")
            template = read_chat_template(chat_template) if chat_template else None
            base = load_base(model, quant="none", chat_template=template)
            result = adapter_of_vector(vector, out, base, name=model, on_progress=on_progress)
    show(result, output)


def _require_free(out: Path, force: bool) -> None:
    """Raise InputError where no adapter can be written, or something is there already and is not to be replaced."""
    from irm_lite.vectors.adapter.job import require_out
    from irm_lite.vectors.adapter.written import FILES

    require_out(out)
    require_new(out, force)
    if out.is_dir() and (others := sorted({each.name for each in out.iterdir()} - set(FILES))):
        raise InputError(f"{out} is a folder of something else ({others[0]})", "choose another -o")
