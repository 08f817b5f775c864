"""Copy to the terminal's clipboard (OSC 52). A terminal never confirms, so the message says "sent", not "copied".

tmux passes none of that on unless its set-clipboard is on. Inside it, tmux itself is given the text: it keeps it in a buffer, and
sends it on where it may (`load-buffer -w`, since 3.2).
"""

import os
import subprocess
from typing import Any

from textual.app import App

from irm_lite_tui.shared.text import encodable, line

_SECONDS = 5  # for tmux to answer


def copy(app: App[Any], text: str, what: str) -> None:
    """Send `text`, and say so; inside tmux also what could not be done."""
    text = encodable(text)
    app.copy_to_clipboard(text)
    if os.environ.get("TMUX"):
        app.run_worker(lambda: _say(app, *_through_tmux(text, what)), thread=True, group="copy", exit_on_error=False)
    else:
        _say(app, f"sent to the terminal's clipboard: {what}")


def _say(app: App[Any], said: str, lacks: str = "") -> None:
    app.notify(line(said).plain, markup=False)
    if lacks:
        app.notify(lacks, severity="warning", timeout=15, markup=False)


def _through_tmux(text: str, what: str) -> tuple[str, str]:
    """What was done, and what was not with the fix (empty: nothing)."""
    setting = _tmux("show-options", "-sv", "set-clipboard")
    if setting == "on":
        return f"sent to the terminal's clipboard: {what}", ""
    fix = "tmux set -s set-clipboard on (for good: in ~/.tmux.conf)"
    if setting == "external" and _tmux("load-buffer", "-w", "-", text=text) is not None:
        return f"sent to the terminal's clipboard, and kept by tmux (prefix ] pastes it): {what}", ""
    if setting is not None and _tmux("load-buffer", "-", text=text) is not None:
        return f"kept by tmux (prefix ] pastes it): {what}", f"tmux does not pass it on to the terminal: {fix}"
    return f"not copied: {what}", f"tmux cannot be asked, and passes nothing on as it comes: {fix}"


def _tmux(*arguments: str, text: str = "") -> str | None:
    """What tmux prints; None where it fails."""
    try:
        done = subprocess.run(["tmux", *arguments], input=text.encode(), capture_output=True, timeout=_SECONDS, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.decode("utf-8", "replace").strip()
