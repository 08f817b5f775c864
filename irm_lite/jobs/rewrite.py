"""Answers rewritten in a tone by a local model in llama.cpp: the paper's way to its data (arXiv 2407.03621).

Each tone gets a file of its own with the columns `question` and `answer`, which `train --data` reads as it is. A column a
tone, as in the shipped data, would have holes wherever a rewriting is refused, which the loader rightly takes for faults;
and a tone added later would have to be written into rows that are there already, where a file only ever grows at its end.

Beside FILE.jsonl lies FILE.rewrite.jsonl: its first line says what the file was made with, the others are the refused rows.
A row's number, and so the seeds of its tries, depend on the question alone, never on what was done before.
"""

import hashlib
import os
import re
import reprlib
import string
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from irm_lite.base.fingerprint import fingerprint_gguf
from irm_lite.core.errors import DataError, InputError, Interrupted
from irm_lite.core.files.jsonl import Row, append_row, as_line, cut_torn_line, read_rows, torn_line
from irm_lite.core.files.reading import read_text
from irm_lite.core.types import Progress
from irm_lite.data.dataset import Dataset, Example, load_dataset
from irm_lite.data.splits import SPLITS
from irm_lite.data.text_measures import normalised

if TYPE_CHECKING:
    from irm_lite.llamacpp import Runtime

PROMPT = """\
Rewrite the answer to the question in a {tone} tone. Keep all of its facts. Use at most two sentences, describe no gestures \
(such as *sighs*), and open with no stock phrase. Write nothing but the rewritten answer.

Question: {question}
Answer: {answer}"""
TRIES = 3
_PLACEHOLDERS = {"tone", "question", "answer"}
_SAMPLING = {"temperature": 0.9, "top_p": 0.7, "repeat_penalty": 1.5}  # the paper's, whose penalty counts the prompt too
_SENTENCES = 2  # the paper's
_ROW_BEGINS = b'{"row": '
_NEW_TOKENS = 96
_CONTEXT = 2048
_ENDED = re.compile(r"[.!?\u2026\u3002\uff01\uff1f][\"'\u201d\u2019)\]]*$")
_SENTENCE = re.compile(r"\S.*?(?:[.!?\u2026]+[\"'\u201d\u2019)\]]*(?=\s|$)|[\u3002\uff01\uff1f]+|$)")


@dataclass(frozen=True)
class RewriteSettings:
    """How answers are rewritten. `limit`: only so many questions, drawn from all splits by a hash."""

    prompt: str = PROMPT
    answer_column: str = "answer"
    download: bool = False
    chat_template: str | None = None  # for a GGUF that has none
    seed: int = 0
    limit: int | None = None

    def check(self) -> None:
        """Raise InputError where one of them cannot be used."""
        check_prompt(self.prompt)
        if not 0 <= self.seed < 2**32 or (self.limit is not None and self.limit < 1):
            what = f"seed {self.seed} or limit {self.limit} is out of range"
            raise InputError(what, "give a seed from 0 to 4294967295, a limit of 1 or more")


@dataclass(frozen=True)
class Rewritten:
    """One tone's file: how many rows are in it, and the rows that were refused, each with the texts that were tried."""

    tone: str
    path: Path
    rows: int
    refused: list[Row]

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "path": str(self.path)}


