"""State: objects whose Tensors a compiled step may change, and the places where these Tensors are.

To walk through all attributes of a model takes longer than a small training step. So the places are worked out once,
and again when something has changed that decides where they are: `Stateful` counts the assignments that may do so, and
lists and dicts are compared with what they held.
"""

from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any, NamedTuple, Protocol, Self
from weakref import WeakSet, ref

from .tensor import Tensor

__all__ = [
    "Place", "Places", "Stateful", "TensorDict", "Watcher", "changes", "keep_only", "places_of", "tell", "unwatch",
    "watch",
]  # fmt: skip

_PLAIN = frozenset((int, float, str, bool, type(None)))


class _Changes:
    count = 0


def changes() -> int:
    """A number that has changed if Tensors of some Stateful object may be at another place, or a setting differs."""
    return _Changes.count


class Watcher(Protocol):
    """Who keeps Tensors of the objects with the ids `parts`, and is told when they may be others."""

    parts: frozenset[int]

    def let_go(self) -> None:
        """Keep them no longer."""


_watchers: "WeakSet[Watcher]" = WeakSet()


def watch(watcher: Watcher) -> None:
    """It will be told."""
    _watchers.add(watcher)


def unwatch(watcher: Watcher) -> None:
    """It will not be told any more."""
    _watchers.discard(watcher)


def tell(part: object = None) -> None:
    """Tensors of this object, or of any, may be others than they were."""
    for watcher in list(_watchers):
        if part is None or id(part) in watcher.parts:
            watcher.let_go()


class TensorDict(dict[str, Tensor]):
    """A dict of Tensors that tells when it is changed, so that nobody who keeps them need look at it."""

    def __setitem__(self, name: str, value: Tensor) -> None:
        super().__setitem__(name, value)
        tell(self)

    def __delitem__(self, name: str) -> None:
        super().__delitem__(name)
        tell(self)

    def __ior__(self, other: Any) -> Self:  # type: ignore[override,misc]
        self.update(other)
        return self

    def update(self, *args: Any, **more: Tensor) -> None:
        """As a dict's; the methods below, too."""
        super().update(*args, **more)
        tell(self)

    def setdefault(self, name: str, default: Tensor) -> Tensor:
        """The value, which is the default if there was none."""
        value = super().setdefault(name, default)
        tell(self)
        return value

    def pop(self, *args: Any) -> Any:
        """The value, taken out."""
        value = super().pop(*args)
        tell(self)
        return value

    def popitem(self) -> tuple[str, Tensor]:
        """The last name and value, taken out."""
        item = super().popitem()
        tell(self)
        return item

    def clear(self) -> None:
        """Take all out."""
        super().clear()
        tell(self)


class Stateful:
    """What modules, optimisers and generators have in common: Tensors that a step may change.

    A subclass has `state_tensors` and `set_state_tensors`. If it also says in `state_places` where the Tensors are,
    compiled functions need not ask for them at each call; they may then depend on nothing but attributes, and lists
    and dicts in these.
    """

    def begins_at_zero(self, name: str) -> bool:
        """Whether a state Tensor that a step makes, because it was not there, is 0 before that step."""
        return False

    def __setattr__(self, name: str, value: Any) -> None:
        held = self.__dict__
        before = held.get(name, held)
        object.__setattr__(self, name, value)
        if before is value or name not in held:  # a property is not held: it sets other attributes
            return
        if not _alike(before, value):
            _Changes.count += 1
            tell()
        elif type(value) is Tensor:
            tell(self)

    def __delattr__(self, name: str) -> None:
        object.__delattr__(self, name)
        _Changes.count += 1
        tell()

    def state_places(self) -> "tuple[list[Place], list[Place]] | None":
        """Where each Tensor of `state_tensors` is, in its order, and the lists and dicts that could hold others.

        returns  None if a Tensor cannot be reached by attributes, lists and dicts
        """
        return None


