"""What a benchmark's results say of the machine that they are from."""

import psutil

from irm_lite.core.machine.described import processor
from irm_lite.core.machine.usable_cores import usable_cores


def this_machine() -> str:
    """Processor, the cores that this process may use, memory."""
    return f"{processor()}, {usable_cores()} cores, {psutil.virtual_memory().total / 2**30:.0f} GiB"
