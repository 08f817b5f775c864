"""Texts that end an answer, found across the borders of tokens."""


class StopFinder:
    """Passes text on but for what may be the beginning of a stop."""

    def __init__(self, stops: tuple[str, ...]) -> None:
        self._stops = stops
        self._back = ""

    def feed(self, text: str) -> tuple[str, bool]:
        """What may be shown now, and whether a stop was found: then nothing more is to be fed.

        >>> finder = StopFinder(("END",))
        >>> finder.feed("the E"), finder.feed("N"), finder.feed("T, EN"), finder.feed("D.")
        (('the ', False), ('', False), ('ENT, ', False), ('', True))
        """
        if not self._stops:
            return text, False
        whole = self._back + text
        found = [at for at in (whole.find(stop) for stop in self._stops) if at >= 0]
        if found:
            self._back = ""
            return whole[: min(found)], True
        held = max((_overlap(whole, stop) for stop in self._stops), default=0)
        self._back = whole[len(whole) - held :]
        return whole[: len(whole) - held], False

    def rest(self) -> str:
        """What was held back, when the answer ended otherwise."""
        back, self._back = self._back, ""
        return back


def _overlap(text: str, stop: str) -> int:
    """The length of the longest end of the text that the stop begins with."""
    return next((n for n in range(min(len(text), len(stop) - 1), 0, -1) if stop.startswith(text[-n:])), 0)