def _alike(before: Any, value: Any) -> bool:
    """Whether two values of an attribute are the same to whoever knows where Tensors are and what the settings say."""
    if before is value:
        return True
    if type(before) is not type(value):
        return False
    if type(value) is Tensor:
        return before.node.shape == value.node.shape and before.node.dtype is value.node.dtype
    return type(value) in _PLAIN and bool(before == value)


class Place(NamedTuple):
    """Where a Tensor, or a list or dict, is: an attribute of a Stateful object, or inside lists and dicts in one.

    name  what `state_tensors` calls it
    path  the attribute, then keys
    """

    name: str
    owner: Stateful
    path: tuple[Any, ...]


def _at(owner: Any, path: tuple[Any, ...]) -> Any:
    found = owner.__dict__
    for key in path:
        found = found[key]
    return found


def _one(key: Any) -> Callable[[Any], tuple[Any]]:
    return lambda container: (container[key],)


def _contents(container: Any) -> Any:
    """What can be compared with the contents later: Tensors may come and go, all else may not."""
    if isinstance(container, dict):
        values = [0 if type(x) is Tensor else id(x) for x in container.values()]
        return (len(values), *container, *values) if any(values) else len(values)
    values = [0 if type(x) is Tensor else id(x) for x in container]
    return values if any(values) else len(values)


def _tells(container: Any) -> bool:
    return type(container) is TensorDict


def keep_only(owner: Any, names: Iterable[str]) -> None:
    """Take out all Tensors of the owner but those of the names: a trace that came to nothing has made them."""
    wanted, found = set(names), owner.state_places() if isinstance(owner, Stateful) else None
    for name, holder, path in found[0] if found else ():
        container = _at(holder, path[:-1])
        if name not in wanted and isinstance(container, dict):
            del container[path[-1]]


class Places:
    """The Tensors of some owners, found again without asking them. None of them is kept alive."""

    __slots__ = ("_containers", "_count", "_rows")

    def __init__(self, places: Sequence[Place], containers: Iterable[Place]) -> None:
        rows = [list(row) for _, row in groupby(places, lambda p: (id(p.owner), p.path[:-1]))]
        keys = [[place.path[-1] for place in row] for row in rows]
        self._rows = [
            (ref(row[0].owner), row[0].path[:-1], itemgetter(*names) if len(names) > 1 else _one(names[0]))
            for row, names in zip(rows, keys, strict=True)
        ]
        self._containers = [(ref(c.owner), c.path, _contents(_at(c.owner, c.path))) for c in containers]
        self._count = _Changes.count

    def is_current(self) -> bool:
        """Whether no assignment since can have put a Tensor elsewhere."""
        return self._count == _Changes.count

    def parts(self) -> frozenset[int]:
        """The ids of what tells when a Tensor in it is another: Stateful objects and dicts."""
        owners = [owner() for owner, _, _ in (*self._rows, *self._containers)]
        return frozenset(map(id, [*owners, *filter(_tells, self._all_containers())]))

    def containers(self) -> list[Any]:
        """The lists and dicts that hold Tensors, or could, and do not tell when they change."""
        return [x for x in self._all_containers() if not _tells(x)]

    def _all_containers(self) -> list[Any]:
        return [_at(owner(), path) for owner, path, _ in self._containers]

    def fetch(self) -> list[Tensor] | None:
        """The Tensors now, in the order of the places; None if they may be elsewhere."""
        if not self.is_current():
            return None
        found: list[Tensor] = []
        try:
            for owner, path, contents in self._containers:
                held = _at(owner(), path)
                if (len(held) if type(contents) is int else _contents(held)) != contents:
                    return None
            for owner, path, take in self._rows:
                found += take(_at(owner(), path) if path else owner().__dict__)
        except (AttributeError, LookupError, TypeError):  # an owner that is no more, a key that is gone
            return None
        return found


def places_of(owners: Iterable[Any]) -> Places | None:
    """The places of all Tensors of the owners, in the order of `state_tensors`; None if one does not tell."""
    places: list[Place] = []
    containers: list[Place] = []
    for owner in owners:
        found = owner.state_places() if isinstance(owner, Stateful) else None
        if found is None:
            return None
        places += found[0]
        containers += found[1]
    return Places(places, containers)
