"""Tables as spreadsheets and databases write them: refused, or read with rows swallowed."""

import csv
import io
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from irm_lite.cli import main as cli
from irm_lite.core.errors import DataError
from irm_lite.data.dataset import load_dataset

PAIRS = [(f"What, then, is {n}; half?", f"It is {n / 2}, of course; so!") for n in range(30)]


def table(
    separator: str, quoting: int = csv.QUOTE_MINIMAL, header: tuple[str, str] = ("question", "answer"), end: str = "\r\n"
) -> str:
    text = io.StringIO()
    writer = csv.writer(text, delimiter=separator, quoting=quoting, lineterminator=end)  # type: ignore[arg-type]
    writer.writerows([header, *PAIRS])
    return text.getvalue()


def pairs(path: Path) -> list[tuple[str, str]]:
    dataset = load_dataset(str(path))
    return sorted((each.question, each.answer) for each in [*dataset.train, *dataset.validation, *dataset.test])


@pytest.mark.parametrize(
    ("name", "content", "kind"),
    [
        ("a.csv", table(",").encode(), "CSV"),
        ("a.csv", table(",", header=("Question", " ANSWER ")).encode(), "CSV"),
        ("a.csv", table(";").encode("utf-8-sig"), "CSV with semicolons"),
        ("a.csv", table(";", csv.QUOTE_ALL).encode(), "CSV with semicolons"),
        ("a.csv", b"sep=;\r\n" + table(";").encode(), "CSV with semicolons"),
        ("a.csv", (table(",") + ",\r\n,,,\r\n\r\n").encode(), "CSV"),
        ("a.csv", table("\t").encode("utf-16"), "CSV with tabs in UTF-16"),
        ("a.csv", table("\t", end="\r").encode(), "CSV with tabs"),
        ("a.csv", table("|").encode("utf-16-be"), "CSV with bars in UTF-16"),
        ("a.tsv", table("\t", end="\n").encode(), "CSV with tabs"),
        ("a.TSV", table(",").encode(), "CSV"),
        ("a.csv", table("^").replace("question^answer", "sep=^\r\nquestion^answer").encode(), "CSV with '^'"),
    ],
)
def test_a_table_is_read_whatever_separates_its_fields(tmp_path: Path, name: str, content: bytes, kind: str) -> None:
    """Somebody's spreadsheet writes semicolons, tabs, capitals, a byte order mark or UTF-16; the advice was to quote commas."""
    (tmp_path / name).write_bytes(content)
    assert pairs(tmp_path / name) == sorted(PAIRS)
    assert load_dataset(str(tmp_path / name)).reading.file == kind


def test_a_quote_that_is_never_closed_is_named_by_its_row(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Somebody left one quote open in row 20 of 30: the last ten rows became one answer, and nothing was said."""
    lines = ["question,answer", *(f"q {n},a {n}" for n in range(1, 31))]
    lines[19] = 'q 19,"a 19'
    (tmp_path / "a.csv").write_text("\n".join(lines) + "\n")
    assert cli.run(["data", "check", str(tmp_path / "a.csv")]) == 2
    said = capsys.readouterr().err
    assert "a.csv, line 20: a quote opens here and is never closed" in said
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    ("rows", "refusal"),
    [
        (['q1,"a1', 'q2,"a2"', "q3,a3"], "line 2: the quotes do not fit together, as far as line 3"),
        (['q1,"she said \\"no\\" and left"', "q2,a2"], "line 2: the quotes do not fit together (',' expected after '\"')"),
        (['"q1" ,a1', "q2,a2"], "line 2: the quotes do not fit together"),
        (['"two', 'lines",a1', "q2,a2,more"], "line 4: more fields than the header has: quote texts that hold commas"),
        (['"two', 'lines",'], "line 2: no 'answer' to the question"),
    ],
)
def test_the_row_where_quotes_go_wrong_is_named(tmp_path: Path, rows: list[str], refusal: str) -> None:
    """Somebody's export escapes quotes its own way: texts came out cut and glued, and no row was named."""
    (tmp_path / "a.csv").write_text("\n".join(["question,answer", *rows]) + "\n")
    with pytest.raises(DataError) as caught:
        load_dataset(str(tmp_path / "a.csv"))
    assert f"a.csv, {refusal}" in str(caught.value)


def test_a_table_without_a_header_is_refused_with_what_was_taken_for_it(tmp_path: Path) -> None:
    """Somebody's table begins with its first row."""
    (tmp_path / "a.csv").write_text("Why?,So.\nHow?,Thus.\n")
    with pytest.raises(DataError, match=r"line 2: neither question and answer.*\(its columns are Why\?, So\.\)"):
        load_dataset(str(tmp_path / "a.csv"))


TEXT = st.text(st.characters(blacklist_categories=("Cs", "Cc")) | st.sampled_from('\n",;\t|'), min_size=1, max_size=12)


@settings(deadline=None, max_examples=80)
@given(
    st.lists(st.tuples(TEXT, TEXT).filter(lambda pair: all(each.strip() for each in pair)), min_size=2, max_size=8),
    st.sampled_from([",", ";", "\t", "|"]),
    st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
)
def test_any_texts_come_back_from_a_table(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str]], separator: str, quoting: int, encoding: str
) -> None:
    """Whatever Python's own writer writes comes back as its own strict reader gives it."""
    text = io.StringIO()
    unique = [(f"{n} {question}", answer) for n, (question, answer) in enumerate(rows)]
    writer = csv.writer(text, delimiter=separator, quoting=quoting)  # type: ignore[arg-type]
    writer.writerows([("question", "answer"), *unique])
    path = tmp_path_factory.getbasetemp() / "any.csv"
    path.write_bytes(text.getvalue().encode(encoding))
    _, *expected = csv.reader(io.StringIO(text.getvalue(), newline=""), delimiter=separator, strict=True)
    assert pairs(path) == sorted((question, answer) for question, answer in expected)


def test_two_columns_of_one_name_are_not_guessed_between(tmp_path: Path) -> None:
    """Somebody joined two tables that both had an answer: the last column was learned, and nothing was said."""
    rows = "".join(f"{n},q {n},a {n},{n},other {n}\n" for n in range(30))
    (tmp_path / "a.csv").write_text("id,question,answer,id,answer\n" + rows)
    with pytest.raises(DataError, match=r"line 2: 2 columns are called 'answer', and differ: rename all but one"):
        load_dataset(str(tmp_path / "a.csv"))
    (tmp_path / "b.csv").write_text("id,question,answer,id,other\n" + rows)  # a joined table's key stands in it twice
    assert pairs(tmp_path / "b.csv") == sorted((f"q {n}", f"a {n}") for n in range(30))
