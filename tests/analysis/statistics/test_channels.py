"""The description of a field's parts, on parts of which everything is known, and what the report says of it."""

import numpy as np
import pytest

from irm_lite.analysis.report.split import split_findings
from irm_lite.analysis.report.verdicts import FAILS, HOLDS, UNCLEAR
from irm_lite.analysis.statistics.channels import BLOCKS, DIRECT, FINAL, described_channels, index_shares, total_shares
from irm_lite.core.types import FloatArray

LAYERS, WIDTH, LOUD, SILENT = 4, 40, 7, 11


def planted(through: str, seed: int = 0) -> dict[str, FloatArray]:
    """Direct everywhere, but for LOUD, whose gradient goes `through` that part; SILENT has none."""
    generator = np.random.default_rng(seed)
    parts = {name: np.zeros((LAYERS, WIDTH), np.float32) for name in (DIRECT, FINAL, BLOCKS)}
    parts[DIRECT][:] = generator.standard_normal((LAYERS, WIDTH))
    for part in parts.values():
        part[:, [LOUD, SILENT]] = 0
    parts[through][:, LOUD] = 9.0
    return parts


def loudness() -> FloatArray:
    return np.where(np.arange(WIDTH) == LOUD, 30, np.linspace(1, 2, WIDTH)).astype(np.float32)


def test_shares_are_those_of_the_inner_products() -> None:
    generator = np.random.default_rng(1)
    parts = {name: generator.standard_normal((LAYERS, WIDTH)).astype(np.float32) for name in (DIRECT, FINAL, BLOCKS)}
    whole = np.sum(list(parts.values()), axis=0)
    shares = index_shares(parts)
    for index in (0, 17):
        for name, part in parts.items():
            expected = np.vdot(part[:, index], whole[:, index]) / np.vdot(whole[:, index], whole[:, index])
            assert shares[name][index] == pytest.approx(expected, rel=1e-4)
    np.testing.assert_allclose(sum(shares.values()), 1)
    assert sum(total_shares(parts).values()) == pytest.approx(1)
    assert total_shares(parts)[FINAL] == pytest.approx(np.vdot(parts[FINAL], whole) / np.vdot(whole, whole), rel=1e-4)


@pytest.mark.parametrize("through", [FINAL, BLOCKS])
def test_a_planted_channel_is_described(through: str) -> None:
    found = described_channels(planted(through), loudness(), [SILENT, LOUD])
    marked, loud = found["channels"][:2]
    assert (marked["index"], marked["why"], marked["gradient"], marked["scale"]) == (SILENT, ["marked"], 0, 0)
    assert (loud["index"], loud["why"], loud["loudness_rank"], loud["gradient_rank"]) == (LOUD, ["marked", "loud", "strong"], 1, 1)
    assert (loud[through], loud["scale"], loud[DIRECT], loud["scale_rank"]) == (1, 1, 0, 1)
    assert [each["index"] for each in found["channels"] if "loud" in each["why"]] == [LOUD, WIDTH - 1, WIDTH - 2]
    assert found["through_scale"] == 1 / WIDTH
    assert found["indices"] == WIDTH
    assert found["total"][through] == pytest.approx(
        81 * LAYERS / (81 * LAYERS + np.square(planted(through)[DIRECT]).sum()), rel=1e-5
    )


def test_a_ranking_by_size_is_seen_and_one_that_is_none_is_not() -> None:
    size = np.linspace(1, 20, WIDTH)
    flat = np.ones((LAYERS, WIDTH), np.float32)
    found = described_channels({DIRECT: flat, FINAL: (flat * size).astype(np.float32), BLOCKS: 0 * flat}, size, [])
    assert (found["spearman"]["scale"], found["spearman"]["direct"]) == (pytest.approx(1), None)


def test_findings_tell_a_channel_of_denominators_from_a_direct_one() -> None:
    def verdicts(*fields: dict[str, FloatArray]) -> dict[str, str]:
        given = {f"tone {nth}": described_channels(each, loudness(), [LOUD]) for nth, each in enumerate(fields)}
        return {each["claim"].split("'")[0]: each["verdict"] for each in split_findings(given)}

    assert verdicts(planted(FINAL), planted(BLOCKS, 1)) == {"The loudest channels": UNCLEAR, f"Index {LOUD}": HOLDS}
    assert verdicts(planted(FINAL), planted(DIRECT)) == {"The loudest channels": UNCLEAR, f"Index {LOUD}": UNCLEAR}
    assert verdicts(planted(DIRECT)) == {"The loudest channels": FAILS, f"Index {LOUD}": FAILS}
    assert list(split_findings({})) == []
