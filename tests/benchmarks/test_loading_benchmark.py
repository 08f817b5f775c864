"""benchmarks/loading.py: on a tiny model, both ways to the same bits."""

import json
from pathlib import Path

import pytest
import torch

import loading


def test_both_ways_are_timed_and_give_the_same_bits(llama_gguf: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = tmp_path / "found.json"
    threads = torch.get_num_threads()
    try:
        loading.main([str(llama_gguf), "--rounds", "2", "--threads", "1", "--json", str(found)])
    finally:
        torch.set_num_threads(threads)
    document = json.loads(found.read_text())
    assert len(document["matrices"]) == 7  # of one block
    assert all(len(row[way]["wall"]) == 2 for row in document["matrices"].values() for way in ("libraries", "irm-lite"))
    assert "times as fast" in capsys.readouterr().out
