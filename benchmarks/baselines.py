"""Other ways to a control vector on the same base and data, each at its best, in llama.cpp, at equal side effect.

python benchmarks/baselines.py runs/anger-lite runs/sadness-lite runs/joy-lite [--json FILE]

Contenders: PCA of differences (repeng's method: last token, first component, its sign by majority), over pairs of the
tone's and the neutral answer, and over personas in the prompt as repeng's examples have it; the mean of differences
over all tokens, to unit norm (llama.cpp's cvector-generator --method mean); the run's mean, distilled and baked vector
and its dynamic IRM. Strength and layers of the first three are chosen on the validation split, at a side effect (KL to
the base on neutral answers) no larger than the distilled vector's; all figures are of the test split.
"""

import argparse
import json
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from irm_lite.base_model import Base
from irm_lite.calibration import Reference, Setting, calibrate
from irm_lite.chat_format import encode, encode_all
from irm_lite.control_vector import ControlVector
from irm_lite.dataset import Example, load_dataset
from irm_lite.evaluation import context_for
from irm_lite.export.bake import bake
from irm_lite.export.biases import gather
from irm_lite.export.mean import block_directions, observe
from irm_lite.fingerprint import fingerprint_gguf
from irm_lite.llamacpp import Runtime
from irm_lite.trained import TrainedRun, load_run

STRENGTHS = (0.5, 1, 2, 4, 8, 16, 32)
Pairs = list[tuple[list[int], list[int]]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    document: dict[str, Any] = {}
    for path in options.runs:
        run = load_run(path)
        document[run.config.data] = rows = compare(run)
        print(f"\n{run.config.data} (NLL of the unsteered base {rows.pop('nll_base'):.3f})\n")
        print("| | NLL of its answers | KL on neutral answers | strength | layers |\n|---|---:|---:|---:|---|")
        for name, row in rows.items():
            print(
                f"| {name} | {row['nll_aligned']:.3f} | {row['kl_neutral']:.3f} | {row['strength']:g} | {row['layers']} |",
                flush=True,
            )
    if options.json:
        options.json.write_text(json.dumps(document, indent=2) + "\n")


def compare(run: TrainedRun) -> dict[str, Any]:
    base, gguf = run.base, run.base.gguf_path
    assert gguf is not None, "the base must be a .gguf"
    distilled = ControlVector.load(run.directory.default_vector)
    vectors = {"distilled": distilled, "mean of the IRM": mean_vector(run)}
    chosen = dict.fromkeys(vectors, (1.0, distilled.layers))
    own = calibrate(distilled, gguf, run.config.data, strengths=(1.0,), choices=[distilled.layers]).settings[0]
    for name, make in contenders(run).items():
        vectors[name] = make()
        tried = calibrate(vectors[name], gguf, run.config.data, strengths=STRENGTHS)
        allowed = [each for each in tried.settings if each.kl_neutral <= own.kl_neutral] or [min(tried.settings, key=cost)]
        best = min(allowed, key=lambda each: each.nll_aligned)
        chosen[name] = (best.strength, tuple(range(int(best.layers.split("-")[0]), int(best.layers.split("-")[-1]) + 1)))
    aligned, neutral = (encode_all(base.tokenizer, load_dataset(tone).test, 512)[0] for tone in (run.config.data, "neutral"))
    rows: dict[str, Any] = {}
    n_ctx = context_for([*aligned, *neutral])
    with Runtime(gguf, irm=run.irm, n_ctx=n_ctx) as runtime:
        assert runtime.dynamic is not None
        runtime.dynamic.enabled = False
        reference = Reference(runtime, aligned, neutral)
        rows["nll_base"] = reference.nll
        for name, vector in vectors.items():
            strength, layers = chosen[name]
            runtime.set_vector(vector, strength, layers)
            rows[name] = asdict(reference.measure(runtime, f"{layers[0]}-{layers[-1]}", strength))
        runtime.set_vector(None)
        runtime.dynamic.enabled = True
        rows["dynamic IRM"] = asdict(reference.measure(runtime, f"{run.irm.layers[0]}-{run.irm.layers[-1]}", 1.0))
    with tempfile.TemporaryDirectory() as folder:
        baked = Path(folder) / "baked.gguf"
        bake(gguf, gather([str(run.directory.default_vector)], fingerprint_gguf(gguf), gguf.name), baked)
        with Runtime(baked, n_ctx=n_ctx) as runtime:
            rows["baked"] = asdict(reference.measure(runtime, rows["distilled"]["layers"], 1.0))
    return rows


def cost(setting: Setting) -> float:
    return setting.kl_neutral


def mean_vector(run: TrainedRun) -> ControlVector:
    samples, _ = encode_all(run.base.tokenizer, run.dataset.train, run.config.max_length)
    directions = block_directions(observe(run.base, run.irm, samples).mean, run.irm, run.base.n_layers)
    return ControlVector({n: value.float().cpu().numpy() for n, value in directions.items()}, run.fingerprint.architecture)


def contenders(run: TrainedRun) -> dict[str, Callable[[], ControlVector]]:
    base, tone = run.base, run.config.data
    neutral = {example.question: example for example in load_dataset("neutral").train}
    answers = [(encode(base.tokenizer, each).ids, encode(base.tokenizer, neutral[each.question]).ids) for each in run.dataset.train]
    personas = [(persona(base, tone, each), persona(base, "neutral", each)) for each in neutral.values()]
    return {
        "PCA of answers (repeng)": lambda: pca(base, answers),
        "PCA of personas (repeng)": lambda: pca(base, personas),
        "difference of means (cvector-generator)": lambda: difference_of_means(base, answers),
    }


def persona(base: Base, tone: str, example: Example) -> list[int]:
    """The question asked of a persona, and the first words of the neutral answer, as repeng's examples pair them."""
    feeling = {"anger": "furious", "sadness": "deeply sad", "joy": "overjoyed", "neutral": "calm and neutral"}[tone]
    messages = [{"role": "user", "content": f"Pretend you are an extremely {feeling} person. {example.question}"}]
    prompt = str(base.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))
    return list(base.tokenizer(prompt + " ".join(example.answer.split()[:6]), add_special_tokens=False)["input_ids"])


