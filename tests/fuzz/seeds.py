"""Writes the corpus that fuzzing starts from: a few KB a reader, small files as irm-lite and its neighbours write them.

python tests/fuzz/seeds.py, from the repository's root. What is kept of found bugs (bug-*) stays.
"""

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import gguf
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from fuzz.readers import CORPUS, IRM, RECORDING, RUN, STATE, join
from irm_lite.analysis.recordings.recording import Description, Prompt, Recording
from irm_lite.analysis.recordings.running_statistics import Running
from irm_lite.base.fingerprint import Fingerprint
from irm_lite.config import TrainConfig
from irm_lite.core.files.manifest import MANIFEST, write_manifest
from irm_lite.core.files.tensors import save_tensors
from irm_lite.runs.checkpoint_files import save_state
from irm_lite.runs.directory import RunDirectory
from irm_lite.scoring.parts import PARTS
from irm_lite.steering.adapter import Adapter, Factors
from irm_lite.steering.control_vector import ControlVector
from irm_lite.steering.irm import build_irm
from irm_lite.steering.irm_files import read_saved, save_irm
from irm_lite.vectors.bake import bake
from irm_lite.vectors.biases import Biases
from support.gguf_files import write_gguf

HIDDEN, HEADS, KEYS, INNER, LAYERS = 8, 2, 1, 16, 2
BASE = Fingerprint("llama", LAYERS, HIDDEN, "0" * 64, "nf4")


def tiny_model(path: Path, architecture: str = "llama", fields: dict[str, Any] | None = None) -> Path:
    """A whole model that llama.cpp runs: two blocks of eight, a vocabulary of bytes, F32."""
    rng = np.random.default_rng(0)
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    size = HIDDEN // HEADS
    shapes = {"token_embd.weight": (len(tokens), HIDDEN), "output_norm.weight": (HIDDEN,)}
    for n in range(LAYERS):
        shapes |= {
            f"blk.{n}.attn_norm.weight": (HIDDEN,),
            f"blk.{n}.attn_q.weight": (HIDDEN, HIDDEN),
            f"blk.{n}.attn_k.weight": (KEYS * size, HIDDEN),
            f"blk.{n}.attn_v.weight": (KEYS * size, HIDDEN),
            f"blk.{n}.attn_output.weight": (HIDDEN, HIDDEN),
            f"blk.{n}.ffn_norm.weight": (HIDDEN,),
            f"blk.{n}.ffn_gate.weight": (INNER, HIDDEN),
            f"blk.{n}.ffn_up.weight": (INNER, HIDDEN),
            f"blk.{n}.ffn_down.weight": (HIDDEN, INNER),
        }
    own = {
        "block_count": LAYERS,
        "context_length": 64,
        "embedding_length": HIDDEN,
        "feed_forward_length": INNER,
        "attention.head_count": HEADS,
        "attention.head_count_kv": KEYS,
        "attention.layer_norm_rms_epsilon": 1e-5,
        "rope.dimension_count": size,
        "rope.freq_base": 1e4,
    }
    vocabulary = {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.scores": [0.0] * len(tokens),
        "tokenizer.ggml.token_type": [2, 3, 3] + [6] * 256,
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.chat_template": "{% for m in messages %}{{ m.content }}{% endfor %}",
    }
    tensors = {name: rng.standard_normal(shape, dtype=np.float32) for name, shape in shapes.items()}
    given = {f"{architecture}.{key}": value for key, value in own.items()} | vocabulary | (fields or {})
    return write_gguf(path, architecture, tensors, given)


def _adapter(folder: Path) -> bytes:
    factors = Factors(np.ones((2, INNER), np.float32), np.ones((HIDDEN, 2), np.float32))
    Adapter({"blk.1.ffn_down": factors}, "llama", 2.0, {"method": "closed form", "error": 0.5}).save(folder / "a.gguf")
    return (folder / "a.gguf").read_bytes()


def _vector(folder: Path) -> bytes:
    values = {n: np.linspace(-1, n, HIDDEN, dtype=np.float32) for n in (1, 2)}
    ControlVector(values, "llama", {"base.n_layers": 3, "kind": "lite", "fidelity": 0.5}).save(folder / "v.gguf")
    return (folder / "v.gguf").read_bytes()


