"""The page of --json's documents: what the verbs print on a tiny model, key by key. RENEW=1 writes it anew."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from irm_lite.cli.main import run
from irm_lite.cli.overview import VERBS
from support.documents import ROOT
from support.workshop import copied

PAGE = ROOT / "docs" / "reference" / "json.md"
BEGINS, ENDS = "<!-- made by tests/docs/test_json.py -->\n", "<!-- to here -->\n"
ELSEWHERE = {"serve", "demo", "analyze"}  # a protocol of its own; export's document and the answers; report.json's numbers
_QUICK = "--model model.gguf --quant none --data mine.jsonl --max-steps 2 --sample-tokens 0 --loop-penalty 0"
LINES = (
    "doctor",
    "data check mine.jsonl",
    "data rewrite mine.jsonl --tone furious --show-prompt",
    f"train {_QUICK} --out runs/other",
    "sweep grid.toml -o runs/grid --list",
    "export runs/other --questions 0",
    "eval runs/mine --questions 0",
    "generate --gguf model.gguf --vector mine.gguf --max-new-tokens 2 -p Hello",
    "bake mine.gguf --gguf model.gguf -o baked.gguf",
    "bake --undo baked.gguf -o original.gguf",
    "calibrate mine.gguf --gguf model.gguf --data anger --strengths 1 --layers 1-2",
    "publish runs/mine --to published",
    "reproduce published -o runs/again --model model.gguf --data mine.jsonl",
    "vector list",
    "vector info mine.gguf",
    "vector merge anger.gguf joy.gguf:-0.5 -o mix.gguf",
    "record runs/mine --limit 2 --new-tokens 2",
    "heatmap runs/mine",
    "ablate runs/mine --index 7 --samples 4",
    "models list",
    "models fit --model model.gguf --memory 8GB",
    "models inspect model.gguf --top 2",
)


def kind(value: Any) -> str:
    """What a value is, in a word or with its keys."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"`{key}`" for key in value) + "}" if value else "{}"
    if isinstance(value, list):
        return f"list of {kind(value[0])}" if value else "list"
    words = {bool: "true or false", int: "number", float: "number", str: "text", type(None): "null"}
    return words[type(value)]


def described(line: str, document: dict[str, Any]) -> str:
    words = line.split()
    verb = " ".join(words[: 2 if words[0] in ("data", "vector", "models") else 1])
    title = verb + (" --undo" if "--undo" in line else "")
    rows = "\n".join(f"| `{key}` | {kind(value)} |" for key, value in document.items())
    return f"## irm-lite {title}\n\n| key | is |\n|---|---|\n{rows}\n"


@pytest.mark.slow
def test_the_page_is_what_the_verbs_print(
    workshop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(copied(workshop, tmp_path / "folder"))
    Path("grid.toml").write_text("[grid]\nseed = [0, 1]\n", encoding="utf-8")
    parts = []
    for line in LINES:
        run([*line.split(), "--json"])  # doctor's exit code is of this machine
        printed = capsys.readouterr()
        assert printed.out, f"{line}: {printed.err}"
        parts.append(described(line, json.loads(printed.out)))
    made = "\n" + "\n".join(parts) + "\n"
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGINS)
    there, _, after = rest.partition(ENDS)
    if os.environ.get("RENEW"):
        PAGE.write_text(before + BEGINS + made + ENDS + after, encoding="utf-8")
        return
    assert there == made, "RENEW=1 writes it anew"


def test_every_verb_has_its_document() -> None:
    assert {line.split()[0] for line in LINES} | ELSEWHERE == set(VERBS)
