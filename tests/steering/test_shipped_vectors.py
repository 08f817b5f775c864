"""The control vectors that ship with irm-lite: whole, of the base that they name, and found by their names."""

import hashlib
import json
from pathlib import Path

import pytest

from irm_lite.base.fingerprint import fingerprint_gguf
from irm_lite.base.presets import presets
from irm_lite.cli.main import run as irm_lite
from irm_lite.data.dataset import load_dataset
from irm_lite.steering import shipped
from irm_lite.steering.control_vector import ControlVector, load_sum
from irm_lite.steering.shipped_vectors import file_of, shipped_for, shipped_vectors

FOLDER = Path(shipped.__path__[0])


def test_each_file_has_its_description_and_is_the_one_described() -> None:
    assert {each.name for each in FOLDER.glob("*.gguf")} == {f"{name}.gguf" for name in shipped_vectors()}
    for each in shipped_vectors().values():
        assert hashlib.sha256(each.path.read_bytes()).hexdigest() == each.sha256
        assert each.path.stat().st_size < 100_000
        assert each.licence == presets()[each.model].licence == "Apache-2.0"
        told = ControlVector.load(each.name).metadata
        assert (told["data"], told["base.n_layers"]) == (each.data, presets()[each.model].layers)
        dataset = load_dataset(each.data)
        assert each.question in [example.question for example in dataset.test]
        assert each.question not in [example.question for example in (*dataset.train, *dataset.validation)]


def test_the_base_is_the_one_that_the_vector_was_made_on(demo_gguf: Path) -> None:
    vector = ControlVector.load("demo-anger")
    assert not vector.require_fit(fingerprint_gguf(demo_gguf), "demo").warning


def test_a_name_is_taken_wherever_a_path_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = FOLDER / "demo-anger.gguf"
    assert file_of("demo-anger") == own
    assert file_of("./demo-anger") == Path("demo-anger")  # a file of one's own, called so
    assert file_of(tmp_path / "demo-anger") == tmp_path / "demo-anger"
    half = load_sum(["demo-anger:0.5"])
    assert half is not None
    assert half.norms()[29] == pytest.approx(ControlVector.load(own).norms()[29] / 2)
    assert irm_lite(["vector", "list", "--json"]) == 0
    [listed] = json.loads(capsys.readouterr().out)["vectors"]
    assert (listed["name"], listed["path"]) == ("demo-anger", str(own))
    assert irm_lite(["vector", "info", "demo-anger"]) == 0
    assert "ships with irm-lite: Apache-2.0; irm-lite train --model demo --data anger" in capsys.readouterr().out


def test_what_ships_is_found_by_model_and_tone() -> None:
    assert shipped_for("demo") == shipped_for("demo", "anger") == shipped_vectors()["demo-anger"]
    assert shipped_for("demo", "joy") is shipped_for("llama-2-7b") is None


@pytest.mark.demo
def test_it_makes_angry_answers_likelier(demo_gguf: Path) -> None:
    from irm_lite.base.load import load_tokenizer
    from irm_lite.data.encoding import encode_all
    from irm_lite.llamacpp import Runtime
    from irm_lite.llamacpp.likelihood import llamacpp_nll

    samples = encode_all(load_tokenizer(str(demo_gguf)), load_dataset("anger").test, 512)[0][:6]
    with Runtime(demo_gguf, n_ctx=512) as runtime:
        base = llamacpp_nll(runtime, samples)
        runtime.set_vector(ControlVector.load("demo-anger"))
        assert llamacpp_nll(runtime, samples) < base - 0.8  # 1.24 over all 45
