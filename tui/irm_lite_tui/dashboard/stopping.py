"""Stop a run, whichever process writes it; asks before ending it without saving."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from textual.screen import Screen

from irm_lite.core.errors import IrmLiteError
from irm_lite_tui.shared.ask import AskScreen
from irm_lite_tui.watch import run_actions


def stop_run(screen: Screen[Any], path: Path, say: Callable[[str, bool], None]) -> None:
    """`say` is called with the outcome, and whether it is a failure."""

    def stop(said: str) -> None:
        try:
            run_actions.stop(path)
        except IrmLiteError as error:
            say(str(error), True)
        else:
            say(f"{path.name} {said}", False)

    if not run_actions.is_stopping(path):
        stop("stops after this step and saves")
        return
    detail = "It stops once its step is done and saved. If you end it now, all that it did since its last checkpoint is lost."
    question = AskScreen(f"End {path.name} without saving?", "End", detail)
    screen.app.push_screen(question, lambda yes: stop("ends at once") if yes else None)
