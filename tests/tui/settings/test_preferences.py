"""Preferences are kept, the user's file is the user's, and a damaged one costs nothing but a line."""

from pathlib import Path

from irm_lite_tui.settings.preferences import Preferences, load_preferences, save_preferences
from support.tui_helpers import own_place

__all__ = ["own_place"]


def test_what_is_saved_reads_back(own_place: Path) -> None:
    kept = Preferences(theme="irm-light", sort="NLL", descending=True, colours="purple-green", robust=False)
    assert save_preferences(kept) == ""
    assert [each.name for each in own_place.iterdir()] == ["state.toml"]
    assert load_preferences() == (kept, [])


def test_what_another_ui_has_saved_meanwhile_stays(own_place: Path) -> None:
    one, other = Preferences(), Preferences()
    one.theme, other.sort = "irm-light", "NLL"
    save_preferences(one, "theme")
    save_preferences(other, "sort", "descending")
    assert load_preferences() == (Preferences(theme="irm-light", sort="NLL"), [])


def test_none_yet(own_place: Path) -> None:
    assert load_preferences() == (Preferences(), [])


def test_the_users_file_goes_before(own_place: Path) -> None:
    save_preferences(Preferences(theme="irm-light", sort="NLL", keys={"help": "f1"}))
    text = '# mine\ntheme = "irm-dark"\nunknown = 1\n[keys]\nquit = "f10"\n'
    (own_place / "tui.toml").write_text(text)
    found, complaints = load_preferences()
    assert (found, complaints) == (Preferences(theme="irm-dark", sort="NLL", keys={"quit": "f10"}), [])
    save_preferences(found)
    assert (own_place / "tui.toml").read_text() == text


def test_an_old_file_with_all_in_it(own_place: Path) -> None:
    """As the UI wrote it before it had a file of its own."""
    own_place.mkdir()
    (own_place / "tui.toml").write_text('theme = "irm-light"\nsort = "NLL"\ndescending = true\n\n[keys]\nquit = "f10"\n')
    assert load_preferences() == (Preferences("irm-light", "NLL", True, keys={"quit": "f10"}), [])


def test_a_damaged_file(own_place: Path) -> None:
    own_place.mkdir()
    (own_place / "tui.toml").write_bytes(b'theme = "\xff')
    (own_place / "state.toml").write_text('sort = "NLL"\n')
    preferences, complaints = load_preferences()
    assert preferences == Preferences(sort="NLL")
    assert len(complaints) == 1
    assert "tui.toml cannot be read" in complaints[0]
    assert "fix or remove it" in complaints[0]


def test_a_value_of_the_wrong_type(own_place: Path) -> None:
    own_place.mkdir()
    (own_place / "tui.toml").write_text('theme = 3\nsort = "NLL"\n[keys]\nquit = 7\n')
    preferences, complaints = load_preferences()
    assert preferences == Preferences(sort="NLL")
    assert "theme, keys of the wrong type" in complaints[0]


def test_a_place_that_cannot_be_written(own_place: Path) -> None:
    own_place.write_text("a file")
    assert "preferences are not saved" in save_preferences(Preferences())
