"""Copy to the terminal's clipboard (OSC 52). No terminal tells whether it took it, so nothing here says that it did."""

import os
from typing import Any
from weakref import WeakSet

from textual.app import App

from irm_lite_tui.shared.text import encodable, line

_TMUX = "inside tmux this needs, in ~/.tmux.conf: set -g set-clipboard on"
_told: "WeakSet[App[Any]]" = WeakSet()


def copy(app: App[Any], text: str, what: str) -> None:
    """Send `text`, and say so; in tmux, which keeps it to itself as it comes, tell once what lets it through.

    Nothing is wrapped for tmux' passthrough: that is off as tmux comes, and not needed with the line that is told.
    """
    app.copy_to_clipboard(encodable(text))
    app.notify(line(f"sent to the terminal's clipboard: {what}").plain, markup=False)
    if os.environ.get("TMUX") and app not in _told:
        _told.add(app)
        app.notify(_TMUX, severity="warning", timeout=15, markup=False)
