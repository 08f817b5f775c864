"""What the reference says of the code is made from the code, where a page has a line `<!-- from the code: NAME -->`."""

import ast
import dataclasses
import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

ROOT = Path(__file__).parents[2]
MARK = re.compile(r"<!-- from the code: (?P<name>[a-z ]+) -->")


def fill_in(app: object, docname: str, source: list[str]) -> None:
    """Sphinx's `source-read`. Raises KeyError where a page asks for what there is not."""
    made = {"verbs": verbs, "settings": settings, "messages": messages, "presets": presets}
    source[0] = MARK.sub(lambda match: made[match["name"]](), source[0])


def indented_is_code(app: object, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """Docstrings are plain text: what is indented after a blank line is code there (`autodoc-process-docstring`), bars are bars."""
    text = "\n".join(lines)
    text = re.sub(r"(?m)^(?P<before>\S.*)\n\n(?=    \S)", r"\g<before>\n\n::\n\n", text)
    lines[:] = text.replace("|", "\\|").split("\n") if ">>>" not in text else text.split("\n")


def verbs() -> str:
    """Every verb with its flags, by cyclopts. What all share is said once, and the settings of a training stand at `train`."""
    from cyclopts.docs.markdown import generate_markdown_docs

    from irm_lite.cli.app import app
    from irm_lite.cli.output import Common
    from irm_lite.config import TrainConfig

    with mock.patch.object(sys, "argv", ["irm-lite"]):  # the usage of a verb begins with it
        text = generate_markdown_docs(app, heading_level=2, no_root_title=True, generate_toc=False)
    text = text.replace("```console", "```text")
    common = flags_of(Common)
    trained = flags_of(TrainConfig)
    _, *sections = re.split(r"(?m)^(?=#+ irm-lite )", text)
    shown = []
    for section in sections:
        lines = [line for line in joined(section) if not names(line) & common]
        if not section.startswith("## irm-lite train\n") and sum(bool(names(line) & trained) for line in lines) > len(trained) // 2:
            lines = [line for line in lines if not names(line) & trained]
            lines += ["", "And every [setting of `train`](#irm-lite-train)."]
        shown.append("\n".join(lines))
    return "\n".join(shown)


def joined(section: str) -> Iterator[str]:
    """The section's lines, each flag with its help on one."""
    return iter(re.sub(r"\n {8}", " ", section).split("\n"))


def names(line: str) -> set[str]:
    """The long flags that a line of a list explains."""
    flags = re.match(r"\* `([^`]*)`", line)
    return set(re.findall(r"--[a-z0-9-]+", flags[1])) if flags else set()


def flags_of(settings: type) -> set[str]:
    return {"--" + field.name.replace("_", "-") for field in dataclasses.fields(settings)}


def settings() -> str:
    """The settings of a training as a table: key, default, help."""
    from irm_lite.config import TrainConfig

    rows = ["| key | default | what it does |", "|---|---|---|"]
    for field, about in zip(dataclasses.fields(TrainConfig), helps(TrainConfig), strict=True):
        default = str(field.default).lower() if isinstance(field.default, bool) else repr(field.default).replace("'", '"')
        rows.append(f"| `{field.name}` | `{default}` | {cell(about)} |")
    return "\n".join(rows)


def helps(settings: type) -> list[str]:
    """The text below each field of a dataclass, as cyclopts and the form read it."""
    body = ast.parse(inspect.getsource(settings)).body[0].body
    fields = [at for at, each in enumerate(body) if isinstance(each, ast.AnnAssign)]
    return [" ".join(ast.literal_eval(body[at + 1].value).split()) for at in fields]


def presets() -> str:
    """The names of the presets, in a line."""
    from irm_lite.base.presets import presets as known

    return ", ".join(f"`{name}`" for name in known())


def messages() -> str:
    """Every error that the code raises, with the remedy that it prints, by the room that raises it."""
    shown: list[str] = []
    room = ""
    for place, what, hint in raised():
        if place.parts[1] != room:
            room = place.parts[1]
            shown += ["", f"## {ROOMS.get(room.removesuffix('.py'), room)}", "", "| message | remedy |", "|---|---|"]
        shown.append(f"| {cell(what)} | {cell(hint)} |")
    return "\n".join(shown)


ROOMS = {
    "analysis": "Recordings, pictures, reports",
    "base": "Models",
    "cli": "The command line",
    "config": "Settings",
    "core": "Files and the machine",
    "data": "Data",
    "jobs": "Demo, sweep, rewriting",
    "llamacpp": "llama.cpp",
    "runs": "Run directories",
    "scoring": "The score",
    "serve": "The server",
    "steering": "Vectors, adapters, IRMs, layers",
    "training": "Training",
    "vectors": "Export, bake, calibrate, adapters",
}


def raised() -> list[tuple[Path, str, str]]:
    """(file, message, remedy) of each error with a text of its own; what differs from time to time is "...". No doubles."""
    found: dict[tuple[str, str, str], tuple[Path, str, str]] = {}
    for path in sorted((ROOT / "irm_lite").rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and node.args and is_ours(node):  # raised there, or made for who raises it
                what, hint = (*map(wording, node.args[:2]), "")[:2]
                place = path.relative_to(ROOT)
                if re.search(r"[a-z]{3}", what):
                    found.setdefault((place.parts[1], what, hint), (place, what, hint))
    return sorted(found.values(), key=lambda each: (each[0].parts[1], each[1].strip(". `").lower()))


def is_ours(call: ast.Call) -> bool:
    from irm_lite.core import errors

    known = getattr(errors, getattr(call.func, "id", ""), None)
    return isinstance(known, type) and issubclass(known, errors.IrmLiteError)


def wording(node: ast.expr) -> str:
    """A text of the code with "..." where it has a value."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(str(each.value) if isinstance(each, ast.Constant) else "..." for each in node.values)
    return ""


def cell(text: str) -> str:
    """A text in a Markdown table, as it is."""
    return re.sub(r"([\\|*_`<>\[\]])", r"\\\1", " ".join(text.split()))
