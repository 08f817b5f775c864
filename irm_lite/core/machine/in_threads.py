"""Work of numpy's in pieces, side by side."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor


def in_threads(work: Callable[[int], None], starts: Sequence[int], threads: int) -> None:
    """Call `work` with each of `starts`, every thread with its share of them. numpy lets the others run while it computes."""

    def share(number: int) -> None:
        for start in starts[number::threads]:
            work(start)

    if threads == 1:
        share(0)
        return
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(share, range(threads)))
