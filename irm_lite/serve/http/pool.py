"""A few contexts on one loaded model, and the one thread that works in them.

One thread: llama.cpp uses all cores for each token as it is, and threads of several contexts would only wait for each other. The
contexts take a step in turn, so that all answers come on at the same pace, each alone in its context: nothing of another's
steering, cache or sampler is there, and what it says is what it says alone. Texts side by side in one context would be faster
together, and can change each other's last bits, which a quantised model makes much of: always where they share a cache
(llamacpp/parallel.py), and with caches of their own by the kind of weights (docs/log.md).
"""

import time
from collections import deque
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from concurrent.futures import Future
from threading import Condition, Thread
from typing import Any

from irm_lite.core.errors import IrmLiteError
from irm_lite.llamacpp import Model, Runtime
from irm_lite.serve.column import Column
from irm_lite.serve.http.errors import ApiError, told
from irm_lite.serve.http.job import Job
from irm_lite.serve.http.sources import Source
from irm_lite.serve.http.turns import Turns
from irm_lite.serve.http.writing import Writing


class _Slot:
    """A place for one answer at a time: a context for vectors and adapters, and one for each IRM that was asked for here."""

    def __init__(self, model: Model, n_ctx: int) -> None:
        self._model, self._n_ctx = model, n_ctx
        self.plain = Column("vector", Runtime(model, n_ctx=n_ctx))
        self._irms: dict[int, Column] = {}
        self.used = 0.0
        self.writing: Writing | None = None

    def column(self, irm: Source | None) -> Column:
        """The one for this IRM, made at its first use. Raises LlamaCppError."""
        if irm is None:
            return self.plain
        if irm.number not in self._irms:
            self._irms[irm.number] = Column("irm", Runtime(self._model, irm=irm.irm, n_ctx=self._n_ctx))
        return self._irms[irm.number]

    def held(self, job: Job) -> int:
        """Tokens of the prompt that need not be read again here."""
        irm = job.steering.irm
        column = self.plain if irm is None else self._irms.get(irm.number)
        return 0 if column is None else column.held(job.prompt, job.steering.work, job.manner.continued)

    def drop_irms(self, kept: AbstractSet[int]) -> None:
        """Free the contexts of other IRMs, unless an answer is being written here."""
        if self.writing is None:
            for number in self._irms.keys() - kept:
                self._irms.pop(number).close()

    def close(self) -> None:
        for column in (self.plain, *self._irms.values()):
            column.close()


