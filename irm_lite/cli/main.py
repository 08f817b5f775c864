"""`irm-lite`: the verbs, and the one place where an error becomes a line and an exit code."""

import errno
import logging
import os
import signal
import sys
import traceback
import warnings
from contextlib import ExitStack, redirect_stderr, redirect_stdout
from importlib import import_module
from pathlib import Path
from typing import Any

from cyclopts import App, ArgumentCollection, CycloptsError, UnknownCommandError
from cyclopts.config import Dict

import irm_lite
from irm_lite.base.presets import EMBEDDED, presets
from irm_lite.cli.stderr import LastingStderr
from irm_lite.config import read_config_file
from irm_lite.core.errors import EXIT_DONE, EXIT_FAILED, EXIT_INTERRUPTED, EXIT_USAGE, IrmLiteError, OtherBaseWarning
from irm_lite.core.machine import processes
from irm_lite.core.visible_text import one_line, safe

_USERS_ERRORS = tuple(
    getattr(errno, name) for name in ["ENAMETOOLONG", "ENOENT", "EACCES", "EISDIR", "ENOTDIR", "EEXIST", "EPERM", "EROFS"]
)


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
    if wish and (wish[-1].implicit_value is True or wish[-1].value.lower() == "true"):
        del os.environ["HF_HUB_OFFLINE"]  # before any library that reads it is imported


app = App(
    name="irm-lite",
    help="Train a small network that steers a frozen Llama, and take its effect to llama.cpp. Without a verb: the TUI.",
    help_format="plaintext",
    version=irm_lite.__version__,
    config=fill_settings,
    result_action="return_value",
)
# By import path: a verb's module is imported when that verb is used.
app.command("irm_lite.cli.verbs.demo:demo", name="demo", help="The whole job on one model: train, export, llama.cpp, compare.")
app.command("irm_lite.cli.verbs.data:app", name="data", help="Datasets: what is in one, and answers rewritten in a tone.")
app.command("irm_lite.cli.verbs.train:train", name="train", help="Train an IRM into a run directory.")
app.command("irm_lite.cli.verbs.sweep:sweep", name="sweep", help="Train a grid of runs from one file; goes on after a stop.")
app.command("irm_lite.cli.verbs.export:export", name="export", help="Write a run's effect as a GGUF control vector.")
app.command(
    "irm_lite.cli.verbs.generate:generate", name="generate", help="Answer a prompt in llama.cpp, with control vectors or without."
)
app.command("irm_lite.cli.verbs.evaluate:evaluate", name="eval", help="Measure a run: NLL, KL and the fidelity of its vector.")
app.command("irm_lite.cli.verbs.bake:bake", name="bake", help="Write a copy of a GGUF with the steering in it, or take it out.")
app.command("irm_lite.cli.verbs.calibrate:calibrate", name="calibrate", help="Find the best strength and layers of a vector.")
app.command("irm_lite.cli.verbs.vector:app", name="vector", help="Control vectors: what is in one, and arithmetic with them.")
app.command("irm_lite.cli.verbs.record:record", name="record", help="Record what an IRM puts out, token by token.")
app.command("irm_lite.cli.verbs.heatmap:heatmap", name="heatmap", help="Draw a recording or a control vector.")
app.command("irm_lite.cli.verbs.ablate:ablate", name="ablate", help="Zero an index and measure what that does, against controls.")
app.command("irm_lite.cli.verbs.analyze:analyze", name="analyze", help="What runs reveal, against chance and the base: a report.")
app.command("irm_lite.cli.verbs.models:app", name="models", help="Base models known by name.")
app.command("irm_lite.cli.verbs.serve:serve", name="serve", help="Answers for other programs: JSON lines in, JSON lines out.")
app.command("irm_lite.cli.verbs.doctor:doctor", name="doctor", help="What works on this machine, what is missing, and the fix.")


@app.default
def open_tui() -> None:
    """Open the TUI on a terminal, else print the help."""
    if all(stream.isatty() for stream in (sys.stdin, sys.stdout, sys.stderr)):  # Textual draws on the last
        # By name: the engine must not depend on the UI, which is a program of its own.
        import_module("irm_lite_tui.app").main()
    else:
        app.help_print()


