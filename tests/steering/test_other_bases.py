"""A vector or an IRM of another base: refused by shape, warned of by weights, told by quantisation, in every verb's same words."""

import json
import shutil
import warnings
from io import BytesIO, StringIO
from pathlib import Path
from typing import Any

import pytest

from irm_lite import inject, load_base, load_run
from irm_lite.base.fingerprint import Fingerprint, Match
from irm_lite.base.presets import presets
from irm_lite.cli import main as cli
from irm_lite.core.errors import InputError, OtherBaseWarning, VectorError
from irm_lite.steering.control_vector import ControlVector, load_sum
from support.tiny_models import tiny_model, write_gguf, write_hf_folder

OTHER = "was made on other weights than those of"
NOTE = "was made on nf4 weights, {} has unquantised ones: its effect may differ a little"


@pytest.fixture(scope="module")
def run(llama_folder: Path, llama_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trained on NF4 weights, with a vector."""
    out = tmp_path_factory.mktemp("runs") / "run"
    quick = ["--max-steps", "2", "--batch-size", "2", "--sample-tokens", "0", "--device", "cpu", "--quiet"]
    model = ["--model", str(llama_folder), "--irm", "static", "--site", "block", "--layers", "1-2", "--quant", "nf4"]
    assert cli.run(["train", *model, *quick, "--out", str(out)]) == 0
    assert cli.run(["export", str(out), "--method", "exact", "--gguf", str(llama_gguf), "--quiet"]) == 0
    return out


@pytest.fixture(scope="module")
def others(llama_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Models of the same shape with other weights, and of another shape, as folders and as .gguf files."""
    folder = tmp_path_factory.mktemp("others")
    template = presets()["llama-2-7b-chat"].chat_template
    same = folder / "weights"
    shutil.copytree(llama_folder, same)
    tiny_model("llama", 3, seed=1).save_pretrained(same)
    shape = write_hf_folder(folder / "shape", layers=2, chat_template=template)
    files = {f"{each.name}.gguf": write_gguf(each, folder / f"{each.name}.gguf", template) for each in (same, shape)}
    return {"weights": same, "shape": shape, **files}


def commands(run: Path, gguf: Path, out: Path) -> dict[str, list[str]]:
    ask = ["generate", "--gguf", str(gguf), "-p", "x", "--max-new-tokens", "2"]
    vector = str(run / "export" / "vector.gguf")
    calibrate = ["calibrate", vector, "--gguf", str(gguf), "--strengths", "1", "--picture", str(out / "p.png")]
    return {
        "generate --vector": [*ask, "--vector", vector],
        "generate --irm": [*ask, "--irm", str(run)],
        "eval": ["eval", str(run), "--gguf", str(gguf), "--questions", "0"],
        "export": ["export", str(run), "--gguf", str(gguf), "--method", "exact", "-o", str(out / f"{gguf.stem}.gguf")],
        "record": ["record", str(run), "--gguf", str(gguf), "--limit", "1", "--new-tokens", "1", "--force"],
        "bake a vector": ["bake", vector, "--gguf", str(gguf), "-o", str(out / f"v-{gguf.stem}.gguf")],
        "bake a run": ["bake", str(run), "--gguf", str(gguf), "-o", str(out / f"r-{gguf.stem}.gguf")],
        "calibrate": [*calibrate, "--layers", "1"],
        "calibrate by score": [*calibrate, "--by", "score", "--questions", "1"],
    }


VERBS = list(commands(Path(), Path("x"), Path()))


@pytest.mark.slow
@pytest.mark.parametrize("verb", VERBS)
def test_verbs_refuse_warn_and_tell(
    verb: str, run: Path, llama_gguf: Path, others: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def said(gguf: Path, code: int) -> str:
        capsys.readouterr()
        assert cli.run(commands(run, gguf, tmp_path)[verb]) == code
        return capsys.readouterr().err

    refusal = said(others["shape.gguf"], 2)
    assert "was made for llama with 3 layers of 64, this model is llama with 2 layers of 64" in refusal
    assert [line.startswith("irm-lite: ") for line in refusal.splitlines()].count(True) == 1
    warned = said(others["weights.gguf"], 0)
    assert f"{OTHER} weights.gguf: its effect may differ" in warned
    assert "irm-lite: warning: the " in warned
    told = said(llama_gguf, 0)
    assert "warning: the" not in told
    assert NOTE.format(llama_gguf.name) in told


@pytest.mark.slow
def test_serve_says_it_of_each_column(
    run: Path,
    llama_gguf: Path,
    others: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def columns(gguf: Path) -> tuple[dict[str, Any], list[str]]:
        stdin: Any = StringIO()
        loads = [{"do": "load", "irm": str(run)}, {"do": "load", "vector": str(run / "export" / "vector.gguf")}]
        stdin.buffer = BytesIO(b"".join(json.dumps(each).encode() + b"\n" for each in loads))
        monkeypatch.setattr("sys.stdin", stdin)
        capsys.readouterr()
        assert cli.run(["serve", "--gguf", str(gguf)]) == 0
        events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        about = next(each for each in reversed(events) if each["kind"] == "ready")["columns"]
        return about, [each["text"] for each in events if each["kind"] == "error"]

    about, errors = columns(llama_gguf)
    assert errors == []
    for column in ("vector", "irm"):
        assert about[column]["warning"] is None
        assert NOTE.format(llama_gguf.name) in about[column]["note"]
    about, _ = columns(others["weights.gguf"])
    for column in ("vector", "irm"):
        assert OTHER in about[column]["warning"]
        assert about[column]["note"] is None
    about, errors = columns(others["shape.gguf"])
    assert about.keys() == {"base"}
    assert len(errors) == 2
    assert all("was made for llama with 3 layers" in each for each in errors)


@pytest.mark.slow
def test_inject_refuses_warns_and_tells(run: Path, llama_folder: Path, others: dict[str, Path]) -> None:
    trained = load_run(run)
    vector = ControlVector.load(run / "export" / "vector.gguf")
    for steering in (trained.irm, vector):
        for model, expected in ((others["weights"], OTHER), (llama_folder, NOTE.format("this model"))):
            base = load_base(str(model), quant="none", device="cpu")
            with pytest.warns(OtherBaseWarning, match=expected), inject(base.model, steering):
                pass
        shape = load_base(str(others["shape"]), quant="none", device="cpu")
        with pytest.raises(InputError, match="layers"), inject(shape.model, steering):
            pass
    same = load_base(str(llama_folder), quant="nf4", device="cpu")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for steering in (trained.irm, vector):
            with inject(same.model, steering):
                pass


def test_a_sum_keeps_what_its_parts_were_made_on(run: Path, tmp_path: Path) -> None:
    path = run / "export" / "vector.gguf"
    mine = ControlVector.load(path)
    model = Fingerprint("llama", 3, 64, str(mine.metadata["base.weights"]), "nf4")
    other = ControlVector(mine.directions, mine.architecture, {**mine.metadata, "base.weights": "f" * 64})
    other.save(tmp_path / "other.gguf")
    ControlVector(mine.directions, mine.architecture, {}).save(tmp_path / "unknown.gguf")
    for names, warned in (
        ([path, path], False),
        ([path, tmp_path / "unknown.gguf"], False),
        ([path, tmp_path / "other.gguf"], True),
    ):
        total = load_sum(map(str, names))
        assert total is not None
        assert (total.require_fit(model, "m").warning is not None) == warned
    deeper = ControlVector(mine.directions, mine.architecture, {**mine.metadata, "base.n_layers": 4})
    with pytest.raises(VectorError, match=r"of 3 layers of 64 .* of 4 layers of 64 cannot be added"):
        _ = mine + deeper


@pytest.mark.parametrize("names", [("none", "F32"), ("none", "BF16"), ("", "Q4_1"), ("nf4", ""), ("Q4_1", "Q4_1")])
def test_nothing_is_said_of_what_is_the_same_or_not_known(names: tuple[str, str]) -> None:
    before, now = (Fingerprint("llama", 2, 8, "a", name) for name in names)
    assert now.match(before, "the vector", "m.gguf") == Match()
