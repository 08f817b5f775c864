"""A stand-in for `irm-lite serve`: the protocol of docs/serve.md with answers made of the request, and no model.

The name given by --gguf chooses how it behaves: dies, rubbish, newer, slow (writes until it is stopped), or any other.
"""

import base64
import json
import struct
import sys
from typing import Any

mode = sys.argv[sys.argv.index("--gguf") + 1].removesuffix(".gguf")
columns: dict[str, dict[str, Any]] = {"base": {}}


def say(kind: str, **values: Any) -> None:
    print(json.dumps({"kind": kind, **values}), flush=True)


def ready(request: Any = None) -> None:
    model = {"path": mode, "n_layers": 4, "hidden_size": 8, "context": 64}
    say("ready", id=request, protocol=99 if mode == "newer" else 1, version="0", model=model, columns=columns)


def of(name: str, steering: dict[str, Any]) -> dict[str, Any]:
    """A column's own: nothing steers the base, and an adapter has no layers."""
    own = {"base": (), "adapter": ("strength",)}.get(name, ("strength", "layers"))
    return {key: steering[key] for key in own}


def chat(request: dict[str, Any]) -> None:
    asked, names, strength = request["id"], list(request["messages"]), request["strength"]
    steering = {"strength": strength, "layers": "1-3"}
    for name in names:
        say("start", id=request["id"], column=name, prompt_tokens=3, **of(name, steering))
    turns = {name: len(request["messages"][name]) for name in names}
    pieces = {name: [name, " turn", f" {turns[name]}", " at", f" {strength:g}", " [b]x[/b]\x1b[31m"] for name in names}
    for number in range(6):
        for name in names:
            norm = None if name in ("base", "adapter") else (number + 1.0) * abs(strength)
            say("token", id=request["id"], column=name, token=number, text=pieces[name][number], norm=norm)
    if mode == "slow":
        request = json.loads(sys.stdin.readline())
        while request["do"] != "stop":
            steering |= {key: request[key] for key in ("strength", "layers") if key in request}
            token = len(pieces[names[0]])
            about = {name: {"token": token} | of(name, steering) for name in names}
            say("set", id=request["id"], chat=asked, columns=about)
            for name in names:
                text = f" <{request.get('strength', '')}|{request.get('layers', '')}>"
                say("token", id=asked, column=name, token=token, text=text, norm=2.0)
                pieces[name].append(text)
            request = json.loads(sys.stdin.readline())
    for name in names:
        say(
            "end",
            id=asked,
            column=name,
            reason="turn",
            text="".join(pieces[name]),
            tokens=6,
            seconds=0.1,
        )


if mode == "dies":
    sys.exit("irm-lite: the model [red]went[/red] away: bring it back")
if mode == "rubbish":
    print("what?\n[1, 2]\n" + '{"kind": "token"}\n{"kind": "ready", "protocol": 1, "model": {}, "columns": {}}', flush=True)
    sys.stdout.buffer.write(b"\xff\xfe\n")
say("loading", id=None, what=mode)
ready()
for line in sys.stdin:
    request = json.loads(line)
    match request["do"]:
        case "load":
            column = next(name for name in ("vector", "irm", "adapter") if name in request)
            source = request[column]
            if source is None:
                columns.pop(column, None)
                ready(request["id"])
            elif "broken" in source:
                say("error", id=request["id"], column=column, text=f"{source} is damaged: make it again")
            else:
                layers = {} if column == "adapter" else {"layers": "1-3"}
                columns[column] = {"sources": [source], "warning": None, **layers}
                ready(request["id"])
        case "chat" if request["max_new_tokens"] < 1:
            say("error", id=request["id"], text="max_new_tokens 0 is out of range: give a whole number from 1 to 16777216")
        case "chat":
            chat(request)
            asked = request["id"]
        case "outputs":
            values = [0.0] * 24
            values[request["token"]] = 5.0
            data = base64.b64encode(struct.pack("<24e", *values)).decode()
            where = {"column": request["column"], "token": request["token"]}
            say("outputs", id=request["id"], chat=asked, **where, strength=0.5, layers=[1, 2, 3], shape=[3, 8], float16=data)
