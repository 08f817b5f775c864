"""Command lines to copy."""

from rich.text import Text
from textual.widgets import OptionList
from textual.widgets.option_list import Option

from irm_lite_tui.shared.copying import copy
from irm_lite_tui.shared.text import line


class LineList(OptionList):
    """Enter or a click copies a line (OSC 52)."""

    def __init__(self, id: str) -> None:
        super().__init__(id=id)
        self.lines: list[tuple[str, str]] = []

    def show(self, lines: list[tuple[str, str]]) -> None:
        """(title, line) pairs."""
        if lines == self.lines:
            return
        self.lines = lines
        self.clear_options()
        for title, command in lines:
            shown = line(command)
            shown.no_wrap, shown.overflow = False, "fold"
            self.add_option(Option(Text.assemble((f"{title}\n", "dim"), shown)))
        self.display = bool(lines)

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        title, command = self.lines[event.option_index]
        copy(self.app, command, title)
