"""The paper's pictures of what an IRM puts out, from a recording: where, in which layer, on which token.

Titles say what is counted: the paper's own say 2000 where its code takes 100 and 1000.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from irm_lite.analysis.pictures.canvas import MARK_POINTS, literal, mark_indices, new_figure
from irm_lite.analysis.pictures.heatmap import heatmap_figure
from irm_lite.analysis.pictures.own_style import own_style
from irm_lite.analysis.recordings.recording import NEAR_ZERO, HalfArray, Prompt, Recording
from irm_lite.analysis.statistics.checks import require_index_range
from irm_lite.core.errors import InputError
from irm_lite.core.types import IntArray
from irm_lite.core.visible_text import short, visible
from irm_lite.steering.control_vector import ControlVector

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PAPERS_INDEX = 1512  # the paper's neuron
_OF_LAYERS, _OF_TOKENS = 100, 1000  # largest |v| that the paper counts by layer, by token
_GENERATED = 10  # tokens of an answer that enter the paper's average
_NAMED = 5  # indices named in the picture of how often
_LABELLED = 200  # tokens that can all have a label
_COLOURS = {"prompt": "#3b73c9", "generated": "#ed6b34"}  # as the terminal's heatmap


def default_marks(hidden_size: int) -> tuple[int, ...]:
    """The paper's index, where there is one of that number."""
    return (PAPERS_INDEX,) if hidden_size > PAPERS_INDEX else ()


def choose_token(recording: Recording, prompt: int | None = None, token: int | None = None) -> tuple[int, int] | None:
    """The kept prompt and the token of it to draw; unless said otherwise, of the first one the first that was generated.

    None where the recording keeps no prompt and none was asked for. Raises InputError where there is none of that number.
    """
    kept = recording.about.prompts
    if not kept and prompt is None and token is None:
        return None
    if not 0 <= (prompt or 0) < len(kept):
        hint = f"it keeps 0-{len(kept) - 1}" if kept else "record again with --keep"
        raise InputError(f"the recording does not keep prompt {prompt or 0} token by token", hint)
    tokens, first = len(kept[prompt or 0].tokens), kept[prompt or 0].n_prompt
    token = min(first, tokens - 1) if token is None else token
    if not 0 <= token < tokens:
        raise InputError(f"prompt {prompt or 0} has no token {token}", f"give 0-{tokens - 1}; {first} is the first generated one")
    return prompt or 0, token


def pictures(recording: Recording, choice: tuple[int, int] | None, marks: Sequence[int] = ()) -> Iterator[tuple[str, "Figure"]]:
    """Each picture with its name, drawn when it is asked for; those of single tokens only with a `choice`."""
    about, layers = recording.about, tuple(recording.about.layers)
    require_index_range(marks, about.hidden_size)
    source = f"{_clipped(about.run)}: {about.kind} IRM at {about.site}, {_clipped(about.data)}, in {about.measured_in}"
    if choice is not None:
        prompt, outputs, number = about.prompts[choice[0]], recording.outputs[choice[0]], choice[0]
        one = f"prompt-{number}"
        yield (
            f"{one}-token-{choice[1]}",
            heatmap_figure(
                outputs[choice[1]].astype(np.float32), layers, f"Output on {_named(prompt, number, choice[1])}\n{source}", marks
            ),
        )
        until = prompt.n_prompt + _GENERATED
        after = len(prompt.tokens[prompt.n_prompt : until])
        yield (
            f"{one}-mean",
            heatmap_figure(
                outputs[:until].mean(0, dtype=np.float32),
                layers,
                f"Mean output over the {prompt.n_prompt} tokens of prompt {number} and the first {after} generated\n{source}",
                marks,
            ),
        )
        yield f"{one}-largest-by-layer", largest_by_layer(outputs, layers, f"prompt {number}\n{source}")
        yield f"{one}-largest-by-token", largest_by_token(outputs, prompt, f"prompt {number}\n{source}")
    for phase, each in recording.statistics.items():
        title = f"Mean output over {each.tokens} {phase} tokens, {about.n_prompts} prompts\n{source}"
        yield f"mean-{phase}", heatmap_figure(each.mean.astype(np.float32), layers, title, marks)
    yield "sparsity", sparsity(recording, source)
    yield "often-largest", often_largest(recording, source, marks)


def vector_picture(vector: ControlVector, name: str, marks: Sequence[int] = ()) -> "Figure":
    """The heatmap of a control vector."""
    require_index_range(marks, vector.hidden_size)
    return heatmap_figure(np.stack(list(vector.directions.values())), vector.layers, f"Control vector {_clipped(name)}", marks)


