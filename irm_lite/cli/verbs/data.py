"""irm-lite data check | rewrite"""

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import App, Parameter
from rich.table import Table

from irm_lite.cli.interrupt import graceful
from irm_lite.cli.output import Common, Output
from irm_lite.cli.progress import progress
from irm_lite.core.errors import DataError, InputError, IrmLiteError

if TYPE_CHECKING:
    from irm_lite.data.check import Report

_EXAMPLES = 3  # of refused rows

app = App(name="data", help="Datasets: what is in one, and answers rewritten in a tone.", help_format="plaintext")
Download = Annotated[bool, Parameter(negative="", help="Fetch an hf: dataset from the hub if it is not on this machine.")]


@app.command
def check(data: str, /, *, answer_column: str = "answer", download: Download = False, common: Common | None = None) -> None:
    """How a dataset is read, counts, lengths, copies, leaks between the splits, variety, and what would spoil a training.

    Ends with exit code 2 where training would refuse the data.

    Parameters
    ----------
    data
        What train --data takes: a tone, a file or hf:owner/name.
    answer_column
        The column of the answers in a file.
    """
    output = Output(common)
    from irm_lite.data.check import check as look

    report = look(data, answer_column, download)
    output.result(report.to_dict(), _table(report), *_lines(report))
    if report.is_refused:
        raise DataError(f"training would refuse {data}", "fix the rows that are named above")


def _table(report: "Report") -> Table:
    table = Table(title="words: words a text: least, median, most", title_justify="left")
    table.add_column("")
    for split in report.parts:
        table.add_column(split, justify="right")
    lines = {
        "samples": lambda part: str(part.samples),
        "words of a question": lambda part: _spread(part.question_words),
        "words of an answer": lambda part: _spread(part.answer_words),
        "distinct-2 of the answers": lambda part: f"{part.distinct_2:.2f}",
        "questions that occur before": lambda part: str(part.repeated_questions),
        "answers that occur before": lambda part: str(part.repeated_answers),
        "answers equal to their question": lambda part: str(part.copied),
        "answers without a word": lambda part: str(part.wordless),
    }
    for title, cell in lines.items():
        table.add_row(title, *map(cell, report.parts.values()))
    return table


def _spread(words: tuple[int, float, int]) -> str:
    return " ".join(f"{each:g}" for each in words)


def _lines(report: "Report") -> list[str]:
    reading, count = report.reading, sum(report.reading.forms.values())
    lines = [f"read as {reading}: {count} samples, {reading.conversations} different conversations before the answer"]
    if reading.unread:
        lines.append(f"columns that are not read: {', '.join(reading.unread)}")
    lines.append(f"{report.shared_answers} answers are another question's too")
    if report.unanswered:
        lines.append(f"{report.unanswered} questions have no answer and are passed over")
    for leak in report.leaks:
        lines.append(f"in {' and '.join(leak.splits)}: {leak.normalised} questions, {leak.same} of them letter by letter")
    for finding in report.findings:
        lines.append(f"{'training on this is pointless' if finding.pointless else 'note'}: {finding.text}: {finding.hint}")
    return lines


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class RewriteFlags:
    """How answers are rewritten, and where they go."""

    tone: Annotated[list[str] | None, Parameter(negative="")] = None
    """The tone, in words that the model understands, as in "furious"; several give a file each, OUT-TONE.jsonl."""
    gguf: str | None = None
    """The model that rewrites: a file, or a preset whose package carries one. A large one with a chat format writes best."""
    out: Annotated[Path | None, Parameter(alias="-o")] = None
    """The .jsonl to write; it trains with train --data."""
    prompt: Path | None = None
    """A file with another prompt; {tone}, {question} and {answer} stand for what is put in."""
    show_prompt: Annotated[bool, Parameter(negative="")] = False
    """Print the prompt and exit."""
    limit: int | None = None
    """Rewrite only this many questions, drawn from all over the data."""
    seed: int = 0
    """Seed of the sampling."""
    answer_column: str = "answer"
    """The column of the answers in a file."""
    download: Download = False
    chat_template: str | None = None
    """For a GGUF that has none: a file with a Jinja chat template, or a preset's name."""


@app.command
def rewrite(
    data: str | None = None,
    /,
    *,
    flags: RewriteFlags | None = None,
    common: Common | None = None,
) -> None:
    """Rewrite the answers in a tone, with a local model in llama.cpp, into a file to train on.

    Run again, the same command goes on after the rows that are there.

    Parameters
    ----------
    data
        What train --data takes: a tone, a file (SQuAD's too) or hf:owner/name.
    """
    output, flags = Output(common), flags or RewriteFlags()
    from irm_lite.jobs import rewrite as engine

    text = engine.PROMPT if flags.prompt is None else engine.read_prompt(flags.prompt)
    engine.check_prompt(text)
    if flags.show_prompt:
        output.result({"prompt": text}, *text.split("\n"))
        return
    if data is None or not flags.tone or flags.gguf is None or flags.out is None:
        raise InputError(
            "rewriting needs data, --tone, --gguf and -o", "as in squad.json --tone furious --gguf m.gguf -o furious.jsonl"
        )
    from irm_lite.base.presets import find_gguf, read_chat_template

    for line in ("prompt (--prompt FILE takes another):", *text.split("\n")):
        output.note(line, style="dim")
    settings = engine.RewriteSettings(
        prompt=text,
        answer_column=flags.answer_column,
        download=flags.download,
        chat_template=read_chat_template(flags.chat_template) if flags.chat_template else None,
        seed=flags.seed,
        limit=flags.limit,
    )
    with graceful(output) as should_stop, progress(output, "rewriting") as on_progress:
        files = engine.rewrite(
            data, find_gguf(flags.gguf), flags.tone, flags.out, settings, on_progress=on_progress, should_stop=should_stop
        )
    lines = [f"{each.path}: {each.rows} answers in the tone {each.tone}, {len(each.refused)} refused" for each in files]
    for row in (row for each in files for row in each.refused[:_EXAMPLES]):
        came = f"three times: {row['tried'][-1]!r}" if row["tried"] else "nothing: the prompt is too long for the context"
        lines.append(f"  refused: {row['question']} {row['original']!r} gave {came}")
    written = next((each.path for each in files if each.rows), None)
    if written is not None:
        lines.append(f"next: irm-lite train --data {shlex.quote(str(written))}")
    output.result({"files": [each.to_dict() for each in files], "prompt": text}, *lines)
    if written is None and any(each.refused for each in files):
        raise IrmLiteError("every row was refused: there is nothing to train on", "try a larger model, or another --prompt")
