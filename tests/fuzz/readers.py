"""What is fuzzed: each reader of a file or line that somebody else may have written, as a function of bytes.

A reader may return, or raise IrmLiteError. One that reads several files gets them in one input, framed by `join`. What
needs torch is imported where it is used: most readers do without.
"""

import atexit
import os
import shutil
import struct
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

from irm_lite.base.fingerprint import fingerprint_gguf
from irm_lite.base.sources.folder import require_own_files
from irm_lite.base.sources.gguf_checks import require_loadable
from irm_lite.config import TrainConfig, read_config_file
from irm_lite.core.errors import IrmLiteError
from irm_lite.core.files.gguf_header import read_header
from irm_lite.core.files.jsonl import read_rows
from irm_lite.core.files.manifest import damage
from irm_lite.data.check import check
from irm_lite.data.dataset import load_dataset, load_questions
from irm_lite.runs.directory import RunDirectory
from irm_lite.runs.lock import Holder
from irm_lite.serve import request
from irm_lite.steering.adapter import Adapter
from irm_lite.steering.control_vector import ControlVector, parse_vector_argument
from irm_lite.steering.layers import parse_layers

sys.path.insert(0, str(Path(__file__).parents[2] / "tui"))

from irm_lite.analysis.recordings.recording import load_recording
from irm_lite_tui.chat.server import read_event
from irm_lite_tui.export.fidelity import load_measured
from irm_lite_tui.heatmap.source import load_source
from irm_lite_tui.settings.preferences import load_preferences
from irm_lite_tui.watch.run_log import RunLog
from irm_lite_tui.watch.run_state import RunReader

Reader = Callable[[bytes], object]

CORPUS = Path(__file__).parent / "corpus"
_MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None
_SCRATCH = Path(tempfile.mkdtemp(prefix="irm-lite-fuzz-", dir=os.environ.get("TMPDIR", _MEMORY)))
atexit.register(shutil.rmtree, _SCRATCH, ignore_errors=True)


def join(parts: Sequence[bytes]) -> bytes:
    """Several files as one input: the length of each but the last, then all of them."""
    return struct.pack(f"<{len(parts) - 1}H", *map(len, parts[:-1])) + b"".join(parts)


def split(data: bytes, count: int) -> list[bytes]:
    """The inverse of `join`, of any bytes."""
    head = 2 * (count - 1)
    lengths = struct.unpack(f"<{count - 1}H", data[:head].ljust(head, b"\0"))
    parts, at = [], head
    for length in lengths:
        parts.append(data[at : at + length])
        at += length
    return [*parts, data[at:]]


def _file(name: str, data: bytes) -> Path:
    path = _SCRATCH / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def _folder(name: str, files: Sequence[str], data: bytes) -> Path:
    for file, part in zip(files, split(data, len(files)), strict=True):
        _file(f"{name}/{file}", part)
    return _SCRATCH / name


def _gguf_model(data: bytes) -> None:
    from irm_lite.base.sources.shape import base_shape

    header = read_header(_file("m.gguf", data))
    fingerprint_gguf(header)
    base_shape(str(header.path))
    require_loadable(header)


def _bake(data: bytes) -> None:
    import numpy as np

    from irm_lite.vectors.bake import bake, unbake
    from irm_lite.vectors.biases import Biases

    path = _file("b.gguf", data)
    try:
        bake(path, Biases("ffn_down", {1: np.ones(8, np.float32)}, {}), _SCRATCH / "baked.gguf", force=True)
    except IrmLiteError:
        unbake(path, _SCRATCH / "original.gguf", force=True)
    else:
        unbake(_SCRATCH / "baked.gguf", _SCRATCH / "original.gguf", force=True)


def _dataset(suffix: str) -> Reader:
    return lambda data: load_dataset(str(_file(f"d{suffix}", data)))


def _config(data: bytes) -> None:
    settings = read_config_file(_file("c.toml", data))
    TrainConfig.from_dict(settings, "c.toml")


RUN = ("run.toml", "base.json", "events.jsonl", "lock.holder")


def _run(data: bytes) -> None:
    run = RunDirectory(_folder("run", RUN, data))
    refused = None
    metadata = (run.config, run.asked, run.created, run.versions, run.fingerprint)
    for each in (*metadata, run.events.finished, run.checkpoints.newest_sound):
        try:
            each()
        except IrmLiteError as error:
            refused = error
    Holder.parse(split(data, 4)[3].decode("utf-8", "replace"))
    RunReader(run.path).look()
    if refused:
        raise refused


