"""How every verb speaks: results on stdout, everything else on stderr; with --json one document on stdout.

Names, data and what models write are text here: nothing in them is markup, nothing acts on the terminal.
"""

import json
import math
import os
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter
from rich.console import Console, RenderableType
from rich.segment import Segment, Segments

from irm_lite.core.visible_text import one_line, safe

if TYPE_CHECKING:
    from irm_lite.base.fingerprint import Match


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
    """Where a verb writes. A text is one line: line breaks in it are somebody's, and do not make others."""

    def __init__(self, common: Common | None) -> None:
        common = common or Common()
        self.json, self.quiet = common.json, common.quiet
        self.console = Console(stderr=True, highlight=False, markup=False, emoji=False, soft_wrap=True)

    def note(self, text: str, style: str | None = None) -> None:
        """A line on stderr about what is going on."""
        if not self.quiet:
            self.console.print(one_line(text), style=style)

    def warn(self, text: str) -> None:
        """A line on stderr that --quiet does not silence."""
        self.console.print(f"irm-lite: warning: {one_line(text)}", style="yellow")

    def tell_matches(self, matches: Iterable["Match"], measured: str | None = None) -> None:
        """What is to be said of vectors and IRMs that go into a model, each once; with one of them what was `measured` of the two
        models, which has the same cause."""
        once = dict.fromkeys(matches)
        warnings = [match.warning for match in once if match.warning]
        for line in ["; ".join([*warnings, *filter(None, [measured])])] if len(warnings) == 1 else [*warnings, measured]:
            if line:
                self.warn(line)
        for match in once:
            if match.note:
                self.note(match.note, style="dim")

    def result(self, document: dict[str, Any], *shown: RenderableType) -> None:
        """What the verb is for: the document with --json, else what is shown to people."""
        if self.json:
            sys.stdout.write(as_json(_finite(document), indent=2) + "\n")
        else:
            self.show(*shown)

    def show(self, *shown: RenderableType) -> None:
        """For people, on stdout, before the verb is through; with --json nothing."""
        if self.json:
            return
        console = Console(highlight=False, markup=False, emoji=False)
        if not console.is_terminal and "COLUMNS" not in os.environ:
            console.width = 160  # a pipe or a file has no edge to wrap at
        for renderable in shown:
            if isinstance(renderable, str):
                console.print(one_line(renderable), soft_wrap=True)  # paths and commands stay in one piece
            else:
                drawn = console.render(renderable)
                console.print(Segments(Segment(safe(each.text), each.style) for each in drawn))


def as_json(document: dict[str, Any], indent: int | None = None) -> str:
    """The document in ASCII without control characters: JSON itself leaves DEL as it is."""
    return json.dumps(document, indent=indent, default=str, allow_nan=False).replace("\x7f", "\\u007f")


def _finite(value: Any) -> Any:
    """NaN and infinity, which JSON has no word for, as null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    return [_finite(each) for each in value] if isinstance(value, list | tuple) else value
