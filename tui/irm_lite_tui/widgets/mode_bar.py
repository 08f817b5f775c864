"""The line on top: the modes with their keys, the one that is open stands out."""

from rich.text import Text
from textual import events
from textual.widget import Widget

TITLES = {"runs": "Runs", "train": "Train", "heatmap": "Heatmap", "chat": "Chat", "export": "Export"}


class ModeBar(Widget):
    """A click on a mode opens it. In an app without modes it shows them and does nothing."""

    DEFAULT_CSS = """
    ModeBar { dock: top; height: 1; text-wrap: nowrap; text-overflow: ellipsis; background: $panel; color: $text-muted; }
    """

    def render(self) -> Text:
        bar = Text(no_wrap=True)
        bar.append(" irm-lite ", style=f"bold {self.app.theme_variables['accent']}")
        for number, (mode, title) in enumerate(TITLES.items(), 1):
            here = self.app.current_mode == mode
            bar.append(f" {number} {title} ", style="bold reverse" if here else "")
        return bar

    async def on_click(self, event: events.Click) -> None:
        left = len(" irm-lite ")
        for number, (mode, title) in enumerate(TITLES.items(), 1):
            right = left + len(f" {number} {title} ")
            if left <= event.x < right and mode in self.app.MODES:
                await self.app.run_action(f"open_mode('{mode}')")
            left = right
