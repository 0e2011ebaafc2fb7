"""Graph -> Graph: quantised right factors, which are not stored as reals, in panels of eight columns all the same.

What a quantised factor is made of, bytes and scales with a row for each column, is laid out; what is made of it stays.
"""

from collections.abc import Callable, Sequence
from math import prod

from ..graph.graph import Line
from ..op import REGISTRY

__all__ = ["is_quantised", "with_sources"]

NARROW = 3  # times the bytes: what is made of so much less is made anew in each call
WIDENING = {"bitwise_right_shift", "cast", "multiply", "subtract"}  # what quantised weights are made reals with


def is_quantised(lines: Sequence[Line], i: int) -> bool:
    """Whether line i is cheap arithmetic on what is much smaller in memory: it must not be stored for good."""
    below, stack, size = {i}, [i], 0
    while stack:
        line = lines[stack.pop()]
        if line.op == "input":
            size += prod(line.shape) * line.dtype.itemsize
        elif line.op not in WIDENING and REGISTRY[line.op].family not in ("movement", "source"):
            return False
        new = set(line.args) - below
        stack += new
        below |= new
    return NARROW * size <= prod(lines[i].shape) * lines[i].dtype.itemsize


def with_sources(lines: Sequence[Line], i: int, add: Callable[[Line], int], source: Callable[[int], int]) -> int:
    """Line i once more, made of what `source` gives for each input below it."""
    line = lines[i]
    if line.op == "input":
        return source(i)
    args = tuple(with_sources(lines, a, add, source) for a in line.args)
    return i if args == line.args else add(Line(line.op, args, line.attrs, line.shape, line.dtype))
