"""A folder as the documents' examples have it: a tiny model, data, a trained run and vectors."""

import json
import shutil
from pathlib import Path

from irm_lite.config import TrainConfig
from irm_lite.data.dataset import load_dataset
from irm_lite.training.train import train
from irm_lite.vectors.export import export_vector


def fill(folder: Path, gguf: Path) -> None:
    """model.gguf, mine.jsonl, runs/mine with its vector, and mine.gguf, anger.gguf and joy.gguf, which are that vector."""
    shutil.copyfile(gguf, folder / "model.gguf")
    dataset = load_dataset("anger")
    parts = {"train": dataset.train[:24], "validation": dataset.validation[:4], "test": dataset.test[:4]}
    rows = [{"question": each.question, "answer": each.answer, "split": split} for split, part in parts.items() for each in part]
    (folder / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    settings = TrainConfig(
        model=str(folder / "model.gguf"),
        data=str(folder / "mine.jsonl"),
        quant="none",
        device="cpu",
        max_steps=2,
        eval_steps=2,
        sample_tokens=0,
        loop_penalty=0,
    )
    trained = train(settings, folder / "runs" / "mine")
    export_vector(trained, trained.directory.default_vector)
    for name in ("mine", "anger", "joy"):
        shutil.copyfile(trained.directory.default_vector, folder / f"{name}.gguf")


def copied(workshop: Path, folder: Path) -> Path:
    """A copy to work in."""
    shutil.copytree(workshop, folder, ignore=shutil.ignore_patterns("checkpoints"))
    return folder
