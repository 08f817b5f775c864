"""The page in a real browser: asked, its slider moved in mid-answer, its link followed; and judged by axe-core."""

import importlib.metadata
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from irm_lite.llamacpp import Model
from irm_lite.serve.http.settings import Settings
from irm_lite.serve.http.shelf import Shelf
from irm_lite.serve.http.writing import Writing
from support import browser
from support.live_server import PATIENCE, LiveServer, live_server

needs_browser = pytest.mark.skipif(not (browser.CHROMIUM and browser.DRIVER), reason="chromium and chromedriver are not installed")
BOTH_DONE = "document.getElementById('status').textContent === 'The answers are there.'"
TEXTS = "return columns.map((each) => each.find('.answer').textContent)"


def slide(page: browser.Page, column: int, scale: float) -> None:
    """As a hand moves it: the value and its event."""
    page.run(
        "const slider = columns[arguments[0]].find('.scale'); slider.value = arguments[1];"
        "slider.dispatchEvent(new Event('input', {bubbles: true}))",
        column,
        scale,
    )


def ask_for_sixty_tokens(page: browser.Page, address: str) -> None:
    page.open(address)
    page.until("columns.length === 2")
    page.run("document.getElementById('tokens').value = 60; document.getElementById('ask').click()")


def axe(page: browser.Page) -> list[dict[str, Any]]:
    """What axe-core finds serious or worse."""
    files = importlib.metadata.files("axe-core-python") or []
    source = next(each for each in files if each.name == "axe.min.js").locate()
    page.run(Path(str(source)).read_text(encoding="utf-8"))
    found: dict[str, Any] = page.await_result("axe.run()")
    assert found["passes"]  # it has looked
    return [each for each in found["violations"] if each["impact"] in ("serious", "critical")]


