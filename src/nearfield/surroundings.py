"""Surroundings: the objects with state that a function reaches without being given them.

Followed are the closure, the defaults, and the globals that the function's code names; functions found there, what a
partial or a bound method holds, attributes and methods of the user's own objects, methods of the user's own modules;
and lists, tuples and dicts in any of these.
"""

import sys
from collections import deque
from collections.abc import Iterator
from functools import partial
from types import CellType, CodeType, FunctionType, MethodType, ModuleType, SimpleNamespace
from typing import Any
from weakref import ref

__all__ = ["Surroundings", "is_stateful"]

MOST = 10_000  # things that are looked at: what is larger is data
# Packages whose functions and objects are not followed.
FOREIGN = {*sys.stdlib_module_names, __name__.partition(".")[0], "numpy"}
HOLDERS = (partial, MethodType, staticmethod, classmethod, ref)


def is_stateful(x: Any) -> bool:
    """Whether a step may change Tensors of the object."""
    return hasattr(x, "state_tensors") and not isinstance(x, type)


class Surroundings:
    """What a function reaches without being given it.

    owners   the objects with state that were found, each once
    """

    def __init__(self, function: Any) -> None:
        self.owners: list[Any] = []
        seen: dict[int, Any] = {}  # also keeps alive what the numbers stand for
        links: list[tuple[int, int, tuple[Any, Any, Any] | None]] = []  # from, to, and what says so
        todo = deque([function])
        while todo and len(seen) < MOST:
            x = todo.popleft()
            if id(x) in seen:
                continue
            seen[id(x)] = x
            if is_stateful(x):
                self.owners.append(x)
            for holder, key, value in _parts(x):
                if _is_followed(value):
                    links.append((id(x), id(value), None if holder is None else (holder, key, value)))
                    todo.append(value)
        useful = _leading_to(links, {id(x) for x in self.owners})
        places = [place for _, to, place in links if to in useful and place is not None]
        self._cells = [(cell, value) for cell, _, value in places if type(cell) is CellType]
        self._places = [place for place in places if type(place[0]) is not CellType]
        self._sizes = [(x, len(x)) for n, x in seen.items() if n in useful and type(x) in (list, dict)]

    def is_current(self) -> bool:
        """Whether the owners would be found again: none of the places that they were found at holds anything else."""
        try:
            for cell, value in self._cells:
                if cell.cell_contents is not value:
                    return False
            for holder, key, value in self._places:
                if holder[key] is not value:
                    return False
            for container, size in self._sizes:
                if len(container) != size:
                    return False
        except (LookupError, ValueError):  # a key that is gone, a cell that was emptied
            return False
        return True


def _parts(x: Any) -> Iterator[tuple[Any, Any, Any]]:
    """What an object refers to, and where: a list, dict or cell, and the key in it. No place: it stays."""
    if isinstance(x, dict):
        yield from ((x, key, value) for key, value in x.items())
    elif isinstance(x, (list, tuple)):
        yield from ((x if type(x) is list else None, at, value) for at, value in enumerate(x))
    elif isinstance(x, FunctionType):
        yield from _parts_of_function(x)
    elif is_stateful(x):  # its own Tensors are known
        for part in x.modules().values() if hasattr(x, "modules") else (x,):
            yield from _methods(part)
    elif isinstance(x, HOLDERS) or _wrapped(x) is not None:
        yield from ((None, None, value) for value in _held(x))
    else:
        yield from ((vars(x), key, value) for key, value in vars(x).items())
        yield from _methods(x)


def _held(x: Any) -> tuple[Any, ...]:
    if isinstance(x, partial):
        return (x.func, *x.args, *x.keywords.values())
    if isinstance(x, MethodType):
        return x.__self__, x.__func__
    if isinstance(x, (staticmethod, classmethod)):
        return (x.__func__,)
    return (x() if isinstance(x, ref) else _wrapped(x),)


def _wrapped(x: Any) -> Any:
    """The function that a compiled one, for one, was made of. Not asked for: an object may make up any attribute."""
    return getattr(x, "__dict__", {}).get("__wrapped__")


def _methods(x: Any) -> Iterator[tuple[Any, Any, Any]]:
    for kind in type(x).__mro__:
        if not _is_foreign(kind):
            yield from ((None, None, f) for f in vars(kind).values() if callable(f) and not isinstance(f, type))


def _parts_of_function(function: FunctionType) -> Iterator[tuple[Any, Any, Any]]:
    for cell in function.__closure__ or ():
        try:
            yield cell, None, cell.cell_contents
        except ValueError:  # a cell that is not filled yet
            continue
    yield None, None, function.__defaults__
    yield None, None, function.__kwdefaults__
    names = dict.fromkeys(_names(function.__code__))
    named = [function.__globals__[name] for name in names if name in function.__globals__]
    inside = [vars(x) for x in named if isinstance(x, (type, ModuleType)) and not _is_foreign(x)]
    for known in (function.__globals__, *inside):  # of a module or class: what the code may ask it for
        yield from ((known, name, known[name]) for name in names if name in known)


def _names(code: CodeType) -> Iterator[str]:
    """The globals and attributes that the code names; a comprehension or function inside it has code of its own."""
    yield from code.co_names
    for part in code.co_consts:
        if isinstance(part, CodeType):
            yield from _names(part)


def _is_followed(x: Any) -> bool:
    if isinstance(x, (dict, list, tuple)):
        return 0 < len(x) < MOST
    if isinstance(x, (*HOLDERS, SimpleNamespace)) or is_stateful(x):
        return True
    if isinstance(x, (type, ModuleType)):
        return False
    if isinstance(x, FunctionType):
        return not _is_foreign(x)
    if _wrapped(x) is not None:
        return _is_followed(_wrapped(x))
    return hasattr(x, "__dict__") and not _is_foreign(type(x))


def _is_foreign(x: Any) -> bool:
    return str(x.__name__ if isinstance(x, ModuleType) else x.__module__).partition(".")[0] in FOREIGN


def _leading_to(links: list[tuple[int, int, Any]], wanted: set[int]) -> set[int]:
    """Of the things with these numbers, those from which one comes to a wanted one."""
    behind: dict[int, list[int]] = {}
    for start, end, _ in links:
        behind.setdefault(end, []).append(start)
    found, todo = set(wanted), list(wanted)
    while todo:
        for start in behind.get(todo.pop(), ()):
            if start not in found:
                found.add(start)
                todo.append(start)
    return found
