"""Which nodes to stop at while ggml goes through the graph of one micro-batch.

Reading a thousand names costs 3% of a generated token's time. So the places of the plan's nodes are kept from the first
graph of a single token, and used in those after it. Each is still checked by its name: a graph that has changed is read anew.
"""

from collections.abc import Iterator

from irm_lite.llamacpp.graph_plan import GraphPlan, Place

_NONE_LEFT = Place(1 << 62, b"")


class GraphMoved(Exception):
    """A node is not at the place that was kept for it."""


class GraphWalk:
    """ggml asks about one node after another: count `asked` up for each, and call `wants` from position `next_stop` on."""

    def __init__(self, plan: GraphPlan) -> None:
        self.places: tuple[Place, ...] = ()  # in the graph of a single token, once they are known
        self.asked = 0  # nodes of this graph so far
        self.next_stop = 0  # nodes before this position are not looked at
        self.stopped_at = b""  # the name of the newest node that was looked at
        self._wanted = plan.actions.keys()
        self._expected: bytes | None = None  # the name at `next_stop`, where places are known
        self._ahead: Iterator[Place] = iter(())  # the known places after it
        self._found: list[Place] = []

    def begin(self, by_places: bool) -> None:
        """Go through another graph, by the known places or by names."""
        self.asked = self.next_stop = 0
        self._expected, self._found = None, []
        if by_places:
            self._ahead = iter(self.places)
            self._look_ahead()

    def stop_looking(self) -> None:
        """Want no further node of this graph."""
        self.next_stop = _NONE_LEFT.position

    def wants(self, name: bytes) -> bool:
        """Whether to stop at the newest node, which has this name. Raises GraphMoved where another one was to be here."""
        self.stopped_at = name
        if self._expected is not None:
            if name != self._expected:
                raise GraphMoved
            self._look_ahead()
            return True
        if name in self._wanted:
            self._found.append(Place(self.asked, name))
            return True
        return False

    def keep_places(self) -> None:
        """After a whole graph of a single token: go by its places from now on."""
        self.places = self.places or tuple(self._found)

    def forget_places(self) -> None:
        """Go by names again."""
        self.places = ()

    def _look_ahead(self) -> None:
        place = next(self._ahead, _NONE_LEFT)
        self.next_stop, self._expected = place.position, place.name
