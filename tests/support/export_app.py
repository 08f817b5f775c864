"""The export screen alone."""

from pathlib import Path

from textual.app import App
from textual.widgets import Static

from irm_lite_tui.export.screen import ExportScreen


class ExportApp(App[None]):
    def __init__(self, path: Path | None) -> None:
        super().__init__()
        self.path = path

    def on_mount(self) -> None:
        self.push_screen(ExportScreen(self.path))

    def line(self, job: str) -> str:
        return str(self.screen.query_one(f"#{job}-job .line", Static).render())


_NAMES = ("nll_base", "nll_irm", "nll_vector", "kl_irm_base", "kl_irm_vector", "top1_agreement", "fidelity")
FIGURES = {
    "vector": "v.gguf",
    "method": "distil",
    "measured_in": "llama.cpp",
    "samples": 45,
    "tokens": 1243,
    "input_dependent_share": {"overall": 0.043, "by_layer": [0.03]},
    **dict.fromkeys(_NAMES, 1.5),
    "fidelity": 0.98,
    "score": {
        "vector": {
            "value": 0.84,
            "interval_95": [0.79, 0.88],
            "parts": {"fluency": 0.93, "tone": 1.0, "sense": 0.85, "steerability": 0.96},
            "questions": {"text": 16, "pairs": 16, "choices": 64},
            "lacks": [],
        }
    },
    "intervals_95": dict.fromkeys(_NAMES, (0.97, 1.6)),
}
NO_FIDELITY = {
    "fidelity": None,
    "intervals_95": {**dict.fromkeys(_NAMES, (0.97, 1.6)), "fidelity": None},
    "unsteered": "nothing is steered by the IRM",
}
ADAPTER_FIGURES = {
    "adapter": "a.gguf",
    "fidelity": 0.97,
    "seconds": 61.4,
    "bytes": 249_000,
    "strengths": {"-1": 0.98, "0.5": 0.99, "1.5": float("nan")},
    "predicted": [{"error": 0.001}, {"error": 0.1}],
    "vector": {"fidelity": 0.98},
    "measured": {"measured_in": "llama.cpp", "samples": 45, "tokens": 1243, "intervals_95": {"fidelity": [0.96, 0.981]}},
}
