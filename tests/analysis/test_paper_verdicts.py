"""docs/paper/verdicts.py on reports whose outcome was planted."""

import copy
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

FILE = Path(__file__).parents[2] / "docs" / "paper" / "verdicts.py"
spec = importlib.util.spec_from_file_location("verdicts", FILE)
assert spec is not None
assert spec.loader is not None
script = importlib.util.module_from_spec(spec)
spec.loader.exec_module(script)

CHANNEL, NEXT, WIDTH = 7, 9, 896
CHANGES = np.random.default_rng(4).normal(0.001, 0.006, 9)


def run(tone: str, seed: int, nll: float, rank: int, next_rank: int) -> dict[str, Any]:
    zeroed = {"index": CHANNEL, "where": "base", "measure": script.KL}
    free = {
        "norms": "free",
        "controls_kind": "matched",
        "explained": 0.9,
        "explained_95": [0.8, 0.95],
        "controls_explained": 0.2,
        "explained_p": 1 / 31,
    }
    held = {
        "norms": "steered",
        "controls_kind": "matched",
        "effect": 0.001,
        "through_norms": 0.099,
        "through_norms_95": [0.08, 0.12],
    }
    return {
        "data": tone,
        "seed": seed,
        "nll": {"base": 4.0, "irm": nll},
        "marked": [{"index": CHANNEL, "rank": rank}, {"index": NEXT, "rank": next_rank}],
        "ablations": [zeroed | free, zeroed | held] if seed == 11 else [],
        "sets": [{"what": "drop", "k": 1, "kept_effect": 0.99}, {"what": "keep", "k": 20, "kept_effect": 0.3}]
        if seed == 11
        else [],
    }


@pytest.fixture
def reports() -> tuple[dict[str, Any], dict[str, Any]]:
    """A dial that IRMs leave alone."""
    settings = [(tone, seed) for tone in script.TONES for seed in (11, 12, 13)]
    line = {"index": CHANNEL, "scale": 1.2, "scale_rank": 2, "gradient_rank": 400}
    field = {"indices": WIDTH, "channels": [line], "spearman": {"scale": -0.01}}
    static = {
        "base": {"name": "planted"},
        "runs": [run(tone, seed, 2.5, 300, 40) for tone, seed in settings],
        "gradient_split": {f"{tone} (block)": copy.deepcopy(field) for tone in script.TONES},
        "across": {"common": {"indices": [3], "p": [0.01]}},
    }
    masked = {"runs": [run(*one, 2.5 + more, 896, 30) for one, more in zip(settings, CHANGES, strict=True)]}
    return static, masked


def found(reports: tuple[dict[str, Any], dict[str, Any]]) -> dict[str, Any]:
    result: dict[str, Any] = script.verdicts(*reports, None, CHANNEL, NEXT)
    return result


def test_a_dial_that_is_left_alone(reports: tuple[dict[str, Any], dict[str, Any]]) -> None:
    result = found(reports)
    assert {number: each["verdict"] for number, each in result["tests"].items()} == {
        "1": "holds", "2": "holds", "3": "holds", "4": "refuted", "5": "refuted",
        "6": "holds", "6i": "holds", "6ii": "holds", "7": "refuted",
    }  # fmt: skip
    assert result["verdict"] == "a dial that IRMs leave alone"
    assert script.table(result).count("\n") == 12


def test_equivalence_is_that_the_interval_lies_within_the_margin(reports: tuple[dict[str, Any], dict[str, Any]]) -> None:
    """Two one-sided tests at 0.05 are a 90% interval inside: derived by the t distribution's own quantiles."""
    half = stats.t.ppf(0.95, 8) * CHANGES.std(ddof=1) / 3
    test = found(reports)["tests"]["6i"]
    assert test["interval_90"] == pytest.approx([CHANGES.mean() - half, CHANGES.mean() + half])
    for shift, verdict in ((0.0, "holds"), (0.02 - CHANGES.mean(), "not decided"), (0.1, "refuted")):
        for one, more in zip(reports[1]["runs"], CHANGES, strict=True):
            one["nll"]["irm"] = 2.5 + more + shift
        assert found(reports)["tests"]["6i"]["verdict"] == verdict


