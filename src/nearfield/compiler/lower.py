"""Graph lines -> Kernel: ask the result for one element, and it asks its inputs, down to what is stored in memory."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any

from .. import scalar as k
from ..graph.graph import Graph, Line
from ..index import flatten, reindex
from ..op import REGISTRY, Op, Source
from ..scalar import K
from .kernel import Kernel, Store

__all__ = ["Lowered", "lower"]


@dataclass(frozen=True, slots=True)
class Lowered:
    """A Kernel and the graph lines that its arguments are, in order; the last ones are what it stores."""

    kernel: Kernel
    lines: tuple[int, ...]


class _Pull:
    """Elements of lines by index; stored lines become arguments."""

    def __init__(self, graph: Graph, stored: Callable[[int], bool]) -> None:
        self.graph = graph
        self.stored = stored
        self.arguments: dict[int, int] = {}
        self.memo: dict[tuple[Any, ...], K] = {}
        self.anchor: int = -1
        self.anchor_index: list[K] = []

    def argument(self, line: int) -> int:
        return self.arguments.setdefault(line, len(self.arguments))

    def at(self, line: int, index: list[K], mask: K | None = None) -> K:
        """The element of a line at an index; any value where the mask is false."""
        key = (line, mask, *index)
        value = self.memo.get(key)
        if value is None:
            value = self.memo[key] = self._make(line, index, mask)
        return value

    def _make(self, number: int, index: list[K], mask: K | None) -> K:
        line = self.graph.lines[number]
        if self.stored(number):
            return k.load(self.argument(number), flatten(index, line.shape), line.dtype.compute, mask)
        if number == self.anchor:
            index = self.anchor_index
        return self.element(number, index, mask)

    def element(self, number: int, index: list[K], mask: K | None = None) -> K:
        line = self.graph.lines[number]
        sources = [self._source(a, mask) for a in line.args]
        return REGISTRY[line.op].element(index, sources, line.shape, line.dtype, dict(line.attrs))

    def _source(self, number: int, mask: K | None) -> Source:
        line = self.graph.lines[number]

        def at(index: list[K], extra: K | None = None) -> K:
            both = extra if mask is None else mask if extra is None else mask & extra
            return self.at(number, index, both)

        return Source(line.shape, line.dtype, at)


def _axes(shape: tuple[int, ...]) -> tuple[list[K], tuple[K, ...]]:
    """An index with a variable for each axis longer than 1, and these variables."""
    index = [k.var(f"i{n}", size) if size > 1 else k.const(0, "index") for n, size in enumerate(shape)]
    return index, tuple(v for v in index if v.op == "var")


def _forward(graph: Graph, path: tuple[int, ...], index: list[K]) -> list[K]:
    """The index in the last line of the path where the first line's element at `index` lands."""
    for before, after in pairwise(path):
        line = graph.lines[after]
        if line.op == "reshape":
            index = reindex(index, graph.lines[before].shape, line.shape)
        elif line.op == "permute":
            index = [index[a] for a in dict(line.attrs)["axes"]]
    return index


def lower(graph: Graph, roots: list[int], stored: Callable[[int], bool], path: list[int]) -> Lowered:
    """The Kernel that stores the roots (all of one shape).

    stored  whether a line is in memory before or after this kernel
    path    lines from a contraction or reduction that is computed here to the root; its axes become the kernel's
    """
    lines, numbers = _excerpt(graph, roots, stored)
    place = {n: at for at, n in enumerate(numbers)}
    records = tuple([REGISTRY.get(line.op) for line in lines])
    made = _lowered(lines, records, tuple([place[n] for n in roots]), tuple([place[n] for n in path]))
    return Lowered(made.kernel, tuple([numbers[n] for n in made.lines]))


def _excerpt(graph: Graph, roots: list[int], stored: Callable[[int], bool]) -> tuple[tuple[Line, ...], list[int]]:
    """The lines of one kernel, numbered on their own, with what is in memory as inputs; and their numbers before.

    Equal layers of a model give equal excerpts, which are lowered once: numbers follow from what is made of what, not
    from where it stands in the Graph.
    """
    used: dict[int, bool] = {}  # number -> whether it is loaded
    numbers: list[int] = []  # arguments before what is made of them
    stack = [(n, False) for n in reversed(roots)]
    while stack:
        n, ready = stack.pop()
        if ready:
            numbers.append(n)
        elif n not in used:
            used[n] = n not in roots and stored(n)
            stack.append((n, True))
            if not used[n]:
                stack.extend((a, False) for a in reversed(graph.lines[n].args))
    place = {n: at for at, n in enumerate(numbers)}
    lines = []
    for n in numbers:
        op, args, attrs, shape, dtype = graph.lines[n]
        inside = not used[n]
        here = tuple([place[a] for a in args]) if inside else ()
        lines.append(Line(op, here, attrs, shape, dtype) if inside else Line("input", (), (), shape, dtype))
    return tuple(lines), numbers


@lru_cache(maxsize=1024)
def _lowered(
    lines: tuple[Line, ...], records: tuple[Op | None, ...], roots: tuple[int, ...], path: tuple[int, ...]
) -> Lowered:
    k.restart()
    graph = Graph(lines, roots)
    pull = _Pull(graph, lambda n: lines[n].op == "input")
    root_shape = lines[roots[0]].shape
    index, axes = _axes(lines[path[0]].shape if path else root_shape)
    if path:
        pull.anchor, pull.anchor_index = path[0], index
        index = _forward(graph, path, index)
    values = [pull.at(root, _reindex(index, root_shape, lines[root].shape)) for root in roots]
    stores = []
    for root, value in zip(roots, values, strict=True):
        shape = lines[root].shape
        if value.op == "half" and lines[root].dtype.name == "float16":
            (value,) = value.args  # the store rounds
        stores.append(Store(pull.argument(root), flatten(_reindex(index, root_shape, shape), shape), value))
    dtypes = tuple(lines[n].dtype for n in pull.arguments)
    return Lowered(Kernel(_name(graph, pull, roots[-1]), axes, tuple(stores), dtypes), tuple(pull.arguments))


def _reindex(index: list[K], source: tuple[int, ...], shape: tuple[int, ...]) -> list[K]:
    return reindex(index, source, shape)


def _name(graph: Graph, pull: _Pull, root: int) -> str:
    """The operations in the kernel, in order, without movement."""
    used = sorted({key[0] for key in pull.memo} | {root})
    names = [graph.lines[n].op for n in used if n not in pull.arguments or n == root]
    words = [n for n in names if REGISTRY[n].family not in ("movement", "source") or n == names[-1]]
    return "_".join(dict.fromkeys(words))[:60]
