"""The head of the dashboard: which run, how far it is, and its current numbers."""

from rich.text import Text
from textual.widget import Widget

from irm_lite_tui.dashboard.reader import Reading
from irm_lite_tui.shared.text import line
from irm_lite_tui.watch.run_state import COLOURS, SIGNS, duration, figure

_CELL = 13


class RunNumbers(Widget):
    """State and name, a bar of the steps, then loss, NLL, speed, time left, memory and learning rate."""

    DEFAULT_CSS = """
    RunNumbers { height: 4; text-wrap: nowrap; text-overflow: ellipsis; padding: 0 1; background: $surface; }
    """

    def __init__(self, id: str | None = None) -> None:
        super().__init__(id=id)
        self._reading: Reading | None = None

    def show(self, reading: Reading) -> None:
        self._reading = reading
        self.refresh()

    def render(self) -> Text:
        if self._reading is None:
            return Text("")
        head = _head(self._reading, self.app.theme_variables[COLOURS[self._reading.view.state]])
        bar = _bar(self._reading, self.content_size.width, self.app.theme_variables["accent"])
        labels, values = Text(no_wrap=True), Text(no_wrap=True)
        for label, value in _numbers(self._reading)[: max(1, self.content_size.width // _CELL)]:
            labels.append(f"{label:<{_CELL}}", style="dim")
            values.append(f"{value:<{_CELL}}", style="bold")
        return Text("\n").join([head, bar, labels, values])


def _head(reading: Reading, colour: str) -> Text:
    view = reading.view
    head = Text(no_wrap=True, overflow="ellipsis")
    head.append_text(line(f"{SIGNS[view.state]} {view.state_text}  ", colour))
    head.append_text(line(view.name, "bold"))
    if view.config is not None:
        config = view.config
        head.append_text(line(f"  {config.irm} IRM on {config.model}, {config.data}, layers {config.layers}", "dim"))
    if reading.about:
        head.append_text(line(f"  ({reading.about})", "dim"))
    return head


def _bar(reading: Reading, width: int, colour: str) -> Text:
    step, of = reading.view.step, reading.view.max_steps
    label = f" {step}/{of}" if of else " -"
    length = max(0, width - len(label))
    done = round(length * min(1.0, step / of)) if of else 0
    bar = Text(no_wrap=True)
    bar.append("━" * done, style=colour)
    bar.append("━" * (length - done), style="dim")
    bar.append(label)
    return bar


def _numbers(reading: Reading) -> list[tuple[str, str]]:
    """Most important first: a narrow terminal cuts off the last."""
    view = reading.view
    left = duration(reading.eta_seconds) if view.state == "running" and reading.eta_seconds is not None else "-"
    return [
        ("loss", figure(reading.loss[-1][1] if reading.loss else None)),
        ("best NLL", figure(view.best_nll)),
        ("tokens/s", figure(reading.tokens_per_second, ".0f")),
        ("time left", left),
        ("sound", "-" if reading.sound is None else f"{reading.sound[0]} of {reading.sound[1]}"),  # answers
        ("memory", figure(reading.memory_bytes and reading.memory_bytes / 1e9, ".1f", " GB")),
        ("rate", figure(reading.learning_rate, ".1e")),
        ("base NLL", figure(reading.base_nll)),
        ("fidelity", figure(view.fidelity)),
        ("score", figure(view.score, ".2f")),
    ]
