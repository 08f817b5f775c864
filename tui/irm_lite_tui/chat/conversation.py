"""A conversation in several columns: what was asked, what each answered, and how it was steered."""

import re
from dataclasses import dataclass, field

import numpy as np

Message = dict[str, str]


@dataclass(frozen=True)
class Steering:
    """What holds from this token on, which counts from 0; `layers` as the server has them."""

    token: int
    strength: float
    layers: str


@dataclass
class Answer:
    """One column's answer as it comes. `tokens` are pieces of text, `norms` what was added for each (L2), if known.

    `steered` is what the server said it was steered with, in that order; nothing where it is not.
    """

    tokens: list[str] = field(default_factory=list)
    norms: list[float | None] = field(default_factory=list)
    steered: list[Steering] = field(default_factory=list)
    whole: str | None = None  # once it has ended
    reason: str = ""
    error: str = ""

    @property
    def text(self) -> str:
        return "".join(self.tokens) if self.whole is None else self.whole

    @property
    def over(self) -> bool:
        return self.whole is not None or bool(self.error)

    @property
    def mean_norm(self) -> float | None:
        """Mean over the tokens; None where nothing steered."""
        known = [norm for norm in self.norms if norm is not None]
        return float(np.mean(known)) if known else None


@dataclass
class Turn:
    """A prompt and its answers, with the settings that it was asked with; `sources` are the files that answer it."""

    prompt: str
    strength: float
    layers: str
    seed: int
    temperature: float
    sources: dict[str, str]
    answers: dict[str, Answer]

    @property
    def over(self) -> bool:
        return all(answer.over for answer in self.answers.values())


def history(turns: list[Turn], column: str, prompt: str) -> list[Message]:
    """What this column is asked: its own answers behind each earlier prompt; turns that it did not answer are left out."""
    messages: list[Message] = []
    for turn in turns:
        answer = turn.answers.get(column)
        if answer is not None and answer.text:
            messages += [{"role": "user", "content": turn.prompt}, {"role": "assistant", "content": answer.text}]
    return [*messages, {"role": "user", "content": prompt}]


def markdown(turns: list[Turn]) -> str:
    """The conversation as Markdown; what people and models said stands in fences, so that nothing in it acts.

    The files stand at its head, or under each turn where they are not the same for all.
    """
    same = all(turn.sources == turns[0].sources for turn in turns)
    parts = ["# irm-lite chat", *([_listed(turns[0].sources)] if turns and same else [])]
    for number, turn in enumerate(turns, 1):
        settings = f"strength {turn.strength:g}, layers {turn.layers}, seed {turn.seed}, temperature {turn.temperature:g}"
        parts += [f"## {number}", *([] if same else [_listed(turn.sources)]), settings, _fenced(turn.prompt)]
        for column, answer in turn.answers.items():
            norm = f", mean added norm {answer.mean_norm:.3g}" if answer.mean_norm is not None else ""
            parts += [f"### {column}", f"{len(answer.tokens)} tokens{norm}{_moved(answer)}"]
            parts += [_fenced(answer.text)] if answer.text or not answer.error else []
            parts += ["went wrong:", _fenced(answer.error)] if answer.error else []
    return "\n\n".join(parts) + "\n"


def _moved(answer: Answer) -> str:
    """How the steering went where it was moved, as in `; strength 1, from token 17: 0.5`. Tokens count from 1, as on the screen."""
    held = [each for each in answer.steered if each.token < len(answer.tokens)]
    said = ""
    for name, values in (("strength", [f"{each.strength:g}" for each in held]), ("layers", [each.layers for each in held])):
        if len(set(values)) > 1:
            last = dict(zip((each.token for each in held), values, strict=True))  # of several at one token, the last holds
            (_, value), *later = last.items()
            said += f"; {name} {value}"
            for token, after in later:
                said += f", from token {token + 1}: {after}" if after != value else ""
                value = after
    return said


def _listed(sources: dict[str, str]) -> str:
    return "\n".join(f"- {name}: {_code(source)}" for name, source in sources.items())


def _fenced(text: str) -> str:
    """In a fence longer than any in the text (CommonMark 4.5)."""
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", text)), default=0))
    return f"{fence}text\n{text}\n{fence}"


def _code(text: str) -> str:
    """In backticks, more than the text has in a row (CommonMark 6.1)."""
    ticks = "`" * (1 + max((len(run) for run in re.findall("`+", text)), default=0))
    return f"{ticks} {text} {ticks}" if "`" in text else f"`{text}`"
