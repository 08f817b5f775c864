"""The assistant's last turn as text: the prompt that llama-server gives the model, and what the model is to write behind it.

Mostly that is the template's own text of the whole conversation. But templates begin an answer themselves (`<think>`), drop
thoughts, fold blanks, or show no answers at all. Then what is learned is put together: that same prompt, the answer as the data
have it, and what the template puts behind an answer.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from irm_lite.data.chat_template import ChatTemplate
from irm_lite.data.dataset import Message

_PROBE = "Certainlynot"  # an answer that no template changes, and that is nowhere else
_OPENED = re.compile(r"(<([\w:-]+)>|\[([A-Z_]+)\])\s*$")
_CLOSED = re.compile(r"</[\w:-]+>|\[/[A-Z_]+\]")

SYSTEM, THOUGHT, CHANGED, OTHER, UNSEEN = "system", "thought", "changed", "other", "unseen"
_LINES = {
    SYSTEM: "the chat template has no place for a system text: it stands in front of the first turn, as llama-server puts it",
    THOUGHT: "the chat template opens a thought before each answer, and the data have none: it is closed at once",
    CHANGED: "the chat template changes answers (thoughts, blanks): they are learned as the data have them",
    OTHER: "the chat template writes a prompt otherwise once it is answered: answers are learned behind that of llama-server",
    UNSEEN: "the chat template shows no answers, or otherwise: they are learned right behind the prompt",
}


@dataclass(frozen=True)
class Turn:
    """`rest` follows the prompt: the answer, whose own text ends at `answer_end` of its characters, the turn's end, and whatever
    the template puts behind it. `adapted`: what is not as the template or the data have it, as keys of `adaptations`."""

    prompt: str
    rest: str
    answer_end: int
    adapted: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Frame:
    """An answered conversation: all `before` the answer, and the `tail` behind it. `follows`: whether it begins with the prompt;
    then `lead` is what stands between that and the answer."""

    before: str
    tail: str
    follows: bool
    lead: str


def last_turn(template: ChatTemplate, messages: Sequence[Message], where: str) -> Turn:
    """The last message, which is the assistant's, as a turn. Raises as `ChatTemplate.prompt` does."""
    history, answer = messages[:-1], messages[-1]["content"].strip()
    prompt = template.prompt(history, where)
    system = (SYSTEM,) if template.moves_system(history) else ()
    rest = _behind(prompt, template, messages)
    usual = _usual_lead(template)
    if usual is not None and rest.startswith(usual + answer):
        return Turn(prompt, rest, len(usual + answer), (*system, *([THOUGHT] if _CLOSED.search(usual) else ())))
    frame = _frame(template, history, prompt)
    if frame is None:
        return Turn(prompt, answer, len(answer), (*system, UNSEEN))
    thought = _begun_thought(prompt, frame)
    if thought:
        answer = answer.removeprefix(thought[0]).lstrip()
    end = _end_of(answer, rest, len(frame.lead) if rest.startswith(frame.lead) else 0)
    if end is not None:
        return Turn(prompt, rest, end, system)
    lead, why = frame.lead, CHANGED if frame.follows else OTHER
    if thought and thought[1] in answer:
        lead = ""  # the answer has the rest of the thought
    elif thought:
        lead, why = thought[2], THOUGHT
    return Turn(prompt, lead + answer + frame.tail, len(lead + answer), (*system, why))


def adaptations(found: Iterable[tuple[str, ...]]) -> list[str]:
    """A line for each kind of what turns were `adapted` in, with how many."""
    counts = Counter(each for adapted in found for each in adapted)
    return [f"{line} ({counts[key]} samples)" for key, line in _LINES.items() if counts[key]]


def _behind(prompt: str, template: ChatTemplate, messages: Sequence[Message]) -> str:
    """What an answered conversation has behind the prompt; nothing where it does not begin with it."""
    try:
        text = template.whole(messages)
    except Exception:  # a template that lets nobody but the user speak last
        return ""
    return text[len(prompt) :] if text.startswith(prompt) else ""


def _frame(template: ChatTemplate, history: Sequence[Message], prompt: str) -> _Frame | None:
    """None where answers are not shown."""
    try:
        text = template.whole([*history, {"role": "assistant", "content": _PROBE}])
    except Exception:  # as above
        return None
    before, found, tail = text.partition(_PROBE)
    if not found:
        return None
    follows = before.startswith(prompt)
    return _Frame(before, tail, follows, before[len(prompt) :] if follows else "")


@lru_cache(64)
def _usual_lead(template: ChatTemplate) -> str | None:
    """What stands before an answer to a first question; None where an answered conversation does not begin with its prompt."""
    history = [{"role": "user", "content": "Why?"}]
    frame = _frame(template, history, template.prompt(history))
    return frame.lead if frame and frame.follows else None


def _begun_thought(prompt: str, frame: _Frame) -> tuple[str, str, str] | None:
    """The tags around a thought that the prompt begins for the model, and what closes an empty one; None where it begins none."""
    opened = _OPENED.search(prompt)
    if opened is None:
        return None
    closing = f"</{opened[2]}>" if opened[2] else f"[/{opened[3]}]"
    at = frame.before.find(closing, opened.start())
    if at >= 0:
        return opened[1], closing, frame.lead or frame.before[at:]
    begun = prompt.count(opened[1]) > frame.before.count(opened[1])  # or it is what stands before each answer of the assistant
    return (opened[1], closing, f"\n{closing}\n\n") if begun else None


def _end_of(answer: str, rest: str, start: int) -> int | None:
    """Where the answer ends in what follows the prompt, from `start` on; None where it is not there. Blanks around a thought, which
    templates set in their own way, may differ."""
    at = rest.find(answer, start)
    if at >= 0:
        return at + len(answer)
    closed = [*_CLOSED.finditer(answer)]
    visible = answer[closed[-1].end() :].strip() if closed else ""
    if not visible or visible not in rest[start:]:
        return None
    places = [place for place in range(start, len(rest)) if not rest[place].isspace()]
    letters = "".join(answer.split())
    found = "".join(rest[place] for place in places).find(letters)
    return None if found < 0 else places[found + len(letters) - 1] + 1
