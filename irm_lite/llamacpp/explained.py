"""How far apart quantisation alone may put a base in transformers and a file in llama.cpp.

transformers computes on what the weights are once they are unpacked; llama.cpp rounds what they are multiplied with to 8
bits too. Where the base is another file than the one that is measured, what packing lost comes on top. Figures: docs/log.md.
"""

from pathlib import Path

from irm_lite.base.fingerprint import UNQUANTISED, fingerprint_gguf
from irm_lite.core.files.gguf_header import read_header

# KL a token, in nats, that is explained: about twice the largest that was measured, on a model of 135M, which loses most.
_FLOAT32, _HALF = 1e-4, 0.02
_SAME_FILE, _OTHER_FILE = (0.06, 0.06, 0.6), (0.3, 1.0, 4.0)  # from 5.5 bits a weight on, from 4, below that
_QUANTISED_BASE = 1.0  # as bitsandbytes made it
_GRADES = (5.5, 4.0)  # bits a weight; Q4_1 has 5
_NOTICEABLE = 0.05  # of the blocks' weights: what fewer are packed in counts for nothing


def explained(gguf: Path, own: Path | None, *, in_float32: bool, quantised_base: bool) -> float:
    """KL in nats a token. `own`: the base's file, if it is one; `in_float32`: how transformers computed; `quantised_base`: on
    weights that it had packed itself."""
    files = {gguf.resolve()} | ({own.resolve()} if own else set())
    formats = {fingerprint_gguf(file).quantisation for file in files}
    others = len(files) > 1 or own is None
    grade = max(map(_grade, files))
    of_packing = (_OTHER_FILE if others else _SAME_FILE)[grade]
    if quantised_base:
        return max(_QUANTISED_BASE, of_packing)
    if any(each not in UNQUANTISED for each in formats):
        return of_packing
    return _FLOAT32 if in_float32 and formats == {"F32"} else _HALF  # with bfloat16 weights llama.cpp rounds too


def _grade(gguf: Path) -> int:
    """Of the coarsest packing that a noticeable share of the blocks' weights has: 0 is fine."""
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    weights: dict[float, int] = {}
    for tensor in read_header(gguf).tensors.values():
        if tensor.name.startswith("blk."):
            count, size = GGML_QUANT_SIZES[GGMLQuantizationType(tensor.type)]
            bits = 8 * size / count
            weights[bits] = weights.get(bits, 0) + tensor.n_bytes // size * count
    least = _NOTICEABLE * sum(weights.values())
    coarsest = min((bits for bits, count in weights.items() if count >= least), default=32.0)
    return sum(coarsest < limit for limit in _GRADES)
