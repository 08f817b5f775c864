"""Files whose name says one thing and whose content is another: read by what they hold."""

import json
from pathlib import Path

import pytest

from irm_lite.core.errors import DataError
from irm_lite.data.dataset import load_dataset

ROWS = [{"question": f"Why {n}?", "answer": f"So {n}."} for n in range(30)]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS)


@pytest.mark.parametrize(
    ("name", "content", "kind"),
    [
        ("a.json", LINES.encode(), "JSON lines"),
        ("a.json", ("\n\n" + LINES).replace("\n", "\r\n").encode("utf-8-sig"), "JSON lines"),
        ("a.json", b"".join(line.encode("utf-8-sig") for line in LINES.splitlines(keepends=True)), "JSON lines"),
        ("a.json", json.dumps(ROWS, indent=2).encode("utf-8-sig"), "a JSON list"),
        ("a.json", json.dumps({"data": ROWS}).encode(), "a JSON list"),
        ("a.json", json.dumps({"train": ROWS[:20], "validation": ROWS[20:]}).encode(), "a JSON list for each split"),
        ("a.jsonl", json.dumps(ROWS).encode(), "a JSON list"),
        ("a.jsonl", json.dumps(ROWS, indent=1).encode(), "a JSON list"),
        ("a.jsonl", LINES.encode("utf-16"), "JSON lines in UTF-16"),
        ("a.jsonl", LINES.encode("utf-16-le"), "JSON lines in UTF-16"),
        ("a.jsonl", LINES.encode("utf-32"), "JSON lines in UTF-32"),
    ],
)
def test_what_a_file_holds_decides(tmp_path: Path, name: str, content: bytes, kind: str) -> None:
    """Somebody saved an object a line as .json, a list as .jsonl, or by a shell that writes UTF-16; each was called broken JSON."""
    (tmp_path / name).write_bytes(content)
    dataset = load_dataset(str(tmp_path / name))
    assert dataset.reading.file == kind
    found = [*dataset.train, *dataset.validation, *dataset.test]
    assert sorted((each.question, each.answer) for each in found) == sorted((row["question"], row["answer"]) for row in ROWS)


def test_a_list_for_each_split_is_split_so(tmp_path: Path) -> None:
    """Somebody's one file has a list for each split, and was called no list of rows."""
    (tmp_path / "a.json").write_text(json.dumps({"train": ROWS[:20], "validation": ROWS[20:25], "test": ROWS[25:]}))
    dataset = load_dataset(str(tmp_path / "a.json"))
    assert [len(part) for part in (dataset.train, dataset.validation, dataset.test)] == [20, 5, 5]
    assert {each.question for each in dataset.test} == {row["question"] for row in ROWS[25:]}


@pytest.mark.parametrize(
    ("name", "content", "refusal"),
    [
        (
            "a.jsonl",
            "\n".join(json.dumps(row, indent=2) for row in ROWS).encode(),
            "a.jsonl, line 1: not JSON.*: write each row on one",
        ),
        (
            "a.csv",
            ("question,answer\n" + "q,caf\u00e9\n" * 30).encode("cp1252"),
            r"a\.csv is not UTF-8 text \(byte 21\): save it as UTF-8",
        ),
        ("a.jsonl", LINES.encode("utf-16")[:-1], r"a\.jsonl is not UTF-16 text \(at its end\): save it as UTF-8"),
        ("a.json", json.dumps({"question": {"0": "Why?"}}).encode(), 'is not a list of rows: .*orient="records"'),
        ("a.json", LINES.encode() + b"{", r"a\.json, line 31: not JSON"),
    ],
)
def test_what_no_file_of_rows_is_gets_one_line(tmp_path: Path, name: str, content: bytes, refusal: str) -> None:
    """Somebody's file was printed prettily, cut short, by columns, or in an old encoding."""
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=refusal):
        load_dataset(str(tmp_path / name))
