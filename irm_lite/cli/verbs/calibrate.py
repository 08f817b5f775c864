"""irm-lite calibrate"""

import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter
from rich.table import Table
from rich.text import Text

from irm_lite.cli.dial_shown import dial_shown
from irm_lite.cli.output import Common, Output
from irm_lite.cli.progress import stoppable_progress
from irm_lite.core.errors import InputError, IrmLiteError
from irm_lite.core.files.atomic import require_folder

if TYPE_CHECKING:
    from irm_lite.steering.control_vector import ControlVector
    from irm_lite.vectors.calibration import Calibration

_BAR = 24  # cells of the longest bar


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class CalibrateFlags:
    """Where to measure, what to try, and what to write."""

    gguf: str
    """The model file, or the name of a preset whose package carries one."""
    by: Literal["trade", "score"] = "trade"
    """What is best: NLL gained against KL lost, or the score of what is written (docs/score.md), which takes longer."""
    data: str | None = None
    """The tone or file whose answers the vector is for [default: the shipped tone that it says it was trained on]."""
    answer_column: str = "answer"
    """The column of the answers in a file."""
    model: str | None = None
    """Where tokenizer and chat template come from, if not from the GGUF: a preset or a Hugging Face folder."""
    strengths: str | None = None
    """Strengths to try, as in 0.5,1,1.5 [default: seven from 0.25 to 2; by score, six from -2 to -0.25 too]."""
    layers: str | None = None
    """Only these layers, as in 10-20 [default: all, and by trade the first, middle and last half]."""
    questions: int | None = None
    """By score: validation questions that are answered at each strength [default: 12]."""
    seed: int = 0
    """Seed of what is drawn for the intervals; all else is computed, or written greedily."""
    picture: Path | None = None
    """The curve as PNG or SVG [default: beside the vector, with the ending .calibration.png; by score .dial.png]."""
    out: Annotated[Path | None, Parameter(alias="-o")] = None
    """The .gguf to write: the vector at its best setting, which becomes strength 1."""


def calibrate(
    vector: Path,
    /,
    *,
    flags: CalibrateFlags,
    common: Common | None = None,
) -> None:
    """Find the strength and the layers at which a control vector gives most for what it costs.

    Parameters
    ----------
    vector
        The control vector.
    """
    output = Output(common)
    from irm_lite.analysis.pictures.own_style import require_matplotlib
    from irm_lite.steering.control_vector import ControlVector

    if flags.questions is not None and flags.by == "trade":
        raise InputError("--questions is for --by score alone", "leave it out")
    loaded = ControlVector.load(vector)
    picture = flags.picture or vector.with_suffix(".calibration.png" if flags.by == "trade" else ".dial.png")
    if flags.out is not None and (os.path.lexists(flags.out) or flags.out.suffix.lower() != ".gguf"):
        raise InputError(f"{flags.out} exists, or does not end in .gguf", "choose another -o")
    if picture.suffix.lower() not in (".png", ".svg"):
        raise InputError(f"{picture} is neither .png nor .svg", "choose another --picture")
    for written in filter(None, (flags.out, picture)):
        require_folder(written.parent)
    require_matplotlib()
    asked = _Asked(vector, loaded, flags.data or _shipped_tone(vector, loaded), picture, flags)
    (_by_trade if flags.by == "trade" else _by_score)(asked, output)


@dataclass(frozen=True)
class _Asked:
    """A calibration that can begin."""

    path: Path
    vector: "ControlVector"
    data: str
    picture: Path
    flags: CalibrateFlags

    def layers(self) -> tuple[int, ...] | None:
        from irm_lite.steering.layers import parse_layers

        return None if self.flags.layers is None else parse_layers(self.flags.layers, max(self.vector.layers) + 1, first=1)


