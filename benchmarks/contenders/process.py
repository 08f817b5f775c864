"""A contender's process: python -m contenders.process, with its task as the first line on standard input."""

import json
import os
import sys

from contenders.task import Task
from irm_lite.core.errors import IrmLiteError
from irm_lite.core.machine.quiet import import_bitsandbytes
from irm_lite.core.machine.spinning import spin_briefly


def main() -> None:
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print shall not stand among the answers
    task = Task(**json.loads(sys.stdin.readline()))
    if task.ours:  # as the command line does for them
        spin_briefly()
    import_bitsandbytes()  # before accelerate does it, and talks
    import torch

    from contenders.compete import compete
    from contenders.turns import Over

    try:
        compete(task, sys.stdin, out)
    except Over:
        pass
    except torch.OutOfMemoryError:
        out.write(json.dumps({"failed": "memory ran out"}) + "\n")
    except IrmLiteError as error:
        out.write(json.dumps({"failed": str(error)}) + "\n")


if __name__ == "__main__":
    main()
