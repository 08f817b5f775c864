"""Input that is not UTF-8 (a paste in Latin-1, say) is shown as U+FFFD; Textual itself would crash on it."""

import os
from codecs import getincrementaldecoder
from functools import partial


def forgive_bytes() -> None:
    """Make Textual's driver decode invalid bytes as U+FFFD. Patched, as the driver builds its strict decoder itself."""
    if os.name == "nt":  # there, keys are no bytes
        return
    from textual.drivers import linux_driver

    linux_driver.getincrementaldecoder = lambda encoding: partial(getincrementaldecoder(encoding), errors="replace")  # type: ignore[attr-defined]
