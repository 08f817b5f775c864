"""Held norms, temperatures, and sets of indices, on a base and an IRM in which the truth is planted."""

import json
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import LlamaForCausalLM

from irm_lite import train
from irm_lite.analysis.ablation import Ablation, AblationSettings, ablate
from irm_lite.analysis.ablation_files import load_ablations, load_subsets, save_ablations, save_subsets
from irm_lite.analysis.interventions.changed import weighted
from irm_lite.analysis.interventions.measured import Measured, output_power
from irm_lite.analysis.report.ablations import ablations_section
from irm_lite.analysis.report.findings import findings
from irm_lite.analysis.statistics.causality import KL, MEASURES
from irm_lite.analysis.subsets import MATCHED_RMS, RANDOM, _at_rms_of, _weights, keep_and_drop
from irm_lite.base.presets import presets
from irm_lite.config import TrainConfig
from irm_lite.core.errors import InputError, RunError
from irm_lite.runs.trained import TrainedRun
from irm_lite.steering.injection import inject
from support.tiny_models import write_hf_folder

LOUD, CARRIES = 5, [2, 20, 33]
FLAT = np.ones((1, 64))
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> TrainedRun:
    """LOUD: 100 times the others, read by nothing. The IRM adds after the last block, to three indices (CARRIES) much."""
    folder = write_hf_folder(tmp_path_factory.mktemp("loud") / "base", chat_template=presets()["llama-2-7b-chat"].chat_template)
    model: Any = LlamaForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        embedding = model.get_input_embeddings().weight
        embedding[:, LOUD] = 100 * embedding.std()
        norms = [norm for block in model.model.layers for norm in (block.input_layernorm, block.post_attention_layernorm)]
        for norm in (*norms, model.model.norm):
            norm.weight[LOUD] = 1e-5
        for block in model.model.layers:
            for matrix in (block.self_attn.o_proj.weight, block.mlp.down_proj.weight):
                matrix[LOUD] = 0
    model.save_pretrained(folder)
    settings: dict[str, Any] = {"irm": "static", "quant": "none", "dtype": "float32", "max_steps": 1, "sample_tokens": 0}
    trained = train(TrainConfig(model=str(folder), layers="2", site="block", **settings), folder.parent / "run")
    vectors = trained.irm.get_parameter("vectors")
    scale = trained.irm.get_buffer("scale")
    with torch.no_grad():
        vectors[:] = 0.03 * torch.randn(1, 64, generator=torch.Generator().manual_seed(1)) / scale[:, None]
        vectors[:, CARRIES] = 2.0 / scale[:, None]
    return trained


def one(run: TrainedRun, index: int, **settings: Any) -> Ablation:
    return ablate(run, [index], FLAT, AblationSettings(where="base", samples=4, **settings))[0]


def by_hand(run: TrainedRun, index: int, norms: str) -> float:
    """The NLL's change over the run's own answers: the final norm and the head written out, on the stream before them."""
    model: Any = run.base.model
    change, count = 0.0, 0
    for sample in run.held_out[:4]:
        seen: list[Tensor] = []
        handle = model.model.norm.register_forward_pre_hook(lambda _module, args, seen=seen: seen.append(args[0][0]))
        with torch.no_grad():
            model(torch.tensor([sample.ids]))
            with inject(model, run.irm):
                model(torch.tensor([sample.ids]))
        handle.remove()
        base, steered = (each[sample.answer_start - 1 : -1].double() for each in seen)
        without = steered.clone()
        without[:, index] = 0
        nlls = []
        for stream in (steered, without):
            divided_by = {"free": stream, "steered": steered, "base": base}[norms]
            r = (divided_by.square().mean(-1, keepdim=True) + model.config.rms_norm_eps).sqrt()
            logits = (stream / r * model.model.norm.weight.double()) @ model.lm_head.weight.double().T
            nlls.append(float(F.cross_entropy(logits, torch.tensor(sample.ids[sample.answer_start :]), reduction="sum")))
        change, count = change + nlls[1] - nlls[0], count + sample.n_answer
    return change / count


