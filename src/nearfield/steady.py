"""What a compiled function makes of inputs that stay as they were: made once, and again when they have changed.

A model that only predicts has the same weights in every call. What depends on weights alone (panels of factors, scales
of batch norms) is a Program of its own, `Built.once`, whose results are further inputs of the one that every call runs.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary, ref

from .device import Memory, Session
from .holding import settle_serials

if TYPE_CHECKING:
    from .compiler.target import Built

__all__ = ["Steady"]

PATIENCE = 2  # times in a row that something is made for a single call


class _Made:
    """Memories made of the contents of others, and the serial numbers of these; given back as soon as one has gone."""

    __slots__ = ("__weakref__", "_watched", "memories", "serials")

    def __init__(self, sources: Sequence[Memory]) -> None:
        self.memories: list[Memory] = []
        self.serials: list[int] | None = None
        memories = self.memories
        self._watched = [ref(source, lambda _: memories.clear()) for source in sources]


_shared: "WeakValueDictionary[Any, _Made]" = WeakValueDictionary()


class Steady:
    """The further inputs of one Program.

    Functions that make the same of the same memories share it: one for other shapes of the arguments, say. So there is
    never more than the newest.
    """

    def __init__(self, built: "Built", device: Any) -> None:
        self.once, self.feeds = built.once, built.feeds
        self.session: Session | None = None if built.once is None else device.load(built.once)
        self.made = _Made([])
        self.calls = self.wasted = 0

    def inputs(self, memories: Sequence[Memory]) -> list[Memory] | None:
        """What is made of the inputs, to be given to the Program after them; None if they change too often for it."""
        session = self.session
        if session is None:
            return []
        settle_serials()
        serials = [memories[n].serial for n in self.feeds]
        if serials != self.made.serials:
            self.wasted = self.wasted + 1 if self.calls == 1 else 0
            if self.wasted >= PATIENCE:
                return None
            self.made, self.calls = self._of([memories[n] for n in self.feeds], serials, session), 0
        self.calls += 1
        return self.made.memories

    def _of(self, sources: list[Memory], serials: list[int], session: Session) -> _Made:
        key = self.once, session.device, tuple(map(id, sources))
        made = _shared.get(key)
        if made is None or (made.serials is not None and not made.memories):  # of others, which had the same ids
            made = _shared[key] = _Made(sources)
        if made.serials != serials:
            made.memories[:], made.serials = session.run("main", sources), serials
        return made
