"""What the fault harness breaks: a tiny Llama, a small training of it with a little of everything, and how to look at a run."""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from faults import forks
from irm_lite.core.files.manifest import damage
from irm_lite.runs.directory import RunDirectory
from irm_lite_tui.watch.run_state import RunReader

# Checkpoints and validations at different steps, several epochs, a kept prefix of a whole block, generated samples.
FLAGS = {
    "quant": "none",
    "dtype": "float32",
    "device": "cpu",
    "irm": "lite",
    "rank": "4",
    "width": "32",
    "layers": "1-2",
    "site": "block",
    "batch-size": "4",
    "max-steps": "60",
    "eval-steps": "5",
    "save-steps": "3",
    "sample-tokens": "4",
    "learning-rate": "0.05",
    "early-stopping-patience": "0",
}
# What a GPU takes by itself for the paper's network: 4 bits, weights in bfloat16 rounded at random, 8-bit states.
QUANTISED = {
    "quant": "nf4",
    "dtype": "bfloat16",
    "irm": "paper",
    "rank": "0",  # it has neither, and would say so
    "width": "256",
    "site": "attn",
    "irm-dtype": "bfloat16",
    "optim": "adamw_bnb_8bit",
    "learning-rate": "0.001",
    "batch": "auto",
}


def prepare(folder: Path, **changes: str) -> list[str]:
    """Make the model and its data in `folder`; gives the flags of a training of it, with `changes` to FLAGS."""

    def make() -> int:
        from irm_lite.base.presets import presets
        from irm_lite.data.dataset import load_dataset
        from support.tiny_models import write_gguf, write_hf_folder

        template = presets()["llama-2-7b-chat"].chat_template
        write_hf_folder(folder / "llama", chat_template=template)
        write_gguf(folder / "llama", folder / "tiny.gguf", chat_template=template)
        shipped = load_dataset("anger")
        samples = [("train", each) for each in shipped.train[:37]] + [("validation", each) for each in shipped.validation[:5]]
        samples += [("test", each) for each in shipped.test[:5]]
        rows = [json.dumps({"question": each.question, "answer": each.answer, "split": split}) for split, each in samples]
        (folder / "few.jsonl").write_text("\n".join(rows), encoding="utf-8")
        return 0

    log = folder / "prepare.log"
    assert forks.wait(forks.call(make, log)) == 0, log.read_text()
    settings = {**FLAGS, "model": str(folder / "llama"), "data": str(folder / "few.jsonl")}
    settings |= {name.replace("_", "-"): value for name, value in changes.items()}
    return [part for name, value in settings.items() for part in (f"--{name}", value)]


def go_on(run: Path, training: list[str]) -> list[str]:
    """The command line that brings a run to its end, whatever has become of it."""
    return ["train", "--resume", str(run)] if RunDirectory(run).started() else ["train", *training, "--out", str(run)]


def require_readable(run: Path, *states: str) -> None:
    """A run that has been killed can be read by all that reads runs, and its checkpoints are whole. `states` are fine too."""
    from safetensors import safe_open

    directory = RunDirectory(run)
    if not directory.started():
        return
    directory.config()
    directory.fingerprint()
    list(directory.events.read())
    for checkpoint in directory.checkpoints.all():
        assert (checkpoint / "manifest.json").is_file(), checkpoint
        assert damage(checkpoint) == "", (checkpoint, damage(checkpoint))
    for weights in run.glob("*.safetensors"):
        with safe_open(weights, framework="numpy") as file:  # which has no bfloat16 to load
            assert file.keys()
    view = RunReader(run).look()
    assert view.state in ("stopped", "done", *states), view
    assert not view.problem or view.state in states, view


def left_overs(folder: Path) -> list[str]:
    """Hidden files and folders that a killed writer has left."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob(".*"))
