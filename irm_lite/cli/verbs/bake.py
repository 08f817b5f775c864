"""irm-lite bake"""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from irm_lite.cli.output import Common, Output
from irm_lite.cli.progress import stoppable_progress
from irm_lite.core.errors import InputError


def bake(
    *sources: str,
    out: Annotated[Path, Parameter(alias="-o")],
    gguf: str | None = None,
    scale: float = 1.0,
    layers: str | None = None,
    undo: Annotated[Path | None, Parameter(negative="")] = None,
    force: Annotated[bool, Parameter(negative="")] = False,
    common: Common | None = None,
) -> None:
    """Write a copy of a GGUF with the steering in it, for Ollama, LM Studio and all that take no control vector.

    Parameters
    ----------
    sources
        Control vectors as PATH or PATH:SCALE, which add up; or one run directory: a static IRM goes in as it is, at its
        own site, any other by its exported vector.
    out
        The .gguf to write.
    gguf
        The model file, or the name of a preset whose package carries one.
    scale
        Factor of all that is baked in.
    layers
        Only these blocks, as in 10-20.
    undo
        A baked file: write its original to --out instead, byte for byte.
    force
        Write over an existing file.
    """
    output = Output(common)
    from irm_lite.base.fingerprint import fingerprint_gguf
    from irm_lite.base.presets import find_gguf
    from irm_lite.core.files.gguf_header import read_header
    from irm_lite.vectors.bake import bake as write_baked
    from irm_lite.vectors.bake import require_bakeable, unbake
    from irm_lite.vectors.biases import gather

    if out.suffix.lower() != ".gguf":
        raise InputError(f"{out} must end in .gguf", "llama.cpp takes no other")
    if (undo is None) == (not sources) or (undo is None) != (gguf is not None):
        hint = "irm-lite bake V.gguf --gguf MODEL.gguf -o OUT.gguf, or irm-lite bake --undo FILE.gguf -o OUT.gguf"
        raise InputError("it is not clear what to bake", hint)
    with stoppable_progress(output, "writing") as on_progress:
        if undo is not None:
            unbake(undo, out, force=force, on_progress=on_progress)
            output.result({"gguf": str(out), "from": str(undo)}, f"{out}: the original of {undo}, its SHA-256 is right")
            return
        assert gguf is not None
        model = find_gguf(gguf)
        header = read_header(model)
        require_bakeable(header)
        biases = gather(sources, fingerprint_gguf(header), model.name, scale=scale, layers=layers)
        output.tell_matches([biases.match])
        write_baked(model, biases, out, force=force, on_progress=on_progress)
    output.result(
        {"gguf": str(out), "from": str(model), "slot": biases.slot, "layers": sorted(biases.values)},
        f"{out}: a copy of {model} with {len(biases.values)} biases, blk.N.{biases.slot}.bias; load it like any other model",
        f"to take them out: irm-lite bake --undo {out} -o ORIGINAL.gguf",
    )
