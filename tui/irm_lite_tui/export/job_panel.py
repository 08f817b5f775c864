"""One job in a child process: its progress, its end, and what went wrong."""

import re
from collections.abc import Sequence

from textual.app import ComposeResult
from textual.containers import Vertical
from textual.widgets import ProgressBar, Static

from irm_lite_tui.export.messages import JobEnded
from irm_lite_tui.shared.text import line
from irm_lite_tui.watch.children import Child, ChildEnded, ChildLine

_PROGRESS = re.compile(r"(?P<title>[^:]{1,40}): (?P<done>\d{1,12})/(?P<of>\d{1,12}), (?P<rest>.*)", re.ASCII)


class JobPanel(Vertical):
    """Posts JobEnded when the job is done; says why where it failed. The job runs on when the UI is closed."""

    def __init__(self, job: str) -> None:
        super().__init__(id=f"{job}-job")
        self.job = job
        self._child: Child | None = None

    def compose(self) -> ComposeResult:
        yield ProgressBar(show_eta=False)
        yield Static("", classes="line")

    def on_mount(self) -> None:
        self.query_one(ProgressBar).display = False

    def on_unmount(self) -> None:
        if self._child is not None:
            self._child.target = self.app  # which says how it ended

    @property
    def running(self) -> bool:
        return self._child is not None

    def start(self, arguments: Sequence[str]) -> None:
        """Start `irm-lite` with these arguments."""
        self._child = Child(arguments, self)
        bar = self.query_one(ProgressBar)
        bar.update(total=None, progress=0)
        try:
            self._child.start()
        except OSError as error:
            self._child = None
            self.say(f"irm-lite cannot be started ({error.strerror}): run irm-lite doctor", "wrong")
            return
        bar.display = True
        self.say("starting")

    def stop(self) -> None:
        """Ask it to stop; asked again, it ends at once."""
        if self._child is not None:
            self._child.stop()
            self.say("stopping")

    def say(self, text: str, kind: str = "") -> None:
        """A line of text, `kind` wrong, done or nothing."""
        said = self.query_one(".line", Static)
        said.update(line(text))
        said.set_classes(f"line {kind}")

    def on_child_line(self, message: ChildLine) -> None:
        message.stop()
        if message.child is not self._child or message.stream == "out":
            return
        progress = _PROGRESS.fullmatch(message.text)
        if progress is None:
            self.say(message.text.removeprefix("irm-lite: "))
            return
        self.query_one(ProgressBar).update(total=float(progress["of"]), progress=float(progress["done"]))
        self.say(f"{progress['title']}: {progress['done']} of {progress['of']}, {progress['rest']}")

    def on_child_ended(self, message: ChildEnded) -> None:
        message.stop()
        if message.child is not self._child:
            return
        self._child = None
        self.query_one(ProgressBar).display = False
        why = message.last.removeprefix("irm-lite: ")
        if message.code == 0 and message.document is not None:
            self.say(f"{self.job} done", "done")
            self.post_message(JobEnded(self.job, message.document))
        elif message.code == 130:
            self.say("stopped", "wrong")
        else:
            self.say(why or f"irm-lite {self.job} ended with code {message.code} and no result", "wrong")
