"""Pictures show what was planted, where it was planted; `irm-lite heatmap` draws them all."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from irm_lite.analysis.pictures.canvas import literal, save_figure
from irm_lite.analysis.pictures.figures import choose_token, default_marks, pictures
from irm_lite.analysis.pictures.heatmap import heatmap_figure
from irm_lite.analysis.recordings.recording import PHASES, Description, Prompt, Recording
from irm_lite.analysis.recordings.running_statistics import Running
from irm_lite.base.fingerprint import Fingerprint
from irm_lite.cli import main as cli
from irm_lite.config import TrainConfig
from irm_lite.core.errors import InputError
from irm_lite.runs.directory import RunDirectory
from irm_lite.steering.control_vector import ControlVector

LAYERS, WIDTH, ASKED, ANSWERED = (2, 3, 5), 2000, 9, 14
HOSTILE = ["$x^{$", " why", "\n", "\x1b[31m", "  ", "猫", "</script>", "\u202eab", "$\\frac"]


@pytest.fixture(scope="module")
def recording() -> Recording:
    """One prompt of 9 tokens and 14 generated ones, with hostile texts and a recording of it."""
    values = np.random.default_rng(0).standard_normal((ASKED + ANSWERED, len(LAYERS), WIDTH)).astype(np.float16)
    values[:, :, 700] *= 9
    values[4] *= 5
    values[:, 1, ::3] = 0
    running = {phase: Running(len(LAYERS), WIDTH) for phase in PHASES}
    running["prompt"].add(torch.from_numpy(values[:ASKED]))
    running["generated"].add(torch.from_numpy(values[ASKED:]))
    tokens = [*HOSTILE, *(f" word{place}" for place in range(ANSWERED))]
    about = Description(
        "angry-$run$\x1b[1m", "anger", "lite", "block", list(LAYERS), WIDTH, Fingerprint("llama", 6, WIDTH, "w"), "transformers",
        "tiny", [Prompt("$\\why$ cats?\x1b[2J", tokens, ASKED)], 1,
    )  # fmt: skip
    return Recording(about, {phase: each.statistics for phase, each in running.items()}, [values])


def rendered(figure: Figure) -> np.ndarray:
    """(height, width, RGB) in 0..255, row 0 at the top."""
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())[..., :3].astype(int)  # type: ignore[attr-defined]


def pixel(axes: Axes, x: float, y: float, shape: tuple[int, ...]) -> tuple[int, int]:
    """Row and column of the picture at which the axes have (x, y)."""
    across, up = axes.transData.transform((x, y))
    return shape[0] - 1 - int(up), int(across)


def heights(axes: Axes) -> list[float]:
    bars = [patch for patch in axes.patches if isinstance(patch, Rectangle)]
    return [bar.get_height() for bar in sorted(bars, key=lambda bar: bar.get_x())]


def test_a_planted_value_has_its_colour_at_its_place_and_the_mark_stands_above_it() -> None:
    values = np.zeros((6, 300), dtype=np.float32)
    values[2, 120:124], values[4, 200:204] = 1.0, -1.0
    plain, marked = heatmap_figure(values, tuple(range(6)), "t"), heatmap_figure(values, tuple(range(6)), "t", (122, 5))
    picture, axes = rendered(marked), marked.axes[0]

    def colour(index: float, layer: float) -> Any:
        return picture[pixel(axes, index, layer, picture.shape)]

    assert colour(122, 2)[0] > colour(122, 2)[2] + 50  # red for what is added
    assert colour(202, 4)[2] > colour(202, 4)[0] + 50  # blue for what is taken away
    assert colour(122, 4).min() > 240  # white where there is nothing
    assert colour(202, 2).min() > 240
    top = pixel(axes, 122, -0.5, picture.shape)[0]
    for mark in (122, 5):
        column = pixel(axes, mark, 0, picture.shape)[1]
        assert picture[top - 8 : top - 2, column - 1 : column + 2].min(axis=(1, 2)).max() < 140  # the line, all of its way
    assert picture[top - 8 : top - 2, pixel(axes, 60, 0, picture.shape)[1]].min() > 240  # nothing where no mark is
    inside = [pixel(axes, 122, layer, picture.shape) for layer in (0, 1, 3, 5)]
    assert min(picture[place].min() for place in inside) > 240  # and nothing over the data
    assert {text.get_text() for text in axes.texts} == {"122", "5"}
    assert not plain.axes[0].texts


def test_bars_count_the_largest_magnitudes(recording: Recording) -> None:
    values, drawn = recording.outputs[0], dict(pictures(recording, (0, ASKED)))
    order = np.argsort(-np.abs(values.astype(np.float64)).ravel(), kind="stable")
    token, layer, _ = np.unravel_index(order, values.shape)
    by_layer = heights(drawn["prompt-0-largest-by-layer"].axes[0])
    assert by_layer == [int((layer[:100] == each).sum()) for each in range(len(LAYERS))]
    assert sum(by_layer) == 100
    by_token = heights(drawn["prompt-0-largest-by-token"].axes[0])
    assert by_token == [int((token[:1000] == each).sum()) for each in range(len(values))]
    assert by_token[4] == max(by_token)
    labels = [label.get_text() for label in drawn["prompt-0-largest-by-layer"].axes[0].get_xticklabels()]
    assert labels == ["2", "3", "5"]


def test_zeros_are_not_among_the_largest(recording: Recording) -> None:
    silent = np.zeros_like(recording.outputs[0])
    silent[3, 1, :40] = 1
    quiet = Recording(recording.about, recording.statistics, [silent])
    drawn = dict(pictures(quiet, (0, 0)))
    assert heights(drawn["prompt-0-largest-by-layer"].axes[0]) == [0, 40, 0]
    assert "The 40 largest" in drawn["prompt-0-largest-by-token"].axes[0].get_title(loc="left")


def test_sparsity_and_how_often_are_those_of_the_outputs(recording: Recording) -> None:
    values, drawn = recording.outputs[0].astype(np.float64), dict(pictures(recording, None, (1512,)))
    assert set(drawn) == {"mean-prompt", "mean-generated", "sparsity", "often-largest"}  # no token was chosen
    shares = [100 * (np.abs(part) < 1e-4).mean((0, 2)) for part in (values[:ASKED], values[ASKED:])]
    np.testing.assert_allclose(heights(drawn["sparsity"].axes[0]), np.stack(shares, 1).ravel(), atol=1e-9)
    for axes, part in zip(drawn["often-largest"].axes, (values[:ASKED], values[ASKED:]), strict=True):
        edge = np.sort(np.abs(part), axis=2)[:, :, -10, None]
        often = 100 * (np.abs(part) >= edge).mean((0, 1))
        lines = axes.collections[0].get_segments()  # type: ignore[attr-defined]
        drawn_heights = np.array([segment[1, 1] for segment in lines])
        np.testing.assert_allclose(drawn_heights, often, atol=100 / (len(part) * len(LAYERS)))  # equals at the edge of the ten
        assert drawn_heights.argmax() == 700


def test_heatmaps_are_of_the_tokens_that_their_titles_name(recording: Recording) -> None:
    values, drawn = recording.outputs[0].astype(np.float64), dict(pictures(recording, (0, 4)))
    expected = {
        "prompt-0-token-4": values[4],
        "prompt-0-mean": values[: ASKED + 10].mean(0),
        "mean-prompt": values[:ASKED].mean(0),
        "mean-generated": values[ASKED:].mean(0),
    }
    for name, shown in expected.items():
        image = drawn[name].axes[0].images[0]
        limit = np.percentile(np.abs(shown), 99.5)
        assert image.get_clim() == pytest.approx((-limit, limit), rel=1e-3)
        assert np.abs(np.asarray(image.get_array())).max() == pytest.approx(np.abs(shown).max(), rel=1e-3)  # pooled, not lost
    assert "first 10 generated" in drawn["prompt-0-mean"].axes[0].get_title(loc="left")
    assert "the 9 tokens" in drawn["prompt-0-mean"].axes[0].get_title(loc="left")


@pytest.mark.slow
def test_hostile_tokens_are_drawn_as_they_stand(recording: Recording, tmp_path: Path) -> None:
    """matplotlib raises ValueError on "$x^{$" as a formula; control characters would be boxes or nothing."""
    drawn = dict(pictures(recording, (0, 0)))
    for name in ("prompt-0-token-0", "prompt-0-largest-by-token"):
        for suffix in ("png", "svg"):
            save_figure(drawn[name], tmp_path / f"{name}.{suffix}")
    labels = drawn["prompt-0-largest-by-token"].axes[0].get_xticklabels()
    shown = [label.get_text() for label in labels][: len(HOSTILE)]
    assert shown == [r"\$x^{\$", "why", r"\n", r"\x1b[31m", "␣␣", "猫", "</script>", r"\u202eab", r"\$\frac"]


@pytest.mark.parametrize("text", ["$a$", "$", "$$", r"\$5 and $6", "a^b_c", "cost: $3"])
def test_literal_text_is_shown_to_the_letter(text: str) -> None:
    from matplotlib.text import Text

    shown, is_formula = Text(0, 0, "")._preprocess_math(literal(text))  # type: ignore[attr-defined]
    assert (shown, is_formula) == (text, False)


def test_the_token_to_draw(recording: Recording) -> None:
    assert choose_token(recording) == (0, ASKED)
    assert choose_token(recording, 0, 2) == (0, 2)
    nothing_kept = Recording(Description(**{**vars(recording.about), "prompts": []}), recording.statistics, [])
    assert choose_token(nothing_kept) is None
    for chosen, prompt, token in ((recording, 1, None), (recording, -1, None), (recording, 0, 23), (nothing_kept, 0, None)):
        with pytest.raises(InputError):
            choose_token(chosen, prompt, token)
    assert (default_marks(1512), default_marks(1513)) == ((), (1512,))


def draw(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert cli.run(["heatmap", *arguments, "--json"]) == 0
    document: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert all(Path(path).stat().st_size > 5000 for path in document["figures"].values())
    return document


@pytest.mark.slow
def test_the_verb_draws_recordings_runs_and_vectors(
    recording: Recording, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = RunDirectory(tmp_path / "run")
    run.create(TrainConfig(), recording.about.base, {})
    assert cli.run(["heatmap", str(run.path)]) == 2
    assert "neither a recording nor a vector" in capsys.readouterr().err
    ControlVector({2: np.ones(64, np.float32), 3: np.arange(64, dtype=np.float32)}, "llama").save(run.default_vector)
    found = draw(capsys, str(run.path), "--mark", "3", "9")
    assert (found["target"], found["marks"]) == (str(run.default_vector), [3, 9])
    assert list(found["figures"].values()) == [str(run.path / "figures" / "vector.png")]
    recording.save(run.recordings / "held-out")
    found = draw(capsys, str(run.path), "-o", str(tmp_path / "there"), "--token", "2", "--format", "svg")
    assert (found["target"], found["marks"]) == (str(run.recordings / "held-out"), [1512])
    assert (found["prompt"], found["token"], len(found["figures"])) == (0, 2, 8)
    assert {path.suffix for path in (tmp_path / "there").iterdir()} == {".svg"}
    recording.save(run.recordings / "a-later-one")
    os.utime(run.recordings / "held-out" / "recording.json", (1e9, 1e9))
    assert run.newest_recording() == run.recordings / "a-later-one"
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich's word for a terminal
    assert cli.run(["heatmap", str(run.default_vector)]) == 0
    shown = capsys.readouterr().out
    assert "▀" in shown
    assert "layers 2-3 (down), neuron index 0-63 (across)" in shown
    monkeypatch.delenv("FORCE_COLOR")
    assert cli.run(["heatmap", str(run.default_vector)]) == 0
    assert capsys.readouterr().out.split() == [str(run.export / "figures-2" / "vector.png")]  # the first is kept


@pytest.mark.slow
def test_no_picture_is_written_over_unasked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    vector = str(tmp_path / "v.gguf")
    ControlVector({2: np.ones(64, np.float32)}, "llama").save(Path(vector))
    mine = tmp_path / "figures" / "v.png"
    mine.parent.mkdir()
    mine.write_bytes(b"mine")
    assert cli.run(["heatmap", vector, "-o", str(mine.parent)]) == 2
    assert f"{mine} exists: choose another -o, or say --force" in capsys.readouterr().err
    for number in (2, 3):  # without -o a folder that is free
        assert draw(capsys, vector)["figures"] == {"v": str(tmp_path / f"figures-{number}" / "v.png")}
    assert draw(capsys, vector, "--format", "svg")["figures"] == {"v": str(mine.with_suffix(".svg"))}
    assert mine.read_bytes() == b"mine"
    assert draw(capsys, vector, "--force")["figures"] == {"v": str(mine)}
    assert mine.read_bytes().startswith(b"\x89PNG")


def test_bad_wishes_are_one_line(recording: Recording, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recording.save(tmp_path / "one")
    ControlVector({2: np.ones(64, np.float32)}, "llama").save(tmp_path / "v.gguf")
    one, vector = str(tmp_path / "one"), str(tmp_path / "v.gguf")
    for arguments, hint in [
        ([one, "--mark", "2000"], "give 0 to 1999"),
        ([one, "--mark", "5", "-1"], "give 0 to 1999"),
        ([one, "--prompt", "1"], "it keeps 0-0"),
        ([one, "--token", "23"], "give 0-22; 9 is the first generated one"),
        ([one, "--format", "gif"], "png"),
        ([vector, "--token", "1"], "leave --prompt and --token out"),
        ([vector, "--mark", "64"], "give 0 to 63"),
        ([str(tmp_path)], "give the folder that train wrote"),
        ([str(tmp_path / "absent.gguf")], "absent.gguf"),
    ]:
        assert cli.run(["heatmap", *arguments]) == 2
        complaint = capsys.readouterr().err
        assert hint in complaint
        assert complaint.count("\n") == 1
    assert not (tmp_path / "figures").exists()
