"""One Graph as two: what is computed once of inputs that stay, and what is left to do in each call."""

from collections.abc import Iterable
from dataclasses import dataclass

from ..graph.graph import Graph, Line
from .prepare import Prepared

__all__ = ["Part", "divide"]


@dataclass(frozen=True, slots=True)
class Part:
    """A Graph of its own, with the decisions that were made for its lines.

    feeds    the numbers, in the whole Graph, of its inputs
    kept     lines that must be stored
    passing  those of them that each call makes anew
    """

    graph: Graph
    feeds: tuple[int, ...]
    kept: set[int]
    passing: set[int]


def divide(graph: Graph, prepared: Prepared, passing: set[int]) -> tuple[Part, Part]:
    """What computes the stored lines that depend on steady inputs alone; and the rest, whose last inputs these are.

    prepared  as compiler/prepare.py decides; of its fixed lines those are moved that the rest reads
    """
    border = {n for n in prepared.kept & prepared.fixed if graph.lines[n].op != "input"}
    used = _below(graph, graph.outputs, border)
    made = tuple(sorted(border & used))
    first = _below(graph, made, set())
    feeds = [n for n in graph.inputs if n in first]
    rest = used | set(graph.inputs)
    return (
        _part(graph, feeds, first, made, prepared.kept, passing),
        _part(graph, [*graph.inputs, *made], rest, graph.outputs, prepared.kept, passing),
    )


def _below(graph: Graph, roots: Iterable[int], border: set[int]) -> set[int]:
    """The lines that the roots need, and not what the border's lines are made of."""
    found: set[int] = set()
    stack = list(roots)
    while stack:
        n = stack.pop()
        if n not in found:
            found.add(n)
            if n not in border:
                stack.extend(graph.lines[n].args)
    return found


def _part(
    graph: Graph, feeds: list[int], lines: set[int], outputs: tuple[int, ...], kept: set[int], passing: set[int]
) -> Part:
    order = feeds + sorted(lines.difference(feeds))
    place = {n: at for at, n in enumerate(order)}
    taken = []
    for at, n in enumerate(order):
        op, args, attrs, shape, dtype = graph.lines[n]
        inside = at >= len(feeds)
        here = tuple([place[a] for a in args]) if inside else ()
        taken.append(Line(op, here, attrs, shape, dtype) if inside else Line("input", (), (), shape, dtype))
    stored = {place[n] for n in kept & lines}.difference(range(len(feeds)))
    part = Graph(tuple(taken), tuple([place[n] for n in outputs]))
    return Part(part, tuple(feeds), stored, {place[n] for n in passing & lines})
