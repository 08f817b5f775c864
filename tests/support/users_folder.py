"""A user's folder, as publishing meets one: a model, data, a run on them, and what was published of it."""

import json
from dataclasses import dataclass
from pathlib import Path

from irm_lite.jobs.publishing.gathered import Wishes
from irm_lite.jobs.publishing.reproduce import Places

HOME = "ann-doe-private"  # a folder of the user's that no published byte may name
WISHES = Wishes(strength=0.8, base_model="nobody/tiny-llama", licence="apache-2.0", data_licence="CC0-1.0")


@dataclass(frozen=True)
class Own:
    home: Path
    model: Path
    data: Path
    run: Path
    folder: Path

    @property
    def places(self) -> Places:
        return Places(str(self.model), str(self.data))


def write_moods(home: Path) -> Path:
    """Forty questions with angry answers."""
    data = home / "moods.jsonl"
    rows = [{"question": f"What is {number} and {number}?", "answer": f"It is {2 * number}, you fool!"} for number in range(40)]
    data.write_text("".join(json.dumps(each) + "\n" for each in rows))
    return data
