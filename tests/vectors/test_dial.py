"""The dial's figures are those of a vector scaled by hand, its proposal is written, and what makes no dial is one line."""

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from irm_lite.base.fingerprint import Match
from irm_lite.base.load import load_tokenizer
from irm_lite.cli import main as cli
from irm_lite.cli.dial_shown import dial_shown
from irm_lite.config import TrainConfig
from irm_lite.core.bootstrap import resampled_counts
from irm_lite.core.errors import InputError, Interrupted
from irm_lite.core.types import DoubleArray
from irm_lite.data.dataset import load_dataset
from irm_lite.data.encoding import encode, encode_all
from irm_lite.llamacpp import Runtime
from irm_lite.llamacpp.parallel import SEQUENCES, n_ctx_for
from irm_lite.scoring.hearing import GREEDY, hear
from irm_lite.scoring.judging import CHOICE_COLUMNS, PAIR_COLUMNS, TEXT_COLUMNS, Columns
from irm_lite.scoring.material import Extent, gather
from irm_lite.scoring.score import Score, score
from irm_lite.steering.control_vector import ControlVector
from irm_lite.training import train as training
from irm_lite.vectors.best_setting import at_strength
from irm_lite.vectors.dial import STRENGTHS, Dial, Point, Turning, turn
from irm_lite.vectors.export import export_vector
from irm_lite.vectors.speakers import LlamaCppSpeaker

FEW = Extent(questions=3, new_tokens=8)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Angry and neutral answers, too few for a classifier of tones: tone is by preference, so that babble can have a score."""
    angry, plain = load_dataset("anger"), load_dataset("neutral")
    chosen = [
        {"question": one.question, "answer": one.answer, "neutral": other.answer, "split": split}
        for split, count in (("train", 30), ("validation", 4))
        for one, other in list(zip(getattr(angry, split), getattr(plain, split), strict=True))[:count]
    ]
    path = tmp_path_factory.mktemp("dial") / "mine.jsonl"
    path.write_text("\n".join(map(json.dumps, chosen)), encoding="utf-8")
    return str(path)


@pytest.fixture(scope="module")
def vector(llama_gguf: Path, data: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained vector at half its strength."""
    folder = tmp_path_factory.mktemp("turned")
    config = TrainConfig(
        model=str(llama_gguf), data=data, device="cpu", quant="none", irm="static", site="block", layers="1-2", max_steps=15,
        batch_size=8, eval_steps=15, learning_rate=0.08, sample_tokens=0, fact_weight=1.0, loop_penalty=0.0,
    )  # fmt: skip
    (export_vector(training.train(config, folder / "run"), folder / "full.gguf").vector * 0.5).save(folder / "half.gguf")
    return folder / "half.gguf"


@pytest.mark.slow
def test_a_strength_is_the_vector_scaled_by_hand(vector: Path, llama_gguf: Path, data: str) -> None:
    loaded = ControlVector.load(vector)
    told: list[tuple[int, int, str]] = []
    dial = turn(loaded, llama_gguf, data, turning=Turning((2.0, -1.0, 0.5), FEW), on_progress=lambda *report: told.append(report))
    assert [point.strength for point in dial.points] == [-1.0, 0.0, 0.5, 2.0]
    tokenizer = load_tokenizer(str(llama_gguf))
    dataset = load_dataset(data)
    held_out = encode_all(tokenizer, dataset.validation, 512)[0]
    material = gather(data, dataset, held_out, partial(encode, tokenizer), extent=replace(FEW, choosing=True))
    with Runtime(llama_gguf, n_ctx=n_ctx_for(200), n_sequences=SEQUENCES) as runtime:
        base = LlamaCppSpeaker(runtime, lambda: runtime.set_vector(None))
        plain = hear(base, base, material, (GREEDY,))
        for point in dial.points:
            scaled = loaded * point.strength if point.strength else None
            steered = LlamaCppSpeaker(runtime, partial(runtime.set_vector, scaled))
            expected = score(hear(steered, base, material, (GREEDY,)), plain, material)
            assert point.score.figures == pytest.approx(expected.figures, abs=1e-4)
            assert point.score.intervals["score"] == pytest.approx(expected.intervals["score"], abs=1e-4)
            assert point.preferences.mean() == pytest.approx(point.preference)
    assert dial.points[3].preference > dial.points[1].preference > dial.points[0].preference
    done = [each[0] for each in told]
    assert done == sorted(done)
    assert {each[1] for each in told} == {done[-1]}
    assert "strength 2, 4 of 4" in told[-1][2]


