"""irm-lite data check"""

from typing import TYPE_CHECKING, Annotated

from cyclopts import App, Parameter
from rich.table import Table

from irm_lite.cli.output import Common, Output

if TYPE_CHECKING:
    from irm_lite.data_check import Report

app = App(name="data", help="Datasets: what is in one, and answers rewritten in a tone.", help_format="plaintext")
Download = Annotated[bool, Parameter(negative="", help="Fetch an hf: dataset from the hub if it is not on this machine.")]


@app.command
def check(data: str, /, *, answer_column: str = "answer", download: Download = False, common: Common | None = None) -> None:
    """Counts, lengths, copies, leaks between the splits, variety, and what of it would spoil a training.

    Parameters
    ----------
    data
        What train --data takes: a tone, a file or hf:owner/name.
    answer_column
        The column of the answers in a file.
    """
    output = Output(common)
    from irm_lite.data_check import check as look

    report = look(data, answer_column, download)
    output.result(report.to_dict(), _table(report), *_lines(report))


def _table(report: "Report") -> Table:
    table = Table(title="words: least, median, most of a text", title_justify="left")
    table.add_column("")
    for split in report.parts:
        table.add_column(split, justify="right")
    rows = {
        "samples": lambda part: str(part.samples),
        "words of a question": lambda part: _spread(part.question_words),
        "words of an answer": lambda part: _spread(part.answer_words),
        "distinct-2 of the answers": lambda part: f"{part.distinct_2:.2f}",
        "questions that stand there already": lambda part: str(part.repeated_questions),
        "answers that stand there already": lambda part: str(part.repeated_answers),
        "answers equal to their question": lambda part: str(part.copied),
        "answers without a word": lambda part: str(part.wordless),
    }
    for title, cell in rows.items():
        table.add_row(title, *map(cell, report.parts.values()))
    return table


def _spread(words: tuple[int, float, int]) -> str:
    return " ".join(f"{each:g}" for each in words)


def _lines(report: "Report") -> list[str]:
    lines = [f"{report.shared_answers} answers are another question's too"]
    if report.unanswered:
        lines.append(f"{report.unanswered} questions have no answer and are passed over")
    for leak in report.leaks:
        lines.append(f"in {' and '.join(leak.splits)}: {leak.normalised} questions, {leak.same} of them letter by letter")
    for finding in report.findings:
        lines.append(f"{'training on this is pointless' if finding.pointless else 'note'}: {finding.text}: {finding.mend}")
    return lines
