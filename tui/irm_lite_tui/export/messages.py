"""Messages of the export screen."""

from collections.abc import Mapping
from typing import Any

from textual.message import Message


class JobEnded(Message):
    """An export or a bake has ended well: which, and its JSON document."""

    def __init__(self, job: str, document: Mapping[str, Any]) -> None:
        super().__init__()
        self.job, self.document = job, document
