"""The documents as GitHub and the site read them: their pages, links, anchors and blocks of code."""

import json
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).parents[2]
RUNS = "<!-- runs -->"  # before a block of code that a test runs as it stands
HISTORY = {"docs/log.md", "CHANGELOG.md"}  # tell of what was
_SHELL = {"|", "||", "&&", ">", "<", ";", "&"}


@dataclass(frozen=True)
class Block:
    """A block of code: what it is written in ("" where it does not say), its text, and whether it says that it runs."""

    language: str
    text: str
    runs: bool


def pages() -> list[Path]:
    """All documents, notebooks too."""
    below = [path for suffix in ("md", "ipynb") for path in sorted((ROOT / "docs").rglob(f"*.{suffix}"))]
    return [*sorted(ROOT.glob("*.md")), *(path for path in below if ".ipynb_checkpoints" not in path.parts)]


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


@cache
def tokens(page: Path) -> tuple[Token, ...]:
    """A page's Markdown, parsed; of a notebook that of its cells."""
    text = page.read_text(encoding="utf-8")
    if page.suffix == ".ipynb":
        cells = [each for each in json.loads(text)["cells"] if each["cell_type"] == "markdown"]
        text = "\n\n".join("".join(each["source"]) for each in cells)
    return tuple(MarkdownIt("gfm-like", {"linkify": False}).parse(text))


def links(page: Path) -> Iterator[str]:
    """The targets of a page's links and images."""
    for token in tokens(page):
        for each in token.children or ():
            target = each.attrs.get("href") or each.attrs.get("src")
            if target:
                yield str(target)


@cache
def anchors(page: Path) -> frozenset[str]:
    """The names of a page's headings, as GitHub makes them."""
    found: dict[str, int] = {}
    out = set()
    parsed = tokens(page)
    for at, token in enumerate(parsed):
        if token.type == "heading_open":
            title = "".join(each.content for each in parsed[at + 1].children or () if each.type in ("text", "code_inline"))
            slug = re.sub(r"[^\w\- ]", "", title.strip().lower()).replace(" ", "-")
            count = found[slug] = found.get(slug, -1) + 1
            out.add(slug if count == 0 else f"{slug}-{count}")
    return frozenset(out)


def blocks(page: Path) -> Iterator[Block]:
    """A page's blocks of code, indented and fenced."""
    marked = False
    for token in tokens(page):
        if token.type in ("code_block", "fence"):
            yield Block(token.info.strip(), token.content, marked)
        marked = token.type == "html_block" and token.content.strip() == RUNS


def commands(text: str) -> Iterator[list[str]]:
    """The command lines of irm-lite in a block, as lists of arguments: without what a shell does with them, and without "..."."""
    for line in text.replace("\\\n", " ").split("\n"):
        words = shlex.split(line.replace(";", " ; "), comments=True) if line.strip().startswith("irm-lite ") else []
        end = next((at for at, word in enumerate(words) if word in _SHELL), len(words))
        if words:
            yield [word for word in words[1:end] if word != "..."]
