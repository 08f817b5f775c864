"""The time as it is written into files."""

import time
from datetime import UTC, datetime


def now() -> str:
    """UTC time, ISO 8601 with seconds."""
    return datetime.fromtimestamp(time.time(), UTC).isoformat(timespec="seconds")