def run(arguments: list[str]) -> int:
    """Run one command line; give its exit code."""
    debug = "--debug" in arguments
    if processes.count() > 1 and arguments[:1] != ["train"]:
        return _complain("several processes can only train: leave out the launcher", EXIT_USAGE)
    os.environ["HF_HUB_OFFLINE"] = "1"  # no library may fetch anything unasked; fill_settings lifts it for --download
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it advises a kernel for a path that we do not use
    try:
        app(arguments, exit_on_error=False, print_error=False)
    except (IrmLiteError, CycloptsError) as error:
        if debug:
            _trace()
        if isinstance(error, CycloptsError):
            return _complain(_misuse(error, arguments), EXIT_USAGE)
        return _complain(str(error), error.exit_code)
    except KeyboardInterrupt:
        return _complain("interrupted", EXIT_INTERRUPTED)
    except SystemExit:  # rich's way of saying that stdout's reader has seen enough
        return EXIT_DONE
    except UnicodeError as error:
        return _complain(f"text that is not UTF-8 ({error}): write it in UTF-8", EXIT_USAGE)
    except BrokenPipeError:  # `irm-lite ... | head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_DONE
    except OSError as error:
        if debug:
            _trace()
        place = f" ({str(error.filename)[:200]})" if error.filename else ""
        code = EXIT_USAGE if error.errno in _USERS_ERRORS else EXIT_FAILED
        return _complain(f"{error.strerror or str(error)[:300]}{place}: check the place and its free space", code)
    except Exception as error:
        if debug:
            _trace()
            return EXIT_FAILED
        what = f"{type(error).__name__}: {error}"
        return _complain(f"unexpected error ({what}): run it again with --debug and report what it prints", EXIT_FAILED)
    return EXIT_DONE


def _misuse(error: CycloptsError, arguments: list[str]) -> str:
    """What is wrong with a command line. cyclopts takes a verb that is not there for an argument of the TUI's."""
    before = error.command_chain or ()
    if isinstance(error, UnknownCommandError) and error.unused_tokens:
        verb = error.unused_tokens[0]
    elif before or not arguments or arguments[0].startswith("-"):
        return str(error)
    else:
        verb = arguments[0]
    return f"there is no verb {verb!r}: {' '.join(['irm-lite', *before])} --help lists them"


def _complain(text: str, code: int) -> int:
    if sys.stderr is not None:
        sys.stderr.write(f"irm-lite: {' '.join(safe(text).split())}\n")
    return code


def _trace() -> None:
    """The traceback of the error at hand: names and data stand in its last line."""
    if sys.stderr is not None:
        sys.stderr.write(safe(traceback.format_exc()))


def _show_warning(message: Warning | str, *_place: Any, **_more: Any) -> None:
    """A library's warning, in one line: the place in its source says nothing to a user."""
    if sys.stderr is not None:
        sys.stderr.write(f"irm-lite: warning: {one_line(str(message))}\n")


def main() -> None:
    """The console script."""
    if sys.stderr is not None:
        sys.stderr = LastingStderr(sys.stderr)
    if sys.argv[1:]:  # the TUI ends by itself
        for name in ("SIGTERM", "SIGHUP"):  # like ctrl+c: what is half written is removed
            number = getattr(signal, name, None)
            if number is not None and signal.getsignal(number) is signal.SIG_DFL:
                signal.signal(number, signal.default_int_handler)
    warnings.showwarning = _show_warning
    warnings.simplefilter("ignore", OtherBaseWarning)  # the verbs say it themselves
    with ExitStack() as silent:
        if not processes.first():  # the first says all there is to say
            nowhere = silent.enter_context(Path(os.devnull).open("w", encoding="utf-8"))
            silent.enter_context(redirect_stdout(nowhere))
            if "--debug" not in sys.argv:
                silent.enter_context(redirect_stderr(nowhere))
        sys.exit(run(sys.argv[1:]))
