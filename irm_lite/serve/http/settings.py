"""What an HTTP server is started with."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Limits:
    """What one client may take of everybody's."""

    body_bytes: int = 1 << 20
    body_seconds: float = 30.0  # for a body to arrive
    tokens: int = 1024  # of one answer
    waiting: int = 64  # answers that wait for a context
    seconds: float = 600.0  # from the question to the end of its answer, waiting included


@dataclass(frozen=True)
class Settings:
    """`name`: the model's, as clients ask for it. `key`: what they must show, or None. `origins`: web pages of other hosts that may
    ask, as browsers name them (http://host:port). `continued`: caches are gone on from token by token unless a request says
    otherwise (column.py: Manner). `grace`: seconds that running answers get when the server is to end."""

    name: str
    host: str = "127.0.0.1"
    port: int = 8080
    contexts: int = 4
    context: int = 4096
    key: str | None = None
    origins: tuple[str, ...] = ()
    continued: bool = False
    log_prompts: bool = False
    quiet: bool = False
    grace: float = 10.0
    limits: Limits = field(default_factory=Limits)
