"""What can be done with the run under the cursor, in the palette."""

from collections.abc import Iterator
from functools import partial

from textual.binding import Binding
from textual.command import DiscoveryHit, Hit, Hits, Provider

# Bindings of the screen of runs (screen.py) that are about one run.
_ABOUT_A_RUN = ("open", "resume", "stop", "rename", "delete", "compare", "heatmap", "chat", "export", "train", "folder")


class RunCommands(Provider):
    """Titles hold no name of a run: the palette would take what is in it for markup."""

    def _bindings(self) -> Iterator[tuple[str, Binding]]:
        known = {binding.id: binding for _, binding in self.screen._bindings}
        for name in _ABOUT_A_RUN:
            binding = known[f"runs.{name}"]
            yield f"Run: {binding.description}", binding

    async def discover(self) -> Hits:
        for title, binding in self._bindings():
            yield DiscoveryHit(title, partial(self.screen.run_action, binding.action), help=_help(binding))

    async def search(self, query: str) -> Hits:
        matcher = self.matcher(query)
        for title, binding in self._bindings():
            if (score := matcher.match(title)) > 0:
                yield Hit(score, matcher.highlight(title), partial(self.screen.run_action, binding.action), help=_help(binding))


def _help(binding: Binding) -> str:
    return f"The run under the cursor ({binding.key_display or binding.key})"
