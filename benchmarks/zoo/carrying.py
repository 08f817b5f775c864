"""Whether an architecture's GGUFs can be baked into, and whether an adapter can carry a vector there: what irm-lite refuses."""

from pathlib import Path

from irm_lite.base.fingerprint import fingerprint_gguf
from irm_lite.core.errors import IrmLiteError
from irm_lite.core.files.gguf_header import read_header
from irm_lite.vectors.adapter.place import residual_scale
from irm_lite.vectors.as_llama import SAME_AS_LLAMA
from irm_lite.vectors.bake import require_bakeable


def carrying(gguf: Path) -> dict[str, str]:
    """By the table's column: "bake" (yes, as llama, no) and "adapter" (taken, no)."""
    header = read_header(gguf)
    bake = "as llama" if header.architecture in SAME_AS_LLAMA else "yes"
    try:
        require_bakeable(header)
    except IrmLiteError:
        bake = "no"
    adapter = "taken"
    try:
        residual_scale(header, tuple(range(1, fingerprint_gguf(header).n_layers)))
    except IrmLiteError:
        adapter = "no"
    return {"bake": bake, "adapter": adapter}
