"""Text from data, models and file names made fit to be shown. One rule says what of it acts; two ways of showing that.

What acts, by Unicode's categories:
- C0 and C1 controls (Cc): the terminal's own language; line breaks and tabs are each function's matter, below.
- Line and paragraph separators (Zl, Zp): they break lines where nobody looks for it.
- Surrogates (Cs): halves of characters, which cannot be written as UTF-8.
- Format characters (Cf): overrides, isolates and marks of direction, the byte order mark, invisible operators, the soft hyphen ...
- The tags block (U+E0000 to U+E007F): it spells words that no one sees.
- Noncharacters (U+FFFE, U+FDD0 ...): never text, and XML refuses them.

All else is text and stays: letters, marks and signs of every script, and
- joiners and the zero-width space (U+200B to U+200D): Persian, Hindi, Khmer and many emoji are written with them;
- format characters that are signs of a script with a direction of their own (Arabic number signs, hieroglyphs' joiners);
- unassigned code points: a newer Unicode's letters; private use: a font's own signs.
"""

import unicodedata

_ACTING = ("Cc", "Cf", "Cs", "Zl", "Zp")
_JOINING = "\u200b\u200c\u200d"
_MARKS_OF_DIRECTION = "\u061c\u200e\u200f"
_DIRECTIONS_OF_SIGNS = ("L", "R", "AL", "AN")
_TAB = "    "


def acts(character: str) -> bool:
    """Whether this one character acts on a terminal, turns the direction of writing, hides, or is half of something."""
    code = ord(character)
    if unicodedata.category(character) not in _ACTING:
        return 0xE0000 <= code <= 0xE007F or 0xFDD0 <= code <= 0xFDEF or code & 0xFFFE == 0xFFFE
    if character in _JOINING:
        return False
    is_sign = unicodedata.category(character) == "Cf" and unicodedata.bidirectional(character) in _DIRECTIONS_OF_SIGNS
    return not is_sign or character in _MARKS_OF_DIRECTION


def visible(text: str) -> str:
    """On one line: what acts as Python's escapes (\\n, \\t, \\x1b, \\u202e); so do joiners that have nothing to join."""
    nothing_joined = not text.strip(_JOINING)
    return "".join(_escape(each) if nothing_joined or acts(each) else each for each in text)


def visible_lines(text: str) -> str:
    """The same with its own line breaks, and tabs as blanks."""
    return "\n".join(visible(line) for line in text.replace("\t", _TAB).split("\n"))


def short(text: str, longest: int = 16) -> str:
    """The text's beginning on one line; blanks are shown where there is nothing else."""
    shown = visible(text)
    shown = shown.strip() or "␣" * len(shown)
    return shown if len(shown) <= longest else shown[: longest - 1] + "…"


def safe(text: str) -> str:
    """For streams and for tables already laid out: what acts as U+FFFD, one for one; line breaks stay, tabs are blanks."""
    return "".join("\N{REPLACEMENT CHARACTER}" if each != "\n" and acts(each) else each for each in text.replace("\t", _TAB))


def one_line(text: str) -> str:
    """As `safe`, on one line; blanks at its beginning stay."""
    first, *others = safe(text).split("\n")
    return " ".join([first, *filter(None, (each.strip() for each in others))]).rstrip()


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode()
