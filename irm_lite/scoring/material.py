"""What a score is taken on: held-out questions with their answers in the tone and in plain words, distractors, choices.

What the data lack is left out, and said in a line each.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from irm_lite.core.errors import DataError, InputError
from irm_lite.data.choices import shipped_choices
from irm_lite.data.dataset import Dataset, Example, load_dataset, tones
from irm_lite.data.encoding import Sample
from irm_lite.scoring.recall import looks_english
from irm_lite.scoring.speaker import NEW_TOKENS
from irm_lite.scoring.tones import FEWEST, NEUTRAL, ToneClassifier, error_of_pairs, shipped_classifier

QUESTIONS = 16  # unless asked for more: on 2 CPU cores the writing of their answers is what takes the time
_CHOICES = 4  # shipped questions with four answers for each held-out one, as long as there are any: they cost a tenth as much
DISTRACTORS = 3
OWN = "own"  # the class of a tone that is not shipped
_MOST_NEW_TOKENS = 256
_FEW = 8  # held-out questions: the interval of fewer says little
_MOST_WRONG = 0.15  # of a classifier's training answers, cross-validated: one that errs more often hears no tone
_SPARE = 1.5  # a text may be so much longer than the longest known answer before it is cut

Encode = Callable[[Example], Sample | None]  # None: too long


@dataclass(frozen=True)
class Extent:
    """How much is measured: held-out questions (None: all), four times as many choices, and tokens of an answer in text at most
    (None: by the data's own answers). `seed`: of the sampled answers, and of the questions drawn for intervals. `choosing`: a
    strength is chosen by it, so the choices are the last of those that ship, others than an evaluation of few questions takes."""

    questions: int | None = QUESTIONS
    new_tokens: int | None = None
    seed: int = 0
    choosing: bool = False

    def __post_init__(self) -> None:
        """Raises InputError where a number makes no sense."""
        if (self.questions or 0) < 0:
            raise InputError(f"{self.questions} questions make no sense", "give 0 or more")
        if self.new_tokens is not None and not 1 <= self.new_tokens <= 100_000:
            raise InputError(f"answers of {self.new_tokens} tokens make no sense", "give 1 to 100000")
        require_seed(self.seed)


def require_seed(seed: int) -> int:
    """The seed. Raises InputError where no source of chance takes it."""
    if not 0 <= seed < 2**32:
        raise InputError(f"--seed {str(seed)[:20]} makes no sense", "give 0 to 4294967295")
    return seed


@dataclass(frozen=True)
class Material:
    """Q held-out questions in one order, K distractors each, C choices."""

    tone: str  # the class that the classifier looks for
    toned: list[Sample]  # (Q) with the tone's answer; asked in text, too
    new_tokens: int  # of an answer in text, at most
    neutral: list[Sample] = field(default_factory=list)  # (Q) with the neutral answer; empty where the data have none
    distractors: list[list[Sample]] = field(default_factory=list)  # (Q, K): neutral answers to other questions of the kind
    choices: list[list[Sample]] = field(default_factory=list)  # (C, 4), the right one first
    classifier: ToneClassifier | None = None
    train_answers: list[str] = field(default_factory=list)  # the data's own, in the tone
    in_english: bool = True  # of other languages it is not known which words carry no fact
    lacks: list[str] = field(default_factory=list)  # a line for each thing that cannot be measured
    seed: int = 0


def gather(
    spec: str,
    dataset: Dataset,
    held_out: Sequence[Sample],
    encode: Encode,
    *,
    answer_column: str = "answer",
    extent: Extent | None = None,
) -> Material:
    """The material for a tone. `dataset` was loaded by `spec` and `answer_column`; `held_out` are its encoded held-out answers."""
    extent = extent or Extent()
    lacks: list[str] = []
    questions = [sample for sample in held_out if sample.example.question]
    plain = neutral_answers(spec, dataset, answer_column)
    pairs = [(each, encode(plain[each.example.subject])) for each in questions if each.example.subject in plain]
    paired = [(each, found) for each, found in pairs if found is not None][: extent.questions]
    toned, neutral = [each for each, _ in paired], [found for _, found in paired]
    classifier = None
    if not questions:
        lacks.append("the data ask no questions: nothing is answered in text")
    elif not neutral:
        lacks.append(_no_neutral(spec))
    else:
        classifier = shipped_classifier() if spec in tones() else _own_classifier(dataset, plain, lacks)
    if questions and len(questions) < _FEW:
        lacks.append(f"an interval that means much: {len(questions)} held-out questions are few")
    if neutral and (left_out := sum(each.example.subject not in plain for each in questions)):
        lacks.append(f"{left_out} of {len(questions)} held-out questions, which have no neutral answer")
    in_english = looks_english([text for each in (*toned, *neutral) for text in (each.example.question, each.example.answer)])
    if neutral and not in_english:
        lacks.append("key words: the answers do not look English, and of other languages it is not known which words carry no fact")
    toned = toned or questions[: extent.questions]
    longest = max((each.n_answer for each in (*toned, *neutral)), default=0)
    every, count = shipped_choices(), _CHOICES * len(toned)
    chosen = every[max(0, len(every) - count) :] if extent.choosing else every[:count]
    choices = [[encode(each) for each in choice.examples] for choice in chosen]
    return Material(
        tone=spec if spec in tones() else OWN,
        toned=toned,
        new_tokens=extent.new_tokens or min(max(NEW_TOKENS, round(_SPARE * longest)), _MOST_NEW_TOKENS),
        neutral=neutral,
        distractors=_distractors(neutral, list(plain.values()), encode),
        choices=[whole for answers in choices if len(whole := [each for each in answers if each]) == len(answers)],
        classifier=classifier,
        train_answers=[each.answer for each in dataset.train],
        in_english=in_english,
        lacks=lacks,
        seed=extent.seed,
    )


def _no_neutral(spec: str) -> str:
    if spec == NEUTRAL:
        return "neutral is no tone: no tone and no steerability, so no score"
    if spec.startswith("hf:"):
        return "neutral answers are not read of hf: data (save them as a file with a column `neutral`): no tone and no steerability"
    return "the held-out questions have no neutral answers (a column `neutral`): no tone and no steerability, so no score"


def neutral_answers(spec: str, dataset: Dataset, answer_column: str) -> dict[str, Example]:
    """By question: the shipped ones, or those of a file's own column `neutral`; none where there are none."""
    if NEUTRAL in (spec, answer_column) or spec.startswith("hf:"):
        return {}
    try:
        found = load_dataset(NEUTRAL) if spec in tones() else load_dataset(spec, NEUTRAL, refused=[])
    except DataError:
        return {}  # no row has one
    own = {each.subject: each.answer for each in _all(dataset)}
    return {each.subject: each for each in _all(found) if own.get(each.subject) != each.answer}  # of messages: the same again


def _all(dataset: Dataset) -> list[Example]:
    return [*dataset.train, *dataset.validation, *dataset.test]


def _own_classifier(dataset: Dataset, plain: dict[str, Example], lacks: list[str]) -> ToneClassifier | None:
    """Of the data's own training answers against the neutral ones to the same questions; None where they are too few."""
    pairs = [(each.answer, plain[each.subject].answer) for each in dataset.train if each.subject in plain]
    if len(pairs) < FEWEST:
        few = f"{len(pairs)} training answers with a neutral one beside them are too few for a classifier (it takes {FEWEST})"
        lacks.append(f"{few}: tone by preference alone")
        return None
    try:
        wrong = error_of_pairs(pairs, OWN)
        if wrong > _MOST_WRONG:
            lacks.append(f"a classifier calls {wrong:.0%} of the training answers wrongly: tone by preference alone")
            return None
        return ToneClassifier([text for pair in pairs for text in pair], [OWN, NEUTRAL] * len(pairs))
    except ValueError:  # scikit-learn's, of texts without a common word or three common letters
        lacks.append("the training answers have nothing in common that a classifier could learn: tone by preference alone")
        return None


def question_kind(question: str) -> str:
    """How a question begins, which says what kind of answer it takes: "how many", "when", "why"; "other"."""
    words = question.casefold().split()
    two, one = " ".join(words[:2]), "".join(words[:1])
    known = ("how many", "how much", "how long", "how far", "how often")
    return two if two in known else one if one in ("how", "what", "when", "where", "which", "who", "why") else "other"


def _distractors(neutral: Sequence[Sample], plain: Sequence[Example], encode: Encode) -> list[list[Sample]]:
    """For each question neutral answers to the next others of its kind (to any others where those are too few), as its answer."""
    kinds = [question_kind(each.question) for each in plain]
    places = {each.subject: at for at, each in enumerate(plain)}
    found = []
    for sample in neutral:
        at, asked = places[sample.example.subject], sample.example
        others = [(at + step) % len(plain) for step in range(1, len(plain))]
        kind = question_kind(asked.question)
        nearest = sorted(others, key=lambda other: kinds[other] != kind)[:DISTRACTORS]  # stable: the next ones first
        answers = [{"role": "assistant", "content": plain[other].answer} for other in nearest]
        wrong = [Example((*asked.messages[:-1], answer), None, asked.where) for answer in answers]
        found.append([each for example in wrong if (each := encode(example)) is not None])
    return found
