"""`irm-lite ... --json` as a child process that outlives the UI.

It has a session of its own and writes to files, not to pipes: it ends neither with the terminal nor with its reader. A thread reads
the files and posts what it finds.
"""

import contextvars
import json
import os
import signal
import subprocess
import tempfile
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, Literal

from textual.message import Message
from textual.message_pump import MessagePump

from irm_lite.core.machine.child import run_module

PROGRAM: Sequence[str] = run_module("irm_lite")
_POLL_SECONDS = 0.05
_LONGEST_DOCUMENT = 16 << 20  # bytes of stdout that are kept
_LONGEST_LINE = 20_000

_started: "list[Child]" = []


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


class Child:
    """One process. `target` gets a ChildLine for each line and a ChildEnded at the end.

    `scratch` is a temporary file that was made for it: it is removed when the process has ended.
    """

    def __init__(self, arguments: Sequence[str], target: MessagePump, scratch: Path | None = None) -> None:
        self.command = (*PROGRAM, *arguments)
        self.target = target
        self.scratch = scratch
        self._process: subprocess.Popen[bytes] | None = None
        self._let_go = threading.Event()

    def start(self) -> None:
        """Start the process and read it in a thread. Raises OSError where it cannot be started."""
        files = [_file_of_two_ends() for _ in range(2)]
        try:
            self._process = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=files[0][0],
                stderr=files[1][0],
                start_new_session=True,
                env={**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONIOENCODING": "utf-8"},
            )
        except OSError:
            self._remove_scratch()
            raise
        finally:
            for write_end, _ in files:
                os.close(write_end)
        _started.append(self)
        context = contextvars.copy_context()  # Textual finds its app by it
        thread = threading.Thread(target=context.run, args=(self._follow, files[0][1], files[1][1]), daemon=True)
        thread.start()

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def stop(self) -> None:
        """Ask it to finish its step, save and end; asked again, it ends at once."""
        if self._process is not None and self.running:
            self._process.send_signal(signal.SIGINT)

    def let_go(self) -> None:
        """Stop reading; the process runs on."""
        self._let_go.set()

    def _remove_scratch(self) -> None:
        if self.scratch is not None:
            with suppress(OSError):
                self.scratch.unlink()

    def _follow(self, out: BinaryIO, err: BinaryIO) -> None:
        process = self._process
        assert process is not None
        document, last = b"", ""
        rests = {"out": b"", "err": b""}
        with out, err:
            while not self._let_go.is_set():
                ended = process.poll() is not None  # asked before the reading: what was written until then is read
                for stream, file in (("out", out), ("err", err)):
                    chunk = file.read(1 << 20)
                    if stream == "out" and len(document) < _LONGEST_DOCUMENT:
                        document += chunk
                    *lines, rests[stream] = (rests[stream] + chunk).split(b"\n")
                    if ended and len(chunk) < 1 << 20 and rests[stream]:
                        lines, rests[stream] = [*lines, rests[stream]], b""
                    for line in lines:
                        text = line[:_LONGEST_LINE].decode("utf-8", "replace").rstrip("\r")
                        if stream == "err" and text.strip():
                            last = text
                        self.target.post_message(ChildLine(self, "out" if stream == "out" else "err", text))
                    rests[stream] = rests[stream][: _LONGEST_LINE * 4]
                    ended = ended and len(chunk) < 1 << 20
                if ended:
                    self._remove_scratch()
                    _started.remove(self)
                    self.target.post_message(ChildEnded(self, process.returncode, _parse(document), last))
                    return
                self._let_go.wait(_POLL_SECONDS)


def running_children() -> list[Child]:
    """The children of this UI that still run."""
    return [child for child in _started if child.running]


def child_of(path: Path) -> Child | None:
    """The running child that trains this run, if any: it holds no lock before its base is loaded."""
    names = [{"train", str(path)}, {"demo", str(path)}]
    return next((child for child in running_children() if any(each <= set(child.command) for each in names)), None)


def _file_of_two_ends() -> tuple[int, BinaryIO]:
    """A descriptor to write and a file to read, of one temporary file that disappears when both are closed."""
    descriptor, name = tempfile.mkstemp(prefix="irm-lite-")
    path = Path(name)
    reader = path.open("rb", buffering=0)
    if os.name != "nt":  # there, an open file cannot be removed
        path.unlink()
    return descriptor, reader


def _parse(document: bytes) -> Mapping[str, Any] | None:
    """The JSON object that is the whole output, or its last line; None where neither is one."""
    for text in (document, document.strip().rpartition(b"\n")[2]):
        try:
            found = json.loads(text)
        except (ValueError, RecursionError):
            continue
        if isinstance(found, dict):
            return found
    return None
