"""What is written is what is read, of anything that can be written; and names stay in their folder."""

import json
import math
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from irm_lite.analysis.recordings.recording import (
    PHASES,
    Description,
    Phase,
    Prompt,
    Recording,
    Statistics,
    load_recording,
    recording_name,
)
from irm_lite.base.fingerprint import Fingerprint
from irm_lite.config import TrainConfig
from irm_lite.core.errors import InputError, RunError
from irm_lite.jobs.sweep import read_sweep
from irm_lite.runs.checkpoint_files import load_state, rng_state, save_state, set_rng_state
from irm_lite.runs.directory import RunDirectory, default_run
from irm_lite.steering.control_vector import ControlVector

quick = settings(deadline=None, max_examples=50)

numbers = st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
tensors = arrays.arrays(
    st.sampled_from([np.float32, np.float64, np.int64, np.uint8, np.bool_]), arrays.array_shapes(min_dims=0, max_dims=3, min_side=0)
).map(torch.from_numpy)
leaves = st.none() | st.booleans() | numbers | st.text(st.characters(codec="utf-8")) | tensors
states = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5) | st.integers(0, 99), inner, max_size=3)
)


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("scratch")


def same(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return (
            isinstance(b, torch.Tensor) and a.dtype == b.dtype and a.shape == b.shape and a.numpy().tobytes() == b.numpy().tobytes()
        )
    if isinstance(a, dict):
        return isinstance(b, dict) and list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list):
        return isinstance(b, list) and len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and bool(a == b)


@quick
@given(state=states)
def test_any_checkpoint_state_comes_back(scratch: Path, state: Any) -> None:
    save_state(scratch, "state", state)
    assert same(load_state(scratch, "state"), state)


def test_the_random_states_come_back_through_their_files(scratch: Path) -> None:
    save_state(scratch, "rng", rng_state())
    expected = torch.rand(3), np.random.random(3), __import__("random").random()
    set_rng_state(load_state(scratch, "rng"))
    assert torch.equal(torch.rand(3), expected[0])
    assert np.array_equal(np.random.random(3), expected[1])
    assert __import__("random").random() == expected[2]


texts = st.text(st.characters(codec="utf-8"), max_size=20)


@st.composite
def recordings(draw: st.DrawFn) -> Recording:
    layers, hidden = draw(st.lists(st.integers(0, 99), min_size=1, max_size=3, unique=True).map(sorted)), draw(st.integers(1, 4))
    size = (len(layers), hidden)
    doubles = arrays.arrays(np.float64, size, elements=st.floats(allow_nan=False, allow_infinity=False))
    singles = arrays.arrays(np.float32, size, elements=st.floats(width=32, allow_nan=False, allow_infinity=False))
    counts = arrays.arrays(np.int64, size, elements=st.integers(0, 2**40))
    shares = arrays.arrays(np.float64, size[:1], elements=st.floats(0, 1))
    statistics = st.builds(
        *(Statistics, st.integers(1, 10**9), doubles, doubles, doubles, singles, singles, shares, counts, counts, counts),
        st.integers(1, 10),
    )
    prompts, outputs = [], []
    for _ in range(draw(st.integers(0, 2))):
        tokens = draw(st.lists(texts, min_size=1, max_size=3))
        prompts.append(Prompt(draw(texts), tokens, draw(st.integers(0, len(tokens)))))
        halves = st.floats(width=16, allow_nan=False, allow_infinity=False)
        outputs.append(draw(arrays.arrays(np.float16, (len(tokens), *size), elements=halves)))
    base = Fingerprint(draw(texts), draw(st.integers(1, 200)), hidden, draw(texts), draw(texts))
    sites: st.SearchStrategy[Literal["attn", "block"]] = st.sampled_from(["attn", "block"])
    site = draw(sites)
    run, data, measured, weights, digest = (draw(texts) for _ in range(5))
    about = Description(run, data, "lite", site, layers, hidden, base, measured, weights, prompts, len(prompts), digest)
    phases: st.SearchStrategy[Phase] = st.sampled_from(PHASES)
    groups = st.dictionaries(phases, statistics, min_size=1)
    ordered = [{phase: found[phase] for phase in PHASES if phase in found} for found in (draw(groups), draw(groups))]
    return Recording(about, ordered[0], outputs, ordered[1])


