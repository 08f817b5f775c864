"""Damages a tiny model in every part of its header and runs what our checks let through in llama.cpp, in child processes.

python tests/fuzz/llamacpp.py --count 10000 [--architecture qwen2] [--unchecked]: what kills a child is kept in fuzz-found/.
"""

import argparse
import math
import os
import random
import re
import selectors
import struct
import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE.parents[1])]

_QUIET = {**os.environ, "GGML_NO_BACKTRACE": "1"}  # ggml would call a debugger
_LONGEST = 20.0  # seconds that a child may take for a file
_SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
_INTEGERS = [0, 1, 2, 3, 4, 5, 7, 8, 16, 31, 32, 64, 127, 255, 512, 513, 1024, 1025, 65535, 2**24, 2**31 - 1, 2**31, 2**32 - 1]
_FLOATS = [0.0, -1.0, 1.0, 0.5, 1e-30, 1e30, float("nan"), float("inf"), float("-inf"), -0.0]
_TEXTS = [
    "",
    "x",
    "none",
    "linear",
    "yarn",
    "longrope",
    "su",
    "llama",
    "gpt2",
    "bert",
    "t5",
    "rwkv",
    "no_vocab",
    "default",
    "\n",
    "a" * 70,
]
# Of llama.cpp's llm_kv, those that any architecture's loader looks at.
_KEYS = re.findall(
    r"\S+",
    """
adapters.count adapters.lora_rank adapters.router_gain adapters.token_ids_activate adapters.token_ids_substitute
attention.causal attention.clamp_kqv attention.head_count attention.head_count_kv attention.key_length
attention.key_length_swa attention.layer_norm_epsilon attention.layer_norm_rms_epsilon attention.max_alibi_bias
attention.scale attention.sliding_window attention.temperature_length attention.temperature_scale attention.value_length
attention.value_length_swa block_count classifier.output_labels classifier.pooling_type context_length embedding_length
embedding_length_out expert_count expert_feed_forward_length expert_gating_func expert_group_count expert_group_used_count
expert_shared_count expert_used_count expert_weights_norm expert_weights_scale feed_forward_length final_logit_softcapping
leading_dense_block_count logit_scale n_deepstack_layers nextn_predict_layers num_loops pooling_type residual_scale
rope.dimension_count rope.dimension_count_swa rope.dimension_sections rope.freq_base rope.freq_base_swa rope.scale_linear
rope.scaling.alpha rope.scaling.attn_factor rope.scaling.factor rope.scaling.finetuned rope.scaling.original_context_length
rope.scaling.type rope.scaling.yarn_attn_factor rope.scaling.yarn_beta_fast rope.scaling.yarn_beta_slow
rope.scaling.yarn_ext_factor rope.scaling.yarn_log_multiplier tensor_data_layout use_parallel_residual vocab_size
""",
)
_TOKENIZER = re.findall(
    r"\S+",
    """
add_bos_token add_eos_token add_sep_token add_space_prefix bos_token_id eos_token_id eot_token_id eom_token_id
fim_mid_token_id mask_token_id merges model normalizer.lowercase padding_token_id pre precompiled_charsmap
remove_extra_whitespaces scores seperator_token_id suppress_tokens token_type token_type_count tokens unknown_token_id
""",
)


@dataclass(frozen=True)
class Tensor:
    """A row of the table, with its data. `offset` None: where it belongs."""

    name: bytes
    shape: tuple[int, ...]
    kind: int
    data: bytes
    offset: int | None = None


@dataclass
class Parts:
    """A GGUF file in pieces: metadata as (key, type, value), an array's value being (item type, items)."""

    metadata: list[tuple[bytes, int, Any]]
    tensors: list[Tensor]

    def write(self, alignment: int = 32) -> bytes:
        head = b"GGUF" + struct.pack("<IQQ", 3, len(self.tensors), len(self.metadata))
        for key, kind, value in self.metadata:
            head += _string(key) + struct.pack("<I", kind) + _value(kind, value)
        blob = b""
        for tensor in self.tensors:
            blob += bytes(-len(blob) % alignment)
            offset = len(blob) if tensor.offset is None else tensor.offset
            head += (
                _string(tensor.name) + struct.pack("<I", len(tensor.shape)) + struct.pack(f"<{len(tensor.shape)}Q", *tensor.shape)
            )
            head += struct.pack("<IQ", tensor.kind, offset)
            blob += _fitting(tensor)
        return head + bytes(-len(head) % alignment) + blob + bytes(-len(blob) % alignment)