@pytest.mark.parametrize("norms", ["free", "steered", "base"])
@pytest.mark.parametrize("index", [LOUD, CARRIES[1]])
def test_what_is_held_is_what_a_norm_written_out_divides_by(run: TrainedRun, index: int, norms: Any) -> None:
    found = one(run, index, norms=norms)
    effect = found.random[MEASURES[0]].effect
    assert effect == pytest.approx(by_hand(run, index, norms), rel=1e-3, abs=2e-4)
    if norms == "free":
        assert found.through_norms == {}
    else:
        assert found.through_norms[MEASURES[0]][0] == pytest.approx(by_hand(run, index, "free") - effect, rel=1e-3, abs=4e-4)


def test_a_loud_channel_is_a_temperature_and_a_direct_one_is_not(run: TrainedRun) -> None:
    loud, direct = one(run, LOUD), one(run, CARRIES[1])
    assert loud.random[KL].effect > 0.05
    assert loud.sharpness.explained > 0.999
    assert loud.sharpness.explained_p == 1 / 31
    assert direct.random[KL].effect > 1e-3
    assert direct.sharpness.explained < 0.5
    held = one(run, LOUD, norms="steered")
    assert abs(held.random[KL].effect) < 1e-3 * loud.random[KL].effect
    assert held.through_norms[KL][0] == pytest.approx(loud.random[KL].effect, rel=1e-2)
    low, high = held.through_norms[KL][1]
    assert 0 < low < held.through_norms[KL][0] < high


@pytest.mark.parametrize(("norms", "said"), [("steered", "leave out --hold-norms"), ("free", "float32")])
def test_a_model_that_puts_out_nan_is_told_at_once(run: TrainedRun, monkeypatch: pytest.MonkeyPatch, norms: Any, said: str) -> None:
    """With held denominators nothing bounds the stream: seen on the demo model without its loudest index."""
    layer: Any = run.base.model.get_submodule("model.layers.0.mlp.down_proj")
    asked = []
    original = Measured.changes

    def overflowing(self: Measured, *args: Any) -> Any:
        asked.append(args)
        with monkeypatch.context() as patch:
            patch.setattr(layer, "forward", lambda x: torch.full((*x.shape[:-1], 64), torch.inf))
            return original(self, *args)

    monkeypatch.setattr(Measured, "changes", overflowing)
    with pytest.raises(InputError, match=f"index {LOUD} zeroed") as caught:
        one(run, LOUD, norms=norms)
    assert said in str(caught.value)
    assert len(asked) == 1


def test_three_indices_that_carry_all_are_found_to(run: TrainedRun) -> None:
    mean_abs = run.irm.moments(torch.zeros(1, 1, 64))[0].abs().double().numpy()
    kept, dropped = keep_and_drop(run, [("keep", 3), ("drop", 3)], mean_abs, AblationSettings(samples=4))
    assert sorted(kept.indices) == sorted(dropped.indices) == CARRIES
    assert kept.kept_effect > 0.9
    assert dropped.kept_effect < 0.1
    assert kept.power == pytest.approx(float(np.square(mean_abs[:, CARRIES]).sum() / np.square(mean_abs).sum()), rel=1e-4)
    for each in (kept, dropped):
        assert each.effects[RANDOM][KL].p == 1 / 101
        assert set(each.effects) == {RANDOM, MATCHED_RMS}
    assert kept.effects[MATCHED_RMS][KL].p == 1 / 101  # as large, at other indices, does not do it
    nothing = by_nothing(run)
    assert kept.nothing[KL] == dropped.nothing[KL] == pytest.approx(nothing, rel=1e-3)


def by_nothing(run: TrainedRun) -> float:
    """KL(IRM || base) over the run's own answers, a sample at a time."""
    total, count = 0.0, 0
    for sample in run.held_out[:4]:
        ids = torch.tensor([sample.ids])
        with torch.no_grad():
            plain = F.log_softmax(run.base.model(ids).logits[0, sample.answer_start - 1 : -1].double(), -1)
            with inject(run.base.model, run.irm):
                steered = F.log_softmax(run.base.model(ids).logits[0, sample.answer_start - 1 : -1].double(), -1)
        total, count = total + float((steered.exp() * (steered - plain)).sum()), count + sample.n_answer
    return total / count


