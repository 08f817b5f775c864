"""What a dataset contains, and what would spoil a training on it: counts, lengths, copies, leaks, variety. Imports no torch."""

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from itertools import combinations, islice
from statistics import median
from typing import Any

from irm_lite.core.errors import DataError
from irm_lite.data.columns import SYSTEM
from irm_lite.data.dataset import Dataset, Example, Reading, load_dataset
from irm_lite.data.splits import SPLITS, conversations
from irm_lite.data.text_measures import distinct_2, normalised

_FEW = 24  # training samples
_MOST = 0.5  # of a split: with so many bad samples, training on it is pointless


@dataclass(frozen=True)
class Part:
    """One split. Lengths are the least, median and largest count of words. Texts are compared in their normal form."""

    samples: int
    question_words: tuple[int, float, int]
    answer_words: tuple[int, float, int]
    distinct_2: float  # over the word pairs of all answers; it falls with their number too
    repeated_questions: int  # samples whose question, after the same turns, is in the split already
    repeated_answers: int
    copied: int  # answers equal to their question
    wordless: int  # answers without a letter or digit


@dataclass(frozen=True)
class Leak:
    """Questions that two splits share: letter by letter, and in their normal form (which counts the former too)."""

    splits: tuple[str, str]
    same: int
    normalised: int


@dataclass(frozen=True)
class Finding:
    """Something to know before training; `pointless` where training on the data as it is would teach nothing, or is refused."""

    text: str
    hint: str
    pointless: bool

    def to_dict(self) -> dict[str, Any]:
        """As `data check --json` prints it: the hint's key is "mend" since version 0.1, and programs read it."""
        return {"text": self.text, "mend": self.hint, "pointless": self.pointless}


@dataclass(frozen=True)
class Report:
    """All that `check` found."""

    name: str
    reading: Reading
    parts: dict[str, Part]
    leaks: list[Leak]
    shared_answers: int  # samples whose answer another question has too
    unanswered: int
    refused: list[str]  # the error that training would raise for each row that it cannot use
    findings: list[Finding]

    @property
    def is_refused(self) -> bool:
        """Whether training would refuse the data as it is."""
        return bool(self.refused)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {"findings": [each.to_dict() for each in self.findings]}


def check(spec: str, answer_column: str = "answer", download: bool = False) -> Report:
    """Look at a dataset, named as `load_dataset` has it.

    Rows that cannot be used are counted here instead of refused. Raises DataError where the file cannot be read, or no
    row of it can be used.
    """
    refused: list[DataError] = []
    dataset = load_dataset(spec, answer_column, download, refused)
    splits = {name: each for name in SPLITS if (each := _split(dataset, name))}
    asked = _asked(splits)
    parts = {name: _part(each, asked[name]) for name, each in splits.items()}
    leaks = [_leak(asked, a, b) for a, b in combinations(splits, 2)]
    askers = defaultdict(set)
    for example in (each for split in splits.values() for each in split if each.question):
        askers[normalised(example.answer)].add(normalised(example.question))
    shared = sum(len(askers[normalised(each.answer)]) > 1 for split in splits.values() for each in split if each.question)
    said = [str(each) for each in refused]
    findings = [
        *_about_rows(said),
        *_about_reading(dataset.reading),
        *_about_leaks(asked, leaks),
        *(finding for name, part in parts.items() for finding in _about_part(name, part, splits[name])),
        *_about_size(parts),
    ]
    ordered = sorted(findings, key=lambda finding: not finding.pointless)
    return Report(dataset.name, dataset.reading, parts, leaks, shared, dataset.unanswered, said, ordered)


def _split(dataset: Dataset, name: str) -> list[Example]:
    found: list[Example] = getattr(dataset, name)
    return found


def _part(examples: list[Example], asked: list[str]) -> Part:
    questions = [each.question for each in examples if each.question]
    answers = [each.answer for each in examples]
    return Part(
        samples=len(examples),
        question_words=_words(questions),
        answer_words=_words(answers),
        distinct_2=distinct_2(*map(normalised, answers)),
        repeated_questions=_repeated(key for key, each in zip(asked, examples, strict=True) if each.question),
        repeated_answers=_repeated(answers),
        copied=sum(_is_copy(each) for each in examples),
        wordless=sum(not normalised(answer) for answer in answers),
    )