@own_style()
def largest_by_layer(outputs: HalfArray, layers: tuple[int, ...], of: str) -> "Figure":
    """Of one prompt's outputs (T, L, H): how many of the 100 largest |v| fall in each layer."""
    found = _largest(outputs, _OF_LAYERS)
    counts = np.bincount(found // outputs.shape[2] % outputs.shape[1], minlength=len(layers))
    figure = new_figure(max(6.0, 1.5 + 0.22 * len(layers)), 4)
    axes = figure.add_subplot()
    axes.bar(range(len(layers)), counts, color=_COLOURS["generated"])
    every = max(1, len(layers) // 32)
    axes.set_xticks(range(0, len(layers), every), [str(layer) for layer in layers[::every]])
    axes.set_xlabel("layer")
    axes.set_ylim(bottom=0)
    axes.set_ylabel(f"how many of the {len(found)} largest |v|")
    axes.set_title(literal(f"The {len(found)} largest |v| by layer, {of}"), loc="left", fontsize=10)
    return figure


@own_style()
def largest_by_token(outputs: HalfArray, prompt: Prompt, of: str) -> "Figure":
    """Of one prompt's outputs (T, L, H): how many of the 1000 largest |v| fall on each token."""
    found, tokens = _largest(outputs, _OF_TOKENS), len(outputs)
    counts = np.bincount(found // (outputs.shape[1] * outputs.shape[2]), minlength=tokens)
    figure = new_figure(min(max(8.0, 1.5 + 0.15 * tokens), 32.0), 4.5)
    axes = figure.add_subplot()
    places = np.arange(tokens)
    for phase, chosen in (("prompt", places < prompt.n_prompt), ("generated", places >= prompt.n_prompt)):
        if chosen.any():
            axes.bar(places[chosen], counts[chosen], color=_COLOURS[phase], label=phase)
    shown = places[:: max(1, -(-tokens // _LABELLED))]
    axes.set_xticks(shown, [literal(short(prompt.tokens[each])) for each in shown], rotation=90, fontsize=7)
    axes.set_xlim(-0.8, tokens - 0.2)
    axes.set_xlabel("token")
    axes.set_ylabel(f"how many of the {len(found)} largest |v|")
    axes.set_title(literal(f"The {len(found)} largest |v| by token, {of}"), loc="left", fontsize=10)
    _legend_above(axes)
    return figure


@own_style()
def sparsity(recording: Recording, source: str) -> "Figure":
    """Share of |v| < 1e-4 by layer, a bar for each phase."""
    layers, phases = recording.about.layers, recording.statistics
    figure = new_figure(max(6.0, 1.5 + 0.3 * len(layers)), 4)
    axes = figure.add_subplot()
    width = 0.8 / len(phases)
    for number, (phase, each) in enumerate(phases.items()):
        left = np.arange(len(layers)) + (number - (len(phases) - 1) / 2) * width
        axes.bar(left, 100 * each.near_zero, width, color=_COLOURS[phase], label=f"{each.tokens} {phase} tokens")
    every = max(1, len(layers) // 32)
    axes.set_xticks(range(0, len(layers), every), [str(layer) for layer in layers[::every]])
    axes.set_xlabel("layer")
    axes.set_ylabel(f"share of |v| < {NEAR_ZERO:g}, %")
    axes.set_title(literal(f"Sparsity by layer\n{source}"), loc="left", fontsize=10)
    _legend_above(axes)
    return figure


@own_style()
def often_largest(recording: Recording, source: str, marks: Sequence[int] = ()) -> "Figure":
    """How often each index is among a layer's largest |v|, over tokens and layers; a panel for each phase."""
    width, phases = recording.about.hidden_size, recording.statistics
    figure = new_figure(12, 1.4 + 2.4 * len(phases))
    panels = figure.subplots(len(phases), 1, sharex=True, squeeze=False)[:, 0]
    for axes, (phase, each) in zip(panels, phases.items(), strict=True):
        shares = 100 * each.in_top.sum(0) / (each.tokens * len(recording.about.layers))
        axes.vlines(np.arange(width), 0, shares, color=_COLOURS[phase], linewidth=1.2)
        axes.axhline(100 * each.top / width, color="grey", linewidth=0.8, linestyle="--")
        often = ", ".join(map(str, np.argsort(-shares, kind="stable")[:_NAMED]))
        pad = MARK_POINTS if marks and axes is panels[0] else None
        axes.set_title(f"most often {often}; dashed: if all were alike", loc="right", fontsize=8, pad=pad)
        axes.set_xlim(-0.5, width - 0.5)
        axes.set_ylim(bottom=0)
        axes.set_ylabel(f"% of {phase} tokens x layers")
    top = next(iter(phases.values())).top
    figure.suptitle(
        literal(f"How often an index is among the {top} largest |v| of a layer\n{source}"),
        x=0.05,
        horizontalalignment="left",
        fontsize=10,
    )
    mark_indices(panels[0], marks)
    panels[-1].set_xlabel("neuron index (position in the hidden size)")
    return figure


def _legend_above(axes: "Axes") -> None:
    """A legend over the bars, not on them; bars of zero stand at the foot."""
    axes.set_ylim(0, 1.25 * (max(bar.get_height() for bar in axes.patches) or 1))  # type: ignore[attr-defined]
    axes.legend(loc="upper right", ncols=2)


def _largest(outputs: HalfArray, count: int) -> IntArray:
    """Flat places of the `count` largest |v| that are not zero; of equals the earlier."""
    magnitude = np.abs(outputs).ravel()
    edge = np.partition(magnitude, -count)[-count] if count < magnitude.size else 0
    reached = np.flatnonzero((magnitude >= edge) & (magnitude > 0))
    return reached[np.argsort(-magnitude[reached], kind="stable")[:count]]


def _named(prompt: Prompt, number: int, token: int) -> str:
    phase = "generated" if token >= prompt.n_prompt else "prompt"
    return f"token {token} ({short(prompt.tokens[token])}, {phase}) of prompt {number}: {short(prompt.question, 60)}"


def _clipped(path: str, longest: int = 40) -> str:
    """Its end, which tells paths apart."""
    shown = visible(path)
    return shown if len(shown) <= longest else "…" + shown[1 - longest :]
