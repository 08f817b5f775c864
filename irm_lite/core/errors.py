"""Every error that irm-lite raises on purpose, each with the exit code that the command line gives it.

An error is one line: what is wrong, where, and the fix.
"""

EXIT_DONE = 0
EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130


class IrmLiteError(Exception):
    """Base of all errors. `hint`, if given, is what the user can do about it. `.what`: the message without the hint.

    >>> from irm_lite import load_run
    >>> try:
    ...     load_run("runs/nowhere")
    ... except IrmLiteError as error:
    ...     print(error.exit_code, error)
    2 runs/nowhere is not a run directory (no run.toml): give the folder that train wrote
    """

    exit_code = EXIT_FAILED

    def __init__(self, what: str, hint: str | None = None) -> None:
        super().__init__(what if hint is None else f"{what}: {hint}")
        self.what = what


class InputError(IrmLiteError):
    """What the user gave cannot be used: a flag, a name, a file."""

    exit_code = EXIT_USAGE


class BaseModelError(InputError):
    """A base model is missing, gated, damaged, or of an architecture that cannot be injected."""


class DataError(InputError):
    """A dataset cannot be read, or a row of it cannot be used."""


class LayerError(InputError):
    """A layer specification is malformed or out of range."""


class RunError(InputError):
    """A run directory is missing, in use, or not a run directory."""


class VectorError(InputError):
    """A control vector is malformed, or does not fit the model."""


class OtherBaseWarning(UserWarning):
    """What is injected was made on another base, or on the same base in another quantisation."""


class MissingPart(InputError):
    """An optional dependency is not installed."""


class RanOut(IrmLiteError):
    """Memory ran out, or the threads or processes that the system gives."""


class TrainingFailed(IrmLiteError):
    """Training could not continue: it diverged, or the disk is full."""


class FailedElsewhere(IrmLiteError):
    """Another process of the same training failed; message and exit code are that process's."""

    def __init__(self, what: str, exit_code: int) -> None:
        super().__init__(what)
        self.exit_code = exit_code


class LlamaCppError(IrmLiteError):
    """llama.cpp refused a call."""


class Interrupted(IrmLiteError):
    """The user stopped the work; what was done is saved."""

    exit_code = EXIT_INTERRUPTED


def reason(error: BaseException, most: int = 200) -> str:
    """What an exception of another library says, as one line of at most `most` characters; its type where it says nothing."""
    return " ".join(str(error).split())[:most] or type(error).__name__