def _fitting(tensor: Tensor) -> bytes:
    """The data repeated or cut to what shape and type ask for, where that can be told and is not much."""
    import gguf

    try:
        block, size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType(tensor.kind)]
    except (ValueError, KeyError):
        return tensor.data
    wanted = math.prod(tensor.shape) // block * size
    return (tensor.data * (wanted // max(len(tensor.data), 1) + 1))[:wanted] if wanted < 1 << 20 else tensor.data


def take_apart(path: Path) -> Parts:
    """A sound file's pieces."""
    from irm_lite.core.files.gguf_header import read_header

    header, data = read_header(path), path.read_bytes()
    at, metadata = 24, []
    for _ in range(header.layout.n_metadata):
        key, at = _take_string(data, at)
        (kind,) = struct.unpack_from("<I", data, at)
        value, at = _take_value(data, at + 4, kind)
        metadata.append((key, kind, value))
    tensors = [
        Tensor(name.encode(), info.shape, info.type, data[info.offset : info.offset + info.n_bytes])
        for name, info in header.tensors.items()
    ]
    return Parts(metadata, tensors)


def _string(text: bytes) -> bytes:
    return struct.pack("<Q", len(text)) + text


def _value(kind: int, value: Any) -> bytes:
    if kind == 8:
        return _string(value)
    if kind == 9:
        item, items = value
        return struct.pack("<IQ", item, len(items)) + b"".join(_value(item, each) for each in items)
    return struct.pack(_SCALARS[kind], value)


def _take_string(data: bytes, at: int) -> tuple[bytes, int]:
    end = at + 8 + int.from_bytes(data[at : at + 8], "little")
    return data[at + 8 : end], end


def _take_value(data: bytes, at: int, kind: int) -> tuple[Any, int]:
    if kind == 8:
        return _take_string(data, at)
    if kind == 9:
        item, count = struct.unpack_from("<IQ", data, at)
        items, at = [], at + 12
        for _ in range(count):
            value, at = _take_value(data, at, item)
            items.append(value)
        return (item, items), at
    return struct.unpack_from(_SCALARS[kind], data, at)[0], at + struct.calcsize(_SCALARS[kind])


def _any_value(chance: random.Random, kind: int) -> Any:
    if kind == 8:
        return chance.choice(_TEXTS).encode()
    if kind == 9:
        item = chance.choice([4, 5, 6, 8, 7, 0])
        return item, [_any_value(chance, item) for _ in range(chance.choice([0, 1, 2, 3, 4, 64, 259]))]
    if kind in (6, 12):
        return chance.choice(_FLOATS)
    if kind == 7:
        return chance.random() < 0.5
    bits = 8 * struct.calcsize(_SCALARS[kind])
    value = chance.choice(_INTEGERS) % 2**bits
    return value - 2**bits if kind in (1, 3, 5, 11) and value >= 2 ** (bits - 1) else value


def damage(parts: Parts, chance: random.Random, architecture: str) -> bytes:
    """The file after one to three changes that leave it a GGUF, and now and then one that does not."""
    metadata, tensors, alignment = list(parts.metadata), list(parts.tensors), 32
    for _ in range(chance.choice([1, 1, 1, 2, 3])):
        at, row = chance.randrange(len(metadata)), chance.randrange(len(tensors))
        (key, kind, _value), tensor = metadata[at], tensors[row]
        match chance.randrange(14):
            case 0 | 1:
                metadata[at] = (key, kind, _any_value(chance, kind))
            case 2:
                other = chance.choice([*_SCALARS, 8, 9])
                metadata[at] = (key, other, _any_value(chance, other))
            case 3:
                del metadata[at]
            case 4 | 5 | 6:
                name = chance.choice(
                    [f"{architecture}.{each}" for each in _KEYS] + [f"tokenizer.ggml.{each}" for each in _TOKENIZER]
                )
                likely = chance.choice([4, 4, 4, 6, 6, 7, 8, 9, 5, 10])
                metadata = [each for each in metadata if each[0] != name.encode()]
                metadata.append((name.encode(), likely, _any_value(chance, likely)))
            case 7:
                arrays = [n for n, each in enumerate(metadata) if each[1] == 9 and each[2][1]]
                if arrays:
                    key, kind, (item, items) = metadata[chance.choice(arrays)]
                    items = list(items)
                    spot = chance.randrange(len(items))
                    change = chance.randrange(4)
                    if change == 0:
                        items[spot] = _any_value(chance, item)
                    elif change == 1:
                        items[spot] = items[0]
                    elif change == 2:
                        del items[spot:]
                    else:
                        items.append(items[spot])
                    metadata = [(key, kind, (item, items)) if each[0] == key else each for each in metadata]
            case 8:
                shape = list(tensor.shape)
                shape[chance.randrange(len(shape))] = chance.choice([0, 1, 2, 4, 8, 16, 258, 259, 260, 2**31, 2**62])
                tensors[row] = replace(tensor, shape=tuple(shape))
            case 9:
                new = chance.choice(
                    [tensor.shape[::-1], (*tensor.shape, 1), (*tensor.shape, 2), (1, *tensor.shape), tensor.shape[:1], ()]
                )
                tensors[row] = replace(tensor, shape=new)
            case 10:
                tensors[row] = replace(tensor, kind=chance.randrange(42))
            case 11:
                if chance.random() < 0.5:
                    del tensors[row]
                else:
                    known = chance.choice(
                        [each.name for each in parts.tensors] + [b"rope_freqs.weight", b"blk.0.attn_qkv.weight", b"x"]
                    )
                    known = known.replace(b"weight", chance.choice([b"weight", b"bias", b"scale", b"input_scale"]))
                    tensors.append(replace(tensor, name=known))
            case 12:
                floats = chance.choice([b"\x00\x00\xc0\x7f", b"\x00\x00\x80\x7f", b"\xff\xff\x7f\x7f"])
                tensors[row] = replace(tensor, data=floats * (len(tensor.data) // 4))
            case 13:
                alignment = chance.choice([1, 2, 4, 8, 16, 64, 4096])
                metadata = [each for each in metadata if each[0] != b"general.alignment"]
                metadata.append((b"general.alignment", 4, alignment))
        metadata, tensors = metadata or list(parts.metadata), tensors or list(parts.tensors)
    data = bytearray(Parts(metadata, tensors).write(alignment))
    if chance.random() < 0.1:
        for _ in range(chance.choice([1, 4])):
            data[chance.randrange(len(data))] = chance.randrange(256)
    return bytes(data)


def _child(checked: bool) -> None:
    """Takes paths on stdin, says on stdout what became of each."""
    import numpy as np

    from irm_lite.base.sources import gguf_checks as gguf_model
    from irm_lite.core.errors import IrmLiteError
    from irm_lite.llamacpp import model
    from irm_lite.llamacpp.runtime import Runtime
    from irm_lite.steering.control_vector import ControlVector

    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})  # one thread: threads that wait for each other take as long
    if not checked:
        model.require_loadable = lambda header: None  # type: ignore[attr-defined]
    assert gguf_model
    text = "".join(map(chr, range(1, 128))) + "\u00e9\u20ac\U0001f600 <s></s> \x7f"
    for line in sys.stdin:
        try:
            with Runtime(line.strip(), n_ctx=512, n_gpu_layers=0) as runtime:
                vector = ControlVector({1: np.ones(runtime.model.hidden_size, np.float32)}, runtime.model.fingerprint.architecture)
                for temperature in (0.0, 0.8):
                    prompt = runtime.model.tokenize(text)
                    for token in runtime.generate_tokens(prompt, max_new_tokens=3, temperature=temperature):
                        runtime.model.piece(token)
                        runtime.model.ends_turn(token)
                    "".join(
                        runtime.generate([{"role": "user", "content": text}], max_new_tokens=2, temperature=temperature, seed=1)
                    )
                    if runtime.model.n_layers > 1:
                        runtime.set_vector(vector)
            print("ran", flush=True)
        except IrmLiteError as error:
            print("refused here" if "would crash" in str(error) else "refused", flush=True)


class _Runner:
    """A child, begun anew where it has died."""

    def __init__(self, checked: bool, errors: Path) -> None:
        self.command = [sys.executable, str(HERE / "llamacpp.py"), "--child", *([] if checked else ["--unchecked"])]
        self.process: subprocess.Popen[str] | None = None
        self.errors = errors  # a file: a pipe that nobody empties would stop the child

    def run(self, path: Path) -> str:
        if self.process is None:
            with self.errors.open("wb") as errors:
                self.process = subprocess.Popen(
                    self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True, env=_QUIET
                )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            self.process.stdin.write(f"{path}\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            return self._end("died after the one before,")
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdout, selectors.EVENT_READ)
            if not selector.select(_LONGEST):
                return self._end("hung")
        said = self.process.stdout.readline().strip()
        return said or self._end("died")

    def _end(self, how: str) -> str:
        assert self.process is not None
        self.process.kill()
        self.process.communicate()
        code, self.process = self.process.returncode, None
        lines = [
            line
            for line in self.errors.read_text(errors="replace").splitlines()
            if "GGML_ASSERT" in line or "Error" in line or "terminate" in line or "what()" in line
        ]
        return f"{how} ({code}) {' '.join(lines)[-200:]}"


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--architecture", default="llama")
    parser.add_argument("--unchecked", action="store_true", help="without our own checks: what they keep out")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        _child(not options.unchecked)
        return 0
    from fuzz.seeds import tiny_model

    found, kept = Counter[str](), Path("fuzz-found")
    kept.mkdir(exist_ok=True)
    chance = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as folder:
        runner = _Runner(not options.unchecked, Path(folder) / "errors.txt")
        sound = tiny_model(Path(folder) / "sound.gguf", options.architecture)
        print("the sound file:", runner.run(sound), flush=True)
        parts, path = take_apart(sound), Path(folder) / "damaged.gguf"
        for number in range(options.count):
            data = damage(parts, chance, options.architecture)
            path.write_bytes(data)
            outcome = runner.run(path)
            found[outcome] += 1
            if outcome.startswith(("died", "hung")):
                (kept / f"llamacpp-{options.architecture}-{options.seed}-{number}.gguf").write_bytes(data)
                print(number, outcome, flush=True)
    for outcome, count in found.most_common():
        print(f"{count:7} {outcome}")
    return int(any(outcome.startswith(("died", "hung")) for outcome in found))


if __name__ == "__main__":
    sys.exit(main())
