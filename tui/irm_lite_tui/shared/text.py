"""Text from models, data and files, as plain text: nothing in it is markup, nothing acts on the terminal."""

from rich.text import Text

from irm_lite.core.visible_text import visible, visible_lines


def line(text: str, style: str = "") -> Text:
    """On one line; line breaks and control characters are shown as escapes."""
    return Text(visible(text), style=style, no_wrap=True, overflow="ellipsis")


def paragraphs(text: str, style: str = "") -> Text:
    """With its own line breaks, tabs as blanks; other control characters are shown as escapes."""
    return Text(visible_lines(text), style=style)


def encodable(text: str) -> str:
    """For files and the clipboard: lone surrogates (as in file names that are not UTF-8) are written as escapes."""
    return text.encode("utf-8", "backslashreplace").decode()
