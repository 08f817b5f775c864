"""What the optimisations change in what is learned: the validation NLL after equal steps, with them and without.

python benchmarks/same_learning.py [--model demo] [--data anger] [--steps 50] [--kinds lite paper] [--seeds 0 1] [--json FILE]
                                   [--irm-dtype bfloat16 --optim adamw_bnb_8bit]

Without: transformers' attention over the whole row under a mask, cross entropy over all logits at once, the penalty on dependence
of full outputs, the IRM's weights, products and AdamW in float32, nothing kept of the frozen prefix. --irm-dtype and --optim are of
the training with them, such as a GPU takes for the paper's network. Exits 1 where the NLL with them is more than 0.02 nats worse.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Any
from unittest.mock import patch

from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.nn import functional as F

from irm_lite.base.load import Base, load_base
from irm_lite.base.presets import presets
from irm_lite.config import TrainConfig
from irm_lite.core.files.atomic import write_text
from irm_lite.steering.irm import IRM
from irm_lite.training import train as training

WORSE = 0.02  # nats a token


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--data", default="anger")
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--kinds", nargs="+", default=["lite", "paper"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--irm-dtype", default="auto")
    parser.add_argument("--optim", default="auto")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    base = load_base(options.model)
    rows = []
    for kind in options.kinds:
        for seed in options.seeds:
            ends = [learned(base, options, kind, seed, plain=plain) for plain in (False, True)]
            rows.append({"irm": kind, "seed": seed, "with": ends[0], "without": ends[1]})
    table = Table("IRM", "seed", "NLL with", "NLL without", "difference", "largest difference of a step's loss")
    for row in rows:
        with_, without = row["with"], row["without"]
        apart = max(abs(a - b) for a, b in zip(with_["losses"], without["losses"], strict=True))
        figures = (f"{with_['nll']:.4f}", f"{without['nll']:.4f}", f"{with_['nll'] - without['nll']:+.4f}", f"{apart:.4f}")
        table.add_row(row["irm"], str(row["seed"]), *figures)
    Console().print(table)
    if options.json:
        document = {"options": {**vars(options), "json": None}, "rows": rows}
        write_text(options.json, json.dumps(document, indent=2) + "\n")
    sys.exit(any(row["with"]["nll"] - row["without"]["nll"] > WORSE for row in rows))


def learned(base: Base, options: argparse.Namespace, kind: str, seed: int, *, plain: bool) -> dict[str, Any]:
    """The last validation NLL in nats a token, and each step's loss."""
    settings = {**(presets()[options.model].train if kind == "lite" and options.model in presets() else {})}
    settings |= {"model": options.model, "data": options.data, "irm": kind, "seed": seed, "max_steps": options.steps}
    settings |= {"eval_steps": options.steps, "sample_tokens": 0, "cache_prefix": not plain}
    settings |= (
        {"irm_dtype": "float32", "optim": "adamw_torch"} if plain else {"irm_dtype": options.irm_dtype, "optim": options.optim}
    )
    with tempfile.TemporaryDirectory() as folder, without_optimisations(base) if plain else ExitStack():
        run = training.train(TrainConfig.from_dict(settings, "benchmark"), Path(folder) / "run", base=base)
        events = list(run.directory.events.read())
    nll = [event["nll"] for event in events if event["kind"] == "eval"][-1]
    return {"nll": nll, "losses": [event["loss"] for event in events if event["kind"] == "step"]}


@contextmanager
def without_optimisations(base: Base) -> Iterator[None]:
    """The plain way, by parts of transformers and torch."""
    before = base.model.config._attn_implementation
    base.model.set_attn_implementation("sdpa")
    with (
        patch("irm_lite.training.step.injected_model.answer_nll", plain_nll),
        patch("irm_lite.training.nll.answer_nll", plain_nll),
        patch("irm_lite.training.train.compute_dtype", lambda base, irm: None),
        patch("irm_lite.steering.irm.LiteIRM.moments", IRM.moments),
        patch("irm_lite.training.train.dequantised_once", lambda blocks: nullcontext()),
    ):
        yield
    base.model.set_attn_implementation(before)


def plain_nll(head: nn.Module, hidden: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(head(hidden).float(), labels, reduction="sum")


if __name__ == "__main__":
    main()
