"""The command lines with which an exported vector or a baked file is used elsewhere."""

import re
import shlex
from pathlib import Path


def vector_lines(gguf: str, vector: Path, strength: float) -> list[tuple[str, str]]:
    """(title, line) for what takes control vectors."""
    model, name = shlex.quote(gguf), shlex.quote(str(vector))
    steer = f"--control-vector {name}" if strength == 1 else f"--control-vector-scaled {name}:{strength:g}"
    return [
        ("llama-cli with the vector", f'llama-cli -m {model} {steer} -p "..."'),
        ("llama-server with the vector", f"llama-server -m {model} {steer}"),
        ("irm-lite with the vector", f'irm-lite generate --gguf {model} --vector {shlex.quote(f"{vector}:{strength:g}")} -p "..."'),
    ]


def adapter_lines(gguf: str, adapter: Path, strength: float) -> list[tuple[str, str]]:
    """(title, line) for what takes LoRA adapters (docs/adapter.md)."""
    model = shlex.quote(gguf)
    scaled = shlex.quote(f"{adapter}:{strength:g}")
    body = f'{{"messages": [{{"role": "user", "content": "..."}}], "lora": [{{"id": 0, "scale": {strength:g}}}]}}'
    return [
        # --lora-init-without-apply leaves the scale of requests that say nothing at 1
        ("llama-server with the adapter", f"llama-server -m {model} --lora-scaled {shlex.quote(f'{adapter}:0')}"),
        ("a request to it, at this strength", f"curl http://127.0.0.1:8080/v1/chat/completions -d '{body}'"),
        ("llama-cli with the adapter", f'llama-cli -m {model} --lora-scaled {scaled} -p "..."'),
        ("irm-lite with the adapter", f'irm-lite generate --gguf {model} --adapter {scaled} -p "..."'),
    ]


def name_problem(vector: Path) -> str:
    """Why llama.cpp cannot take a vector or an adapter of this name, empty where it can: it splits the argument there."""
    return f"llama.cpp splits {vector} at its ':' or ',': give another name" if re.search("[:,]", str(vector)) else ""


def baked_lines(baked: Path) -> list[tuple[str, str]]:
    """(title, line) for a baked file, which is an ordinary model."""
    name = shlex.quote(str(baked))
    model = re.sub(r"[^a-z0-9._-]+", "-", baked.stem.lower()).strip("-._") or "steered"
    ollama = f"printf 'FROM %s\\n' {shlex.quote(str(baked.absolute()))} > Modelfile && ollama create {model} -f Modelfile"
    return [
        ("llama-cli with the baked file", f'llama-cli -m {name} -p "..."'),
        ("llama-server with the baked file", f"llama-server -m {name}"),
        ("Ollama with the baked file", f"{ollama} && ollama run {model}"),
    ]
