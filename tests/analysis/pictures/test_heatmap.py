"""Pictures show the value that is there, in the place where it is."""

from pathlib import Path

import matplotlib.image
import numpy as np
import pytest

from irm_lite.analysis.pictures.heatmap import save_heatmap, terminal_heatmap


def planted(layers: int = 6, width: int = 4096) -> np.ndarray:
    values = np.zeros((layers, width), dtype=np.float32)
    values[2, 1512] = 1.0
    values[5, 100] = -1.0
    return values


def test_the_terminal_shows_single_neurons_with_their_sign() -> None:
    lines = terminal_heatmap(planted(), columns=64)
    assert len(lines) == 3
    assert all(len(line) == 64 for line in lines)

    def colours(layer: int, index: int) -> tuple[int, int, int]:
        style = lines[layer // 2].spans[index * 64 // 4096].style
        colour = style.color if layer % 2 == 0 else style.bgcolor  # type: ignore[union-attr]
        return tuple(colour.triplet)  # type: ignore[union-attr, arg-type]

    positive, negative, zero = colours(2, 1512), colours(5, 100), colours(0, 3000)
    assert positive[0] > positive[2] + 50  # warm
    assert negative[2] > negative[0] + 50  # cold
    assert max(zero) - min(zero) < 10


def test_a_deep_model_is_pooled_to_the_rows_asked_for() -> None:
    lines = terminal_heatmap(planted(layers=90), columns=40, rows=12)
    assert len(lines) == 12


@pytest.mark.slow
def test_the_picture_is_written_as_png_and_svg(tmp_path: Path) -> None:
    values = np.random.default_rng(0).standard_normal((12, 300)).astype(np.float32)
    for suffix in ("png", "svg"):
        save_heatmap(values, tuple(range(1, 13)), tmp_path / f"map.{suffix}", "A <title> & more")
    pixels = matplotlib.image.imread(tmp_path / "map.png")
    assert pixels.shape[1] > 1000
    assert len(np.unique(pixels.reshape(-1, pixels.shape[2]), axis=0)) > 100  # colours, not a blank page
    assert "<svg" in (tmp_path / "map.svg").read_text()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["map.png", "map.svg"]
