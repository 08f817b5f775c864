"""The site, built as `make docs` builds it: without a warning, without the network, and nothing in it comes from elsewhere."""

import os
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

import irm_lite
from irm_lite.cli.overview import VERBS
from irm_lite.config import TrainConfig
from support.documents import ROOT

pytest.importorskip("sphinx", reason="pip install -e '.[docs]'")
_LOADS = {"link": "href", "script": "src", "img": "src", "source": "src", "iframe": "src", "object": "data"}
_COMMAND = ["--builder", "html", "--conf-dir", "docs/site", "--fail-on-warning", "--keep-going", "--quiet", "."]
_OFFLINE = {"http_proxy": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9", "no_proxy": ""}  # nobody answers there


class Page(HTMLParser):
    """What a page loads, where it leads, and its anchors."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value for name, value in attrs if value is not None}
        self.anchors |= {values[name] for name in ("id", "name") if name in values}
        if tag in _LOADS and _LOADS[tag] in values:
            self.loads.append(values[_LOADS[tag]])
        if tag == "a" and "href" in values:
            self.links.append(values["href"])


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", *_COMMAND, str(folder)]
    environment = {**os.environ, **_OFFLINE}
    built = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=1800, check=False)
    assert (built.returncode, built.stderr) == (0, "")
    return folder


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Page]:
    return {path: Page(path) for path in sorted(site.rglob("*.html")) if "_downloads" not in path.parts}


@pytest.mark.slow
def test_nothing_is_loaded_from_elsewhere(site: Path, pages: dict[Path, Page]) -> None:
    assert len(pages) > 35
    assert not {each for page in pages.values() for each in page.loads if urlsplit(each).netloc}
    styles = "".join(path.read_text(encoding="utf-8") for path in (site / "_static").rglob("*.css"))
    assert "url(http" not in styles.replace('"', "").replace("'", "")
    assert "@import" not in styles


@pytest.mark.slow
def test_every_link_of_the_site_leads_somewhere(site: Path, pages: dict[Path, Page]) -> None:
    astray = []
    for path, page in pages.items():
        for link in {*page.links, *page.loads}:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc or (not parts.path and not parts.fragment):
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            lost = parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].anchors
            if lost or not target.is_file():
                astray.append(f"{path.relative_to(site)}: {link}")
    assert not astray


@pytest.mark.slow
def test_the_reference_has_what_the_code_has(site: Path, pages: dict[Path, Page]) -> None:
    reference = site / "docs" / "reference"
    assert {f"irm-lite-{verb}" for verb in VERBS} <= pages[reference / "verbs.html"].anchors
    assert {f"irm_lite.{name}" for name in irm_lite.__all__ if name != "__version__"} <= pages[reference / "api.html"].anchors
    settings = (reference / "settings.html").read_text(encoding="utf-8")
    assert not [name for name in TrainConfig().to_dict() if f">{name}<" not in settings]
    messages = (reference / "messages.html").read_text(encoding="utf-8")
    assert "is not on this machine" in messages
    assert "hf auth login" in messages