@pytest.mark.parametrize(
    ("higher", "verdict"), [(8, "holds"), (7, "holds"), (6, "not decided"), (5, "not decided"), (4, "refuted")]
)
def test_eight_pairs_are_judged_in_proportion(reports: tuple[dict[str, Any], dict[str, Any]], higher: int, verdict: str) -> None:
    """5 of 9 refute: 4.4 of 8. One half refuted refutes the whole."""
    for number, each in enumerate(reports[1]["runs"]):
        next(one for one in each["marked"] if one["index"] == NEXT)["rank"] = 30 if number < higher else 50
    del reports[1]["runs"][-1]
    result = found(reports)["tests"]
    assert (result["6ii"]["pairs"], result["6ii"]["verdict"], result["6"]["verdict"]) == (8, verdict, verdict)


def test_the_p_of_loudness_is_scipys(reports: tuple[dict[str, Any], dict[str, Any]]) -> None:
    draw = np.random.default_rng(0)
    one = draw.standard_normal(WIDTH)
    known = stats.spearmanr(one, one + 9 * draw.standard_normal(WIDTH), alternative="greater")
    for field in reports[0]["gradient_split"].values():
        field["spearman"]["scale"] = float(known.statistic)
    assert found(reports)["tests"]["4"]["by_tone"]["joy"]["p"] == pytest.approx(known.pvalue, rel=0.01)


def test_what_tells_against_it(reports: tuple[dict[str, Any], dict[str, Any]]) -> None:
    """One tone is not enough to refute; two are. A test that was not run decides nothing."""
    static, _ = reports
    of_tone = {each["data"]: each["ablations"] for each in static["runs"] if each["seed"] == 11}
    of_tone["joy"][0]["explained"] = 0.2
    assert found(reports)["tests"]["3"]["verdict"] == "not decided"
    assert found(reports)["verdict"] == "not decided"
    of_tone["sadness"][0]["explained"] = 0.2
    assert found(reports)["tests"]["3"]["verdict"] == "refuted"
    assert found(reports)["verdict"] == "no dial"
    of_tone["neutral"].clear()
    assert found(reports)["tests"]["3"]["verdict"] == "not run"
    assert found(reports)["verdict"] == "not run"


def test_an_index_that_every_irm_turns(reports: tuple[dict[str, Any], dict[str, Any]]) -> None:
    static, _ = reports
    for each in static["runs"]:
        each["marked"][0]["rank"] = 1
    static["across"]["common"] = {"indices": [3, CHANNEL], "p": [0.01, 0.02]}
    assert found(reports)["tests"]["5"]["p"] == 0.02
    assert found(reports)["verdict"] == "a dial that every IRM turns"


