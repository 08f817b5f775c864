"""How every verb speaks: results on stdout, everything else on stderr; with --json one document on stdout."""

import json
import math
import os
import sys
import unicodedata
from dataclasses import dataclass
from typing import Annotated, Any

from cyclopts import Parameter
from rich.console import Console, RenderableType

_BIDI = "\u061c\u200e\u200f\u2028\u2029\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"


@Parameter(name="*")
@dataclass(kw_only=True)
class Common:
    """Flags that every verb takes."""

    json: Annotated[bool, Parameter(negative="")] = False
    """Print one JSON document on stdout, everything else on stderr."""
    quiet: Annotated[bool, Parameter(negative="")] = False
    """No progress and no notes."""
    debug: Annotated[bool, Parameter(negative="")] = False
    """Add the traceback to an error."""


class Output:
    """Where a verb writes. Text from models and data goes through `safe` first."""

    def __init__(self, common: Common | None) -> None:
        common = common or Common()
        self.json, self.quiet = common.json, common.quiet
        self.console = Console(stderr=True, highlight=False, markup=False, emoji=False, soft_wrap=True)

    def note(self, text: str, style: str | None = None) -> None:
        """A line on stderr about what is going on."""
        if not self.quiet:
            self.console.print(safe(text), style=style)

    def warn(self, text: str) -> None:
        """A line on stderr that --quiet does not silence."""
        self.console.print(f"irm-lite: warning: {safe(text)}", style="yellow")

    def result(self, document: dict[str, Any], *shown: RenderableType) -> None:
        """What the verb is for: the document with --json, else what is shown to people."""
        if self.json:
            sys.stdout.write(json.dumps(_finite(document), indent=2, default=str, allow_nan=False) + "\n")
        else:
            console = Console(highlight=False, markup=False, emoji=False)
            if not console.is_terminal and "COLUMNS" not in os.environ:
                console.width = 160  # a pipe or a file has no edge to wrap at
            for renderable in shown:
                if isinstance(renderable, str):
                    console.print(safe(renderable), soft_wrap=True)  # paths and commands stay in one piece
                else:
                    console.print(renderable)


def _finite(value: Any) -> Any:
    """NaN and infinity, which JSON has no word for, as null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    return [_finite(each) for each in value] if isinstance(value, list | tuple) else value


def safe(text: str) -> str:
    """The text with control characters made visible, so that nothing in it acts on the terminal."""
    return "".join("\N{REPLACEMENT CHARACTER}" if _acts(each) else each for each in text)


def _acts(character: str) -> bool:
    """Control characters, lone surrogates, and those that turn the direction of writing."""
    return character not in "\n\t" and (unicodedata.category(character) in ("Cc", "Cs") or character in _BIDI)