def test_sets_of_an_irm_that_is_alike_everywhere_are_no_better_than_chance(run: TrainedRun) -> None:
    vectors = run.irm.get_parameter("vectors")
    before = vectors.detach().clone()
    small = []
    try:
        for seed in range(2):
            with torch.no_grad():
                vectors[:] = 0.5 * torch.randn(1, 64, generator=torch.Generator().manual_seed(seed)).sign()
            chosen = np.random.default_rng(seed).random((1, 64))  # as good as drawn
            found = keep_and_drop(run, [("keep", 8), ("drop", 8)], chosen, AblationSettings(samples=2))
            small += [each.effects[RANDOM][KL].p <= 0.05 for each in found]
    finally:
        with torch.no_grad():
            vectors.copy_(before)
    assert sum(small) <= 1  # binomial of 4 at 5%: more is 1 in 70


def test_weights_leave_the_output_that_they_say(run: TrainedRun) -> None:
    power = output_power(run, run.held_out[:3])
    torch.testing.assert_close(power, run.irm.moments(torch.zeros(1, 1, 64))[0].double().square(), rtol=1e-5, atol=1e-9)
    own, other = _weights(power, np.array(CARRIES), "drop"), _weights(power, np.array([1, 3, 4]), "drop")
    scaled = _at_rms_of(power, other, own)
    assert float((power * scaled.square()).sum()) == pytest.approx(float((power * own.square()).sum()))
    code = run.irm.encode(torch.zeros(1, 2, 64))
    plain = run.irm.layer_output(code, 0)
    with weighted(run, scaled):
        torch.testing.assert_close(run.irm.layer_output(code, 0), plain * scaled[0].float())
    assert torch.equal(run.irm.layer_output(code, 0), plain)
    assert "layer_output" not in vars(run.irm)


def test_files_and_report_hold_what_was_measured(run: TrainedRun) -> None:
    ablations = [one(run, LOUD), one(run, LOUD, norms="steered")]
    sets = keep_and_drop(run, [("keep", 2)], np.random.default_rng(0).random((1, 64)), AblationSettings(samples=2, norms="base"))
    paths = [*save_ablations(ablations, run.directory, "r", 0), *save_subsets(sets, run.directory, "r", 0)]
    names = [f"{LOUD}-base.json", f"{LOUD}-base-norms-of-steered.json", "set-keep-2-norms-of-base.json"]
    assert [path.name for path in paths] == names
    document = {"name": "one", "marked": [], "ablations": load_ablations(run.directory), "sets": load_subsets(run.directory)}
    document = json.loads(json.dumps(document, allow_nan=False))
    assert len(document["ablations"]) == 12
    assert document["sets"][0]["k"] == 2
    tables = {table.title: table for table in ablations_section([document]).tables}
    assert len(tables["Is it a change of sharpness alone?"].rows) == 2
    assert len(tables["What of it goes through the norms' denominators"].rows) == 3
    assert len(tables["Indices of the IRM's output kept or dropped together"].rows) == 6
    claims = [each["claim"] for each in findings({"base": {"hidden_size": 64}, "runs": [document]})]
    assert sum("sharpness rather than their content" in claim for claim in claims) == 2
    assert sum("held at the steered's" in claim for claim in claims) == 3
    damaged = json.loads(paths[2].read_text())
    damaged["effects"][0]["effect"] = float("nan")
    paths[2].write_text(json.dumps(damaged))
    with pytest.raises(RunError, match="set-keep-2-norms-of-base.json is damaged"):
        load_subsets(run.directory)
    for path in paths:
        path.unlink()


@pytest.mark.parametrize("k", [0, 33])
def test_a_set_that_cannot_be_held_against_others_is_refused(run: TrainedRun, k: int) -> None:
    with pytest.raises(InputError, match=f"a set of {k} indices cannot be held against others: give 1 to 32"):
        keep_and_drop(run, [("keep", k)], FLAT, AblationSettings())


def test_sets_in_the_base_are_refused(run: TrainedRun) -> None:
    with pytest.raises(InputError, match="leave --where base out"):
        keep_and_drop(run, [("keep", 2)], FLAT, AblationSettings(where="base"))
