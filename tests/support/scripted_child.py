"""Stands in for `irm-lite`: does what the JSON list named by $SCRIPTED_CHILD says, step by step.

["out", text] ["err", text] ["rubbish"]            write to stdout or stderr
["begin"]                                          make the run of --out, or take up that of --resume, and hold its lock
["release"]                                        let go of the lock
["event", kind, {...}]  ["live", L, H]             what a training writes
["until", file]  ["until interrupted"]             wait for a file, or for SIGINT
["exit", code]  ["die"]                            the end; die is what the system does where memory runs out
"""

import json
import os
import signal
import sys
import time
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from irm_lite.base.fingerprint import Fingerprint
from irm_lite.config import TrainConfig, read_config_file
from irm_lite.runs.directory import RunDirectory


def main() -> None:
    interrupted: list[int] = []
    signal.signal(signal.SIGINT, lambda number, frame: interrupted.append(number))
    arguments = sys.argv[1:]
    given = dict(pairwise(arguments))
    run = RunDirectory(given.get("--out") or given.get("--resume") or "nowhere")
    with ExitStack() as held:
        for word, *rest in json.loads(Path(os.environ["SCRIPTED_CHILD"]).read_text(encoding="utf-8")):
            if word in ("out", "err"):
                print(rest[0], file=sys.stdout if word == "out" else sys.stderr, flush=True)
            elif word == "rubbish":
                sys.stdout.buffer.write(b"\x00\xff\x1b[2J{not json\n\xfe")
                sys.stdout.buffer.flush()
            elif word == "begin":
                held.enter_context(run.lock.held())
                if not run.started():
                    config = TrainConfig(**read_config_file(Path(given["--config"])) if "--config" in given else {})
                    run.create(config, Fingerprint("llama", 30, 576, "0" * 64), {})
            elif word == "release":
                held.close()
            elif word == "event":
                run.events.append(rest[0], **rest[1])
            elif word == "live":
                values = np.linspace(0, 1, rest[0] * rest[1], dtype=np.float32).reshape(rest[0], rest[1])
                save_file({"mean_abs": values}, run.live, metadata={"layers": f"0-{rest[0] - 1}"})
            elif word == "until":
                while not Path(rest[0]).exists():
                    time.sleep(0.01)
            elif word == "until interrupted":
                while not interrupted:
                    time.sleep(0.01)
            elif word == "exit":
                sys.exit(rest[0])
            elif word == "die":
                os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main()
