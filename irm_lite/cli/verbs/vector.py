"""irm-lite vector list | info | merge | scale | slice | adapter"""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import App, Parameter
from rich.table import Table

from irm_lite.cli.output import Common, Output
from irm_lite.core.errors import InputError
from irm_lite.core.files.atomic import require_new
from irm_lite.core.visible_text import safe

if TYPE_CHECKING:
    from irm_lite.steering.control_vector import ControlVector

_BAR = 40  # cells of the longest bar
_LARGEST = 8

app = App(name="vector", help="Control vectors: what is in one, and arithmetic with them.")
Out = Annotated[Path, Parameter(alias="-o")]
Force = Annotated[bool, Parameter(negative="", help="Write over an existing file.")]


@app.command(name="list")
def list_(*, common: Common | None = None) -> None:
    """Show the control vectors that ship with irm-lite: each name can be given wherever a vector's path can."""
    from irm_lite.steering.shipped_vectors import shipped_vectors

    found = [asdict(each) for each in shipped_vectors().values()]
    shown = [f"{each['name']}: {each['title']} (--gguf {each['model']}); {each['licence']}; {each['figures']}" for each in found]
    Output(common).result({"vectors": found}, *shown)


@app.command
def info(vector: Path, /, *, common: Common | None = None) -> None:
    """Norms by layer, the largest indices, and where the vector comes from.

    Parameters
    ----------
    vector
        A control vector of irm-lite, repeng or llama.cpp's cvector-generator, or the name of one that ships with irm-lite.
    """
    output = Output(common)
    from irm_lite.steering.control_vector import ControlVector
    from irm_lite.steering.shipped_vectors import shipped_vectors

    loaded = ControlVector.load(vector)
    norms, peaks = loaded.norms(), loaded.largest(_LARGEST)
    table = Table(title=f"{safe(str(vector))}: {safe(loaded.architecture) or 'any architecture'}, hidden size {loaded.hidden_size}")
    for column in ("layer", "norm"):
        table.add_column(column, justify="right")
    table.add_column("")
    table.add_column("largest index", justify="right")
    longest = max(norms.values()) or 1.0
    for layer, norm in norms.items():
        peak = loaded.peak(layer)
        table.add_row(str(layer), f"{norm:.3f}", "█" * round(_BAR * norm / longest), f"{peak[0]} ({peak[1]:+.3f})")
    document = {
        "vector": str(vector),
        "architecture": loaded.architecture,
        "hidden_size": loaded.hidden_size,
        "norms": norms,
        "largest_indices": [{"index": index, "rms": value} for index, value in peaks],
        "metadata": loaded.metadata,
    }
    shipped = shipped_vectors().get(str(vector))
    ships = [f"ships with irm-lite: {shipped.licence}; {shipped.command}; {shipped.versions}; {shipped.figures}"] if shipped else []
    largest = ", ".join(f"{index} ({value:.3f})" for index, value in peaks)
    made_by = [f"  {key} {' '.join(safe(str(value)).split())[:200]}" for key, value in loaded.metadata.items()]
    heading = ["made by irm-lite:"] if made_by else []
    output.result(document, table, f"largest indices over all layers (RMS): {largest}", *ships, *heading, *made_by)


@app.command
def merge(*vectors: str, out: Out, force: Force = False, common: Common | None = None) -> None:
    """Write the weighted sum of control vectors.

    Parameters
    ----------
    vectors
        PATH or PATH:SCALE each, as in anger.gguf:0.8 joy.gguf:-0.5.
    out
        The .gguf to write.
    """
    from irm_lite.steering.control_vector import load_sum

    total = load_sum(vectors)
    if total is None:
        raise InputError("there is nothing to merge", "name control vectors: a.gguf:0.8 b.gguf:-0.5")
    _write(total, vectors, out, force, Output(common))


@app.command
def scale(vector: Path, factor: float, /, *, out: Out, force: Force = False, common: Common | None = None) -> None:
    """Write the vector times a factor.

    Parameters
    ----------
    vector
        The control vector.
    factor
        What to multiply it with; negative turns it round.
    out
        The .gguf to write.
    """
    from irm_lite.steering.control_vector import ControlVector

    _write(ControlVector.load(vector) * factor, (f"{vector}:{factor:g}",), out, force, Output(common))


@app.command(name="slice")
def slice_(vector: Path, /, *, layers: str, out: Out, force: Force = False, common: Common | None = None) -> None:
    """Write the vector's directions at some layers only.

    Parameters
    ----------
    vector
        The control vector.
    layers
        The layers to keep, as in 10-20 or 3,7-12.
    out
        The .gguf to write.
    """
    from irm_lite.steering.control_vector import ControlVector
    from irm_lite.steering.layers import parse_layers

    loaded = ControlVector.load(vector)
    chosen = loaded.select(parse_layers(layers, max(loaded.layers) + 1, first=1))
    _write(chosen, (f"{vector} layers {layers}",), out, force, Output(common))


@app.command
def adapter(
    vector: str,
    /,
    *,
    out: Out,
    gguf: str | None = None,
    model: str | None = None,
    chat_template: str = "",
    force: Force = False,
    common: Common | None = None,
) -> None:
    """Write a control vector as a LoRA adapter, for programs that know no control vectors (docs/adapter.md).

    Parameters
    ----------
    vector
        PATH or PATH:SCALE of a control vector of irm-lite, repeng or llama.cpp's cvector-generator.
    out
        The .gguf to write, or a folder, in PEFT's format.
    gguf
        The model file, or the name of a preset whose package carries one: made and measured in llama.cpp.
    model
        A preset, a hub id or a folder: made and measured in transformers.
    chat_template
        For a model in transformers that has none: a file with a Jinja chat template, or a preset's name.
    """
    from irm_lite.cli.verbs.adapter import adapter_of

    adapter_of(vector, out, gguf, model, chat_template, force, Output(common))


def _write(vector: "ControlVector", sources: tuple[str, ...], out: Path, force: bool, output: Output) -> None:
    from irm_lite.steering.layers import format_layers

    if out.suffix.lower() != ".gguf":
        raise InputError(f"{out} must end in .gguf", "llama.cpp loads no other")
    require_new(out, force)
    vector.metadata["sources"] = " + ".join(Path(source).name for source in sources)
    vector.save(out)
    document = {"vector": str(out), "layers": list(vector.layers), "sources": list(sources)}
    output.result(document, f"{out}: layers {format_layers(vector.layers)} of {vector.hidden_size}")
