"""The keys: every binding by its id, what is wrong with keys of one's own, and the page about them."""

import importlib
import pkgutil
from collections.abc import Iterable
from typing import Any

from textual.app import App
from textual.binding import Binding
from textual.dom import DOMNode
from textual.markup import escape

from irm_lite.core.visible_text import visible
from irm_lite_tui.settings.preferences import Preferences

_PAGE = """# Keys

Every key of the terminal UI can be another. In `tui.toml`, in the platform's settings folder (or in the folder that IRM_LITE_CONFIG
names), `[keys]` holds ids and keys; several keys are parted by commas:

    [keys]
    "runs.filter" = "f"
    "mode.next" = "ctrl+right,f9"

The UI only reads that file; what it keeps itself (theme, order of the runs, the heatmap's colours) is in `state.toml` beside it.
Where tui.toml has one of state.toml's keys, that goes before.

What stands before the dot is the place: a screen; `grid`, `prompt`, `tokens` and `top` in the heatmap; `strength`, `layers` and
`strip` in the chat; `ask` and `dialog` in small windows. The application takes none of ctrl+b (tmux), ctrl+s and ctrl+q (flow
control), ctrl+z and ctrl+\\ (the terminal's signals). Where a terminal turns its own tabs with ctrl+pageup and ctrl+pagedown, f8
and f9 turn the screens.

| id | keys | what it does |
|---|---|---|
"""


def all_bindings() -> dict[str, Binding]:
    """Those of the application, the screens and the widgets, by id. Imports them all."""
    import irm_lite_tui

    found: dict[str, Binding] = {}
    for module in pkgutil.walk_packages(irm_lite_tui.__path__, "irm_lite_tui."):
        for owner in vars(importlib.import_module(module.name)).values():
            if isinstance(owner, type) and issubclass(owner, DOMNode) and owner.__module__ == module.name:
                found |= {binding.id or "": binding for binding in vars(owner).get("BINDINGS", ()) if isinstance(binding, Binding)}
    return found


def complaints(ids: Iterable[str]) -> list[str]:
    """A line for each id that no binding has, with the nearest that one has."""
    from difflib import get_close_matches

    known = all_bindings()
    lines = []
    for name in ids:
        if name not in known:
            near = "".join(f"; the nearest is {each!r}" for each in get_close_matches(name, known, 1, 0))
            lines.append(f"[keys]: there is no binding {name!r}{near}. docs/keys.md lists them")
    return lines


def page() -> str:
    """docs/keys.md."""
    rows = [
        f"| `{name}` | {binding.key.replace(',', ', ')} | {binding.tooltip or binding.description} |"
        for name, binding in all_bindings().items()
    ]
    return _PAGE + "\n".join(rows) + "\n"


def shown_key(app: App[Any], name: str, default: str) -> str:
    """The key to name for a binding whose key is `default` unless the user has set another."""
    own: str = getattr(app, "preferences", Preferences()).keys.get(name, "")
    return visible(own.split(",")[0].strip()) or default


def key_label(app: App[Any], text: str, name: str, default: str) -> str:
    """The text of a button, as markup, with the key that does the same."""
    return f"{text} ({escape(shown_key(app, name, default))})"
