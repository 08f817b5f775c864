"""Text as somebody writes it who wants to act on whoever looks at it, and what of a text would act."""

import unicodedata

ESCAPES = "\x1b[2J\x1b[31mred\x1b]52;c;cHduZWQ=\x07\x1b]8;;http:x\x1b\\link\x9b6n\x90q\x9c\x1bPq\x1b\\\x07\x08\x0b\x7f"
TURNED = "\u202egnp.exe\u2066\u200f\u2028\u2029\u061c"
FLOOD = "e" + 12 * "\u0301"
NAME = f"a{ESCAPES}{TURNED}{FLOOD}[bold red]b[@click=app.quit]c<img src=x onerror=alert(1)>$x_1$&amp;\n\r\td"  # 184 bytes
TEXT = f"{NAME} [/] [link=http://x]y[/link] {{x}} %s </td></script><script>alert(1)</script> \"'><b a=1>"

_TURNS = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
_MARKS = "\u061c\u200e\u200f"


def acting(text: str) -> set[str]:
    """The characters that act on a terminal: controls but line breaks, half characters, and what turns the direction of writing."""
    return {
        each
        for each in text
        if (unicodedata.category(each) in ("Cc", "Cs", "Zl", "Zp") and each != "\n")
        or unicodedata.bidirectional(each) in _TURNS
        or each in _MARKS
    }