def _words(texts: list[str]) -> tuple[int, float, int]:
    counts = [len(text.split()) for text in texts] or [0]
    return min(counts), float(median(counts)), max(counts)


def _repeated(texts: Iterable[str]) -> int:
    return sum(count - 1 for count in Counter(map(normalised, texts)).values())


def _is_copy(example: Example) -> bool:
    return bool(normalised(example.answer)) and normalised(example.question) == normalised(example.answer)


def _asked(splits: dict[str, list[Example]]) -> dict[str, list[str]]:
    """What may not stand in two splits, for each example."""
    found = iter(conversations([each for examples in splits.values() for each in examples]))
    return {name: list(islice(found, len(examples))) for name, examples in splits.items()}


def _leak(asked: dict[str, list[str]], a: str, b: str) -> Leak:
    exact, loose = ({name: {form(each) for each in asked[name]} for name in (a, b)} for form in (str, normalised))
    return Leak((a, b), len(exact[a] & exact[b]), len(loose[a] & loose[b]))


def _about_rows(refused: list[str]) -> Iterable[Finding]:
    if refused:
        yield Finding(f"{len(refused)} rows cannot be used, and training refuses the file ({refused[0]})", "fix those rows", True)


def _about_reading(reading: Reading) -> Iterable[Finding]:
    if reading.split_note:
        yield Finding(reading.split_note, "name the rows that validate in the column split, if it is to be others", False)
    lost = [name for name in reading.unread if name in SYSTEM]
    if lost:
        text = f"the column {lost[0]} is not read beside {' or '.join(reading.forms)}"
        yield Finding(text, "give it as the first of messages, if it is to be trained with", False)


def _about_leaks(asked: dict[str, list[str]], leaks: list[Leak]) -> Iterable[Finding]:
    for leak in leaks:
        a, b = leak.splits
        if leak.normalised:
            n_questions = len({normalised(each) for each in asked[b]})
            spoilt = a == "train" and leak.normalised >= _MOST * n_questions
            what = f"{leak.normalised} of {n_questions} questions of {b} are in {a} too ({leak.same} letter by letter)"
            then = f"{what}: {b} measures memorisation" if spoilt else what
            yield Finding(then, "keep each question in one split; without a split column irm-lite does that itself", spoilt)


def _about_part(name: str, part: Part, examples: list[Example]) -> Iterable[Finding]:
    training = name == "train"
    if part.copied:
        first = next(each.where for each in examples if _is_copy(each))
        text = f"{part.copied} answers of {name} repeat their question (first: {first})"
        yield Finding(text, "answer them, or remove the rows", training and part.copied >= _MOST * part.samples)
    if part.wordless:
        first = next(each.where for each in examples if not normalised(each.answer))
        text = f"{part.wordless} answers of {name} contain no word (first: {first})"
        yield Finding(text, "fill them in, or remove the rows", training and part.wordless >= _MOST * part.samples)
    if part.samples > 1 and part.repeated_answers == part.samples - 1:
        yield Finding(f"all answers of {name} are the same", "an IRM can learn nothing but that text: vary them", training)
    elif part.repeated_answers >= _MOST * part.samples:
        text = f"{part.repeated_answers} of {part.samples} answers of {name} occur more than once"
        yield Finding(text, "check that the right column is read, or vary them", False)
    if part.repeated_questions:
        text = f"{part.repeated_questions} questions of {name} occur more than once"
        yield Finding(text, "remove them if their answers say the same", False)


def _about_size(parts: dict[str, Part]) -> Iterable[Finding]:
    if parts["train"].samples < _FEW:
        yield Finding(f"only {parts['train'].samples} samples to train on", "give at least a few dozen", False)
    if "test" not in parts:
        yield Finding("there is no test split", "eval will measure on validation, which chose the checkpoint", False)
