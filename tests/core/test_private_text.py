"""What is pasted into issues or given away: paths and names are found in it, and nothing else is taken for one."""

from pathlib import Path

import pytest

from irm_lite.core.private_text import blanked, blanked_document, told_apart, without_folders, without_paths


@pytest.mark.parametrize(
    "text",
    [
        "https://example.org/a/b and http://127.0.0.1:8080/v1/chat",
        "HuggingFaceTB/SmolLM2-135M-Instruct",
        "1/2, and/or, n/a, /think, </td>",
        "pip install 'irm-lite[data]'",
        "cpu (x86_64); activations bfloat16",
    ],
)
def test_what_is_no_path_stays(text: str) -> None:
    assert without_paths(text) == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("no file in /home/ann/models/a.gguf: give another", "no file in <path>: give another"),
        ("'/opt/x/lib.so' --x=/data/y (~/z)", "'<path>' --x=<path> (<path>)"),
        ("C:\\Users\\ann\\a.gguf, \\\\server\\share\\b", "<path>, <path>"),
        ("libggml.so:/usr/lib/x.so: cannot open", "libggml.so:<path>: cannot open"),
    ],
)
def test_paths_of_any_system_are_blanked(text: str, expected: str) -> None:
    assert without_paths(text) == expected


def test_a_home_with_blanks_and_names_of_user_and_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    home = tmp_path / "Ann Doe"
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("USER", "anndoe")
    monkeypatch.setattr("platform.node", lambda: "ann-laptop.example.org")
    said = blanked(f"{home}/models/a b.gguf was made by AnnDoe on ann-laptop, not by joann-laptops or anndoes")
    assert said == "<path> b.gguf was made by <user> on <machine>, not by joann-laptops or anndoes"
    assert blanked_document({"a": [f"{home}", 1, None], "anndoe": {"b": "anndoe"}}) == {
        "a": ["<path>", 1, None],
        "anndoe": {"b": "<user>"},
    }


def test_a_name_is_left_of_a_path_alone(tmp_path: Path) -> None:
    assert without_folders(f"{tmp_path}/a b/c.gguf (nf4)") == "c.gguf (nf4)"
    assert without_folders("owner/name (nf4)") == "owner/name (nf4)"


def test_paths_are_told_apart_by_as_few_parts_as_need_be() -> None:
    assert told_apart(["/a/x/mine.csv", "/a/y/mine.csv", "/a/x/mine.csv", "mine.csv"]) == {
        "/a/x/mine.csv": "x/mine.csv",
        "/a/y/mine.csv": "y/mine.csv",
        "mine.csv": "mine.csv",
    }
    assert told_apart(["/a/x/mine.csv", "neutral"]) == {"/a/x/mine.csv": "mine.csv", "neutral": "neutral"}
    assert told_apart([]) == {}


def test_names_that_tell_of_nobody_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("USER", "LOGNAME", "USERNAME"):
        monkeypatch.setenv(name, "root")
    monkeypatch.setenv("HOME", "/root")
    assert blanked("root cause") == "root cause"
