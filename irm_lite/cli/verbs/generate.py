"""irm-lite generate"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from irm_lite.cli.output import Common, Output
from irm_lite.core.errors import InputError
from irm_lite.core.machine.terminal import argument_text, read_all
from irm_lite.core.visible_text import safe

if TYPE_CHECKING:
    from irm_lite.runs.trained import TrainedRun


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class GenerateFlags:
    """What is asked, of what model, steered by what."""

    prompt: Annotated[str | None, Parameter(alias="-p")] = None
    """What to say to the model; without it, standard input is read."""
    gguf: str = "demo"
    """The model file, or the name of a preset whose package carries one."""
    vector: Annotated[list[str] | None, Parameter(negative="")] = None
    """A control vector as PATH or PATH:SCALE, or demo-anger, which ships with irm-lite; may be given several times, they add up."""
    adapter: Annotated[list[str] | None, Parameter(negative="")] = None
    """A LoRA adapter as PATH or PATH:SCALE; may be given several times, also beside vectors: all of it adds up."""
    irm: str | None = None
    """A run whose IRM works inside llama.cpp, as RUN or RUN:STRENGTH: what it adds depends on the text."""
    layers: str | None = None
    """Only these layers of the vectors or the IRM, as in 10-20."""
    system: str | None = None
    """A system message."""
    max_new_tokens: int = 128
    """Tokens of the answer, at most."""
    temperature: float = 0.0
    """0: greedy."""
    seed: int = 0
    """Seed of the sampling."""
    context: int = 4096
    """Tokens of context."""
    chat_template: str | None = None
    """For a GGUF that has none: a file with a Jinja chat template, or a preset's name."""


def generate(*, flags: GenerateFlags | None = None, common: Common | None = None) -> None:
    """Answer a prompt in llama.cpp, streamed."""
    output, flags = Output(common), flags or GenerateFlags()
    prompt = _prompt(flags)
    if flags.irm is not None and (flags.vector or flags.adapter):
        raise InputError(f"--irm and --{'vector' if flags.vector else 'adapter'} cannot be combined", "give one of them")
    if flags.layers is not None and flags.irm is None and not flags.vector:
        raise InputError("--layers needs --vector or --irm", "give --vector or --irm")
    from irm_lite.base.fingerprint import fingerprint_gguf
    from irm_lite.base.presets import find_gguf, read_chat_template
    from irm_lite.llamacpp import Runtime
    from irm_lite.llamacpp.adapters import at_work
    from irm_lite.steering.control_vector import load_sum
    from irm_lite.steering.layers import parse_layers

    model_file = find_gguf(flags.gguf)
    steering = load_sum(flags.vector or [])
    trained, strength = _load_irm(flags.irm) if flags.irm is not None else (None, 1.0)
    if trained is not None:
        output.tell_matches([trained.match(fingerprint_gguf(model_file), model_file.name)])
        _tell_prompts(output, trained, model_file)
    template = read_chat_template(flags.chat_template) if flags.chat_template else None
    network = trained.irm if trained else None
    with (
        Runtime(model_file, irm=network, n_ctx=flags.context, chat_template=template) as runtime,
        at_work(runtime, flags.adapter or []) as adapters,
    ):
        output.tell_matches([each.match for each, _ in adapters])
        layers = None if flags.layers is None else parse_layers(flags.layers, runtime.model.n_layers, first=0 if network else 1)
        if steering is not None:
            output.tell_matches([steering.require_fit(runtime.model.fingerprint, model_file.name)])
            runtime.set_vector(steering, layers=layers)
        if runtime.dynamic is not None:
            runtime.dynamic.strength, runtime.dynamic.layers = strength, layers
        system = [{"role": "system", "content": argument_text(flags.system)}] if flags.system else []
        messages = [*system, {"role": "user", "content": prompt}]
        if system and runtime.model.chat_template.moves_system(messages):
            output.note(
                "the chat template has no place for a system text: it stands in front of the prompt, as llama-server puts it"
            )
        sampling: dict[str, Any] = {"max_new_tokens": flags.max_new_tokens, "temperature": flags.temperature, "seed": flags.seed}
        pieces = []
        for piece in runtime.generate(messages, **sampling):
            pieces.append(piece)
            if not output.json:
                sys.stdout.write(safe(piece))
                sys.stdout.flush()
    if output.json:
        written = {"prompt": prompt, "text": "".join(pieces)}
        output.result(
            {**written, "gguf": str(model_file), "vectors": flags.vector or [], "adapters": flags.adapter or [], "irm": flags.irm}
        )
    else:
        sys.stdout.write("\n")


def _prompt(flags: GenerateFlags) -> str:
    """What --prompt says, or standard input. Raises InputError where there is nothing."""
    hint = 'give one with -p "..." or on standard input'
    if flags.prompt is None and sys.stdin.isatty():
        raise InputError("there is no prompt", hint)
    prompt = read_all(sys.stdin).strip() if flags.prompt is None else argument_text(flags.prompt)
    if not prompt:
        raise InputError("the prompt is empty", hint)
    return prompt


def _tell_prompts(output: Output, run: "TrainedRun", model_file: Path) -> None:
    """What differs between the prompts that the run was trained on and those of this file, if it is not the run's own."""
    if run.gguf_path is None or run.gguf_path.resolve() != model_file.resolve() or run.config.chat_template:
        from irm_lite.vectors.prompt_check import prompts_on

        for line in prompts_on(run, model_file).warnings:
            output.warn(line)


def _load_irm(argument: str) -> tuple["TrainedRun", float]:
    """RUN[:STRENGTH]."""
    from irm_lite.runs.trained import load_run
    from irm_lite.steering.control_vector import parse_vector_argument

    path, strength = parse_vector_argument(argument)
    return load_run(path), strength
