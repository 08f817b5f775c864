"""All keys: none is eaten, each has an id and can be another, and docs/keys.md lists them."""

import os
from pathlib import Path

import pytest
from textual.binding import Binding

from irm_lite_tui.app import IrmLiteApp
from irm_lite_tui.settings.keys import all_bindings, complaints, page
from irm_lite_tui.shared.ask import AskScreen
from irm_lite_tui.shared.mode_bar import ModeBar
from irm_lite_tui.train.screen import TrainScreen
from support.tui_helpers import own_place, screen_text, until

__all__ = ["own_place"]

PAGE = Path(__file__).parents[3] / "docs" / "keys.md"
EATEN = {"ctrl+b", "ctrl+s", "ctrl+q", "ctrl+z", "ctrl+backslash", "ctrl+\\"}  # tmux, flow control, signals
OTHERS = {
    "ctrl+a",
    "ctrl+i",
    "ctrl+m",
    "ctrl+j",
    "ctrl+h",
    "ctrl+left_square_bracket",
}  # screen; arrive as tab, enter, backspace, escape


def each_binding() -> list[tuple[type, Binding]]:
    """Found another way than by the modules: the subclasses of Textual's nodes that are ours."""
    from textual.dom import DOMNode

    all_bindings()  # imports all
    found: list[tuple[type, Binding]] = []
    left: list[type] = [DOMNode]
    while left:
        owner = left.pop()
        left += owner.__subclasses__()
        if owner.__module__.startswith("irm_lite_tui."):
            found += [(owner, each) for each in vars(owner).get("BINDINGS", ()) if isinstance(each, Binding)]
    return found


def test_every_binding_has_an_id_a_description_and_keys_that_arrive() -> None:
    found = each_binding()
    modules = {owner.__module__.removeprefix("irm_lite_tui.") for owner, _ in found}
    assert {"app", "shared.ask", "heatmap.dialogs.choose_file", "chat.widgets.slider", "heatmap.widgets.grid"} <= modules
    for owner, binding in found:
        assert binding.id, (owner, binding)
        assert binding.description, (owner, binding)
        keys = set(binding.key.split(","))
        assert not keys & (EATEN | OTHERS), (owner, binding)
        if keys & {"ctrl+pageup", "ctrl+pagedown"}:  # GNOME Terminal's tabs
            assert len(keys) > 1, (owner, binding)


def test_an_id_stands_for_one_thing() -> None:
    known = all_bindings()
    for owner, binding in each_binding():
        same = known[str(binding.id)]
        assert (same.key, same.description) == (binding.key, binding.description), owner


def test_keys_that_work_everywhere_are_no_screens() -> None:
    everywhere = {
        key
        for binding in IrmLiteApp.BINDINGS
        if isinstance(binding, Binding) and binding.priority
        for key in binding.key.split(",")
    }
    assert {"ctrl+p", "f8", "f9"} <= everywhere
    others = {key for owner, binding in each_binding() if owner is not IrmLiteApp for key in binding.key.split(",")}
    assert not everywhere & others


def test_the_page_lists_them() -> None:
    """RENEW=1 writes it."""
    if os.environ.get("RENEW"):
        PAGE.write_text(page(), encoding="utf-8")
    text = PAGE.read_text(encoding="utf-8")
    assert text == page()
    for _, binding in each_binding():
        assert f"| `{binding.id}` | {', '.join(binding.key.split(','))} |" in text


def test_an_unknown_id_is_told_with_the_nearest() -> None:
    assert complaints(["quit", "runs.filter"]) == []
    (line,) = complaints(["runs.fliter"])
    assert line == "[keys]: there is no binding 'runs.fliter'; the nearest is 'runs.filter'. docs/keys.md lists them"


@pytest.mark.slow
async def test_keys_of_ones_own_are_told_and_shown(tmp_path: Path, own_place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own_place.mkdir()
    keys = '"mode.train" = "ctrl+t"\n"train.start" = "[/x]"\n"ask.yes" = "j"\n"mode.next" = "f7"\n"qiut" = "z"\n'
    (own_place / "tui.toml").write_text(f"[keys]\n{keys}")
    monkeypatch.chdir(tmp_path)
    app = IrmLiteApp(Path("runs"))
    async with app.run_test(size=(100, 30)) as pilot:
        await until(pilot, lambda: any("'qiut'; the nearest is 'quit'" in each.message for each in app._notifications), "the line")
        await until(pilot, lambda: "ctrl+t   train a tone of your own" in screen_text(app), "the hint")
        await pilot.click(ModeBar, offset=(27, 0))
        await until(pilot, lambda: isinstance(app.screen, TrainScreen), "the form")
        assert " ctrl+t Train " in screen_text(app)
        assert "Start ([/x])" in screen_text(app)
        await pilot.press("tab", "f7")  # from within a field
        await until(pilot, lambda: app.current_mode == "heatmap", "the next screen")
        answers: list[bool | None] = []
        app.push_screen(AskScreen("Really?", "Go"), answers.append)
        await until(pilot, lambda: "Go (j)" in screen_text(app), "the question")
        await pilot.press("y", "j")
        await until(pilot, lambda: answers == [True], "the answer")


@pytest.mark.slow
@pytest.mark.usefixtures("own_place")
async def test_screens_turn_from_within_a_field(tmp_path: Path) -> None:
    app = IrmLiteApp(tmp_path)
    async with app.run_test(size=(100, 30)) as pilot:
        await pilot.press("f9")
        await until(pilot, lambda: app.current_mode == "train", "the form")
        await pilot.press("tab", "f8")
        await until(pilot, lambda: app.current_mode == "runs", "the runs")
