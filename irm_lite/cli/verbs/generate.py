"""irm-lite generate"""

import sys
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from irm_lite.cli.output import Common, Output
from irm_lite.core.errors import InputError
from irm_lite.core.visible_text import safe

if TYPE_CHECKING:
    from irm_lite.runs.trained import TrainedRun


def generate(
    *,
    prompt: Annotated[str | None, Parameter(alias="-p")] = None,
    gguf: str = "demo",
    vector: Annotated[list[str] | None, Parameter(negative="")] = None,
    irm: str | None = None,
    layers: str | None = None,
    system: str | None = None,
    max_new_tokens: int = 128,
    temperature: float = 0.0,
    seed: int = 0,
    context: int = 4096,
    chat_template: str | None = None,
    common: Common | None = None,
) -> None:
    """Answer a prompt in llama.cpp, streamed.

    Parameters
    ----------
    prompt
        What to say to the model; without it, standard input is read.
    gguf
        The model file, or the name of a preset whose package carries one.
    vector
        A control vector as PATH or PATH:SCALE; may be given several times, they add up.
    irm
        A run whose IRM works inside llama.cpp, as RUN or RUN:STRENGTH: what it adds depends on the text.
    layers
        Only these layers of the vectors or the IRM, as in 10-20.
    system
        A system message.
    max_new_tokens
        Length of the answer at most.
    temperature
        0: greedy.
    seed
        Seed of the sampling.
    context
        Tokens of context.
    chat_template
        For a GGUF that has none: a file with a Jinja chat template, or a preset's name.
    """
    output = Output(common)
    if prompt is None:
        if sys.stdin.isatty():
            raise InputError("there is no prompt", 'give one with -p "..." or on standard input')
        prompt = sys.stdin.read().strip()
    if not prompt:
        raise InputError("the prompt is empty", 'give one with -p "..." or on standard input')
    if irm is not None and vector:
        raise InputError("--irm and --vector both steer", "give one of them")
    from irm_lite.base.fingerprint import fingerprint_gguf
    from irm_lite.base.presets import find_gguf, read_chat_template
    from irm_lite.llamacpp import Runtime
    from irm_lite.steering.control_vector import load_sum
    from irm_lite.steering.layers import parse_layers

    if layers is not None and irm is None and not vector:
        raise InputError("--layers limits what steers, and nothing does", "give --vector or --irm")
    model_file = find_gguf(gguf)
    steering = load_sum(vector or [])
    trained, strength = _load_irm(irm) if irm is not None else (None, 1.0)
    if trained is not None:
        output.tell_matches([trained.match(fingerprint_gguf(model_file), model_file.name)])
    template = read_chat_template(chat_template) if chat_template else None
    network = trained.irm if trained else None
    with Runtime(model_file, irm=network, n_ctx=context, chat_template=template) as runtime:
        chosen = None if layers is None else parse_layers(layers, runtime.model.n_layers, first=0 if network else 1)
        if steering is not None:
            output.tell_matches([steering.require_fit(runtime.model.fingerprint, model_file.name)])
            runtime.set_vector(steering, layers=chosen)
        if runtime.dynamic is not None:
            runtime.dynamic.strength, runtime.dynamic.layers = strength, chosen
        messages = [{"role": "user", "content": prompt}]
        if system:
            messages.insert(0, {"role": "system", "content": system})
        pieces = []
        for piece in runtime.generate(messages, max_new_tokens=max_new_tokens, temperature=temperature, seed=seed):
            pieces.append(piece)
            if not output.json:
                sys.stdout.write(safe(piece))
                sys.stdout.flush()
    if output.json:
        output.result({"prompt": prompt, "text": "".join(pieces), "gguf": str(model_file), "vectors": vector or [], "irm": irm})
    else:
        sys.stdout.write("\n")


def _load_irm(argument: str) -> tuple["TrainedRun", float]:
    """RUN[:STRENGTH]."""
    from irm_lite.runs.trained import load_run
    from irm_lite.steering.control_vector import parse_vector_argument

    path, strength = parse_vector_argument(argument)
    return load_run(path), strength
