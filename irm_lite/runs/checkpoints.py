"""A run's checkpoints: a folder step-N for each. What is in one: checkpoint_files.py. Imports no torch."""

import re
from collections.abc import Callable
from pathlib import Path

from irm_lite.core.files.atomic import remove_folder
from irm_lite.core.files.manifest import damage

BEST = "best"  # folder in a checkpoint: the best IRM so far, where that is from another step
_FILES = (  # that every checkpoint has
    *("irm.json", "irm.safetensors", "optimizer.json", "optimizer.safetensors", "scheduler.json", "scheduler.safetensors"),
    *("rng.json", "rng.safetensors", "trainer_state.json"),
)


class Checkpoints:
    """The checkpoints in the folder `path`, which need not exist yet. Making one reads nothing."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def of_step(self, step: int) -> Path:
        return self.path / f"step-{step}"

    def all(self) -> list[Path]:
        """Those that exist, sound or damaged, by step, the newest last."""
        found = [path for path in self.path.glob("step-*") if re.fullmatch(r"step-(0|[1-9]\d{0,11})", path.name, re.ASCII)]
        return sorted(found, key=step_of)

    def newest_sound(self, warn: Callable[[str], None] = lambda text: None) -> Path | None:
        """The undamaged checkpoint of the highest step, or None. `warn` gets a line for each damaged one that is skipped."""
        for path in reversed(self.all()):
            reason = damage(path, _FILES)
            if not reason:
                return path
            if not damage(path, _FILES, f"{BEST}/"):
                warn(f"the best IRM in {path.name} is damaged ({reason}): the run keeps the one it has")
                return path
            warn(f"the checkpoint {path.name} is damaged ({reason}) and skipped")
        return None

    def thin(self, step: int, keep: int) -> None:
        """Remove all but the `keep` newest up to `step`, the one just written; later ones were skipped as damaged."""
        found = self.all()
        past = [path for path in found if step_of(path) <= step]
        for path in found:
            if path not in past[-keep:]:
                remove_folder(path)

    def size(self) -> int:
        """Bytes of all checkpoints."""
        return sum(path.stat().st_size for path in self.path.rglob("*") if path.is_file())


def step_of(checkpoint: Path) -> int:
    """The optimiser step after which a checkpoint was written."""
    return int(checkpoint.name.removeprefix("step-"))