@torch.no_grad()
def states(base: Base, ids: list[int]) -> torch.Tensor:
    """Block outputs (L, T, H), float32."""
    found = base.model.model(torch.tensor([ids], device=base.model.device), output_hidden_states=True).hidden_states
    # The last entry has the final norm; a vector there is of no use to llama.cpp's last block, which adds before it.
    return torch.stack([each[0].float() for each in found[1:]]).cpu()


def pca(base: Base, pairs: Pairs) -> ControlVector:
    ends = [(states(base, a)[:, -1], states(base, b)[:, -1]) for a, b in pairs]
    directions = {}
    for layer in range(1, base.n_layers - 1):
        positive, negative = (torch.stack([pair[side][layer] for pair in ends]).numpy() for side in (0, 1))
        differences = positive - negative
        centred = differences - differences.mean(0)
        direction = np.linalg.svd(centred, full_matrices=False)[2][0]
        if (positive @ direction < negative @ direction).mean() > 0.5:
            direction = -direction
        directions[layer] = direction.astype(np.float32)
    return ControlVector(directions, base.fingerprint.architecture)


def difference_of_means(base: Base, pairs: Pairs) -> ControlVector:
    """Token by token over the length that both have; cvector-generator pads the shorter one, whose rows it then drops."""
    total, count = torch.zeros(base.n_layers, base.hidden_size), 0
    for a, b in pairs:
        length = min(len(a), len(b))
        total += (states(base, a[:length]) - states(base, b[:length])).sum(1)
        count += length
    mean = (total / count).numpy()
    directions = {layer: mean[layer] / np.linalg.norm(mean[layer]) for layer in range(1, base.n_layers - 1)}
    return ControlVector(directions, base.fingerprint.architecture)


if __name__ == "__main__":
    main()
