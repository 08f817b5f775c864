"""All verbs with a line about each, and `irm-lite --help`, which lists them.

The list is drawn here as cyclopts draws a verb's help (a test compares them), without importing it: cyclopts and the way in
which it gathers a help take twice as long as all of this.
"""

ABOUT = "Train a small network that steers a frozen Llama, and take its effect to llama.cpp. Without a verb: the TUI."

# By name: where it is, as cyclopts imports it when the verb is used, and what it does.
VERBS = {
    "demo": ("irm_lite.cli.verbs.demo:demo", "The whole job on one model: train, export, llama.cpp, compare."),
    "data": ("irm_lite.cli.verbs.data:app", "Datasets: what is in one, and answers rewritten in a tone."),
    "train": ("irm_lite.cli.verbs.train:train", "Train an IRM into a run directory."),
    "sweep": ("irm_lite.cli.verbs.sweep:sweep", "Train a grid of runs from one file; goes on after a stop."),
    "export": ("irm_lite.cli.verbs.export:export", "Write a run's effect as a GGUF control vector."),
    "generate": ("irm_lite.cli.verbs.generate:generate", "Answer a prompt in llama.cpp, with control vectors or without."),
    "eval": ("irm_lite.cli.verbs.evaluate:evaluate", "Measure a run: NLL, KL and the fidelity of its vector."),
    "bake": ("irm_lite.cli.verbs.bake:bake", "Write a copy of a GGUF with the steering in it, or take it out."),
    "calibrate": ("irm_lite.cli.verbs.calibrate:calibrate", "Find the best strength and layers of a vector."),
    "vector": ("irm_lite.cli.verbs.vector:app", "Control vectors: what is in one, and arithmetic with them."),
    "record": ("irm_lite.cli.verbs.record:record", "Record what an IRM puts out, token by token."),
    "heatmap": ("irm_lite.cli.verbs.heatmap:heatmap", "Draw a recording or a control vector."),
    "ablate": ("irm_lite.cli.verbs.ablate:ablate", "Zero an index and measure what that does, against controls."),
    "analyze": ("irm_lite.cli.verbs.analyze:analyze", "What runs reveal, against chance and the base: a report."),
    "models": ("irm_lite.cli.verbs.models:app", "Base models known by name."),
    "serve": ("irm_lite.cli.verbs.serve:serve", "Answers for other programs: JSON lines, or OpenAI's API (--http)."),
    "publish": ("irm_lite.cli.verbs.publish:publish", "Write a folder to give away: vector, IRM, model card."),
    "reproduce": ("irm_lite.cli.verbs.reproduce:reproduce", "Train again what was published, and compare."),
    "doctor": ("irm_lite.cli.verbs.doctor:doctor", "What works on this machine, what is missing, and the fix."),
}
_FLAGS = {"--help (-h)": "Display this message and exit.", "--version": "Display application version."}


def print_overview() -> None:
    """Print the help of `irm-lite` itself."""
    from rich.box import ROUNDED
    from rich.console import Console
    from rich.panel import Panel
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(style="cyan")
    table.add_column(overflow="fold")
    for name, about in [*sorted((name, about) for name, (_, about) in VERBS.items()), *_FLAGS.items()]:
        table.add_row(name, Text(about))
    console = Console()
    console.print(Text.assemble(("Usage: ", "bold"), ("irm-lite COMMAND", "bold"), "\n"))
    console.print(Text(ABOUT + "\n"))
    console.print(Panel(table, box=ROUNDED, title="Commands", title_align="left"))
