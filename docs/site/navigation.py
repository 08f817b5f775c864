"""The site's navigation is docs/README.md's own lists: each `## Part` with links in a list becomes a part of the side bar."""

import posixpath
import re

LINK = re.compile(r"^[ ]*- \[[^\]]+\]\((?P<target>[^)#]+\.(?:md|ipynb))\)", re.MULTILINE)


def add_toctrees(app: object, docname: str, source: list[str]) -> None:
    """Put the hidden trees of its lists behind docs/README.md (Sphinx's `source-read`)."""
    if docname == "docs/README":
        source[0] += "".join(tree(title, pages) for title, pages in parts(source[0]))


def parts(text: str) -> list[tuple[str, list[str]]]:
    """Each part's title with its pages, as links from docs/."""
    found = []
    for part in text.split("\n## ")[1:]:
        title, _, body = part.partition("\n")
        found.append((title.strip(), [match["target"] for match in LINK.finditer(body)]))
    return found


def tree(title: str, pages: list[str]) -> str:
    names = [posixpath.splitext(page)[0] for page in pages]
    return "\n".join(["\n", "```{toctree}", ":hidden:", f":caption: {title}", "", *names, "```", ""])
