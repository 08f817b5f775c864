"""irm-lite bake"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from irm_lite.cli.output import Common, Output
from irm_lite.cli.progress import stoppable_progress
from irm_lite.core.errors import InputError


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class BakeFlags:
    """What is written, and from what."""

    out: Annotated[Path, Parameter(alias="-o")]
    """The .gguf to write."""
    gguf: str | None = None
    """The model file, or the name of a preset whose package carries one."""
    scale: float | None = None
    """Factor for everything that is baked in [default: 1]."""
    layers: str | None = None
    """Only these blocks, as in 10-20."""
    undo: Annotated[Path | None, Parameter(negative="")] = None
    """A baked file: write its original to --out instead, byte for byte."""
    force: Annotated[bool, Parameter(negative="")] = False
    """Write over an existing file."""


def bake(
    *sources: str,
    flags: BakeFlags,
    common: Common | None = None,
) -> None:
    """Write a copy of a GGUF with the steering in it, for Ollama, LM Studio and all that take no control vector.

    Parameters
    ----------
    sources
        Control vectors as PATH or PATH:SCALE, which add up; or one run directory: a static IRM goes in as it is, at its
        own site, any other by its exported vector.
    """
    output = Output(common)
    from irm_lite.base.fingerprint import fingerprint_gguf
    from irm_lite.base.presets import find_gguf
    from irm_lite.core.files.gguf_header import read_header
    from irm_lite.vectors.as_llama import LLAMA, SAME_AS_LLAMA
    from irm_lite.vectors.bake import bake as write_baked
    from irm_lite.vectors.bake import require_bakeable, unbake
    from irm_lite.vectors.biases import gather

    if flags.out.suffix.lower() != ".gguf":
        raise InputError(f"{flags.out} must end in .gguf", "llama.cpp loads no other")
    if (flags.undo is None) == (not sources) or (flags.undo is None) != (flags.gguf is not None):
        hint = "irm-lite bake V.gguf --gguf MODEL.gguf -o OUT.gguf, or irm-lite bake --undo FILE.gguf -o OUT.gguf"
        raise InputError("it is not clear what to bake", hint)
    if flags.undo is not None and (ignored := [name for name in ("scale", "layers") if getattr(flags, name) is not None]):
        raise InputError(f"--undo takes no --{ignored[0]}: it writes the original as it was", "leave it out")
    with stoppable_progress(output, "writing") as on_progress:
        if flags.undo is not None:
            unbake(flags.undo, flags.out, force=flags.force, on_progress=on_progress)
            output.result(
                {"gguf": str(flags.out), "from": str(flags.undo)},
                f"{flags.out}: the original of {flags.undo}, SHA-256 verified",
            )
            return
        assert flags.gguf is not None
        model = find_gguf(flags.gguf)
        header = read_header(model)
        require_bakeable(header)
        scale = 1.0 if flags.scale is None else flags.scale
        biases = gather(sources, fingerprint_gguf(header), model.name, scale=scale, layers=flags.layers)
        output.tell_matches([biases.match])
        write_baked(model, biases, flags.out, force=flags.force, on_progress=on_progress)
    written = LLAMA if header.architecture in SAME_AS_LLAMA else header.architecture
    renamed = [] if written == header.architecture else [f"it is written as {written}, which takes biases and computes the same"]
    output.result(
        {
            "gguf": str(flags.out),
            "from": str(model),
            "slot": biases.slot,
            "layers": sorted(biases.values),
            "architecture": written,
        },
        f"{flags.out}: a copy of {model} with {len(biases.values)} biases, blk.N.{biases.slot}.bias; load it like any other model",
        *renamed,
        f"to take them out: irm-lite bake --undo {flags.out} -o ORIGINAL.gguf",
    )
