"""The top line: the modes with their keys, the open one highlighted; at the right the run in hand."""

from pathlib import Path

from rich.cells import cell_len
from rich.text import Text
from textual import events
from textual.widget import Widget

from irm_lite.core.visible_text import visible
from irm_lite_tui.settings.keys import shown_key

TITLES = {"runs": "Runs", "train": "Train", "heatmap": "Heatmap", "chat": "Chat", "export": "Export"}


class ModeBar(Widget):
    """A click on a mode opens it, one on the run takes the next. In an app without modes it shows them and does nothing."""

    DEFAULT_CSS = """
    ModeBar { dock: top; height: 1; text-wrap: nowrap; text-overflow: ellipsis; background: $panel; color: $text-muted; }
    """

    def on_mount(self) -> None:
        if hasattr(self.app, "in_hand"):
            self.watch(self.app, "in_hand", self._follow)

    def _follow(self) -> None:
        self.refresh()

    def render(self) -> Text:
        bar = Text(no_wrap=True)
        bar.append(" irm-lite ", style=f"bold {self.app.theme_variables['accent']}")
        for mode, label in self._labels().items():
            here = self.app.current_mode == mode
            bar.append(label, style="bold reverse" if here else "")
        if not hasattr(self.app, "in_hand"):
            return bar
        run = self._run(self.size.width - cell_len(bar.plain))
        return bar.append(" " * (self.size.width - cell_len(bar.plain) - cell_len(run.plain))).append(run)

    def _run(self, room: int) -> Text:
        """The run that this screen shows, else the one in hand, with the key that changes it, cut to so many cells."""
        shown: Path | None = getattr(self.screen, "taken", None) or getattr(self.app, "in_hand", None)
        name = visible(shown.name) if shown is not None else "train the demo"
        run = Text.assemble((f" {shown_key(self.app, 'run.next', 'f4')} ", ""), (f"{name} ", "bold" if shown is not None else ""))
        run.truncate(max(room, 0), overflow="ellipsis")
        return run

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
        if event.x >= left and hasattr(self.app, "in_hand"):
            await self.app.run_action("next_run")