class Pool:
    """Answers jobs. Close it, or use it as a context manager; the model must outlive it."""

    def __init__(self, model: Model, *, contexts: int = 4, n_ctx: int = 4096, most_waiting: int = 64) -> None:
        """Raises InputError or LlamaCppError where a context cannot be made."""
        self._turn = Condition()
        self._waiting = Turns()
        self._errands: deque[tuple[Callable[[], Any], Future[Any]]] = deque()
        self._most_waiting = most_waiting
        self._closing = False
        self._kept: AbstractSet[int] | None = None  # numbers of the IRMs that may be asked for; None: all
        self._slots: list[_Slot] = []
        try:
            for _ in range(contexts):
                self._slots.append(_Slot(model, n_ctx))
        except BaseException:
            self._free()
            raise
        self.n_ctx = self._slots[0].plain.n_ctx
        self._thread = Thread(target=self._work, name="irm-lite-pool", daemon=True)
        self._thread.start()

    def __enter__(self) -> "Pool":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def waiting(self) -> int:
        """Jobs that wait for a context."""
        with self._turn:
            return len(self._waiting)

    @property
    def active(self) -> int:
        """Jobs that are being answered."""
        return sum(slot.writing is not None and not slot.writing.over for slot in self._slots)

    def submit(self, job: Job) -> None:
        """Answer it when its turn comes. Raises ApiError where too many wait, or the server is to end."""
        with self._turn:
            if self._closing:
                raise _closing()
            if len(self._waiting) >= self._most_waiting and self.active == len(self._slots):
                raise ApiError(429, "queue_full", f"{len(self._waiting)} requests wait already: ask again in a while")
            self._waiting.add(job)
            self._turn.notify()

    def between(self, work: Callable[[], Any]) -> Any:
        """What `work` gives, called between two steps: no context is at work then. Raises what it raises, and ApiError where the
        server is to end."""
        done: Future[Any] = Future()
        with self._turn:
            if self._closing:
                raise _closing()
            self._errands.append((work, done))
            self._turn.notify()
        return done.result()

    def keep_irms(self, numbers: AbstractSet[int]) -> None:
        """Free the contexts of all IRMs but these sources', now or after the answers that they write. Raises as `between`."""

        def drop() -> None:
            self._kept = numbers
            for slot in self._slots:
                slot.drop_irms(numbers)

        self.between(drop)

    def leave(self, job: Job) -> None:
        """Nobody waits for this answer any more."""
        job.gone = True
        with self._turn:
            self._turn.notify()

    def end(self) -> None:
        """End what is being written and refuse what waits, soon."""
        with self._turn:
            self._closing = True
            self._turn.notify()

    def close(self) -> None:
        """End what is being written, refuse what waits, free the contexts."""
        self.end()
        self._thread.join()
        self._free()

    def _free(self) -> None:
        for slot in self._slots:
            slot.close()
        self._slots = []

    @property
    def alive(self) -> bool:
        """Whether it still answers."""
        return self._thread.is_alive()

    def _work(self) -> None:
        try:
            while self._round():
                pass
        finally:  # also where something failed that no answer is to blame for: nobody is to wait for ever
            with self._turn:
                self._closing = True
                waiting = [self._waiting.next() for _ in range(len(self._waiting))]
                errands = list(self._errands)
            for slot in self._slots:
                if slot.writing is not None and not slot.writing.over:
                    slot.writing.fail(_closing())
            for job in waiting:
                job.hear(_closing())
            for _, done in errands:
                done.set_exception(_closing())

    def _round(self) -> bool:
        """A step in each context, once there is something to do; False when the pool is to close."""
        with self._turn:
            while not (self._closing or self._waiting or self._errands or self.active):
                self._turn.wait()
            if self._closing:
                return False
            out = list(self._waiting.take_out(time.monotonic()))
            begun = self._next_jobs()
            errands = [self._errands.popleft() for _ in range(len(self._errands))]
        for errand in errands:
            _run(*errand)
        for job in out:
            if not job.gone:
                job.hear(ApiError(503, "queue_timeout", "no context was free in time: ask again later, or for less"))
        for slot, job in begun:
            self._begin(slot, job)
        for slot in self._slots:
            self._step(slot)
        return True

    def _next_jobs(self) -> list[tuple[_Slot, Job]]:
        """Those whose turn it is, with a free slot each: the one that has most of the prompt, else the one longest unused."""
        free = [slot for slot in self._slots if slot.writing is None]
        begun = []
        while free and self._waiting:
            job = self._waiting.next()
            slot = max(free, key=lambda each: (each.held(job), -each.used))
            free.remove(slot)
            begun.append((slot, job))
        return begun

    def _begin(self, slot: _Slot, job: Job) -> None:
        try:
            slot.writing = Writing(job, slot.column(job.steering.irm))
        except IrmLiteError as error:
            job.hear(told(error, "steering_failed", "steering"))
        except Exception as error:
            job.hear(_failed(error))

    def _step(self, slot: _Slot) -> None:
        writing = slot.writing
        if writing is None:
            return
        try:
            writing.step()
        except IrmLiteError as error:
            writing.fail(told(error, "steering_failed", "steering"))
        except Exception as error:  # one answer's failure is not the others'
            writing.fail(_failed(error))
        if writing.over:
            slot.writing, slot.used = None, time.monotonic()
            if self._kept is not None:
                slot.drop_irms(self._kept)


def _run(work: Callable[[], Any], done: Future[Any]) -> None:
    try:
        done.set_result(work())
    except Exception as error:  # whose errand it is hears of it
        done.set_exception(error)


def _closing() -> ApiError:
    return ApiError(503, "shutting_down", "the server is being stopped: ask again later")


def _failed(error: Exception) -> ApiError:
    return ApiError(500, "engine_failed", f"unexpected error ({type(error).__name__})")