def _quantised(folder: Path) -> bytes:
    rng = np.random.default_rng(0)
    tensors = {"q": rng.standard_normal((2, 32), dtype=np.float32), "f": np.ones(3, np.float32)}
    fields = {"flag": True, "words": ["a", ""], "ints": [1, 2], "name": "x", "number": 3, "real": 0.5}
    return write_gguf(folder / "q.gguf", "llama", tensors, fields, {"q": gguf.GGMLQuantizationType.Q8_0}).read_bytes()


def _run(folder: Path) -> bytes:
    run = RunDirectory(folder / "run")
    run.create(TrainConfig(), BASE, {"irm-lite": "1"}, asked=TrainConfig(irm="lite", max_steps=3))
    run.events.append("start", device="cpu", max_steps=3)
    run.events.append("step", step=1, loss=2.5, learning_rate=1e-3, max_steps=3)
    run.events.append("eval", of="base", nll=3.0)
    run.events.append("sample", step=1, prompt="Hello", text="\u001b[31mred")
    run.events.append("end", reason="done", step=3, best_nll=1.0, best_step=3, seconds=4.0)
    (folder / "run" / "lock.holder").write_text("process 4194304 since 2026-01-01T00:00:00+00:00 on there\n")
    return join([(folder / "run" / name).read_bytes() for name in RUN])


def _irm(folder: Path, kind: str, **options: int) -> bytes:
    import torch

    torch.manual_seed(0)
    save_irm(build_irm(kind, HIDDEN, (1, 2), "block", **options), folder / kind)
    return join([(folder / kind / name).read_bytes() for name in IRM])


def _manifest(folder: Path) -> bytes:
    folder.mkdir()
    (folder / "state.json").write_text("{}")
    write_manifest(folder, {})
    return (folder / MANIFEST).read_bytes()


def _trainer_state(folder: Path) -> bytes:
    """After a step, a validation, and one without improvement."""
    from transformers import TrainerState

    state = TrainerState(global_step=2, max_steps=9, best_metric=2.5, best_global_step=1, num_input_tokens_seen=99)
    state.log_history = [{"loss": 3.0, "grad_norm": 1.0, "step": 1}, {"eval_loss": 2.5, "step": 1}, {"loss": 2.9, "step": 2}]
    patience = {"args": {"early_stopping_patience": 4}, "attributes": {"early_stopping_patience_counter": 1}}
    state.stateful_callbacks = {"EarlyStoppingCallback": patience, "rows": [1]}
    state.save_to_json(str(folder / "state.json"))
    return (folder / "state.json").read_bytes()


def _ablations(folder: Path) -> bytes:
    effect = {
        **{"index": 3, "where": "irm", "measure": "aligned NLL", "controls_kind": "random", "controls": 20, "samples": 4},
        **{"effect": 0.5, "effect_95": [0.4, 0.6], "control_median": 0.1, "control_95": [0.0, 0.2], "rank": 1, "p": 0.05},
        **{"beyond_controls": 0.4, "beyond_controls_95": [0.3, 0.5], "magnitude": 1.0, "matched_by": "mean |output|"},
        "matched_magnitudes": [0.9, 1.1],
    }
    document = {"irm_sha256": read_saved(folder).digest, "recording": "recordings/one", "seed": 0, "effects": [effect]}
    return json.dumps(document).encode()


def _state(folder: Path) -> bytes:
    import torch

    save_state(folder, "state", {"step": 3, "groups": [{"lr": 1e-3, "betas": (0.9, 0.99)}], 0: torch.ones(3), "x": torch.tensor(1)})
    return join([(folder / name).read_bytes() for name in STATE])


def _recording(folder: Path) -> bytes:
    import torch

    outputs = np.linspace(-1, 1, 3 * 2 * HIDDEN).reshape(3, 2, HIDDEN).astype(np.float32)
    running = Running(2, HIDDEN)
    running.add(torch.from_numpy(outputs))
    about = Description(
        "anger", "anger", "lite", "block", [1, 2], HIDDEN, BASE, "transformers", "demo", [Prompt("Hi", ["<s>", "H", "i"], 2)], 1
    )
    Recording(about, {"prompt": running.statistics}, [outputs.astype(np.float16)]).save(folder / "recording")
    return join([(folder / "recording" / name).read_bytes() for name in RECORDING])


