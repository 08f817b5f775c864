"""The export screen against scripted children."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from textual.widgets import Input, ProgressBar, Select, Static

from irm_lite.base.fingerprint import Fingerprint
from irm_lite.config import TrainConfig
from irm_lite.runs.directory import RunDirectory
from irm_lite.steering.control_vector import ControlVector
from irm_lite_tui.export.adapter_gauge import AdapterGauge
from irm_lite_tui.export.fidelity_gauge import FidelityGauge
from irm_lite_tui.export.job_panel import JobPanel
from irm_lite_tui.export.line_list import LineList
from irm_lite_tui.export.screen import ExportScreen
from irm_lite_tui.watch.run_state import RunReader
from support.export_app import ADAPTER_FIGURES, FIGURES, NO_FIDELITY, ExportApp
from support.tui_helpers import SIZES, Script, check_snapshot, screen_text, script, until

__all__ = ["script"]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunDirectory:
    monkeypatch.chdir(tmp_path)
    run = RunDirectory(Path("runs/angry"))  # a short path, the same in every snapshot
    run.create(TrainConfig(model="base.gguf"), Fingerprint("llama", 3, 64, "0" * 64), {})
    (run.path / "irm.safetensors").write_bytes(b"")
    return run


@pytest.mark.slow
@pytest.mark.parametrize("size", SIZES)
async def test_an_export_shows_its_progress_its_figures_and_its_lines(
    size: tuple[int, int], run: RunDirectory, script: Callable[[Script], None]
) -> None:
    document = json.dumps({**FIGURES, "vector": str(run.default_vector)}, indent=2)
    script(
        [
            ["err", "loading demo"],
            ["err", "distilling: 1/40, begun"],
            ["until", "begun"],
            ["err", "distilling: 12/40, 9 s left, KL [b]0.5[/b]"],
            ["until", "go"],
            ["out", document],
        ]
    )
    bare = ExportApp(run.path)
    async with bare.run_test(size=size) as pilot:
        assert "not exported yet" in screen_text(bare)
        await pilot.press("f6")
        await until(pilot, lambda: "distilling: 1 of 40, begun" in bare.line("export"), "progress without an estimate")
        Path("begun").touch()
        await until(pilot, lambda: "distilling: 12 of 40, 9 s left, KL [b]0.5[/b]" in bare.line("export"), "progress")
        bar = bare.screen.query_one("#export-job ProgressBar", ProgressBar)
        assert (bar.progress, bar.total) == (12, 40)
        await pilot.press("f6")
        assert "it is running" in bare.line("export")
        Path("go").touch()
        await until(pilot, lambda: "0.980" in screen_text(bare), "the figures")
        lines = bare.screen.query_one("#vector-lines", LineList)
        assert lines.lines[0][1] == f'llama-cli -m base.gguf --control-vector {run.default_vector} -p "..."'
        bare.screen.query_one("#strength", Input).value = "0.5"
        await until(pilot, lambda: f"{run.default_vector}:0.5" in lines.lines[0][1], "the strength in the lines")
        await check_snapshot(pilot, "export")
        lines.focus()
        await pilot.press("home", "down", "enter")
        assert bare.clipboard == lines.lines[1][1]


@pytest.mark.slow
@pytest.mark.parametrize("size", SIZES)
async def test_an_adapter_is_exported_beside_the_vector(
    size: tuple[int, int], run: RunDirectory, script: Callable[[Script], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    run.export.mkdir()
    run.fidelity.write_text(json.dumps({**FIGURES, "vector": str(run.default_vector)}))
    ControlVector({1: np.ones(64, np.float32)}, "llama").save(run.default_vector)
    started: list[list[str]] = []
    start = JobPanel.start

    def begin(panel: JobPanel, arguments: Sequence[str]) -> None:
        started.append(list(arguments))
        start(panel, arguments)

    monkeypatch.setattr(JobPanel, "start", begin)
    script([["out", json.dumps({**ADAPTER_FIGURES, "adapter": str(run.default_adapter)})]])
    bare = ExportApp(run.path)
    async with bare.run_test(size=size) as pilot:
        bare.screen.query_one("#kind", Select).value = "adapter"
        await until(pilot, lambda: "RUN/export/adapter.gguf" in screen_text(bare), "the file's name")
        await pilot.press("f6")
        gauge = bare.screen.query_one(AdapterGauge)
        await until(pilot, lambda: gauge.measured is not None, "the figures")
        assert started[0][4:] == ["--layers", "all", "--as", "adapter", "--", "runs/angry"]
        bare.screen.query_one("#strength", Input).value = "0.5"
        lines = bare.screen.query_one("#adapter-lines", LineList)
        await until(pilot, lambda: f"--lora-scaled {run.default_adapter}:0.5" in lines.lines[2][1], "the strength in the lines")
        assert lines.lines[0][1] == f"llama-server -m base.gguf --lora-scaled {run.default_adapter}:0"
        assert '"lora": [{"id": 0, "scale": 0.5}]' in lines.lines[1][1]
        assert bare.screen.query_one("#vector-lines", LineList).lines  # the vector is there too
        gauge.scroll_visible(animate=False)
        await pilot.pause()
        await check_snapshot(pilot, "export-adapter")


@pytest.mark.slow
async def test_figures_of_an_adapter_that_cannot_be_read_are_a_state(run: RunDirectory) -> None:
    run.export.mkdir()
    run.default_adapter.write_bytes(b"")
    run.fidelity.write_text(json.dumps({**FIGURES, "adapter": {"fidelity": "high"}}))
    async with ExportApp(run.path).run_test(size=(80, 24)) as pilot:
        assert "the adapter's figures cannot be read" in " ".join(screen_text(pilot.app).split())
    run.fidelity.write_text(json.dumps(FIGURES))
    async with ExportApp(run.path).run_test(size=(80, 24)) as pilot:
        assert "adapter.gguf is of another one" in screen_text(pilot.app)
    other = {**ADAPTER_FIGURES, "adapter": str(run.export / "half.gguf")}
    run.fidelity.write_text(json.dumps({**FIGURES, "adapter": other}))
    async with ExportApp(run.path).run_test(size=(140, 24)) as pilot:
        assert "the adapter made last is half.gguf" in " ".join(screen_text(pilot.app).split())
        assert pilot.app.screen.query_one(AdapterGauge).measured is None
    tuned = {"rank": 8, "strengths_of": "irm", "tuned": {"kl_base": 1.0, "kl_start": 0.2, "kl": 0.1}}
    strengths = {"strengths": {"-1": None, "0.5": 0.9}}
    own = {**ADAPTER_FIGURES, **tuned, **strengths, "adapter": str(run.default_adapter)}
    run.fidelity.write_text(json.dumps({**FIGURES, "adapter": own}))
    async with ExportApp(run.path).run_test(size=(140, 60)) as pilot:
        measured = pilot.app.screen.query_one(AdapterGauge).measured
        assert measured is not None
        assert measured.tuned.endswith("rank 8 by least squares 0.200, fitted on 0.100")
        assert measured.strengths == {"0.5": 0.9}
        for words in ("KL(IRM || it)", "of what the IRM does it does", "what the IRM adds is"):
            assert words in screen_text(pilot.app)


@pytest.mark.slow
async def test_the_file_that_was_meant_for_one_run_is_not_the_others(run: RunDirectory) -> None:
    other = RunDirectory(Path("runs/sad"))
    other.create(TrainConfig(model="base.gguf"), Fingerprint("llama", 3, 64, "0" * 64), {})
    async with ExportApp(run.path).run_test(size=(80, 24)) as pilot:
        screen = pilot.app.screen
        assert isinstance(screen, ExportScreen)
        screen.query_one("#out", Input).value = "mine.gguf"
        screen.query_one("#force", Select).value = True
        screen.take_run(run.path)
        assert screen.query_one("#out", Input).value == "mine.gguf"
        screen.take_run(other.path)
        assert screen.query_one("#out", Input).value == ""
        assert screen.query_one("#force", Select).value is False


@pytest.mark.slow
async def test_a_lora_is_offered_as_an_adapter_until_something_else_is_chosen(run: RunDirectory) -> None:
    lora = RunDirectory(Path("runs/lora"))
    lora.create(TrainConfig(model="base.gguf", irm="lora"), Fingerprint("llama", 3, 64, "0" * 64), {})
    (lora.path / "irm.safetensors").write_bytes(b"")
    bare = ExportApp(run.path)
    async with bare.run_test(size=(140, 45)) as pilot:
        kind, field = bare.screen.query_one("#kind", Select), bare.screen.query_one("#run", Input)
        assert kind.value == "vector"
        field.value = str(lora.path)
        await until(pilot, lambda: kind.value == "adapter", "what carries it whole")
        kind.value = "vector"
        bare.screen.query_one("#strength", Input).value = "0.5"
        await pilot.pause()
        assert kind.value == "vector"


@pytest.mark.slow
async def test_an_export_from_elsewhere_shows_itself(run: RunDirectory) -> None:
    """As the demo makes one while its screen is open."""
    async with ExportApp(run.path).run_test(size=(140, 45)) as pilot:
        assert "not exported yet" in screen_text(pilot.app)
        run.export.mkdir()
        run.default_vector.write_bytes(b"")
        run.fidelity.write_text(json.dumps({**FIGURES, "vector": str(run.default_vector)}))
        await until(pilot, lambda: "exported before" in screen_text(pilot.app), "the figures of that export")
        assert pilot.app.screen.query_one("#vector-lines", LineList).lines


@pytest.mark.slow
async def test_a_lora_without_a_vector_shows_what_its_adapter_does(run: RunDirectory) -> None:
    lora = RunDirectory(Path("runs/lora"))
    lora.create(TrainConfig(model="base.gguf", irm="lora"), Fingerprint("llama", 3, 64, "0" * 64), {})
    lora.export.mkdir()
    lora.default_adapter.write_bytes(b"")
    said = '"i feel so alone" is in 9 of 16 greedy answers'
    score = {**cast("Any", FIGURES["score"])["vector"], "phrase": {"said": said}}
    copied: dict[str, Any] = {**ADAPTER_FIGURES, "adapter": str(lora.default_adapter), "predicted": [], "score": score}
    lora.fidelity.write_text(json.dumps({"adapter": copied}))
    view = RunReader(lora.path).look()
    assert (view.fidelity, view.score) == (copied["fidelity"], copied["score"]["value"])
    async with ExportApp(lora.path).run_test(size=(140, 60)) as pilot:
        assert pilot.app.screen.query_one(FidelityGauge).measured is None
        text = screen_text(pilot.app)
        for words in ("exported before", "the run's LoRA itself, copied", "score of text", said):
            assert words in text
        assert "take the vector" not in text


async def test_a_bake_gives_the_lines_for_its_file(run: RunDirectory, script: Callable[[Script], None]) -> None:
    ControlVector({1: np.ones(64, np.float32)}, "llama").save(run.default_vector)
    script([["out", json.dumps({"gguf": "angry.gguf", "from": "base.gguf", "slot": "ffn_down", "layers": [1]})]])
    bare = ExportApp(run.path)
    async with bare.run_test(size=(140, 45)) as pilot:
        await pilot.press("f7")
        assert "a name for the baked file" in bare.line("bake")
        bare.screen.query_one("#baked", Input).value = "angry.gguf"
        await pilot.press("f7")
        await until(pilot, lambda: "bake done" in bare.line("bake"), "the end")
        lines = dict(bare.screen.query_one("#baked-lines", LineList).lines)
        assert lines["llama-server with the baked file"] == "llama-server -m angry.gguf"


@pytest.mark.slow
async def test_arguments_are_those_of_the_form(run: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[list[str]] = []
    monkeypatch.setattr(JobPanel, "start", lambda self, arguments: started.append(list(arguments)))
    ControlVector({1: np.ones(64, np.float32)}, "llama").save(run.default_vector)
    bare = ExportApp(run.path)
    async with bare.run_test(size=(140, 45)) as pilot:
        screen = bare.screen
        screen.query_one("#method", Select).value = "mean"
        screen.query_one("#force", Select).value = True
        for name, value in {"layers": "1-2", "out": "-odd.gguf", "strength": "-0.5", "baked": "b.gguf"}.items():
            screen.query_one(f"#{name}", Input).value = value
        await pilot.press("f6", "f7")
    export, bake = started
    assert export == [
        "export",
        "--json",
        "--method",
        "mean",
        "--layers",
        "1-2",
        "--out",
        "-odd.gguf",
        "--force",
        "--",
        "runs/angry",
    ]
    assert bake == f"bake --json --gguf base.gguf --out b.gguf --scale=-0.5 -- {run.default_vector}".split()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("steps", "said"),
    [
        ([["err", "irm-lite: the run has [red]no[/red] IRM: train it"], ["exit", 2]], "the run has [red]no[/red] IRM: train it"),
        ([["rubbish"], ["exit", 0]], "no result"),
        ([["die"]], "ended with code -9"),
        ([["out", "{}"]], "gave no figures"),
        ([["err", "irm-lite: stopped"], ["exit", 130]], "stopped"),
    ],
)
async def test_what_goes_wrong_is_said(steps: Script, said: str, run: RunDirectory, script: Callable[[Script], None]) -> None:
    script(steps)
    bare = ExportApp(run.path)
    async with bare.run_test(size=(80, 24)) as pilot:
        await pilot.press("f6")
        await until(pilot, lambda: said in bare.line("export"), said)


@pytest.mark.slow
async def test_stop_interrupts_the_child(run: RunDirectory, script: Callable[[Script], None]) -> None:
    script([["err", "begun"], ["until interrupted"], ["exit", 130]])
    bare = ExportApp(run.path)
    async with bare.run_test(size=(80, 24)) as pilot:
        await pilot.press("f6")
        await until(pilot, lambda: "begun" in bare.line("export"), "the beginning")
        await pilot.press("escape")
        await until(pilot, lambda: bare.line("export") == "stopped", "the end")


@pytest.mark.slow
async def test_missing_and_damaged_runs_are_states(run: RunDirectory) -> None:
    run.export.mkdir()
    run.fidelity.write_text("{")
    bare = ExportApp(run.path)
    async with bare.run_test(size=(80, 24)) as pilot:
        assert "export again" in str(bare.screen.query_one("#state", Static).render())
        bare.screen.query_one("#run", Input).value = "gone"
        await until(pilot, lambda: "gone is not a run directory" in screen_text(bare), "the state")
        bare.screen.query_one("#run", Input).value = ""
        await pilot.press("f6", "f7")
        assert "no run is given" in bare.line("export")
        assert "export one first" in bare.line("bake")
        for size in ((20, 5), (1, 1), (80, 24)):
            await pilot.resize_terminal(*size)
            await pilot.press("tab")
    async with ExportApp(None).run_test(size=(80, 24)) as pilot:
        assert "give the run to export" in screen_text(pilot.app)


@pytest.mark.slow
async def test_that_the_runtimes_disagree_stands_beside_the_fidelity(run: RunDirectory, script: Callable[[Script], None]) -> None:
    told = "transformers and llama.cpp run base.gguf as two models: KL 0.29 nats a token\x1b[31m"
    document = {**FIGURES, "vector": str(run.default_vector)}
    script([["out", json.dumps({**document, "disagreement": told})]])
    bare = ExportApp(run.path)
    async with bare.run_test(size=(140, 45)) as pilot:
        await pilot.press("f6")
        await until(pilot, lambda: "0.980" in screen_text(bare), "the figures")
        shown = " ".join(screen_text(bare).split())
        assert "warning: transformers and llama.cpp run base.gguf as two models" in shown
        assert "\x1b" not in shown
    run.fidelity.parent.mkdir(exist_ok=True)
    run.fidelity.write_text(json.dumps({**document, "disagreement": told}))
    async with ExportApp(run.path).run_test(size=(140, 45)) as pilot:  # of an export of before
        assert "as two models" in screen_text(pilot.app)
    run.fidelity.write_text(json.dumps({**document, **NO_FIDELITY}))
    async with ExportApp(run.path).run_test(size=(140, 45)) as pilot:
        shown = " ".join(screen_text(pilot.app).split())
        assert "fidelity - " in shown
        assert "warning: nothing is steered by the IRM" in shown
        assert "below" not in shown
    run.fidelity.write_text(json.dumps({**document, "disagreement": None}))
    async with ExportApp(run.path).run_test(size=(140, 45)) as pilot:
        assert "0.980" in screen_text(pilot.app)
        assert "warning" not in screen_text(pilot.app)
