"""Text from models, data and files, as text: nothing in it is markup, nothing acts on the terminal."""

from rich.text import Text

from irm_lite.core.visible_text import visible, visible_lines


def line(text: str, style: str = "") -> Text:
    """On one line; line breaks and control characters stand there as escapes."""
    return Text(visible(text), style=style, no_wrap=True, overflow="ellipsis")


def paragraphs(text: str, style: str = "") -> Text:
    """With its own line breaks, tabs as blanks; other control characters stand there as escapes."""
    return Text(visible_lines(text), style=style)


def encodable(text: str) -> str:
    """For files and the clipboard: half characters (lone surrogates, as in names that are no UTF-8) stand there as escapes."""
    return text.encode("utf-8", "backslashreplace").decode()
