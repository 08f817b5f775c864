"""What /metrics counts, in Prometheus' text form."""

from collections.abc import Callable

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SECONDS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0)


class Metrics:
    """One server's counts: several in one process do not share them."""

    content_type = CONTENT_TYPE_LATEST

    def __init__(self, waiting: Callable[[], float], active: Callable[[], float]) -> None:
        self._registry = registry = CollectorRegistry()
        self.requests = Counter("irm_lite_requests", "HTTP requests", ["path", "status"], registry=registry)
        self.prompt_tokens = Counter("irm_lite_prompt_tokens", "Tokens of prompts", registry=registry)
        self.kept_tokens = Counter("irm_lite_kept_prompt_tokens", "Tokens of prompts that were in a cache", registry=registry)
        self.tokens = Counter("irm_lite_tokens", "Tokens written", registry=registry)
        self.answers = Counter("irm_lite_answers", "Answers by how they ended", ["end"], registry=registry)
        self.waited = Histogram(
            "irm_lite_first_token_seconds", "From the request to its first token", buckets=_SECONDS, registry=registry
        )
        self.seconds = Histogram("irm_lite_answer_seconds", "From the request to its end", buckets=_SECONDS, registry=registry)
        Gauge("irm_lite_waiting", "Requests that wait for a context", registry=registry).set_function(waiting)
        Gauge("irm_lite_active", "Answers that are being written", registry=registry).set_function(active)

    def text(self) -> bytes:
        """All of them."""
        return generate_latest(self._registry)
