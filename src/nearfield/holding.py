"""Holding: one object's state, kept from call to call for as long as nothing can have moved it.

To fetch hundreds of Tensors, and to look at the shape, the device and the memory of each, takes longer than a small
step. So a Holding keeps what it found. It lets go of all at once when it is told that a Tensor may be another: when an
attribute or a TensorDict gets one, or values go to another device (`state.tell`). What nobody tells of is looked for at
each call: whether other lists and dicts hold what they held, and whether somebody else holds a Tensor that is to be
written over.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from operator import is_, itemgetter
from sys import getrefcount
from typing import Any
from weakref import WeakValueDictionary, getweakrefcount, ref

from .device import Device, Memory
from .device.device import next_serial
from .runtime import HOST, place
from .state import Places, places_of, unwatch, watch
from .tensor import Node, Tensor

__all__ = ["Holding", "Share", "holding_of", "settle_serials"]

_holdings: "WeakValueDictionary[int, Holding]" = WeakValueDictionary()  # by the owner's id


class Share:
    """Some positions in a Holding, and what takes the things there out of a list."""

    __slots__ = ("pick", "positions")

    def __init__(self, positions: Sequence[int]) -> None:
        self.positions = positions
        first = positions[0]
        self.pick: Callable[[list[Any]], tuple[Any, ...]] = (
            itemgetter(*positions) if len(positions) > 1 else lambda things: (things[first],)
        )


class _Known:
    """A list or dict, and what it held."""

    __slots__ = ("container", "keys", "values")

    def __init__(self, container: Any) -> None:
        self.container = container
        self.keys = list(container) if isinstance(container, dict) else None
        self.values = list(container if self.keys is None else container.values())

    def is_same(self) -> bool:
        container = self.container
        if len(container) != len(self.values):
            return False
        if self.keys is None:
            return all(map(is_, container, self.values))
        return list(container) == self.keys and all(map(is_, container.values(), self.values))


class Holding:
    """The state of one owner.

    tensors   in the order of `state_tensors`, their nodes and their memories; empty when it has let go
    device    where they are; None when it has let go
    number    another one whenever these are others
    version   another one whenever the contents of a memory may be others
    parts     ids of what tells when a Tensor in it is another
    """

    __slots__ = (
        "__weakref__", "_alone", "_counts", "_known", "_owner", "_places", "_threes", "_unnumbered", "device",
        "memories", "nodes", "number", "parts", "tensors", "version",
    )  # fmt: skip

    def __init__(self, owner: Any, places: Places) -> None:
        me = ref(self)
        self._owner = ref(owner, lambda _: _let_go(me()))
        self._places = places
        self._unnumbered: dict[int, Share] = {}
        self.parts = places.parts()
        self.number = self.version = 0
        self._clear()

    def _clear(self) -> None:
        self.device: Device | None = None
        self.tensors: list[Tensor] = []
        self.nodes: list[Node] = []
        self.memories: list[Any] = []
        self._known: list[_Known] = []
        self._counts: list[int] = []
        self._threes: list[int] = []
        self._alone = -1

    def __del__(self) -> None:
        self.settle()

    def is_of(self, owner: Any) -> bool:
        """Whether it is this owner's, as it is now."""
        return self._owner() is owner and self._places.is_current()

    def let_go(self) -> None:
        """Refer to nothing of the owner's any more."""
        self.settle()
        self._clear()
        unwatch(self)

    def stands(self, device: Device) -> bool:
        """Whether it holds what the owner has now, with values on that device; it is filled if need be."""
        for known in self._known:
            if not known.is_same():
                self.let_go()
                break
        if self.device is None:
            return self._fill(device)
        return self.device is device

    def _fill(self, device: Device) -> bool:
        tensors = self._places.fetch()
        if tensors is None:
            return False
        nodes = [t.node for t in tensors]
        for node in nodes:
            if isinstance(node.value, HOST):  # a learning rate that has just been set
                place(node, device)
        memories = [n.value for n in nodes]
        if None in memories or [m.device for m in memories].count(device) < len(memories):
            return False
        self.tensors, self.nodes, self.memories = tensors, nodes, memories
        self._known = [_Known(container) for container in self._places.containers()]
        inside = Counter([id(x) for known in self._known for x in known.values])
        # what refers to a Tensor: its owner, `tensors`, `map`, and `_known`, if it is in a list or dict
        self._counts = [3 + inside.get(id(t), 0) for t in tensors]
        self._threes = [3] * len(tensors)
        self.number, self.version = next_serial(), next_serial()
        watch(self)
        self.device = device
        return True

    def only_ours(self, changed: Share | None, made: int) -> bool:
        """Whether nobody else holds what is to be written over.

        changed  None if nothing is written
        made     `tensor.operations()` now: while it stays, no expression can have come to hold a node or a memory
        """
        if changed is None:
            return True
        tensors = self.tensors
        if any(map(getweakrefcount, tensors)) and any(map(getweakrefcount, changed.pick(tensors))):
            return False  # somebody would see a Tensor live on that should be gone
        counts = [*map(getrefcount, tensors)]
        if counts != self._counts and changed.pick(counts) != changed.pick(self._counts):
            return False
        if made == self._alone:
            return True
        self._alone = made
        for things in self.nodes, self.memories:
            counts = [*map(getrefcount, things)]
            if counts != self._threes:  # what refers to one: what it belongs to, the list, `map`
                self._alone = -1
                if changed.pick(counts) != changed.pick(self._threes):
                    return False
        return True

    def wrote(self, share: Share) -> None:
        """These memories have new contents; their serial numbers follow when somebody asks for some."""
        self.version = next_serial()
        self._unnumbered[id(share)] = share

    def move(self, position: int, memory: Memory) -> None:
        """A value is in another memory now."""
        self.memories[position].serial = next_serial()
        self.nodes[position].value = self.memories[position] = memory
        self.number, self._alone = next_serial(), -1

    def settle(self) -> None:
        """Give what was written its new serial numbers."""
        for share in self._unnumbered.values():
            for n in share.positions:
                self.memories[n].serial = next_serial()
        self._unnumbered.clear()


def _let_go(holding: Holding | None) -> None:
    if holding is not None:
        holding.let_go()


def holding_of(owner: Any) -> Holding | None:
    """The one Holding of this owner; None if it does not tell where its Tensors are."""
    found = _holdings.get(id(owner))
    if found is None or not found.is_of(owner):
        places = places_of([owner])
        if places is None:
            return None
        if found is not None:
            found.let_go()
        found = _holdings[id(owner)] = Holding(owner, places)
    return found


def settle_serials() -> None:
    """Give all that was written its new serial numbers."""
    for holding in list(_holdings.values()):
        holding.settle()
