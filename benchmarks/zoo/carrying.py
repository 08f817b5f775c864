"""Whether an architecture's GGUFs can be baked into: what irm-lite refuses."""

from pathlib import Path

from irm_lite.core.errors import IrmLiteError
from irm_lite.core.files.gguf_header import read_header
from irm_lite.vectors.as_llama import SAME_AS_LLAMA
from irm_lite.vectors.bake import require_bakeable


def carrying(gguf: Path) -> dict[str, str]:
    """The table's column "bake": yes, as llama, no."""
    header = read_header(gguf)
    try:
        require_bakeable(header)
    except IrmLiteError:
        return {"bake": "no"}
    return {"bake": "as llama" if header.architecture in SAME_AS_LLAMA else "yes"}
