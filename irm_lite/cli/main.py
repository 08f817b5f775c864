"""The process `irm-lite`, and the one place where an error becomes a line and an exit code.

Nothing slow is imported before it is needed: `irm-lite --help` is to come at once.
"""

import errno
import os
import signal
import sys
import warnings
from contextlib import ExitStack, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

from irm_lite.cli.overview import print_overview
from irm_lite.cli.stderr import LastingStderr
from irm_lite.core.errors import EXIT_DONE, EXIT_FAILED, EXIT_INTERRUPTED, EXIT_USAGE, InputError, IrmLiteError, OtherBaseWarning
from irm_lite.core.machine import processes
from irm_lite.core.machine.launch import set_aside, shown
from irm_lite.core.machine.ran_out import ran_out, threads_are_left, what_ran_out
from irm_lite.core.machine.spinning import spin_briefly
from irm_lite.core.machine.terminal import forget_size_of_nothing, open_what_is_closed, replace_what_cannot_be_shown
from irm_lite.core.machine.usable_cores import threads_within_quota
from irm_lite.core.visible_text import one_line, safe

if TYPE_CHECKING:
    from cyclopts import CycloptsError

_USERS_ERRORS = tuple(
    getattr(errno, name) for name in ["ENAMETOOLONG", "ENOENT", "EACCES", "EISDIR", "ENOTDIR", "EEXIST", "EPERM", "EROFS"]
)


def run(arguments: list[str]) -> int:
    """Run one command line; give its exit code."""
    debug = "--debug" in arguments
    if processes.count() > 1 and arguments[:1] != ["train"]:
        hint = f"start it without accelerate launch; what another job has left, unset ({shown()})"
        return _complain(f"only train runs in several processes: {hint}", EXIT_USAGE)
    os.environ["HF_HUB_OFFLINE"] = "1"  # no library may fetch anything unasked; fill_settings lifts it for --download
    spin_briefly(next(iter(arguments), ""))
    threads_within_quota()
    try:
        if arguments in (["--help"], ["-h"]):
            print_overview()
        else:
            _run_verb(arguments)
    except IrmLiteError as error:
        if debug:
            _trace()
        return _complain(str(error), error.exit_code)
    except KeyboardInterrupt:
        if not threads_are_left():  # OpenBLAS interrupts the process itself where it gets none
            return _complain(str(ran_out("threads")), EXIT_FAILED)
        return _complain("interrupted", EXIT_INTERRUPTED)
    except SystemExit:  # rich's way of saying that stdout's reader has seen enough
        return EXIT_DONE
    except UnicodeError as error:
        return _complain(f"text that is not UTF-8 ({error}): write it in UTF-8", EXIT_USAGE)
    except BrokenPipeError:  # `irm-lite ... | head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_DONE
    except BaseException as error:  # also a panic of the tokenizers, which is no Exception
        if debug:
            _trace()
        return _complain(*_told(error, debug))
    return EXIT_DONE


def _told(error: BaseException, debug: bool) -> tuple[str, int]:
    """An error that nobody expected, in a line, and its exit code."""
    if lacking := what_ran_out(error):
        return str(ran_out(lacking)), EXIT_FAILED
    if isinstance(error, OSError):
        path = f" ({str(error.filename)[:200]})" if error.filename else ""
        code = EXIT_USAGE if error.errno in _USERS_ERRORS else EXIT_FAILED
        return f"{error.strerror or str(error)[:300]}{path}: check the path and its free space", code
    what = f"{type(error).__name__}: {error}"
    report = "report what is printed above" if debug else "run it again with --debug and report what it prints"
    return f"unexpected error ({what}): {report}", EXIT_FAILED


def _run_verb(arguments: list[str]) -> None:
    """Raises InputError where the command line is wrong, and all that the verb raises."""
    import logging

    from cyclopts import CycloptsError

    from irm_lite.cli.app import app

    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it advises a kernel for a path that we do not use
    try:
        with set_aside():
            app(arguments, exit_on_error=False, print_error=False)
    except CycloptsError as error:
        raise InputError(_misuse(error, arguments)) from error


def _misuse(error: "CycloptsError", arguments: list[str]) -> str:
    """What is wrong with a command line. cyclopts takes a verb that is not there for an argument of the TUI's."""
    from cyclopts import UnknownCommandError

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
        import traceback

        sys.stderr.write(safe(traceback.format_exc()))


def _show_warning(message: Warning | str, *_where: Any, **_more: Any) -> None:
    """A library's warning, in one line: the place in its source says nothing to a user."""
    if sys.stderr is not None:
        sys.stderr.write(f"irm-lite: warning: {one_line(str(message))}\n")


def main() -> None:
    """The console script."""
    open_what_is_closed()
    replace_what_cannot_be_shown()
    forget_size_of_nothing()
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
        if not processes.first() and sys.argv[1:2] == ["train"]:  # the first says all there is to say
            nowhere = silent.enter_context(Path(os.devnull).open("w", encoding="utf-8"))
            silent.enter_context(redirect_stdout(nowhere))
            if "--debug" not in sys.argv:
                silent.enter_context(redirect_stderr(nowhere))
        sys.exit(run(sys.argv[1:]))
