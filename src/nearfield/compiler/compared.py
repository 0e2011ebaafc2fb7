"""Values that are compared with themselves, such as an array with its largest element: both sides must be one number.

How x * a + b is rounded depends on the kernel that it is part of, and on a processor even on whether four elements or
one are made at a time. So what both sides of a comparison are made of is stored, and read by both.
"""

from math import prod

from ..graph.graph import Graph, Line
from ..op import REGISTRY

__all__ = ["compared"]

COMPARISONS = {"equal", "greater", "greater_equal", "less", "less_equal", "not_equal"}
ITSELF = {"argmax", "argmin"}  # which look for an element that equals the largest
SUMS = {"add", "subtract", "sum"}  # which a product may be made part of
EXACT = {  # what gives the same for the same arguments, wherever it is computed
    "abs", "cast", "ceil", "floor", "max", "maximum", "min", "minimum", "negative", "round", "sign", "take",
    "take_along", "trunc", "where",
}  # fmt: skip


def compared(graph: Graph, stored: set[int]) -> set[int]:
    """Lines to store, too, so that no value meets itself, rounded in another way, in a comparison.

    stored  what else is in memory
    """
    found: set[int] = set()
    origins = _Origins(graph, stored)
    for line in graph.lines:
        if line.op in COMPARISONS:
            found |= origins.clash(*line.args)
        elif line.op in ITSELF:
            found |= origins.clash(line.args[0], line.args[0])
        origins.follow(line)
    return found


class _Origins:
    """Where the values of lines were rounded.

    of       of each line: the lines that its value is made of exactly. They round, or are stored and hold what is not
             rounded in the same way wherever it is computed
    rounded  what such a line was made of exactly when it was computed: lines that round
    """

    def __init__(self, graph: Graph, stored: set[int]) -> None:
        self.lines, self.stored = graph.lines, stored
        self.of: list[frozenset[int]] = []
        self.rounded: dict[int, frozenset[int]] = {}
        self.products: set[int] = set()  # and what is made of one exactly

    def is_exact(self, line: Line) -> bool:
        """Whether the line has the same value wherever it is computed, of the same arguments."""
        if line.dtype.kind == "f" and (line.op == "multiply" or line.op in SUMS):
            alone = line.op == "multiply" or (not self.is_of_product(line) and self.is_of_two(line))
            alone = alone and line.dtype.itemsize > 2  # a float16 is rounded where it is stored, and only there
            return alone and all(self.of[a] <= self.stored for a in line.args)
        return line.dtype.kind != "f" or line.op in EXACT or REGISTRY[line.op].family in ("movement", "source")

    def is_of_product(self, line: Line) -> bool:
        """Whether an argument is a product of reals that the line's own kernel computes."""
        return not self.products.isdisjoint(line.args)

    def is_product(self, line: Line) -> bool:
        """Whether the line is such a product, or made of one and no sum."""
        if line.dtype.kind == "f" and line.op == "multiply":
            return True
        return self.is_of_product(line) and not (line.dtype.kind == "f" and line.op in SUMS)

    def is_of_two(self, line: Line) -> bool:
        """Whether a sum has no order."""
        return line.op != "sum" or prod(self.lines[line.args[0]].shape) <= 2 * prod(line.shape)

    def follow(self, line: Line) -> None:
        """Take in the next line of the Graph."""
        i = len(self.of)
        if line.op == "input":
            self.of.append(frozenset())
            return
        exact = self.is_exact(line)
        made = frozenset().union(*(self.of[a] for a in line.args)) if exact else frozenset((i,))
        if not exact:
            self.rounded[i] = made
        loose = made - self.stored
        if i in self.stored and loose:
            self.rounded[i] = frozenset().union(*(self.rounded[n] for n in loose))
            made = made - loose | {i}
        if i not in self.stored and self.is_product(line):
            self.products.add(i)
        self.of.append(made)

    def clash(self, a: int, b: int) -> frozenset[int]:
        """Lines that have rounded both a and b, and perhaps not in the same way."""
        found: frozenset[int] = frozenset()
        for m in self.of[a]:
            for n in self.of[b]:
                if m != n or m not in self.stored:
                    found |= self.rounded[m] & self.rounded[n]
        return found
