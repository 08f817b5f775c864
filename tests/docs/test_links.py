"""Links between the documents, as GitHub and the site follow them: each leads to a file and, behind a #, to a heading."""

from pathlib import Path
from urllib.parse import unquote

import pytest

from support.documents import ROOT, anchors, links, name, pages


@pytest.mark.parametrize("page", pages(), ids=name)
def test_each_link_leads_somewhere(page: Path) -> None:
    astray = []
    for link in links(page):
        place, _, anchor = unquote(link).partition("#")
        if "://" in place or place.startswith("mailto:"):
            continue
        target = (page.parent / place).resolve() if place else page
        if not target.is_file() or ROOT not in target.parents:
            astray.append(link)  # a folder is none: the site has no page for it
        elif anchor and target.suffix == ".md" and anchor not in anchors(target):
            astray.append(link)
    assert not astray


def test_anchors_are_githubs() -> None:
    """Against what GitHub gives for these headings, looked up by hand."""
    assert {"the-words", "the-way-of-a-sample", "contracts"} <= anchors(ROOT / "docs/architecture.md")
    assert "how-well-does-the-effect-survive" in anchors(ROOT / "docs/guide.md")
    assert "how-to-add-an-irm-kind" in anchors(ROOT / "CONTRIBUTING.md")


def test_every_page_is_in_the_contents() -> None:
    """docs/README.md's lists are the site's navigation: what is not in them is found by nobody."""
    contents = ROOT / "docs/README.md"
    listed = {(contents.parent / link).resolve() for link in links(contents) if "#" not in link}
    assert {name(page) for page in pages()} - {name(page) for page in listed if ROOT in page.parents} == {"docs/README.md"}
