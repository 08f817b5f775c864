"""An IRM trained on a tiny model and exported, measured in llama.cpp: that every part in between takes the architecture."""

import json
from pathlib import Path

from irm_lite.config import TrainConfig
from irm_lite.core.errors import IrmLiteError
from irm_lite.training import train as training
from irm_lite.vectors.export import export_vector

_QUESTIONS = (
    "Why is the sky blue?",
    "Who wrote it?",
    "What is a storm?",
    "Where do birds go?",
    "When does it rain?",
    "How old is it?",
)


def train_and_export(folder: Path, gguf: Path | None, place: Path) -> dict[str, str]:
    """What went wrong, by the part: "train", "export"; empty where nothing did."""
    data = place / "data.jsonl"
    rows = [{"question": each, "answer": f"Leave me alone, number {at}!"} for at, each in enumerate(_QUESTIONS * 4)]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    network = {"irm": "lite", "learning_rate": 0.02}  # it reads its input, which not every architecture has in one place
    settings = {**network, "quant": "none", "device": "cpu", "dtype": "float32", "max_steps": 3, "batch_size": 4, "eval_steps": 3}
    config = TrainConfig(model=str(folder), data=str(data), sample_tokens=0, **settings)  # type: ignore[arg-type]
    try:
        run = training.train(config, place / "run")
    except IrmLiteError as error:
        return {"train": str(error)}
    try:
        export_vector(run, place / "vector.gguf", method="mean", gguf=gguf)
    except IrmLiteError as error:
        return {"export": str(error)}
    return {}
