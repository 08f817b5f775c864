"""Whether a screen is visible: timers pause while it is not."""

from typing import Any

from textual.screen import Screen


def is_seen(screen: Screen[Any]) -> bool:
    """Whether a screen is shown, or covered by small windows only."""
    stack = screen.app.screen_stack
    return screen in stack and all(above.is_modal for above in stack[stack.index(screen) + 1 :])
