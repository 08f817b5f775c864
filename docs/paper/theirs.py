"""Draw a recording with the paper's own code, to lay its pictures beside ours.

    pip install seaborn plotly natsort pandas
    python docs/paper/theirs.py CLONE_OF_injectable-alignment-model RECORDING OUT

Their axis is made for 4096 indices; its ticks are cut to the recording's hidden size, nothing else is changed.
"""

import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import torch

from irm_lite.analysis.recordings.recording import load_recording


def main(clone: str, source: str, out: str) -> None:
    sys.path.insert(0, str(Path(clone) / "src" / "utils"))
    from tensor_logger import tensor_logger

    recording = load_recording(Path(source))
    about, prompt, outputs = recording.about, recording.about.prompts[0], torch.from_numpy(recording.outputs[0]).float()
    logger = tensor_logger(len(about.layers), about.data, about.layers, out)
    logger.xticks = [tick for tick in logger.xticks if tick <= about.hidden_size]
    logger.xticklabels = logger.xticks
    if len(about.layers) % 8:  # their labels divide the depth by eight
        logger.yticklabels = [*about.layers, about.layers[-1] + 1]
    steps = [outputs[: prompt.n_prompt], *outputs[prompt.n_prompt :].unsqueeze(1)]
    for step in steps:  # (T, L, H) -> their (B, T, H, L)
        logger.add_tensor(step.permute(0, 2, 1).unsqueeze(0))
    logger.new_prompt()
    logger.generate_heatmaps()


if __name__ == "__main__":
    main(*sys.argv[1:])
