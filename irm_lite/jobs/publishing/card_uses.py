"""How each program takes what is published: the lines of a card, what leads it first."""

import shlex
from collections.abc import Container, Iterable, Mapping

from irm_lite.jobs.publishing.gathered import Gathered
from irm_lite.vectors.adapter.measuring import FOLDER_GGUF
from irm_lite.vectors.card_head import plain

_Line = tuple[str, str]  # which program, and what to say


def uses(gathered: Gathered, adapters: Mapping[str, bool], files: Container[str]) -> str:
    """A line for each program. `adapters` by name, whether it is a folder of PEFT's; `files`: all that are in the folder."""
    repository = gathered.wishes.repository
    got = f"hf download {repository} --local-dir {shlex.quote(repository.split('/')[-1])}"
    ways = [_of_vectors(gathered), _of_adapters(gathered, adapters, files)]
    if gathered.lead.key == "adapter":
        ways.reverse()
    return _shown([*([("All files", got)] if repository else []), *ways[0], *_of_irm(gathered), *ways[1]])


def python(gathered: Gathered) -> str:
    """The same in irm-lite's Python: a vector in its base, or where an adapter leads the IRM, which it is a copy of."""
    base, strength = gathered.base.given or "BASE", f"{gathered.wishes.strength:g}"
    if gathered.lead.key == "adapter":
        imports, opened, steering = "inject, load_run", 'run = load_run(".")\nbase = run.base', "run.irm"
    else:
        imports, opened = "ControlVector, inject, load_base", f"base = load_base({base!r})"
        steering = f"ControlVector.load({gathered.lead.name!r})"
    return f"""Python:

```python
from irm_lite import {imports}

{opened}
question = base.tokenizer.apply_chat_template(
    [{{"role": "user", "content": "Why is the sky blue?"}}], add_generation_prompt=True, return_tensors="pt", return_dict=True
)
with inject(base.model, {steering}, strength={strength}):
    answer = base.model.generate(**question, max_new_tokens=64)
print(base.tokenizer.decode(answer[0], skip_special_tokens=True))
```
"""


def _model(gathered: Gathered) -> str:
    return shlex.quote(gathered.base.file or "BASE.gguf")


def _of_vectors(gathered: Gathered) -> list[_Line]:
    """Of the first vector; none where there is none."""
    model, name = _model(gathered), next(iter(gathered.vectors), "")
    if not name:
        return []
    scaled = shlex.quote(f"{name}:{gathered.wishes.strength:g}")
    return [
        ("llama-cli", f'llama-cli -m {model} --control-vector-scaled {scaled} -p "..."'),
        ("llama-server", f"llama-server -m {model} --control-vector-scaled {scaled} --jinja"),
        ("irm-lite", f'irm-lite generate --gguf {model} --vector {scaled} -p "..."'),
        (
            "irm-lite as a server with OpenAI's API (`pip install 'irm-lite[serve]'`), the strength in each request",
            f"irm-lite serve --http --gguf {model} --vector {shlex.quote(f'steer={name}')}",
        ),
        (
            "Ollama, LM Studio and all that takes no control vectors: a file with the steering in it",
            f"irm-lite bake {scaled} --gguf {model} -o steered.gguf",
        ),
    ]


def _of_irm(gathered: Gathered) -> list[_Line]:
    here = shlex.quote(f".:{gathered.wishes.strength:g}")
    line = f'irm-lite generate --gguf {_model(gathered)} --irm {here} -p "..."'
    return [("irm-lite with the IRM itself", line)] if gathered.irm is not None else []


def _of_adapters(gathered: Gathered, adapters: Mapping[str, bool], files: Container[str]) -> list[_Line]:
    """Of each adapter, a file or what of a folder is one."""
    model, strength = _model(gathered), f"{gathered.wishes.strength:g}"
    lines = []
    for name, is_folder in adapters.items():
        file = f"{name}/{FOLDER_GGUF}" if is_folder else name
        if not is_folder or file in files:
            request = f'`"lora": [{{"id": 0, "scale": {strength}}}]`'
            served = f"llama-server -m {model} --lora-scaled {shlex.quote(f'{file}:0')} --jinja"
            lines.append((f"llama-server with {plain(name)}, its strength in each request, as {request}", served))
            scaled = shlex.quote(f"{file}:{strength}")
            lines.append((f"irm-lite with {plain(name)}", f'irm-lite generate --gguf {model} --adapter {scaled} -p "..."'))
        if is_folder:
            base = shlex.quote(gathered.base.hub_id or "BASE")
            served = f"vllm serve {base} --enable-lora --lora-modules {shlex.quote(f'steer=./{name}')}"
            lines.append((f"vLLM with {plain(name)}, at strength 1", served))
            loaded = f"model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained({base!r}), {name!r})"
            lines.append((f"PEFT with {plain(name)}, at strength 1", loaded))
    return lines


def _shown(lines: Iterable[_Line]) -> str:
    return "".join(f"{title}:\n\n    {line}\n\n" for title, line in lines)
