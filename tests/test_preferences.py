"""Preferences are kept, and a damaged file costs nothing but a line."""

import tomllib
from pathlib import Path

from irm_lite_tui.preferences import Preferences, load_preferences, preferences_file, save_preferences
from tui_helpers import own_place

__all__ = ["own_place"]


def test_what_is_saved_reads_back(own_place: Path) -> None:
    kept = Preferences(theme="irm-light", sort="NLL", descending=True, keys={"quit": "f10"})
    assert save_preferences(kept) == ""
    assert preferences_file() == own_place / "tui.toml"
    assert tomllib.loads((own_place / "tui.toml").read_text())["keys"] == {"quit": "f10"}
    assert load_preferences() == (kept, "")


def test_none_yet(own_place: Path) -> None:
    assert load_preferences() == (Preferences(), "")


def test_a_damaged_file(own_place: Path) -> None:
    own_place.mkdir()
    (own_place / "tui.toml").write_bytes(b'theme = "\xff')
    preferences, complaint = load_preferences()
    assert preferences == Preferences()
    assert "mend or remove it" in complaint


def test_a_value_of_the_wrong_type(own_place: Path) -> None:
    own_place.mkdir()
    (own_place / "tui.toml").write_text('theme = 3\nsort = "NLL"\n[keys]\nquit = 7\n')
    preferences, complaint = load_preferences()
    assert preferences == Preferences(sort="NLL")
    assert "theme, keys of the wrong type" in complaint


def test_a_place_that_cannot_be_written(own_place: Path) -> None:
    own_place.write_text("a file")
    assert "preferences are not kept" in save_preferences(Preferences())
