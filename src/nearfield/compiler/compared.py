"""Values that are compared with themselves, such as an array with its largest element: both sides must be one number.

How x * a + b is rounded depends on the kernel that it is part of, and on a processor even on whether four elements or
one are made at a time. So what both sides of a comparison are made of is stored, and read by both.
"""

from ..graph.graph import Graph
from ..op import REGISTRY

__all__ = ["compared"]

COMPARISONS = {"equal", "greater", "greater_equal", "less", "less_equal", "not_equal"}
ITSELF = {"argmax", "argmin"}  # which look for an element that equals the largest
EXACT = {  # what gives the same for the same arguments, wherever it is computed
    "abs", "cast", "ceil", "floor", "max", "maximum", "min", "minimum", "negative", "round", "sign", "take",
    "take_along", "trunc", "where",
}  # fmt: skip


def compared(graph: Graph) -> set[int]:
    """The lines whose values, rounded in one way and in another, would meet in a comparison."""
    found: set[int] = set()
    nothing: frozenset[int] = frozenset()
    origins: list[frozenset[int]] = []  # of each line: the lines that have rounded what it consists of
    for i, line in enumerate(graph.lines):
        below = [origins[a] for a in line.args]
        if line.op in COMPARISONS:
            found |= below[0] & below[1]
        elif line.op in ITSELF:
            found |= below[0]
        if line.dtype.kind != "f" or line.op == "input":
            origins.append(nothing)
        elif line.op in EXACT or REGISTRY[line.op].family in ("movement", "source"):
            origins.append(nothing.union(*below))
        else:
            origins.append(frozenset((i,)))
    return found
