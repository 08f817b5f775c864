"""What the server says of itself on standard error: a JSON object a line; no prompts and no answers unless asked for."""

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any

from irm_lite.core.visible_text import one_line


class Log:
    """`quiet`: failures alone."""

    def __init__(self, quiet: bool = False, prompts: bool = False) -> None:
        self._quiet = quiet
        self.prompts = prompts

    def say(self, event: str, **about: Any) -> None:
        """One line."""
        if not self._quiet or event == "failure":
            line = {"time": datetime.now(UTC).isoformat(timespec="milliseconds"), "event": event, **about}
            sys.stderr.write(json.dumps(line, default=str).replace("\x7f", "\\u007f") + "\n")
            sys.stderr.flush()

    def listen(self) -> None:
        """Say what the libraries below complain of."""
        handler = _Handler(self)
        for name in ("uvicorn", "asyncio"):
            logger = logging.getLogger(name)
            logger.handlers, logger.propagate = [handler], False
            # asyncio warns of each client that went away while it was written to.
            logger.setLevel(logging.ERROR if name == "asyncio" else logging.WARNING)


class _Handler(logging.Handler):
    def __init__(self, log: Log) -> None:
        super().__init__()
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        trace = logging.Formatter().formatException(record.exc_info) if record.exc_info else None
        self._log.say("failure", text=one_line(record.getMessage()), **({"trace": trace} if trace else {}))
