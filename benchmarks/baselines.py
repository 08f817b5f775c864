"""Other ways to a control vector on the same base and data, in llama.cpp, at equal side effect.

python benchmarks/baselines.py runs/anger-lite runs/sadness-lite runs/joy-lite [--json FILE]

Contenders: the first principal component of differences (repeng's pca_diff: last token, sign by majority), over pairs of
the tone's and the neutral answer, and over personas in the prompt as repeng's examples have them; the mean of aligned
differences over all tokens, to unit norm (as llama.cpp's cvector-generator --method mean, but that it pads the shorter
text, where this cuts the longer one, and writes the difference of block N-1 as direction N). For each of them, at all
layers and at the middle half, the strength is bisected until the side effect (KL to the base on neutral answers,
validation split) is the distilled vector's; a half and a quarter of it are tried too, and the best NLL of the tone's
validation answers wins. Beside them the run's own mean, distilled and baked vector and its dynamic IRM, at strength 1.
All figures are of the test split.
"""

import argparse
import json
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from irm_lite.base.fingerprint import fingerprint_gguf
from irm_lite.data.dataset import load_dataset
from irm_lite.data.encoding import encode, encode_all
from irm_lite.llamacpp import Runtime
from irm_lite.llamacpp.likelihood import context_for
from irm_lite.runs.trained import TrainedRun, load_run
from irm_lite.steering.control_vector import ControlVector
from irm_lite.vectors.bake import bake
from irm_lite.vectors.biases import gather
from irm_lite.vectors.calibration import Reference, Setting, layer_choices
from irm_lite.vectors.mean import block_directions, observe
from steering_methods.activations import PERSONA_PAIRS, answers, difference_of_means, observe_pairs, pca, persona

CHOSEN_ON = 12  # validation answers of each kind
STEPS = 6  # of the bisection, in powers of two from 1/4 to 256 times a vector of unit norm


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    document: dict[str, Any] = {}
    for path in options.runs:
        run = load_run(path)
        found = compare(run)
        document[run.config.data] = found
        rows = {name: row for name, row in found.items() if name != "nll_base"}
        print(f"\n{run.config.data} (NLL of the unsteered base {found['nll_base']:.3f})\n")
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
    tones = [load_dataset(tone) for tone in (run.config.data, "neutral")]
    aligned, neutral = (encode_all(base.tokenizer, tone.test, 512)[0] for tone in tones)
    choosing = [encode_all(base.tokenizer, tone.validation, 512)[0] for tone in tones]
    rows: dict[str, Any] = {}
    n_ctx = context_for([*aligned, *neutral, *choosing[0], *choosing[1]])
    with Runtime(gguf, irm=run.irm, n_ctx=n_ctx) as runtime:
        assert runtime.dynamic is not None
        runtime.dynamic.enabled = False
        validation = Reference(runtime, *(samples[:CHOSEN_ON] for samples in choosing))
        runtime.set_vector(distilled)
        own = validation.measure(runtime, "all", 1.0)
        for name, vector in contenders(run).items():
            print(f"{run.config.data}: the best setting of {name}", file=sys.stderr, flush=True)
            vectors[name] = vector
            chosen[name] = best_setting(vector, runtime, validation, own.kl_neutral)
        runtime.set_vector(None)
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


def best_setting(vector: ControlVector, runtime: Runtime, validation: Reference, budget: float) -> tuple[float, tuple[int, ...]]:
    """The strength and layers with the lowest NLL at a side effect of at most the budget, on the validation split."""
    tried: list[tuple[float, float, tuple[int, ...]]] = []
    for layers in (layer_choices(vector)[0], layer_choices(vector)[2]):

        def at(strength: float, layers: tuple[int, ...] = layers) -> Setting:
            runtime.set_vector(vector, strength, layers)
            return validation.measure(runtime, "", strength)

        low, high = -2.0, 8.0
        for _ in range(STEPS):
            middle = (low + high) / 2
            low, high = (middle, high) if at(2**middle).kl_neutral <= budget else (low, middle)
        for part in (1.0, 0.5, 0.25):
            tried.append((at(part * 2**low).nll_aligned, part * 2**low, layers))
    _, strength, layers = min(tried)
    return strength, layers


def mean_vector(run: TrainedRun) -> ControlVector:
    samples, _ = encode_all(run.base.tokenizer, run.dataset.train, run.config.max_length)
    directions = block_directions(observe(run.base, run.irm, samples).mean, run.irm, run.base.n_layers)
    return ControlVector({n: value.float().cpu().numpy() for n, value in directions.items()}, run.fingerprint.architecture)


def contenders(run: TrainedRun) -> dict[str, ControlVector]:
    base, tone = run.base, run.config.data
    neutral = {example.question: example for example in load_dataset("neutral").train}
    pairs = [(encode(base.tokenizer, each), encode(base.tokenizer, neutral[each.question])) for each in run.dataset.train]
    personas = [(persona(base, tone, each), persona(base, "neutral", each)) for each in list(neutral.values())[:PERSONA_PAIRS]]
    by_answer = observe_pairs(base, answers(pairs))
    return {
        "PCA of answers": pca(base, by_answer),
        "PCA of personas (repeng)": pca(base, observe_pairs(base, personas)),
        "mean of aligned differences (cvector-generator)": difference_of_means(base, by_answer),
    }


if __name__ == "__main__":
    main()