def test_the_articles_tables_are_those_of_its_reports(tmp_path: Path) -> None:
    paper = tmp_path / "paper"
    shutil.copytree(FILE.parent, paper, ignore=shutil.ignore_patterns("figures", "report.*", "__pycache__"))
    article = paper / "neuron-1512.md"
    written = article.read_text(encoding="utf-8")
    emptied, count = re.subn(r"(<!-- \w+ -->\n).*?(\n<!-- end -->)", r"\1\2", written, flags=re.DOTALL)
    assert count == 4
    article.write_text(emptied, encoding="utf-8")
    subprocess.run([sys.executable, paper / "article.py"], check=True)
    assert article.read_text(encoding="utf-8") == written
    assert {each.stem for each in (paper / "figures" / "tests").iterdir()} == {"paths", "zeroed", "ranks", "masked", "sets"}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda _static, masked: masked["runs"][0]["marked"][0].update(importance=0.1), f"index {CHANNEL} masked: give that"),
        (lambda _static, masked: masked["base"].update(head="b"), "are of different bases"),
        (lambda static, _masked: static["runs"][0]["marked"].pop(), f"has no index {NEXT} in each run: irm-lite analyze"),
        (lambda static, _masked: static.pop("across"), "is no report of several runs"),
    ],
)
def test_reports_that_do_not_belong_together_are_no_verdict(
    reports: tuple[dict[str, Any], dict[str, Any]], tmp_path: Path, change: Any, said: str
) -> None:
    """Two bases were compared, an index that nobody marked was "not run", and a report held against itself had equal NLLs."""
    static, masked = reports
    masked |= {"base": {"name": "a file", "head": "a"}, "across": {}, "gradient_split": {}}
    static["base"]["head"] = "a"
    for report in reports:
        for each in (one for run in report["runs"] for one in run["marked"]):
            each["importance"] = 0.0 if report is masked and each["index"] == CHANNEL else 1.0
    files = [str(tmp_path / name) for name in ("static.json", "masked.json")]
    arguments = [*files, "--channel", str(CHANNEL), "--next", str(NEXT)]

    def ask() -> None:
        for path, report in zip(files, reports, strict=True):
            Path(path).write_text(json.dumps(report))
        script.main(arguments)

    ask()
    change(static, masked)
    with pytest.raises(SystemExit, match=said):
        ask()


def test_a_file_that_is_no_report_is_told_in_one_line(tmp_path: Path) -> None:
    for text in (None, "{", "[]", "{}"):
        if text is not None:
            (tmp_path / "report.json").write_text(text)
        with pytest.raises(SystemExit, match="report.json is no report"):
            script.main([str(tmp_path / "report.json"), str(tmp_path / "report.json"), "--channel", "1", "--next", "2"])


@pytest.mark.parametrize(
    ("lost", "said"),
    [
        ("tests/qwen/masked.json", "masked.json is missing"),
        ("tests/demo/runs.json", "runs.json is missing"),
        ("tests", "no reports"),
    ],
)
def test_of_half_the_reports_no_article_is_made(tmp_path: Path, lost: str, said: str) -> None:
    paper = tmp_path / "paper"
    shutil.copytree(FILE.parent, paper, ignore=shutil.ignore_patterns("figures", "report.*", "__pycache__"))
    if (paper / lost).is_dir():
        shutil.rmtree(paper / lost)
    else:
        (paper / lost).unlink()
    before = (paper / "neuron-1512.md").read_bytes()
    done = subprocess.run([sys.executable, paper / "article.py"], check=False, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert said in done.stderr
    assert "docs/paper/tests.sh" in done.stderr
    assert (paper / "neuron-1512.md").read_bytes() == before
    assert not (paper / "figures").exists()


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
@pytest.mark.parametrize(
    ("arguments", "said"), [([], "give a model: demo, qwen"), (["gpt"], "no tests of gpt: give demo, qwen"), (["demo"], "stopped")]
)
def test_the_tests_of_no_model_and_a_stopped_sweep_spoil_nothing(tmp_path: Path, arguments: list[str], said: str) -> None:
    """runs.json was emptied as soon as the sweep began."""
    kept = tmp_path / "docs" / "paper" / "tests" / "demo" / "runs.json"
    kept.parent.mkdir(parents=True)
    kept.write_text("precious")
    stopped = tmp_path / "bin" / "irm-lite"
    stopped.parent.mkdir()
    stopped.write_text("#!/bin/sh\necho 'irm-lite: stopped' >&2\nexit 130\n")
    stopped.chmod(0o755)
    path = f"{stopped.parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", FILE.parent / "tests.sh", *arguments],
        check=False,
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PATH": path},
    )
    assert done.returncode != 0
    assert said in done.stderr
    assert kept.read_text() == "precious"
    assert [each.name for each in (tmp_path / "docs" / "paper" / "tests").iterdir()] == ["demo"]