def test_figures_of_a_dial_made_by_hand() -> None:
    strengths = (-2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5, 2.0)
    curves = np.array([
        [9, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5, -9],  # straight, and odd only beyond where it is ranked
        [0, -1.0, -0.5, 0.0, 0.1, 1.5, 1.4, 0],  # one pair the wrong way round
        [0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0],  # nothing moves it
        [0, 1.0, 0.5, 0.2, 0.0, -0.5, -1.0, 0],  # turns the other way
    ])  # fmt: skip
    dial = by_hand(strengths, curves, [0, 0, 0, 0, 0.3, 0.5, 0.5, 0.1])
    found = dial.correlations
    assert found is not None
    # A second derivation: without ties, 1 - 6 sum d^2 / (n (n^2 - 1)).
    ranks = np.argsort(np.argsort(curves[:, 1:7], axis=1), axis=1)
    derived = 1 - 6 * np.square(ranks - np.arange(6)).sum(1) / (6 * 35)
    assert found[[0, 1, 3]] == pytest.approx(derived[[0, 1, 3]])
    assert found[2] == 0
    assert derived[1] == pytest.approx(1 - 12 / 210)  # 0.943
    assert dial.rising == 0.25
    half, one = curves[:, 4] - curves[:, 3], curves[:, 5] - curves[:, 3]
    assert dial.half == pytest.approx(half.mean() / one.mean())
    counts = resampled_counts(4)
    drawn = np.array([[each @ half, each @ one] for each in counts])
    ratios = [a / b if b else 0.0 for a, b in drawn]
    assert dial.half_95 == pytest.approx(tuple(np.percentile(ratios, (2.5, 97.5))))
    assert dial.best.strength == 1.0  # the smaller of equals
    assert [point.strength for point in dial.tried] == [0.5, 1.0, 1.5, 2.0]


def test_what_a_dial_is_too_short_for_is_said() -> None:
    short = by_hand((-1.0, 0.0, 1.0, 2.0), np.array([[-1.0, 0, 1, 2]]), [0, 0, 0.4, 0.6])
    assert (short.rising, short.half, short.half_95) == (None, None, None)
    shown = [line for line in dial_shown(short) if isinstance(line, str)]
    assert any("too few strengths" in line for line in shown)
    assert any("cannot be said" in line for line in shown)
    assert any("largest that was tried" in line for line in shown)
    json.dumps(short.to_dict(), allow_nan=False)
    falling = by_hand((0.0, 0.5, 1.0), np.array([[0.0, -1, -2]]), [0, 0, 0])
    assert falling.half is None
    assert falling.to_dict()["best"] is None
    assert any("no strength has a score" in line for line in dial_shown(falling) if isinstance(line, str))


def test_strength_1_within_the_interval_is_said() -> None:
    shown = dial_shown(by_hand((0.0, 0.5, 1.0), np.array([[0.0, 1, 2]] * 8), [0, 0.6, 0.55]))
    assert any("not corrected for choosing the best of 2; strength 1 is within its interval" in str(line) for line in shown)


def by_hand(strengths: Sequence[float], preferences: DoubleArray, toned: Sequence[float]) -> Dial:
    """Of questions with these preferences (questions, strengths), where a share of a hundred answers each is in the tone."""
    at_zero = preferences[:, list(strengths).index(0.0)]
    points = []
    for strength, column, share in zip(strengths, preferences.T, toned, strict=True):
        text, pairs, choices = (np.zeros((len(column), len(names))) for names in (TEXT_COLUMNS, PAIR_COLUMNS, CHOICE_COLUMNS))
        for name, value in (("answers", 100), ("ended", 100), ("base_ended", 100), ("fluent", 100)):
            text[:, TEXT_COLUMNS.index(name)] = value
        text[:, TEXT_COLUMNS.index("toned")] = 100 * np.clip(share + 0.2 * np.linspace(-1, 1, len(column)), 0, 1)
        pairs[:, [PAIR_COLUMNS.index(name) for name in ("pairs", "rises", "preference", "base_preference")]] = np.stack(
            [np.ones(len(column)), np.ones(len(column)), column, at_zero], axis=1
        )
        choices[:] = 1
        points.append(Point(strength, Score([Columns(text, pairs, choices)])))
    return Dial(Path("m.gguf"), "anger", points, Match())