def _baked(folder: Path) -> bytes:
    path = folder / "baked.gguf"
    bake(tiny_model(folder / "m.gguf"), Biases("ffn_down", {1: np.ones(HIDDEN, np.float32)}, {"kind": "lite"}), path)
    return path.read_bytes()


def _parquet(folder: Path, rows: list[dict[str, Any]], **options: Any) -> bytes:
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), folder / "d.parquet", **options)
    return (folder / "d.parquet").read_bytes()


def _snapshot(folder: Path) -> bytes:
    import torch

    save_tensors(folder / "live.safetensors", {"mean_abs": torch.ones(2, HIDDEN)}, {"layers": "1-2"})
    return (folder / "live.safetensors").read_bytes()


def _texts() -> dict[str, list[str]]:
    rows = [{"question": f"Why {n}?", "answer": f"So {n}."} for n in range(4)]
    chat = {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}], "split": "train"}
    squad = {
        "version": "2.0",
        "data": [
            {
                "paragraphs": [
                    {
                        "context": "c",
                        "qas": [
                            {"question": "Who?", "answers": [{"text": "Me", "answer_start": 0}]},
                            {"question": "What?", "answers": [], "plausible_answers": [{"text": "It"}], "is_impossible": True},
                            {"question": "None?", "answers": []},
                        ],
                    }
                ]
            }
        ],
    }
    lines = "".join(json.dumps(row) + "\n" for row in [*rows, chat, {"text": "A text."}])
    forms = "".join(json.dumps(row) + "\n" for row in _forms())
    figures = dict.fromkeys(
        ("nll_base", "nll_irm", "nll_vector", "kl_irm_base", "kl_irm_vector", "top1_agreement", "fidelity"), 0.5
    )
    measured: dict[str, Any] = {
        **{"vector": "v.gguf", "method": "distil", "measured_in": "transformers", "samples": 2, "tokens": 9},
        **figures,
        **{"intervals_95": {name: [0.1, 0.9] for name in figures}, "input_dependent_share": {"overall": 0.2}},
        **{"score": {"vector": {"value": 0.8, "interval_95": [0.7, 0.9], "parts": dict.fromkeys(PARTS, 0.8), "lacks": ["no"]}}},
    }
    measured["score"]["vector"]["questions"] = {"text": 16}
    sizes = {"num_attention_heads": 4, "hidden_size": 64, "num_hidden_layers": 2, "intermediate_size": 128, "vocab_size": 640}
    requests: list[dict[str, Any]] = [
        {"do": "chat", "id": 1, "messages": [{"role": "user", "content": "Hi"}], "columns": ["base", "irm"], "strength": 0.5},
        {"do": "chat", "messages": {"vector": [{"role": "user", "content": "Hi"}]}, "temperature": 0.7, "seed": 3, "layers": "0-3"},
        {"do": "load", "vector": ["v.gguf:0.8"], "id": "a"},
        {"do": "outputs", "column": "irm", "token": 3},
        {"do": "set", "strength": -1.0, "layers": "odd"},
    ]
    events: list[dict[str, Any]] = [
        {"kind": "ready", "protocol": 1, "model": {"path": "m", "n_layers": 2}, "columns": {"irm": {"layers": "0-1"}}},
        {"kind": "token", "column": "irm", "token": 1, "text": "a", "norm": 0.5},
        {"kind": "start", "id": 1, "column": "irm", "strength": 1.0, "layers": "0-3", "prompt_tokens": 3},
        {"kind": "error", "text": "no"},
    ]
    return {
        "layers": ["0-29", "0,3,7-12", "2/4", "every 4", "odd"],
        "vector_argument": ["v.gguf:0.8", "C:\\v.gguf", "a:1e5", "x:-.5"],
        "serve_request": [json.dumps(each) for each in requests],
        "serve_event": [json.dumps(each) for each in events],
        "jsonl": [lines, forms, "[" + ",".join(forms.split("\n")[:-1]) + "]"],
        "data_check": [lines, forms],
        "json": [json.dumps(rows), json.dumps(squad), forms, json.dumps({"train": rows, "test": rows}), json.dumps({"data": rows})],
        "csv": [
            'question,answer,split\nq1,a1,\n"two, of\nthem",a2,test\nq3,a3,train\n',
            "text\none\ntwo\n",
            'sep=;\r\nPrompt;Chosen\r\nq1;a1\r\nq2;"[{""role"": ""assistant"", ""content"": ""a2""}]"\r\n;\r\n',
        ],
        "rows": ['{"tone": "joy", "seed": 0}\n{"row": 0, "question": "Why?", "answer": "So."}\n{"row": 1, "que'],
        "txt": ["One paragraph.\n\nAnother.\n\nA third.\n"],
        "questions": ["Why?\nHow?\n"],
        "config": [
            'max_steps = 40\nlearning_rate = 1e-3\nlayers = "0-3"\n[train]\nseed = 3\n',
            'irm = "paper"\ndownload = false\n',
        ],
        "sweep": [
            '[train]\nmax_steps = 4\n[grid]\ndata = ["anger", "joy"]\nseed = [1, 2]\n[[setting]]\nname = "first"\nlayers = "1/4"\n'
        ],
        "preferences": ['theme = "irm-dark"\nrobust = true\n[keys]\nquit = "f10"\n'],
        "run_log": [
            '{"kind": "start", "max_steps": 3}\n{"kind": "step", "step": 1, "loss": 2.0}\n{"kind": "end", "best_nll": 1.0}\n'
        ],
        "fidelity": [json.dumps(measured)],
        "config_json": [json.dumps(sizes)],
        "weights_index": [json.dumps({"metadata": {}, "weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}})],
    }


def _forms() -> list[Any]:
    """A row of each form that data/forms.py reads."""
    asked, said = {"role": "User", "content": [{"type": "text", "text": "Why?"}, "Well?"]}, {"role": "assistant", "content": "So."}
    return [
        {"messages": [{"role": "developer", "content": "Be short."}, asked, said], "split": "train"},
        {"conversations": [{"from": "human", "value": "How?"}, {"from": "gpt", "value": "So."}], "system": "Be short."},
        {"Instruction": "Add.", "input": "1, 2", "output": "3", "messages": None},
        {"prompt": "Where?", "completion": "There."},
        {"prompt": [asked], "chosen": [said], "rejected": [said]},
        {"question": "When?", "chosen": "Now.", "rejected": "Never.", "system": "Be short."},
        {"chosen": "\n\nHuman: Who?\n\nAssistant: Me.", "rejected": "x"},
        {"messages": json.dumps([asked, said])},
        [asked, said],
    ]


def seeds() -> dict[str, list[bytes]]:
    """The inputs of each reader."""
    found = {name: [text.encode() for text in texts] for name, texts in _texts().items()}
    rows = [{"question": f"q{n}", "answer": f"a{n}"} for n in range(4)]
    chats = [{"messages": [{"role": "user", "content": f"q{n}"}, {"role": "assistant", "content": f"a{n}"}]} for n in range(3)]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = tiny_model(folder / "tiny.gguf").read_bytes()
        quantised, vector = _quantised(folder), _vector(folder)
        found |= {
            "gguf_header": [quantised, vector],
            "gguf_model": [model],
            "control_vector": [vector],
            "adapter": [_adapter(folder)],
            "bake": [model, _baked(folder)],
            "parquet": [
                _parquet(folder, rows),
                _parquet(folder, chats, compression="none"),
                _parquet(folder, [{"text": "a text"}, {"text": "another"}], compression="gzip", use_dictionary=False),
                _parquet(
                    folder,
                    [{"conversations": [{"from": "human", "value": f"q{n}"}, {"from": "gpt", "value": "a"}]} for n in range(3)],
                ),
            ],
            "csv": [*found["csv"], "question\tanswer\nq1\ta1\nq2\ta2\n".encode("utf-16")],
            "run": [_run(folder)],
            "irm": [_irm(folder, "lite", width=4, rank=2), _irm(folder, "static")],
            "manifest": [_manifest(folder / "kept")],
            "trainer_state": [_trainer_state(folder)],
            "ablations": [_ablations(folder / "static")],
            "checkpoint": [_state(folder)],
            "recording": [_recording(folder)],
            "live_snapshot": [_snapshot(folder)],
        }
    return found


def main() -> None:
    for name, inputs in seeds().items():
        (CORPUS / name).mkdir(parents=True, exist_ok=True)
        for number, data in enumerate(inputs):
            (CORPUS / name / f"seed-{number}").write_bytes(data)


if __name__ == "__main__":
    main()