@pytest.mark.slow
@quick
@given(recording=recordings())
def test_any_recording_comes_back(scratch: Path, recording: Recording) -> None:
    recording.save(scratch / "recording")
    found = load_recording(scratch / "recording")
    assert found.about == recording.about
    for mine, its in ((recording.statistics, found.statistics), (recording.untrained, found.untrained)):
        assert list(its) == list(mine)
        for phase, each in mine.items():
            for name, value in vars(each).items():
                assert np.array_equal(getattr(its[phase], name), value), name
    assert [each.tobytes() for each in found.outputs] == [each.tobytes() for each in recording.outputs]


@quick
@given(
    values=st.dictionaries(st.integers(1, 999_999), st.floats(-(2.0**99), 2.0**99, width=32), min_size=1, max_size=4),
    metadata=st.dictionaries(
        st.text("abc._", min_size=1, max_size=8),
        st.text(st.characters(codec="utf-8"), max_size=9) | st.integers(-(2**63), 2**63 - 1),
    ),
)
def test_any_control_vector_comes_back(scratch: Path, values: dict[int, float], metadata: dict[str, str | int | float]) -> None:
    vector = ControlVector({n: np.full(3, value, np.float32) for n, value in values.items()}, "llama", metadata)
    vector.save(scratch / "v.gguf")
    found = ControlVector.load(scratch / "v.gguf")
    assert found.metadata == {key: value for key, value in metadata.items() if value != -(2**63)}  # GGUF has it, abs() has not
    assert {n: each.tobytes() for n, each in found.directions.items()} == {
        n: each.tobytes() for n, each in vector.directions.items()
    }


@pytest.mark.slow
@quick
@given(
    values=st.dictionaries(
        st.text("abcdef", min_size=1).filter(lambda key: key not in ("kind", "time")),
        leaves.filter(lambda each: not isinstance(each, torch.Tensor)),
    )
)
def test_any_event_comes_back_also_after_a_torn_one(scratch: Path, values: dict[str, Any]) -> None:
    run = RunDirectory(scratch / "events")
    run.path.mkdir(exist_ok=True)
    run.events.path.write_text('{"kind": "st')
    run.events.append("step", **values)
    (found,) = list(run.events.read())
    expected = json.loads(
        json.dumps({key: each for key, each in values.items() if not isinstance(each, float) or math.isfinite(each)})
    )
    assert {key: each for key, each in found.items() if key not in ("kind", "time")} == expected


@given(name=st.text(max_size=70))
def test_a_recordings_name_names_a_folder_in_its_folder_or_is_refused(name: str) -> None:
    try:
        taken = recording_name(name)
    except RunError:
        return
    assert Path("folder", taken).resolve().parent == Path("folder").resolve()


@quick
@given(data=st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=40))
def test_a_runs_own_name_lies_in_its_folder(scratch: Path, data: str) -> None:
    path = default_run(TrainConfig(data=data), scratch)
    assert path.resolve().parent == scratch.resolve()


@quick
@given(
    data=st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=20), min_size=1, max_size=3),
    setting=st.text(max_size=20),
)
def test_the_runs_of_a_sweep_lie_in_its_folder(scratch: Path, data: list[str], setting: str) -> None:
    import tomli_w

    document = {"grid": {"data": data}, "setting": [{"name": setting}]}
    (scratch / "s.toml").write_text(tomli_w.dumps(document), encoding="utf-8")
    try:
        planned = read_sweep(scratch / "s.toml")
    except InputError:
        return
    for each in planned:
        assert (scratch / each.name).resolve().parent == scratch.resolve()
