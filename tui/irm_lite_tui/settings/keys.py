"""The keys: every binding by its id, mistakes in the user's [keys], and the page that lists all (docs/keys.md)."""

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

Every key of the terminal UI can be changed: in `tui.toml`, in the platform's settings folder (or the one that IRM_LITE_CONFIG
names), `[keys]` maps ids to keys; separate several keys by commas:

    [keys]
    "runs.filter" = "f"
    "mode.next" = "ctrl+right,f9"

The UI only reads that file. What it saves itself (theme, order of the runs, the heatmap's colours) is in `state.toml` beside it;
the same setting in tui.toml overrides it.

The part before the dot says where the key works: in a screen; in the heatmap's `grid`, `prompt`, `tokens` and `top` list; in the
chat's `strength`, `layers` and `strip`; in small windows (`ask`, `dialog`). The application does not use ctrl+b (tmux), ctrl+s and
ctrl+q (flow control), ctrl+z and ctrl+\\ (the terminal's signals). Where the terminal needs ctrl+pageup and ctrl+pagedown for its
own tabs, f8 and f9 change screens.

| id | keys | what it does |
|---|---|---|
"""


def all_bindings() -> dict[str, Binding]:
    """The bindings of the application, the screens and the widgets, by id. Imports every module of the UI."""
    import irm_lite_tui

    found: dict[str, Binding] = {}
    for module in pkgutil.walk_packages(irm_lite_tui.__path__, "irm_lite_tui."):
        for owner in vars(importlib.import_module(module.name)).values():
            if isinstance(owner, type) and issubclass(owner, DOMNode) and owner.__module__ == module.name:
                found |= {binding.id or "": binding for binding in vars(owner).get("BINDINGS", ()) if isinstance(binding, Binding)}
    return found


def complaints(ids: Iterable[str]) -> list[str]:
    """A line for each id that no binding has, with the nearest known id."""
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
    """The key to show for a binding: the user's own, else `default`."""
    own: str = getattr(app, "preferences", Preferences()).keys.get(name, "")
    return visible(own.split(",")[0].strip()) or default


def key_label(app: App[Any], text: str, name: str, default: str) -> str:
    """The label of a button, as markup, with the key that does the same."""
    return f"{text} ({escape(shown_key(app, name, default))})"