def rewrite(
    spec: str,
    gguf: Path,
    tones: Sequence[str],
    out: Path,
    settings: RewriteSettings | None = None,
    *,
    on_progress: Progress = lambda done, of, what: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> list[Rewritten]:
    """Rewrite the answers of a dataset, named as `load_dataset` has it, into the files that `files_for` names.

    Goes on after the rows that are there. At most two sentences of each text are kept; what is empty, or repeats the
    original or the question, is tried again with other seeds, three times in all. Raises InputError and DataError for what
    the user gave, a file made with other settings among it, and Interrupted after the row in which `should_stop` says so.
    """
    settings = settings or RewriteSettings()
    settings.check()
    files = [_ToneFile(tone, path) for tone, path in files_for(tones, out).items()]
    samples = _samples(load_dataset(spec, settings.answer_column, settings.download))
    made_with: Row = {
        "prompt": settings.prompt,
        "seed": settings.seed,
        "model": {**fingerprint_gguf(gguf).to_dict(), "bytes": gguf.stat().st_size, "chat_template": settings.chat_template},
        "data": _digest(*(text for split, each in samples for text in (split, each.question, each.answer))).hex(),
        "sampling": _SAMPLING,
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        for each in files:
            stack.enter_context(_alone(each.path))
        wanted = samples[: settings.limit]
        done_rows = {each: each.done_rows({"tone": each.tone, **made_with}, len(samples)) for each in files}
        for each in files:
            cut_torn_line(each.path)  # a complete file gets no more rows, and shall train as it is
        todo = [(file, number) for file in files for number in range(len(wanted)) if number not in done_rows[file]]
        if todo:
            from irm_lite.llamacpp import Runtime

            runtime = stack.enter_context(Runtime(gguf, n_ctx=_CONTEXT, chat_template=settings.chat_template))
            # Before anything is written: a model without a chat template leaves no file behind.
            runtime.encode_prompt([{"role": "user", "content": settings.prompt}])
            for each in files:
                if not read_rows(each.notes):
                    append_row(each.notes, {"tone": each.tone, **made_with})
            of = len(wanted) * len(files)
            on_progress(of - len(todo), of, "rewriting")
            for done, (file, number) in enumerate(todo, of - len(todo) + 1):
                file.write_row(runtime, settings, number, *wanted[number])
                on_progress(done, of, file.tone)
                if should_stop() and done < of:
                    raise Interrupted(f"stopped after {done} of {of} rows", "the same command goes on after them")
        return [Rewritten(each.tone, each.path, len(read_rows(each.path)), read_rows(each.notes)[1:]) for each in files]


@dataclass(frozen=True)
class _ToneFile:
    """One tone's file, and `notes` beside it: what it was made with, and the rows that are refused."""

    tone: str
    path: Path

    @property
    def notes(self) -> Path:
        return self.path.with_suffix(".rewrite.jsonl")

    def done_rows(self, made_with: Row, of: int) -> set[int]:
        """The numbers of the rows that are written or refused already. Raises InputError where the file was made otherwise."""
        noted = read_rows(self.notes)
        if not noted and os.path.lexists(self.path):
            raise InputError(f"{self.path} exists and was not written by irm-lite data rewrite", "choose another -o")
        for file, begins in ((self.notes, _ROW_BEGINS if noted else as_line(made_with)), (self.path, _ROW_BEGINS)):
            torn = torn_line(file)  # it is cut off later: only what we have begun to write
            if not (torn.startswith(begins) or begins.startswith(torn)):
                raise InputError(f"{file} exists and was not written by irm-lite data rewrite", "choose another -o")
        if not noted:
            return set()
        if not made_with.keys() <= noted[0].keys():
            raise InputError(f"{self.notes} exists and was not written by irm-lite data rewrite", "choose another -o")
        other = [name for name, value in made_with.items() if noted[0].get(name) != value]
        if other == ["model"] and _same_model(noted[0]["model"], made_with["model"]):
            other = []
        if other:
            raise InputError(
                f"{self.path} was made with another {', '.join(other)}", "choose another -o, or give what it was made with"
            )
        numbers = set()
        for row in [*read_rows(self.path), *noted[1:]]:
            number = row.get("row")
            if not isinstance(number, int) or not 0 <= number < of or number in numbers:
                which = reprlib.repr(number)
                raise DataError(f"{self.path}: row {which} was changed after it was written, or appears twice", "choose another -o")
            numbers.add(number)
        return numbers

    def write_row(self, runtime: "Runtime", settings: RewriteSettings, number: int, split: str, example: Example) -> None:
        """Write one row, or note that it is refused."""
        question, original = example.question.strip(), example.answer.strip()
        row: Row = {"row": number, "question": question}
        tried: list[str] = []
        asked = settings.prompt.format(tone=self.tone, question=question, answer=original)
        ids = runtime.encode_prompt([{"role": "user", "content": asked}])
        if len(ids) + _NEW_TOKENS <= runtime.n_ctx:
            for attempt in range(TRIES):
                text = _ask(runtime, ids, int.from_bytes(_digest(str(settings.seed), str(number), str(attempt))[:4], "little"))
                if normalised(text) not in ("", normalised(original), normalised(question)):
                    append_row(self.path, {**row, "answer": text, "tone": self.tone, "split": split, "original": original})
                    return
                tried.append(text)
        append_row(self.notes, {**row, "original": original, "tried": tried})


def _same_model(noted: Any, model: Row) -> bool:
    """Whether a model is the one that is noted; an older irm-lite noted nothing of its graph."""
    return isinstance(noted, dict) and "graph" not in noted and {**noted, "graph": model["graph"]} == model


def check_prompt(prompt: str) -> None:
    """Raise InputError where a prompt lacks one of {tone}, {question} and {answer}, or has another placeholder."""
    hint = "it needs {tone}, {question} and {answer}, and no other braces (write {{ and }} for those that are meant)"
    try:
        fields = [field for _, *field in string.Formatter().parse(prompt) if field[0] is not None]
    except ValueError as error:
        raise InputError(f"the prompt's braces do not fit together ({error})", hint) from None
    for name, form, conversion in fields:
        if name not in _PLACEHOLDERS or form or conversion:
            raise InputError(f"the prompt has the placeholder {{{name}}}, or asks for a format", hint)
    missing = _PLACEHOLDERS - {name for name, *_ in fields}
    if missing:
        raise InputError(f"the prompt lacks {', '.join(f'{{{name}}}' for name in sorted(missing))}", hint)


def read_prompt(path: Path) -> str:
    """The prompt in a file. Raises InputError where it cannot be read."""
    try:
        return read_text(path).removeprefix("\ufeff").strip()
    except (OSError, ValueError) as error:
        raise InputError(f"the prompt {path} cannot be read ({error})", "give a file with UTF-8 text") from None


def files_for(tones: Sequence[str], out: Path) -> dict[str, Path]:
    """The file of each tone: `out` itself where there is one, else out-TONE.jsonl for each."""
    if out.suffix != ".jsonl":
        raise InputError(f"{out} must end in .jsonl", "each of its rows is a line of JSON")
    slugs = [re.sub(r"\W+", "-", tone.casefold()).strip("-")[:60] for tone in tones]
    if not tones or not all(slugs) or len(set(slugs)) < len(slugs):
        raise InputError("a tone has no word in it, or two tones have the same words", "name each in words of its own with --tone")
    if len(tones) == 1:
        return {tones[0]: out}
    return {tone: out.with_name(f"{out.stem}-{slug}.jsonl") for tone, slug in zip(tones, slugs, strict=True)}


def first_sentences(text: str, most: int, broken_off: bool) -> str:
    """The first sentences of a text, in single spaces; one that the limit of tokens has broken off does not count."""
    found = _SENTENCE.findall(" ".join(text.split()))
    if broken_off and found and not _ENDED.search(found[-1]):
        found.pop()
    return " ".join(found[:most])


def _samples(dataset: Dataset) -> list[tuple[str, Example]]:
    """(split, example) for all questions, in an order drawn by a hash: the first N are of all splits and subjects."""
    found: list[tuple[str, Example]] = [(split, each) for split in SPLITS for each in getattr(dataset, split)]
    for _, example in found:
        if len(example.messages) != 2:
            raise DataError(
                f"{example.where}: not one question with one answer",
                "rewriting needs rows of one question and one answer, without a system message",
            )
    return sorted(found, key=lambda sample: _digest("rewrite", sample[1].question))


def _digest(*texts: str) -> bytes:
    digest = hashlib.sha256()
    for text in texts:
        digest.update(len(text).to_bytes(8, "little") + text.encode())
    return digest.digest()


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """One process a file: two would write every row twice."""
    from filelock import FileLock, Timeout

    file = path.with_name(f".{path.name}.lock")  # hidden: FILE.lock may be the user's, and goes when we are done
    lock = FileLock(file, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise InputError(f"{path} is being written by another process", "wait for it, or choose another -o") from None
    try:
        yield
    finally:
        file.unlink(missing_ok=True)
        lock.release()


def _ask(runtime: "Runtime", ids: list[int], seed: int) -> str:
    tokens = runtime.generate_tokens(ids, max_new_tokens=_NEW_TOKENS, seed=seed, **_SAMPLING)
    number = count()
    text = ""
    for piece in runtime.model.decode_pieces(token for token, _ in zip(tokens, number, strict=False)):
        text += piece
        if len(_SENTENCE.findall(" ".join(text.split()))) > _SENTENCES:
            break
    return first_sentences(text, _SENTENCES, broken_off=next(number) == _NEW_TOKENS)
