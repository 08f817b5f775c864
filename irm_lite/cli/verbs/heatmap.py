"""irm-lite heatmap"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter
from rich.console import Console
from rich.text import Text

from irm_lite.cli.output import Common, Output
from irm_lite.core.visible_text import safe

if TYPE_CHECKING:
    from irm_lite.analysis.pictures.draw_target import Drawn


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class HeatmapFlags:
    """What of the target is drawn, and where to."""

    out: Annotated[Path | None, Parameter(alias="-o")] = None
    """The folder for the pictures [default: figures in TARGET or beside the .gguf, or figures-2 and so on]."""
    mark: Annotated[list[int] | None, Parameter(consume_multiple=True, negative="")] = None
    """Neuron indices to mark [default: 1512, the paper's, where the hidden size has it]."""
    prompt: int | None = None
    """The prompt whose tokens are drawn, from 0, one of those that the recording keeps [default: 0]."""
    token: int | None = None
    """The token of that prompt that is drawn alone, from 0 [default: the first generated one]."""
    format: Literal["png", "svg"] = "png"
    """png or svg."""
    force: Annotated[bool, Parameter(negative="")] = False
    """Write over existing files."""


def heatmap(
    target: Path,
    /,
    *,
    flags: HeatmapFlags | None = None,
    common: Common | None = None,
) -> None:
    """Draw what was recorded: heatmaps of layer and neuron index, and where the largest values are.

    Parameters
    ----------
    target
        A recording's folder, a run (its newest recording, else its vector), or a control vector (.gguf).
    """
    output, flags = Output(common), flags or HeatmapFlags()
    from irm_lite.analysis.pictures.draw_target import draw

    drawn = draw(
        target, flags.out, marks=flags.mark, prompt=flags.prompt, token=flags.token, suffix=flags.format, force=flags.force
    )
    if drawn.choice is None and "sparsity" in drawn.files:
        output.note(f"{drawn.source} keeps no prompt token by token, so no token is drawn alone: record with --keep for that")
    prompt, token = drawn.choice or (None, None)
    files = {name: str(path) for name, path in drawn.files.items()}
    document = {"target": str(drawn.source), "marks": list(drawn.marks), "prompt": prompt, "token": token, "figures": files}
    output.result(document, *_in_the_terminal(drawn), *files.values())


def _in_the_terminal(drawn: "Drawn") -> list[Text]:
    """The heatmap as half blocks, where there is a terminal to show them."""
    from irm_lite.analysis.pictures.heatmap import terminal_heatmap

    console = Console()
    if not console.is_terminal:
        return []
    lines = terminal_heatmap(drawn.values, min(console.width, 120), system=console.color_system or "256")
    axes = f"layers {drawn.layers[0]}-{drawn.layers[-1]} (down), neuron index 0-{drawn.values.shape[1] - 1} (across)"
    return [Text(safe(f"{drawn.what}: {axes}"), style="bold"), *lines]