@pytest.mark.slow
@needs_browser
def test_a_slider_moves_in_mid_answer(model: Model, shelf: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reached, moved = Event(), Event()

    class Gated(Writing):
        """The steered answer waits in its middle for the slider; waiting in the other, it might not have begun."""

        def step(self) -> None:
            if self.job.steering.vector is not None and len(self._column.written) == 20:
                reached.set()
                assert moved.wait(PATIENCE)
            super().step()

    monkeypatch.setattr("irm_lite.serve.http.pool.Writing", Gated)
    with (
        live_server(model, shelf, Settings("tiny", port=0, contexts=3, context=256)) as server,
        browser.opened(tmp_path / "profile", "--window-size=1100,1400") as page,
    ):
        ask_for_sixty_tokens(page, server.url)
        assert reached.wait(PATIENCE)
        page.until("columns[1].id !== null")
        slide(page, 1, -1.5)
        page.until("columns[1].pending === null")
        moved.set()
        page.until(BOTH_DONE)
        plain, turned = page.run(TEXTS)
        assert page.run("return columns.map((each) => each.norms.length > 20)") == [False, True]
        assert len(set(page.run("return columns[1].norms.map((each) => each.toFixed(3))"))) == 2  # before and after
        page.run("document.getElementById('ask').click()")
        page.until("running && document.getElementById('stop').disabled === false")
        page.until(BOTH_DONE)
        again, whole = page.run(TEXTS)
        assert again == plain
        assert len({plain, turned, whole}) == 3
        assert axe(page) == []
        address = page.run("return location.href")
        (tmp_path / "page.png").write_bytes(page.picture())
        assert "angry%40-1.5" in address
        page.open("about:blank")
        page.open(address)
        page.until("columns.length === 2")
        assert page.run("return columns.map((each) => [each.name, each.scale])") == [["", 1], ["angry", -1.5]]
        assert page.console() == []


@pytest.mark.slow
@needs_browser
def test_a_slider_moves_before_the_first_token(model: Model, shelf: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked, moved, sent = Event(), Event(), Event()

    class Gated(Writing):
        def __init__(self, *job: Any) -> None:
            asked.set()
            assert moved.wait(PATIENCE)
            super().__init__(*job)

        def step(self) -> None:
            if self.job.steering.vector is not None and len(self._column.written) == 20:
                assert sent.wait(PATIENCE)
            super().step()

    monkeypatch.setattr("irm_lite.serve.http.pool.Writing", Gated)
    with (
        live_server(model, shelf, Settings("tiny", port=0, contexts=3, context=256)) as server,
        browser.opened(tmp_path / "profile", "--window-size=1100,1400") as page,
    ):
        ask_for_sixty_tokens(page, server.url)
        assert asked.wait(PATIENCE)
        slide(page, 1, -1.5)
        assert page.run("return columns.map((each) => each.id)") == [None, None]
        moved.set()
        page.until("columns[1].id !== null && columns[1].pending === null")
        sent.set()
        page.until(BOTH_DONE)
        last = "return columns[1].norms.at(-1).toFixed(3)"
        turned = page.run(last)
        page.run("document.getElementById('ask').click()")
        page.until("running && document.getElementById('stop').disabled === false")
        page.until(BOTH_DONE)
        assert page.run(last) == turned
        for _ in range(6):
            page.run("document.getElementById('add').click()")
        assert page.run("return columns.length") == 5
        assert page.console() == []


@pytest.mark.slow
@needs_browser
def test_pictures_of_what_steers(server: LiveServer, tmp_path: Path) -> None:
    with browser.opened(tmp_path / "profile", "--window-size=1100,1400") as page:
        page.open(f"{server.url}/#prompt=ocean&tokens=20&column=dynamic@1&column=tone@0.5")
        page.until("columns.length === 2 && document.getElementById('map-text').textContent !== ''")
        chosen = (
            ("tone", "is an adapter and has no picture"),
            ("dynamic", "depends on the text"),
            ("angry", "angry: layers 1-2; "),
        )
        for name, said in chosen:
            page.run(
                "const s = document.getElementById('shown'); s.value = arguments[0]; s.dispatchEvent(new Event('change'))", name
            )
            page.until(f"document.getElementById('map-text').textContent.includes({said!r})")
            assert page.run("return document.getElementById('map-place').hidden") is (name != "angry")
        page.run("document.getElementById('shown').value = 'dynamic'; document.getElementById('ask').click()")
        page.until(BOTH_DONE)
        said, count = page.run("return [document.getElementById('map-text').textContent, columns[0].norms.length]")
        assert said.startswith(f"dynamic: layers 1-2, the mean over the first {count} tokens of column 1's answer; the strongest ")
        assert page.run("return [document.getElementById('map-place').hidden, columns[1].norms.length]") == [False, 0]
        assert axe(page) == []
        assert page.console() == []
        (tmp_path / "page.png").write_bytes(page.picture())


@pytest.mark.slow
@needs_browser
def test_by_keyboard_with_a_key_and_in_the_dark(model: Model, vectors: Path, tmp_path: Path) -> None:
    shelf = Shelf(model, vectors)
    shelf.add_vector("angry", str(vectors / "angry.gguf"))
    settings = Settings("tiny", port=0, contexts=2, context=256, key="a-long-secret")
    dark = ("--window-size=600,1400", "--force-dark-mode", "--blink-settings=preferredColorScheme=0")
    with (
        live_server(model, shelf, settings) as server,
        browser.opened(tmp_path / "profile", *dark) as page,
    ):
        page.open(server.url)
        page.until("!document.getElementById('key-row').hidden")
        page.run("document.getElementById('key').focus()")
        page.press(*"a-long-secret", "\ue007")  # Enter
        page.until("columns.length === 2")
        page.run("document.getElementById('ask').focus()")
        page.press("\ue007")
        page.until(BOTH_DONE)
        page.run("columns[1].find('.scale').focus()")
        page.press("\ue014")  # Right
        assert page.run("return columns[1].scale") == 1.05
        assert "rgb(22, 22, 26)" in page.run("return getComputedStyle(document.body).backgroundColor")
        assert axe(page) == []


def test_nothing_of_the_page_is_loaded_from_elsewhere() -> None:
    folder = Path(__file__).parents[3] / "irm_lite" / "serve" / "http" / "static"
    for each in folder.iterdir():
        assert "//" not in each.read_text().replace("// ", "").replace("data:,", ""), each