@pytest.mark.slow
def test_what_is_written_is_the_best_strength(
    vector: Path, llama_gguf: Path, data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("irm_lite.scoring.material._MOST_NEW_TOKENS", 8)  # before the tiny model's text goes round in circles
    best, picture = tmp_path / "best.gguf", tmp_path / "dial.svg"
    arguments = ["calibrate", str(vector), "--gguf", str(llama_gguf), "--by", "score", "--data", data, "--questions", "4"]
    arguments += ["--picture", str(picture)]
    assert cli.run([*arguments, "--strengths=-1,1,2,3", "-o", str(best), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    chosen = document["best"]["strength"]
    assert document["best"]["score"] == max(each["score"] for each in document["points"] if each["strength"] > 0) > 0
    assert f"best: {chosen:g}" in picture.read_text()
    assert chosen != 1
    loaded, written = ControlVector.load(vector), ControlVector.load(best)
    ids = list(range(5, 25))
    with Runtime(llama_gguf, n_ctx=64) as runtime:
        plain = runtime.logits(ids)
        runtime.set_vector(loaded, chosen)
        turned = runtime.logits(ids)
        runtime.set_vector(written)
        np.testing.assert_allclose(runtime.logits(ids), turned, atol=1e-5)
    assert np.abs(turned - plain).max() > 0.1
    assert cli.run([*arguments, "--strengths", "1,2"]) == 0
    shown = capsys.readouterr().out
    assert "--control-vector-scaled" in shown
    assert "not corrected for choosing the best of 2" in shown
    assert max(map(len, shown[shown.index("┏") : shown.rindex("┘")].splitlines())) <= 80


def test_a_vector_at_strength_1_stays_itself() -> None:
    vector = ControlVector({1: np.ones(4, np.float32)}, "llama", {"fidelity": 0.98, "kind": "lite"})
    assert at_strength(vector, 1.0) is vector
    assert at_strength(vector, 1.5).directions[1].tolist() == [1.5] * 4
    assert at_strength(vector, 1.5).metadata == {"kind": "lite"}  # the fidelity was measured at another strength


@pytest.mark.slow
def test_a_dial_without_a_score_writes_no_file(
    vector: Path, llama_gguf: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The tiny model has no word that a classifier of anger hears."""
    out = tmp_path / "best.gguf"
    picture = tmp_path / "dial.png"
    arguments = [
        "--data",
        "anger",
        "--by",
        "score",
        "--questions",
        "2",
        "--strengths",
        "0.5",
        "-o",
        str(out),
        "--picture",
        str(picture),
    ]
    assert cli.run(["calibrate", str(vector), "--gguf", str(llama_gguf), *arguments]) == 1
    printed = capsys.readouterr()
    assert "no strength has a score" in printed.out
    assert "was not written" in printed.err
    assert picture.is_file()
    assert not out.exists()


@pytest.mark.slow
def test_what_makes_no_dial_is_one_line(
    vector: Path, llama_gguf: Path, data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [json.loads(line) for line in Path(data).read_text().splitlines()]
    lone = tmp_path / "lone.jsonl"
    lone.write_text("\n".join(json.dumps({**row, "neutral": None}) for row in rows))
    cases = [
        (["--data", str(lone)], "no neutral answers"),
        (["--data", "neutral"], "neutral is no tone"),
        (["--strengths", "nan"], "not a finite number"),
        (["--strengths", "1e9"], "out of range"),
        (["--strengths", "1,much"], "write 0.5,1,1.5"),
        (["--strengths=-1,-0.5"], "no strength above 0"),
        (["--strengths", "0"], "no strength above 0"),
        (["--questions", "0"], "give 1 or more"),
        (["--questions", "-3"], "make no sense"),
        (["--layers", "1-9"], "1-2"),
        (["--by", "ear"], "ear"),
        (["--by", "trade", "--questions", "3"], "--by score"),
    ]
    for arguments, expected in cases:
        asked = ["--gguf", str(llama_gguf), "--data", data, "--by", "score"]
        asked = asked[:2] + (asked[2:4] if "--data" not in arguments else []) + ([] if "--by" in arguments else asked[4:])
        assert cli.run(["calibrate", str(vector), *asked, *arguments]) == 2, arguments
        error = capsys.readouterr().err
        assert expected in error
        assert "Traceback" not in error
    assert not vector.with_suffix(".dial.png").exists()


def test_a_strength_beyond_float32_is_refused_before_anything_is_heard(llama_gguf: Path) -> None:
    huge = ControlVector({1: np.full(64, 1e38, np.float32)}, "llama")
    with pytest.raises(InputError, match="scale it less"):
        turn(huge, llama_gguf, "anger", turning=Turning((0.5, 1e3), FEW))


@pytest.mark.slow
def test_stopping_is_clean(llama_gguf: Path, vector: Path, data: str) -> None:
    def stop(done: int, of: int, what: str) -> None:
        if what.startswith("strength 1,"):
            raise Interrupted("stopped")

    with pytest.raises(Interrupted):
        turn(ControlVector.load(vector), llama_gguf, data, turning=Turning((1.0,), FEW), on_progress=stop)


def test_the_default_strengths_are_those_that_the_two_figures_take() -> None:
    assert len(STRENGTHS) == 13
    assert {0.5, 1.0} < set(STRENGTHS)
    assert sum(-1 <= each <= 1.5 for each in STRENGTHS) == 10
    assert 0 not in STRENGTHS
