"""Every message that crosses a widget's border."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from textual.message import Message

if TYPE_CHECKING:
    from irm_lite_tui.children import Child
    from irm_lite_tui.serving import Serve


# Child processes


class ChildLine(Message):
    """A child wrote a line."""

    def __init__(self, child: "Child", stream: Literal["out", "err"], text: str) -> None:
        super().__init__()
        self.child, self.stream, self.text = child, stream, text


class ChildEnded(Message):
    """A child has ended: with its exit code, its JSON document if it wrote one, and its last line on stderr."""

    def __init__(self, child: "Child", code: int, document: Mapping[str, Any] | None, last: str) -> None:
        super().__init__()
        self.child, self.code, self.document, self.last = child, code, document, last


# Chat


class ServeSaid(Message):
    """`irm-lite serve` sent an event (docs/serve.md), checked."""

    def __init__(self, serve: "Serve", event: dict[str, Any]) -> None:
        super().__init__()
        self.serve, self.event = serve, event


class ServeEnded(Message):
    """`irm-lite serve` has ended: with its exit code and its last line on stderr."""

    def __init__(self, serve: "Serve", code: int, last: str) -> None:
        super().__init__()
        self.serve, self.code, self.last = serve, code, last


class StrengthMoved(Message):
    """The strength slider stands elsewhere."""

    def __init__(self, strength: float) -> None:
        super().__init__()
        self.strength = strength


class LayersMoved(Message):
    """The layer range reaches elsewhere; both ends belong to it."""

    def __init__(self, low: int, high: int) -> None:
        super().__init__()
        self.low, self.high = low, high


class TokenChosen(Message):
    """The cursor stands on a token of a column's latest answer."""

    def __init__(self, column: str, token: int) -> None:
        super().__init__()
        self.column, self.token = column, token


# Export


class JobEnded(Message):
    """An export or a bake has ended well: which, and its JSON document."""

    def __init__(self, job: str, document: Mapping[str, Any]) -> None:
        super().__init__()
        self.job, self.document = job, document
