"""Terminals, pipes and locales in another encoding than UTF-8."""

import io
import os
from pathlib import Path

import pytest

from irm_lite.core.machine.terminal import argument_text, forget_size_of_nothing, read_all
from support.elsewhere import irm_lite


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ["cp1252", "ascii:strict", "koi8-r"])
def test_a_terminal_that_lacks_a_character_shows_another(encoding: str, llama_gguf: Path) -> None:
    """On Windows an answer with a character that the code page lacks ended in its middle, and the input was blamed for it."""
    ask = ["generate", "--gguf", llama_gguf, "-p", "Why? \u732b", "--max-new-tokens", "24"]
    plain, odd = irm_lite(*ask, PYTHONIOENCODING="utf-8"), irm_lite(*ask, PYTHONIOENCODING=encoding)
    assert (odd.returncode, odd.stderr) == (0, plain.stderr)
    code_page = encoding.partition(":")[0]
    assert odd.stdout == plain.stdout.decode().encode(code_page, errors="replace") != plain.stdout
    for verb in (["data", "check", "anger"], ["models", "list"], ["train", "--help"], ["--help"]):
        done = irm_lite(*verb, PYTHONIOENCODING=encoding)
        assert done.returncode == 0
        assert len(done.stdout.decode(code_page).splitlines()) > 5


@pytest.mark.slow
def test_a_prompt_is_the_same_in_a_locale_that_lacks_its_characters(llama_gguf: Path) -> None:
    """A container without a locale: Python has no name for the bytes of "naive" with its dots."""
    ask = ["generate", "--gguf", llama_gguf, "-p", "Why na\u00efve \u732b?", "--max-new-tokens", "12", "--json"]
    plain = irm_lite(*ask)
    bare = irm_lite(*ask, LC_ALL="C", PYTHONCOERCECLOCALE="0", PYTHONUTF8="0")
    assert (bare.returncode, bare.stdout) == (0, plain.stdout)


def test_standard_input_is_utf_8_or_what_the_terminal_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """A prompt from a file in UTF-8 under a code page, and one that was typed under it."""
    for data in ("na\u00efve".encode(), "na\u00efve".encode("cp1252"), "\ufeffna\u00efve".encode()):
        assert read_all(io.TextIOWrapper(io.BytesIO(data), encoding="cp1252")) == "na\u00efve"
    with pytest.raises(UnicodeError):
        read_all(io.TextIOWrapper(io.BytesIO(b"\xff"), encoding="ascii"))
    assert argument_text("na\u00efve") == "na\u00efve"
    assert argument_text(os.fsdecode(b"na\xc3")[:2] + "\udcc3\udcaf") == "na\u00ef"
    for size, kept in (("0", False), ("00", False), ("80", True), ("", True), ("99999999", False)):
        monkeypatch.setenv("COLUMNS", size)
        forget_size_of_nothing()
        assert ("COLUMNS" in os.environ) is kept