def _by_trade(asked: _Asked, output: Output) -> None:
    from irm_lite.analysis.pictures.calibration_curve import save_trade
    from irm_lite.base.presets import find_gguf
    from irm_lite.scoring.material import require_seed
    from irm_lite.vectors.best_setting import at_setting, llamacpp_flags
    from irm_lite.vectors.calibration import STRENGTHS, Grid
    from irm_lite.vectors.calibration import calibrate as find_best

    flags, layers = asked.flags, asked.layers()
    strengths = _strengths(flags.strengths, STRENGTHS)
    with stoppable_progress(output, "calibrating") as on_progress:
        gguf = find_gguf(flags.gguf)
        result = find_best(
            asked.vector,
            gguf,
            asked.data,
            model=flags.model,
            answer_column=flags.answer_column,
            grid=Grid(strengths, None if layers is None else [layers], require_seed(flags.seed)),
            on_progress=on_progress,
        )
    output.tell_matches([result.match])
    if result.disagreement is not None:
        output.warn(result.disagreement)
    if flags.out is not None:
        at_setting(asked.vector, result.best).save(flags.out)
    used = _how_to_use(asked, gguf, llamacpp_flags(asked.vector, asked.path, result.best), "setting")
    save_trade(result, asked.picture, f"{asked.path.name} on {gguf.name}")
    document = {"vector": str(asked.path), "picture": str(asked.picture), **result.to_dict()}
    output.result(document, *_curves(result), *_verdict(result), *used)


def _by_score(asked: _Asked, output: Output) -> None:
    from irm_lite.analysis.pictures.calibration_curve import save_dial
    from irm_lite.base.presets import find_gguf
    from irm_lite.scoring.material import Extent
    from irm_lite.vectors.best_setting import at_strength, flags_at
    from irm_lite.vectors.dial import QUESTIONS, STRENGTHS, Turning, turn

    flags, layers = asked.flags, asked.layers()
    chosen = asked.vector if layers is None else asked.vector.select(layers)
    extent = Extent(QUESTIONS if flags.questions is None else flags.questions, seed=flags.seed)
    turning = Turning(_strengths(flags.strengths, STRENGTHS), extent)
    with stoppable_progress(output, "turning the dial") as on_progress:
        gguf = find_gguf(flags.gguf)
        dial = turn(
            chosen,
            gguf,
            asked.data,
            model=flags.model,
            answer_column=flags.answer_column,
            turning=turning,
            on_progress=on_progress,
        )
    output.tell_matches([dial.match])
    if dial.disagreement is not None:
        output.warn(dial.disagreement)
    best = dial.best
    if flags.out is not None and best.value > 0:
        at_strength(chosen, best.strength).save(flags.out)
    used = _how_to_use(asked, gguf, flags_at(asked.path, chosen.layers, best.strength), "strength") if best.value > 0 else []
    save_dial(dial, asked.picture, f"{asked.path.name} on {gguf.name}")
    output.result({"vector": str(asked.path), "picture": str(asked.picture), **dial.to_dict()}, *dial_shown(dial), *used)
    if flags.out is not None and not best.value > 0:
        raise IrmLiteError(f"{flags.out} was not written, since no strength has a score", "calibrate --by trade")


def _how_to_use(asked: _Asked, gguf: Path, llamacpp: list[str] | None, what: str) -> list[str]:
    lines = [f"as a picture: {asked.picture}"]
    if asked.flags.out is not None:
        lines.append(f"{asked.flags.out}: the vector at that {what}, as strength 1")
    elif llamacpp is not None:
        lines.append("  " + shlex.join(["llama-cli", "-m", str(gguf), *llamacpp]))
    else:
        lines.append("llama.cpp's flags cannot say this: write it to a file with -o")
    return lines


def _shipped_tone(path: Path, vector: "ControlVector") -> str:
    """The tone that the vector says it was trained on. Raises InputError where it names none of the shipped ones."""
    from irm_lite.data.dataset import tones

    said = str(vector.metadata.get("data", ""))
    if said in tones():  # a path that stands in a file is not followed
        return said
    about = f"says that it was trained on {said[:200]}" if said else "does not say what it was trained on"
    raise InputError(f"{path} {about}", "name the data with --data, as in --data anger")


def _strengths(listed: str | None, default: Sequence[float]) -> Sequence[float]:
    try:
        return default if listed is None else [float(each) for each in listed.split(",")]
    except ValueError:
        raise InputError(f"--strengths {listed!r} is not a list of numbers", "write 0.5,1,1.5") from None


def _verdict(result: "Calibration") -> list[str]:
    best = result.best
    low, high = best.trade_95
    trade = f"trade {best.trade:+.3f} [{low:+.3f}, {high:+.3f}] nats a token on {result.samples} answers"
    chance = f"not corrected for choosing the best of {len(result.settings)}"
    lines = [f"best: strength {best.strength:g}, layers {best.layers}: {trade} ({chance})"]
    return lines if best.trade > 0 else [*lines, "no setting gains more than it costs"]


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
