"""Copy to the terminal's clipboard (OSC 52). A terminal never confirms, so the message says "sent", not "copied"."""

import os
from typing import Any
from weakref import WeakSet

from textual.app import App

from irm_lite_tui.shared.text import encodable, line

_TMUX = "inside tmux this needs, in ~/.tmux.conf: set -g set-clipboard on"
_told: "WeakSet[App[Any]]" = WeakSet()


def copy(app: App[Any], text: str, what: str) -> None:
    """Send `text` and say so. tmux by default passes nothing on to the terminal: inside it, say once which setting does.

    Not wrapped for tmux' passthrough, which is off by default and not needed with that setting.
    """
    app.copy_to_clipboard(encodable(text))
    app.notify(line(f"sent to the terminal's clipboard: {what}").plain, markup=False)
    if os.environ.get("TMUX") and app not in _told:
        _told.add(app)
        app.notify(_TMUX, severity="warning", timeout=15, markup=False)
