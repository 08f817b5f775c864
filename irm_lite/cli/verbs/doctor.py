"""irm-lite doctor"""

import platform

from rich.table import Table
from rich.text import Text

from irm_lite.cli.output import Common, Output
from irm_lite.core.private_text import blanked_document
from irm_lite.core.version import __version__


def doctor(*, common: Common | None = None) -> None:
    """Versions, devices, what bitsandbytes and llama.cpp can do here, what is missing, and the line that fixes it. With --json
    paths and names of this machine are blanked: it can be pasted into an issue."""
    output = Output(common)
    output.note("checking this machine (loads torch and llama.cpp)")
    from irm_lite.jobs.doctor import examine

    checks = examine()
    table = Table(show_header=False, box=None, padding=(0, 1))
    for check in checks:
        mark = Text("ok", style="green") if check.ok else Text("--", style="yellow")
        table.add_row(mark, check.name, check.found, Text(check.hint, style="bold"))
    missing = [check.name for check in checks if not check.ok and check.needed]
    document = {
        "ok": not missing,
        "irm_lite": __version__,
        "system": platform.platform(),
        "checks": [each.to_dict() for each in checks],
    }
    output.result(blanked_document(document), table)  # it is pasted into issues
    if missing:
        from irm_lite.core.errors import IrmLiteError

        raise IrmLiteError(f"not ready: {', '.join(missing)}", "see the lines above")
