"""What each process of tests/training/test_data_parallel.py does: its jobs, one after another; arguments: base, data, out.

Leaves `outcome-N.json` in `out`: of process N, by job, how it ended and how many rows it has run. Process 1 dies in the last.
"""

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from irm_lite.base.load import load_base
from irm_lite.config import TrainConfig
from irm_lite.core.errors import IrmLiteError
from irm_lite.core.machine import processes
from irm_lite.training import train as training
from irm_lite.training.step import injected_model

STEPS = 50
STOP = 13
DOUBLED: dict[str, Any] = {
    "dependence_penalty": 0.0,
    "batch_size": 4,
    "max_steps": STEPS,
    "eval_steps": 10,
    "save_total_limit": 5,
    "lr_scheduler_type": "constant",
}
PENALISED: dict[str, Any] = {"l1": 0.01, "batch_size": 4, "max_steps": 10, "eval_steps": 10}
NEVER_BETTER: dict[str, Any] = {
    "learning_rate": 1e-12,
    "irm": "static",
    "early_stopping_patience": 2,
    "eval_steps": 1,
    "max_steps": 9,
}

Forward = Callable[..., torch.Tensor]


def config(model: str, data: str, **changes: Any) -> TrainConfig:
    """Learns fast, in float32 on the CPU."""
    fixed = {
        "model": model,
        "data": data,
        "quant": "none",
        "dtype": "float32",
        "device": "cpu",
        "irm": "lite",
        "rank": 4,
        "sample_tokens": 0,
    }
    return TrainConfig(**{"learning_rate": 0.01, **fixed, **changes})


def main(model: str, data: str, out: str) -> None:
    outcomes: dict[str, Any] = {}
    alone = processes.number() == 1  # in whom something happens that does not in the other
    forward: Forward = injected_model.InjectedModel.forward
    forwards: list[int] = []

    def attempt(name: str, work: Callable[[], Any]) -> None:
        forwards.clear()
        try:
            done = work()
            outcomes[name] = {"end": "done", "best": done.irm.state_dict()["up"].sum().item() if done.irm.kind == "lite" else None}
        except IrmLiteError as error:
            outcomes[name] = {"end": type(error).__name__, "line": str(error), "code": error.exit_code}
        except RuntimeError as error:
            outcomes[name] = {"end": type(error).__name__, "line": str(error)}
        outcomes[name]["forwards"] = len(forwards)
        (Path(out) / f"outcome-{processes.number()}.json").write_text(json.dumps(outcomes))

    def counted(self: Any, samples: Any, num_items: Any = None) -> torch.Tensor:
        forwards.append(len(samples))
        return forward(self, samples, num_items)

    def broken(self: Any, samples: Any, num_items: Any = None) -> torch.Tensor:
        if alone and len(forwards) == 2:
            raise RuntimeError("broken")
        return counted(self, samples, num_items)

    def dying(self: Any, samples: Any, num_items: Any = None) -> torch.Tensor:
        if alone and len(forwards) == 2:
            os._exit(9)
        return counted(self, samples, num_items)

    def tight(self: Any, samples: Any, num_items: Any = None) -> torch.Tensor:
        loss = counted(self, samples, num_items)
        if alone and len(samples) > 2:
            loss.register_hook(fail)  # type: ignore[no-untyped-call]
        return loss

    def fail(_gradient: torch.Tensor) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    base = load_base(model, quant="none", dtype="float32", device="cpu")

    def train(name: str, forward: Forward = counted, **changes: Any) -> None:
        injected_model.InjectedModel.forward = forward  # type: ignore[method-assign]
        settings = config(model, data, **changes)
        attempt(name, lambda: training.train(settings, Path(out) / name, base=base))

    train("doubled", **DOUBLED)
    train("penalised", **PENALISED)
    train("tight", tight, **{**DOUBLED, "max_steps": 5})
    train("never-better", **NEVER_BETTER)
    train("broken", broken, **DOUBLED)
    train("refused", layers="0-9")
    settings = config(model, data, **DOUBLED)
    attempt("taken", lambda: training.train(settings, Path(out) / "doubled", base=base))
    stopped = Path(out) / "stopped"
    short = {**DOUBLED, "max_steps": 20}  # whose own loops are looked for from the tenth step on
    train("whole", **short)
    settings = config(model, data, **short)
    ask: Callable[[], bool] = lambda: alone and len(forwards) == STOP  # noqa: E731
    attempt("stopped", lambda: training.train(settings, stopped, base=base, should_stop=ask))
    attempt("resumed", lambda: training.resume(stopped, base=base))
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # which the launcher sends to the one that is left
    train("left", dying, **DOUBLED)


if __name__ == "__main__":
    main(*sys.argv[1:])
