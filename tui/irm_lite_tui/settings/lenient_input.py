"""What a terminal sends that is no UTF-8 (a paste in Latin-1, say) is shown as such; Textual would end at it."""

import os
from codecs import getincrementaldecoder
from functools import partial


def forgive_bytes() -> None:
    """Have Textual's driver decode such bytes as U+FFFD: it makes its strict decoder itself and takes none."""
    if os.name == "nt":  # there, keys are no bytes
        return
    from textual.drivers import linux_driver

    linux_driver.getincrementaldecoder = lambda encoding: partial(getincrementaldecoder(encoding), errors="replace")  # type: ignore[attr-defined]
