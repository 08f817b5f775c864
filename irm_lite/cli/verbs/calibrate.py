"""irm-lite calibrate"""

import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from rich.table import Table
from rich.text import Text

from irm_lite.cli.output import Common, Output
from irm_lite.cli.progress import stoppable_progress
from irm_lite.core.errors import InputError

if TYPE_CHECKING:
    from irm_lite.vectors.calibration import Calibration

_BAR = 24  # cells of the longest bar


def calibrate(
    vector: Path,
    /,
    *,
    gguf: str,
    data: str | None = None,
    answer_column: str = "answer",
    model: str | None = None,
    strengths: str | None = None,
    layers: str | None = None,
    picture: Path | None = None,
    out: Annotated[Path | None, Parameter(alias="-o")] = None,
    common: Common | None = None,
) -> None:
    """Find the strength and the layers at which a control vector gives most for what it costs.

    Parameters
    ----------
    vector
        The control vector.
    gguf
        The model file, or the name of a preset whose package carries one.
    data
        The tone or file whose answers the vector is for [default: the shipped tone that it says it was trained on].
    answer_column
        The column of the answers in a file.
    model
        Where tokenizer and chat template come from, if not from the GGUF: a preset or a Hugging Face folder.
    strengths
        Strengths to try, as in 0.5,1,1.5 [default: seven from 0.25 to 2].
    layers
        Only these layers, as in 10-20 [default: all, and the first, middle and last half].
    picture
        The curve as PNG or SVG [default: beside the vector, with the ending .calibration.png].
    out
        Write the vector at the best setting, so that strength 1 is that, to this .gguf.
    """
    output = Output(common)
    from irm_lite.analysis.pictures.calibration_curve import save_trade
    from irm_lite.base.presets import find_gguf
    from irm_lite.data.dataset import tones
    from irm_lite.steering.control_vector import ControlVector
    from irm_lite.steering.layers import parse_layers
    from irm_lite.vectors.calibration import STRENGTHS, Grid
    from irm_lite.vectors.calibration import calibrate as find_best

    loaded = ControlVector.load(vector)
    said = str(loaded.metadata.get("data", ""))
    tone = data or (said if said in tones() else "")  # a path that stands in a file is not followed
    if not tone:
        about = f"says that it was trained on {said[:200]}" if said else "does not say what it was trained on"
        raise InputError(f"{vector} {about}", "name the data with --data, as in --data anger")
    if out is not None and (os.path.lexists(out) or out.suffix.lower() != ".gguf" or not _writable(out)):
        raise InputError(f"{out} exists, does not end in .gguf, or cannot be written", "choose another -o")
    figure = picture or vector.with_suffix(".calibration.png")
    if figure.suffix.lower() not in (".png", ".svg") or not _writable(figure):
        raise InputError(f"{figure} is neither .png nor .svg, or cannot be written", "choose another --picture")
    try:
        tried = list(STRENGTHS) if strengths is None else [float(each) for each in strengths.split(",")]
    except ValueError:
        raise InputError(f"--strengths {strengths!r} is no list of numbers", "write 0.5,1,1.5") from None
    choices = None if layers is None else [parse_layers(layers, max(loaded.layers) + 1, first=1)]
    with stoppable_progress(output, "calibrating") as on_progress:
        model_file = find_gguf(gguf)
        result = find_best(
            loaded,
            model_file,
            tone,
            model=model,
            answer_column=answer_column,
            grid=Grid(tried, choices),
            on_progress=on_progress,
        )
    output.tell_matches([result.match])
    best = result.best
    chosen = parse_layers(best.layers, max(loaded.layers) + 1, first=1)
    if out is not None:
        (loaded.select(chosen) * best.strength).save(out)
    low, high = best.trade_95
    lines = [
        f"best: strength {best.strength:g}, layers {best.layers}: trade {best.trade:+.3f} [{low:+.3f}, {high:+.3f}] nats a token "
        f"on {result.samples} answers (the interval does not know that this is the best of {len(result.settings)})",
    ]
    if best.trade <= 0:
        lines.append("no setting gains more than it costs")
    lines.append(f"as a picture: {figure}")
    if out is not None:
        lines.append(f"{out}: the vector at that setting, as strength 1")
    elif chosen == tuple(range(chosen[0], chosen[-1] + 1)) and not {":", ","} & set(str(vector)):  # llama.cpp splits there
        scaled = ["--control-vector-scaled", f"{vector}:{best.strength:g}"]
        layer_range = ["--control-vector-layer-range", str(chosen[0]), str(chosen[-1])]
        lines.append("  " + shlex.join(["llama-cli", "-m", str(model_file), *scaled, *layer_range]))
    else:
        lines.append("llama.cpp's flags cannot say this: write it to a file with -o")
    save_trade(result, figure, f"{vector.name} on {model_file.name}")
    output.result({"vector": str(vector), "picture": str(figure), **result.to_dict()}, *_curves(result), *lines)


def _writable(path: Path) -> bool:
    """Whether a file can appear there: asked before minutes of work, not after."""
    return os.access(next(parent for parent in path.absolute().parents if parent.exists()), os.W_OK)


def _curves(result: "Calibration") -> list[Table | Text]:
    """A table for each choice of layers, the best first; bars are nats a token on one scale."""
    best = result.best
    by_layers = sorted(
        {setting.layers for setting in result.settings}, key=lambda name: -max(each.trade for each in result.at(name))
    )
    longest = max(result.nll_base, *(max(each.nll_aligned, each.kl_neutral) for each in result.settings))
    shown: list[Table | Text] = [Text(f"NLL of the {result.data} answers without the vector: {result.nll_base:.3f} nats a token")]
    for layers in by_layers:
        table = Table(title=f"layers {layers}", title_justify="left")
        table.add_column("strength", justify="right")
        table.add_column(f"NLL of the {result.data} answers", min_width=_BAR + 8)
        table.add_column("KL on neutral answers (cost)", min_width=_BAR + 8)
        table.add_column("trade", justify="right")
        for each in result.at(layers):
            bars = [f"{value:6.3f} " + "█" * round(_BAR * value / longest) for value in (each.nll_aligned, each.kl_neutral)]
            table.add_row(f"{each.strength:g}", *bars, f"{each.trade:+.3f}", style="bold" if each is best else None)
        shown.append(table)
    return shown
