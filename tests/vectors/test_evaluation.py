"""NLL, KL and fidelity against torch's own divergence and a direct count."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from irm_lite.base.fingerprint import Fingerprint
from irm_lite.base.load import load_base
from irm_lite.cli.tables import comparison_shown
from irm_lite.config import TrainConfig
from irm_lite.core.bootstrap import interval, resampled_sums
from irm_lite.core.errors import VectorError
from irm_lite.core.log_probabilities import kl
from irm_lite.data.dataset import load_dataset
from irm_lite.data.encoding import encode_all
from irm_lite.data.text_measures import distinct_2
from irm_lite.llamacpp import Runtime
from irm_lite.runs.directory import RunDirectory
from irm_lite.runs.trained import TrainedRun
from irm_lite.steering.control_vector import ControlVector
from irm_lite.steering.injection import inject, static_irm
from irm_lite.steering.irm import build_irm
from irm_lite.vectors.evaluation import evaluate_run
from irm_lite.vectors.fidelity.comparison import Comparison
from irm_lite.vectors.fidelity.generations import Generations
from irm_lite.vectors.fidelity.in_llamacpp import compare_in_llamacpp
from irm_lite.vectors.fidelity.in_transformers import compare
from irm_lite.vectors.fidelity.tally import tally


def test_kl_is_torchs() -> None:
    p, q = (F.log_softmax(torch.randn(5, 11, dtype=torch.float64), -1) for _ in range(2))
    torch.testing.assert_close(kl(p, q).sum(), F.kl_div(q, p, log_target=True, reduction="sum"))
    assert not kl(p, p).any()


def test_compare_is_the_mean_over_tokens_not_over_samples(llama_folder: Path, llama_gguf: Path) -> None:
    """Every figure against a direct count over unpacked samples; in llama.cpp on the same weights too."""
    base = load_base(str(llama_folder), quant="none", dtype="float32", device="cpu")
    samples, _ = encode_all(base.tokenizer, load_dataset("sadness").test[:7], 512)
    generator = np.random.default_rng(0)
    a, b = (ControlVector({1: generator.standard_normal(64).astype(np.float32)}, "llama") for _ in range(2))
    got = compare(base, static_irm(a), b, samples)
    nll, divergence, agreed, count = torch.zeros(3), torch.zeros(4), 0, 0
    with torch.no_grad():
        for sample in samples:  # unpacked, unbatched, from the full logits
            ids = torch.tensor([sample.ids])
            logits = [base.model(ids).logits[0]]
            for vector in (a, b):
                with inject(base.model, vector):
                    logits.append(base.model(ids).logits[0])
            plain, taught, static = (F.log_softmax(each[sample.answer_start - 1 : -1], -1) for each in logits)
            labels = torch.tensor(sample.ids[sample.answer_start :])
            nll += torch.stack([-each[torch.arange(len(labels)), labels].sum() for each in (plain, taught, static)])
            pairs = ((plain, taught), (static, taught), (taught, plain), (static, plain))  # torch's order: Q, P
            divergence += torch.stack([F.kl_div(q, p, log_target=True, reduction="sum") for q, p in pairs])
            agreed += int((taught.max(-1).indices == static.max(-1).indices).sum())
            count += len(labels)
    with Runtime(llama_gguf, irm=static_irm(a), n_ctx=256) as runtime:
        in_llamacpp = compare_in_llamacpp(runtime, b, samples)
        assert runtime.dynamic is not None
        assert runtime.dynamic.enabled  # left as it was made
    for each, tolerance in ((got, 1e-4), (in_llamacpp, 2e-3)):
        assert each.tokens == count
        assert [each.nll_base, each.nll_irm, each.nll_vector] == pytest.approx((nll / count).tolist(), abs=tolerance)
        names = ("kl_irm_base", "kl_irm_vector", "kl_base_irm", "kl_base_vector")
        assert [each.means[name] for name in names] == pytest.approx((divergence / count).tolist(), abs=tolerance)
        assert each.means["top1_agreement"] == pytest.approx(agreed / count, abs=0.02)
        assert each.fidelity == pytest.approx(1 - float(divergence[1] / divergence[0]), abs=tolerance)


def test_fidelity_of_doing_nothing_is_zero_and_of_doing_the_same_is_one() -> None:
    plain, taught = (F.log_softmax(torch.randn(5, 11), -1) for _ in range(2))
    labels = torch.arange(5)
    nothing = Comparison("transformers", tally((plain, taught, plain), labels)[None].numpy())
    same = Comparison("transformers", tally((plain, taught, taught), labels)[None].numpy())
    assert nothing.fidelity == pytest.approx(0, abs=1e-6)
    assert nothing.unsteered == "nothing is steered by the vector: the model says the same as without (KL below 1e-06)"
    assert same.unsteered is None
    assert same.fidelity == pytest.approx(1, abs=1e-6)
    assert same.means["top1_agreement"] == 1
    assert same.kl_irm_base == pytest.approx(float(F.kl_div(plain, taught, log_target=True, reduction="batchmean")), rel=1e-5)


def test_of_an_irm_that_does_nothing_there_is_no_fidelity() -> None:
    """It read 1.000 for a vector that does nothing either, and 0.000 for any other."""
    plain, other = (F.log_softmax(torch.randn(5, 11), -1) for _ in range(2))
    labels = torch.arange(5)
    for vector, named in ((plain, "by the IRM or by the vector"), (other, "by the IRM:")):
        found = Comparison("transformers", tally((plain, plain, vector), labels)[None].numpy())
        assert math.isnan(found.fidelity)
        document = json.loads(json.dumps(found.to_dict(), allow_nan=False))
        assert document["fidelity"] is document["intervals_95"]["fidelity"] is None
        assert f"nothing is steered {named}" in document["unsteered"]
        assert "fidelity - = 1" in str(comparison_shown(found)[-1])


@pytest.mark.slow
def test_intervals_cover_as_often_as_they_say() -> None:
    """Ratios of samples of unequal length, drawn again and again: the true ratio lies within about 95% of the intervals."""
    generator = np.random.default_rng(3)
    hits = 0
    for trial in range(200):
        tokens = generator.integers(10, 60, 60).astype(float)
        each = np.stack([tokens, tokens * 2.0 + np.sqrt(tokens) * generator.standard_normal(60)], axis=1)
        sums = resampled_sums(each, seed=trial)
        low, high = interval(sums[:, 1] / sums[:, 0])
        hits += low <= 2.0 <= high
    assert 0.88 <= hits / 200 <= 0.99


def test_distinct_2_counts_word_pairs() -> None:
    assert distinct_2("I hate it I hate it") == pytest.approx(3 / 5)
    texts = {"base": ["a b a b", "one"], "irm": ["", "one"], "vector": ["a b c", "a b c"]}
    measured = Generations(["?", "?"], texts).distinct_2()
    assert [measured[name][0] for name in texts] == [pytest.approx(2 / 3), 0.0, 1.0]  # what has no pairs does not count


def test_a_vector_for_another_model_is_refused_before_anything_is_loaded(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "run")
    config = TrainConfig(model="no-such-model")  # loading it would be another error
    with run.lock.held():
        run.create(config, Fingerprint("llama", 3, 64, "0" * 64), {})
    trained = TrainedRun(run, config, build_irm("static", 64, (1,)), run.fingerprint())
    with pytest.raises(VectorError, match="use it with the model"):
        evaluate_run(trained, ControlVector({1: np.ones(32, np.float32)}, "llama"), None)