def _snapshot(data: bytes) -> None:
    load_source(_file("live/live.safetensors", data))


def _preferences(data: bytes) -> None:
    os.environ["IRM_LITE_CONFIG"] = str(_file("settings/tui.toml", data).parent)
    load_preferences()


def _log(data: bytes) -> None:
    log = RunLog(_file("log/events.jsonl", data))
    log.read()
    _ = log.best_nll


def _request(line: bytes) -> None:
    document = request.read_line(line)
    request.id_of(document)
    request.parse(document)


def _text(reader: Callable[[str], object]) -> Reader:
    return lambda data: reader(data.decode("utf-8", "surrogateescape"))


def _sweep(data: bytes) -> None:
    from irm_lite.jobs.sweep import read_sweep

    read_sweep(_file("s.toml", data))


def _irm(data: bytes) -> None:
    from irm_lite.steering.irm_files import load_irm

    load_irm(_folder("irm", IRM, data))


def _state(data: bytes) -> None:
    from irm_lite.runs.checkpoint_files import load_state

    load_state(_folder("state", STATE, data), "state")


def _shape(data: bytes) -> None:
    from irm_lite.base.sources.shape import base_shape

    base_shape(str(_file("hf/config.json", data).parent))


def _index(data: bytes) -> None:
    require_own_files(_file("index/model.safetensors.index.json", data).parent)


def _ablations(data: bytes) -> None:
    from irm_lite.analysis.ablation_files import load_ablations

    run = RunDirectory(_folder("ablated", IRM, (CORPUS / "irm" / "seed-1").read_bytes()))
    _file("ablated/ablations/a.json", data)
    load_ablations(run)


def _trainer_state(data: bytes) -> None:
    from irm_lite.training.divergence import steps_far_above
    from irm_lite.training.resume_point import read_state

    reached = read_state(_file("reached/trainer_state.json", data).parent)
    reached.ended(SimpleNamespace(max_steps=9), 4)
    steps_far_above(reached.state.log_history, 640)


def _manifest(data: bytes) -> None:
    _file("kept/state.json", b"{}")
    damage(_file("kept/manifest.json", data).parent)


IRM = ("irm.json", "irm.safetensors")
STATE = ("state.json", "state.safetensors")
RECORDING = ("recording.json", "statistics.safetensors", "outputs.safetensors")

READERS: dict[str, Reader] = {
    "layers": _text(lambda text: parse_layers(text, 40)),
    "vector_argument": _text(parse_vector_argument),
    "serve_request": _request,
    "serve_event": read_event,
    "gguf_header": lambda data: read_header(_file("a.gguf", data)),
    "gguf_model": _gguf_model,
    "control_vector": lambda data: ControlVector.load(_file("v.gguf", data)),
    "adapter": lambda data: Adapter.load(_file("a.gguf", data)),
    "bake": _bake,
    "jsonl": _dataset(".jsonl"),
    "json": _dataset(".json"),
    "csv": _dataset(".csv"),
    "txt": _dataset(".txt"),
    "parquet": _dataset(".parquet"),
    "questions": lambda data: load_questions(_file("q.txt", data)),
    "data_check": lambda data: check(str(_file("k.jsonl", data))),
    "config": _config,
    "sweep": _sweep,
    "preferences": _preferences,
    "run": _run,
    "run_log": _log,
    "fidelity": lambda data: load_measured(_file("fidelity.json", data)),
    "config_json": _shape,
    "weights_index": _index,
    "irm": _irm,
    "checkpoint": _state,
    "ablations": _ablations,
    "manifest": _manifest,
    "trainer_state": _trainer_state,
    "rows": lambda data: read_rows(_file("rows.jsonl", data)),
    "recording": lambda data: load_recording(_folder("recording", RECORDING, data)),
    "live_snapshot": _snapshot,
}


def read(name: str, data: bytes) -> None:
    """Give the input to a reader. Raises what is not an error of irm-lite's."""
    with suppress(IrmLiteError):
        READERS[name](data)


def corpus(name: str) -> list[bytes]:
    """The kept inputs of a reader, by name of their files."""
    return [path.read_bytes() for path in sorted((CORPUS / name).iterdir())]
