"""Progress with an estimate: rich bars on a terminal, plain lines elsewhere."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from irm_lite.cli.interrupt import graceful, raise_if
from irm_lite.cli.output import Output
from irm_lite.core.types import Progress as Report
from irm_lite.core.visible_text import one_line
from irm_lite.data.dataset import SHIPPED

_PLAIN_SECONDS = 20.0  # between plain lines
_JSON_SECONDS = 1.0  # with --json, where a program reads them


@contextmanager
def progress(output: Output, title: str) -> Iterator[Report]:
    """Give a function to report (done, of, what) to."""
    if output.quiet:
        yield lambda done, of, what: None
    elif output.console.is_terminal:
        columns = (
            TextColumn("{task.fields[title]}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
        )
        with Progress(*columns, TextColumn("{task.fields[what]}", markup=False), console=output.console, transient=True) as bars:
            task: TaskID | None = None
            last = 0

            def report(done: int, of: int, what: str) -> None:
                nonlocal task, last
                if task is None or done < last:  # the clock starts with the first report of each stage
                    if task is not None:
                        bars.remove_task(task)
                    task = bars.add_task("", total=of, what="", title=one_line(title))
                last = done
                bars.update(task, completed=done, total=of, what=one_line(what))

            yield report
    else:
        yield _plain(output, title)


def _plain(output: Output, title: str) -> Report:
    seconds = _JSON_SECONDS if output.json else _PLAIN_SECONDS
    first: tuple[float, int] | None = None  # when the first report came, and how much was done by then
    last, before = time.monotonic(), 0

    def report(done: int, of: int, what: str) -> None:
        nonlocal first, last, before
        now = time.monotonic()
        if first is None or done < before:  # another stage has begun
            first = (now, done)
        before = done
        if now - last >= seconds or done == of:
            last = now
            since = done - first[1]
            left = f", {(now - first[0]) / since * (of - done):.0f} s left" if since else ""  # at first one cannot know
            output.note(f"{title}: {done}/{of}{left}, {what}")

    return report


@contextmanager
def stoppable_progress(output: Output, title: str) -> Iterator[Report]:
    """The same for work that has no checkpoint: a report after the user asked to stop raises Interrupted."""
    with graceful(output) as should_stop, progress(output, title) as report:

        def report_or_stop(done: int, of: int, what: str) -> None:
            raise_if(should_stop())
            report(done, of, what)

        yield report_or_stop


@contextmanager
def training_progress(output: Output, title: str = "") -> Iterator[Callable[[dict[str, Any]], None]]:
    """Give a listener for a training's events; a title, where there are several, stands before each line."""
    before = f"{title}: " if title else ""
    with progress(output, title or "training") as report:

        def listen(event: dict[str, Any]) -> None:
            kind = event["kind"]
            if kind == "step":
                speed, held = f"{event['tokens_per_second']:.0f} tokens/s", f"{event['memory_bytes'] / 1e9:.1f} GB"
                report(event["step"], event["max_steps"], f"loss {event['loss']:.3f}, {speed}, {held}")
            elif kind == "start":
                if event["data_read"]["file"] != SHIPPED:
                    output.note(before + _how_read(event["data_read"]))
                samples, predicted = event["samples"], event.get("predicted_training_bytes")
                memory = f", about {predicted / 1e9:.1f} GB at the peak" if predicted else ""
                output.note(
                    f"{before}{event['irm']} IRM of {event['parameters'] / 1e6:.2f} M parameters, layers {event['layers']}, on "
                    f"{event['model']} ({event['device']}, {event['dtype']}): {samples['train']} samples, "
                    f"{event['max_steps']} steps{memory}"
                )
            elif kind == "eval":
                output.note(f"{before}step {event['step']}: validation NLL {event['nll']:.3f} nats a token ({event['of']})")
            elif kind == "sample":
                output.note(f"{before}  {event['prompt']}", style="dim")
                output.note(f"  -> {' '.join(event['text'].split())}", style="dim")
            elif kind == "text" and event["sound"] < event["answers"]:
                output.note(
                    f"{before}  {event['sound']} of {event['answers']} answers are sound ({event['base_sound']} of the base's)"
                )
            elif kind == "warning":
                output.warn(before + event["text"])
            elif kind == "end":
                output.note(f"{before}training ended: {event['reason']}")

        yield listen


def _how_read(data: dict[str, Any]) -> str:
    counts = ", ".join(f"{count} {split}" for split, count in data["samples"].items() if count)
    return f"data read as {data['as']}: {counts}" + (f" ({data['split_note']})" if data["split_note"] else "")
