"""Show a folder where there is a desktop."""

import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path


def open_folder(path: Path) -> bool:
    """Open it in the desktop's file manager; False where there is none."""
    if sys.platform == "darwin":
        program = None if "SSH_CONNECTION" in os.environ else shutil.which("open")
    else:
        desktop = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
        program = shutil.which("xdg-open") if desktop else None
    if program is None:
        return False
    try:
        process = subprocess.Popen(
            [program, str(path.resolve())],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # it may be the file manager itself, which outlives the UI
        )
    except OSError:
        return False
    threading.Thread(target=process.wait, daemon=True).start()  # leaves no zombie
    return True
