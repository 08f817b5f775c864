"""The top line: the modes with their keys, the open one highlighted."""

from rich.cells import cell_len
from rich.text import Text
from textual import events
from textual.widget import Widget

from irm_lite_tui.settings.keys import shown_key

TITLES = {"runs": "Runs", "train": "Train", "heatmap": "Heatmap", "chat": "Chat", "export": "Export"}


class ModeBar(Widget):
    """A click on a mode opens it. In an app without modes it shows them and does nothing."""

    DEFAULT_CSS = """
    ModeBar { dock: top; height: 1; text-wrap: nowrap; text-overflow: ellipsis; background: $panel; color: $text-muted; }
    """

    def render(self) -> Text:
        bar = Text(no_wrap=True)
        bar.append(" irm-lite ", style=f"bold {self.app.theme_variables['accent']}")
        for mode, label in self._labels().items():
            here = self.app.current_mode == mode
            bar.append(label, style="bold reverse" if here else "")
        return bar

    def _labels(self) -> dict[str, str]:
        """The text of each mode, with its key."""
        return {
            mode: f" {shown_key(self.app, f'mode.{mode}', str(number))} {title} "
            for number, (mode, title) in enumerate(TITLES.items(), 1)
        }

    async def on_click(self, event: events.Click) -> None:
        left = len(" irm-lite ")
        for mode, label in self._labels().items():
            right = left + cell_len(label)
            if left <= event.x < right and mode in self.app.MODES:
                await self.app.run_action(f"open_mode('{mode}')")
            left = right
