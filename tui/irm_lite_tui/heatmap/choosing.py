"""From one picture of a source to the next: mode, phase, token and prompt."""

from dataclasses import replace

from irm_lite.analysis.recordings.recording import Phase
from irm_lite.core.errors import InputError
from irm_lite_tui.heatmap.source import Choice, Source


def next_mode(source: Source, choice: Choice) -> Choice:
    """The mode after this one; after the last, the first."""
    modes = source.modes
    return replace(choice, mode=modes[(modes.index(choice.mode) + 1) % len(modes)])


def next_phase(source: Source, choice: Choice) -> Choice:
    """The phase after this one, of the mean where a token is drawn; the same choice where the source has no phases."""
    phases: tuple[Phase, ...] = source.phases
    if not phases:
        return choice
    mode = "mean" if choice.mode == "token" else choice.mode
    return replace(choice, mode=mode, phase=phases[(phases.index(choice.phase) + 1) % len(phases)])


def next_token(source: Source, choice: Choice, step: int) -> Choice:
    """The token so many on; first the chosen one itself, if it is not drawn yet. The source has prompts."""
    step = step if choice.mode == "token" else 0
    last = len(source.prompts[choice.prompt].tokens) - 1
    return replace(choice, mode="token", token=min(max(0, choice.token + step), last))


def next_prompt(source: Source, choice: Choice, step: int) -> Choice:
    """The first generated token of the prompt so many on, around the end. The source has prompts."""
    number = (choice.prompt + step) % len(source.prompts)
    prompt = source.prompts[number]
    return replace(choice, mode="token", prompt=number, token=min(prompt.n_prompt, len(prompt.tokens) - 1))


def choose_token(source: Source, choice: Choice, prompt: int | None, token: int | None) -> Choice:
    """A token by its numbers; None: this prompt, its first generated token. Raises InputError where it is not kept."""
    prompt = choice.prompt if prompt is None else prompt
    if prompt >= len(source.prompts):
        hint = f"give p0-p{len(source.prompts) - 1}" if source.prompts else "record again with --keep"
        raise InputError(f"prompt {prompt} is not kept token by token", hint)
    tokens = len(source.prompts[prompt].tokens)
    token = source.prompts[prompt].n_prompt if token is None else token
    if token >= tokens:
        raise InputError(f"prompt {prompt} has no token {token}", f"give t0-t{tokens - 1}")
    return replace(choice, mode="token", prompt=prompt, token=token)
