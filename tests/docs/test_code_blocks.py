"""Code in the documents: what says that it runs is run as it stands, every command line is one that irm-lite takes, and every
TOML and JSON block can be read.

A block with `<!-- runs -->` before it is run in a folder with a tiny model (`model.gguf`), data (`mine.jsonl`), a run
(`runs/mine`) and vectors (`mine.gguf`, `anger.gguf`, `joy.gguf`); a page's blocks run one after the other in one folder.
"""

import json
import tomllib
from pathlib import Path

import pytest

from irm_lite.cli.app import app
from irm_lite.cli.main import run
from irm_lite.config import TrainConfig
from irm_lite.jobs.sweep import read_sweep
from support.documents import HISTORY, ROOT, Block, blocks, commands, name, pages
from support.workshop import copied

BLOCKS = [(page, block) for page in pages() for block in blocks(page) if name(page) not in HISTORY]
RUNNABLE = sorted({page for page, block in BLOCKS if block.runs})
COMMANDS = [(name(page), line) for page, block in BLOCKS for line in commands(block.text) if block.language in ("", "sh") and line]


@pytest.mark.slow
@pytest.mark.parametrize("page", RUNNABLE, ids=name)
def test_what_says_that_it_runs_runs(page: Path, workshop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(copied(workshop, tmp_path / "folder"))
    names: dict[str, object] = {}
    for block in (each for each in blocks(page) if each.runs):
        _run(block, names)


def _run(block: Block, names: dict[str, object]) -> None:
    if block.language == "python":
        exec(compile(block.text, "<block>", "exec"), names)
        return
    lines = list(commands(block.text))
    assert len(lines) == len(block.text.strip().split("\n")), "a line that is not irm-lite's"
    for line in lines:
        assert run(line) == 0, line


def test_all_runnable_languages_are_known() -> None:
    assert {block.language for _, block in BLOCKS if block.runs} <= {"", "python"}
    assert len(RUNNABLE) > 5


@pytest.mark.parametrize(("where", "line"), COMMANDS, ids=lambda each: " ".join(each) if isinstance(each, list) else each)
def test_every_command_line_is_taken(where: str, line: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Its verb and flags are there, and their values of the right kind; nothing is started."""
    monkeypatch.setattr("irm_lite.cli.app.read_config_file", lambda path: {})
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")  # --download lifts it
    if "[" in " ".join(line):  # a synopsis
        return
    filled_in = ["1" if len(word) == 1 and word.isupper() else word for word in line]  # `--mark C`: an index to be chosen
    app.parse_args(filled_in, exit_on_error=False, print_error=False)


@pytest.mark.parametrize("page", pages(), ids=name)
def test_toml_and_json_can_be_read(page: Path, tmp_path: Path) -> None:
    for block in blocks(page):
        if block.language == "json":
            for line in block.text.strip().split("\n") if block.text.count("\n{") else [block.text]:
                json.loads(line)
        if block.language == "toml":
            found = tomllib.loads(block.text)
            if "keys" in found:
                continue
            if {"grid", "setting"} & set(found):
                (tmp_path / "sweep.toml").write_text(block.text, encoding="utf-8")
                assert read_sweep(tmp_path / "sweep.toml")
            else:
                TrainConfig.from_dict(found, "the block")


def test_no_block_that_runs_leaves_the_folder() -> None:
    """What the examples need is in the folder that the tests make: nothing of this machine."""
    text = "".join(block.text for _, block in BLOCKS if block.runs)
    assert str(ROOT) not in text
    assert "~/" not in text
