"""Draws one picture in a separate process, so that the UI loads no matplotlib.

python -m irm_lite_tui.heatmap.saving.draw VALUES.safetensors PICTURE.png|svg
"""

import json
import sys
from pathlib import Path


def main() -> None:
    """The values (L, H) are the tensor `values`; its metadata has the layers, the title and the marked indices, as JSON."""
    from safetensors import safe_open

    from irm_lite.analysis.pictures.heatmap import save_heatmap

    source, target = (Path(each) for each in sys.argv[1:])
    with safe_open(source, framework="numpy") as file:
        values, about = file.get_tensor("values"), json.loads(file.metadata()["about"])
    save_heatmap(values, tuple(about["layers"]), target, about["title"], about["marks"])


if __name__ == "__main__":
    main()
