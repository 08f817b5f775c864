"""Text from data and models, made fit to be looked at: what would act or hide stands there as its escape."""

import unicodedata

_ACTS = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")  # controls, direction marks, surrogates, line separators


def visible(text: str) -> str:
    """Control characters and the like as Python escapes (\\n, \\x1b, \\u202e); all else unchanged."""
    return "".join(each.encode("unicode_escape").decode() if unicodedata.category(each) in _ACTS else each for each in text)


def short(text: str, longest: int = 16) -> str:
    """The text's beginning on one line; blanks are shown where there is nothing else."""
    shown = visible(text)
    shown = shown.strip() or "␣" * len(shown)
    return shown if len(shown) <= longest else shown[: longest - 1] + "…"
