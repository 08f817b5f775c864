"""A process that works by turns, as the parent sees it: started, asked for a turn, ended."""

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from contenders.task import Task


class Child:
    """One process; between turns it sleeps."""

    def __init__(self, module: str, told: Any, environment: Mapping[str, str] | None = None) -> None:
        """`module`: runs in it. `told`: the first line on its standard input, as JSON. `environment`: variables beside those that
        are there."""
        here = str(Path(__file__).parents[1])
        variables = {
            **os.environ,
            **(environment or {}),
            "TOKENIZERS_PARALLELISM": "false",
            "PYTHONPATH": os.pathsep.join(filter(None, [here, os.environ.get("PYTHONPATH")])),
        }
        self.process = subprocess.Popen(
            [sys.executable, "-m", module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=variables,
            start_new_session=True,  # Ctrl-C is the parent's: it ends them all
        )
        self.start = self._ask(json.dumps(told))

    def turn(self) -> dict[str, Any]:
        """What the next turn took, or {"failed": why}."""
        return self._ask("go")

    def end(self) -> None:
        """Let it leave by itself, its temporary files removed; not for long if it is in the middle of a turn."""
        try:
            self.process.communicate(timeout=5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.communicate()

    def _ask(self, line: str) -> dict[str, Any]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            self.process.stdin.write(line + "\n")
            self.process.stdin.flush()
            answer = self.process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if answer:
            found: dict[str, Any] = json.loads(answer)
            return found
        return {"failed": f"the process ended with status {self.process.wait()}"}


def contender(task: Task, environment: Mapping[str, str] | None = None) -> Child:
    """The process of a Task."""
    return Child("contenders.process", dataclasses.asdict(task), environment)
