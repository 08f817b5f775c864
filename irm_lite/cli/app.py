"""The verbs as cyclopts' application, and where settings come from that the flags leave open."""

import os
import sys
from importlib import import_module
from pathlib import Path

from cyclopts import App, ArgumentCollection
from cyclopts.config import Dict

from irm_lite.base.presets import EMBEDDED, presets
from irm_lite.cli.overview import ABOUT, VERBS, print_overview
from irm_lite.config import read_config_file
from irm_lite.core.version import __version__


def fill_settings(app: App, commands: tuple[str, ...], arguments: ArgumentCollection) -> None:
    """What the flags leave open, from --config's file, then from the model's preset, for the verbs that train anew."""
    by_flag = {name: argument for argument in arguments for name in argument.names}
    resumed = "--resume" in by_flag and by_flag["--resume"].tokens
    if "--max-steps" in by_flag and not resumed:
        config = by_flag.get("--config")
        if config is not None and config.tokens:
            path = config.tokens[0].value
            Dict(read_config_file(Path(path)), use_commands_as_keys=False, source=path)(app, commands, arguments)
        tokens = by_flag["--model"].tokens
        preset = presets().get(tokens[0].value if tokens else EMBEDDED)
        if preset is not None:
            Dict(preset.train, use_commands_as_keys=False, source=f"preset {preset.name}")(app, commands, arguments)
    wish = by_flag["--download"].tokens if "--download" in by_flag else []
    pushed = "--push" in by_flag and by_flag["--push"].tokens
    if pushed or (wish and (wish[-1].implicit_value is True or wish[-1].value.lower() == "true")):
        del os.environ["HF_HUB_OFFLINE"]  # before any library that reads it is imported


app = App(
    name="irm-lite",
    help=ABOUT,
    help_format="plaintext",
    version=__version__,
    config=fill_settings,
    result_action="return_value",
    suppress_keyboard_interrupt=False,  # else cyclopts ends it itself, and main has no line for it and another exit code
)
for _verb, (_place, _about) in VERBS.items():
    app.command(_place, name=_verb, help=_about)


@app.default
def open_tui() -> None:
    """Open the TUI on a terminal, else print the help."""
    if all(stream.isatty() for stream in (sys.stdin, sys.stdout, sys.stderr)):  # Textual draws on the last
        # By name: the engine must not depend on the UI, which is a program of its own.
        import_module("irm_lite_tui.app").main()
    else:
        print_overview()
