"""What a text tells of this machine and its user: paths and names, found and blanked before it is given away."""

import getpass
import os
import platform
import re
import sys
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

PATH, USER, MACHINE = "<path>", "<user>", "<machine>"
_END = r"""[^\s'"<>`|,;()\[\]{}]*(?<![:.])"""  # the rest of a path, without what ends a sentence
_ABSOLUTE = re.compile(  # of any system; no address, no </tag>, and no /word, which templates and shells have
    rf"""(?<![\w.~<>-])(?<!:/)(?!//)(?:~|/[\w.~@+%-]+)/{_END}|(?<!\w)[A-Za-z]:[\\/]{_END}|\\\\[\w.-]+\\{_END}"""
)
_OF_MANY = {"admin", "administrator", "localhost", "nobody", "root", "runner", "ubuntu", "user"}  # they tell of nobody
_SHORTEST = 3  # characters of a name that is looked for: a shorter one is part of anything


def blanked(text: str) -> str:
    """The text without paths, the user's name and the machine's.

    >>> blanked("no file in /home/ann/models, see https://example.org/help")
    'no file in <path>, see https://example.org/help'
    """
    text = without_paths(text)
    for names, blank in ((_users(), USER), (_machines(), MACHINE)):
        for name in names:
            text = re.sub(rf"(?<!\w){re.escape(name)}(?!\w)", blank, text, flags=re.IGNORECASE)
    return text


def without_paths(text: str) -> str:
    """The text with each absolute path blanked."""
    for folder in _folders():  # they may have blanks in them
        text = re.sub(rf"(?<![\w.-]){re.escape(folder)}(?=[/\\\s'\"]|$){_END}", PATH, text)
    return _ABSOLUTE.sub(PATH, text)


def without_folders(text: str) -> str:
    """A text that is or begins with an absolute path: from the path's last part on."""
    return Path(text).name if Path(text).is_absolute() else text


def told_apart(texts: Iterable[str]) -> dict[str, str]:
    """Each text, and its name: of an absolute path as many of its last parts as tell it from the others.

    >>> told_apart(["/a/anger/mine.csv", "/a/joy/mine.csv", "joy"])
    {'/a/anger/mine.csv': 'anger/mine.csv', '/a/joy/mine.csv': 'joy/mine.csv', 'joy': 'joy'}
    """
    every = list(dict.fromkeys(texts))
    longest = max((len(Path(each).parts) for each in every), default=0)
    for count in range(1, longest + 1):
        named = {each: str(Path(*Path(each).parts[-count:])) if Path(each).is_absolute() else each for each in every}
        if len(set(named.values())) == len(every):
            return named
    return {each: each for each in every}


def blanked_document(value: Any) -> Any:
    """A document for JSON with each text in it blanked; keys stay."""
    if isinstance(value, str):
        return blanked(value)
    if isinstance(value, dict):
        return {key: blanked_document(each) for key, each in value.items()}
    return [blanked_document(each) for each in value] if isinstance(value, list | tuple) else value


def _folders() -> list[str]:
    """This process's own folders, the longest first."""
    found = {sys.prefix, sys.base_prefix, tempfile.gettempdir(), str(Path.cwd())}
    with suppress(RuntimeError):  # there is none
        found.add(str(Path.home()))
    return sorted((each for each in found if len(each) > len("/ab")), key=len, reverse=True)


def _users() -> list[str]:
    found = [os.environ.get(name, "") for name in ("USER", "LOGNAME", "USERNAME")]
    with suppress(OSError, KeyError, RuntimeError, ImportError):  # a user without a name or a home
        found += [getpass.getuser(), Path.home().name]
    return _telling(found)


def _machines() -> list[str]:
    whole = platform.node()
    return _telling([whole, whole.split(".")[0]])


def _telling(names: list[str]) -> list[str]:
    kept = {name for name in names if len(name) >= _SHORTEST and name.lower() not in _OF_MANY}
    return sorted(kept, key=len, reverse=True)
