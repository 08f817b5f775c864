"""Whose turn it is: one of each group in turn, in each group the first that came."""

from collections import OrderedDict, deque
from collections.abc import Iterator

from irm_lite.serve.http.job import Job


class Turns:
    """Jobs that wait. What steers them plays no part: nobody waits longer because the caches are another's."""

    def __init__(self) -> None:
        self._groups: OrderedDict[str, deque[Job]] = OrderedDict()

    def __len__(self) -> int:
        return sum(map(len, self._groups.values()))

    def add(self, job: Job) -> None:
        """Behind the others of its group."""
        self._groups.setdefault(job.group, deque()).append(job)

    def next(self) -> Job:
        """The one whose turn it is; its group goes behind the others. Raises KeyError where none waits."""
        group, jobs = self._groups.popitem(last=False)
        job = jobs.popleft()
        if jobs:
            self._groups[group] = jobs
        return job

    def take_out(self, now: float) -> Iterator[Job]:
        """Those whose time is over, or that nobody waits for, taken out."""
        for group, jobs in list(self._groups.items()):
            out = [job for job in jobs if job.gone or now >= job.deadline]
            if out:
                kept = deque(job for job in jobs if job not in out)
                if kept:
                    self._groups[group] = kept
                else:
                    del self._groups[group]
            yield from out
