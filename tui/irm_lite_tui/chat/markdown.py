"""The conversation as Markdown."""

import re

from irm_lite_tui.chat.conversation import Answer, Turn


def markdown(turns: list[Turn]) -> str:
    """The conversation as Markdown; prompts and answers are fenced, so that nothing in them is Markdown.

    The files are listed at the top, or under each turn where they changed.
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
    """Changes of the steering, as in `; strength 1, from token 17: 0.5`. Tokens count from 1, as on the screen."""
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
