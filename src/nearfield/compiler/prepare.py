"""Which lines of a Graph are computed once, when the weights have come, and not at each call.

A line that depends on weights and sources alone is *fixed*. Fixed lines that are stored are made by the entry
`prepare`. Stored are, besides what fuse.py stores anyway, those at the border: fixed lines that a call reads, if
reading them is less work than making them.
"""

from dataclasses import dataclass, field
from math import prod

from ..graph.graph import Graph
from ..op import REGISTRY

__all__ = ["Prepared", "prepare"]

SMALL = 4096  # bytes: a value of this size is kept however few bytes it is made of
SAME_ORDER = {"cast", "identity", "reshape", "stop_gradient"}
CHEAP_OPS = {
    "add", "bitwise_and", "bitwise_left_shift", "bitwise_or", "bitwise_right_shift", "divide", "maximum", "minimum",
    "multiply", "negative", "square", "subtract", "where",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Prepared:
    """The decisions.

    fixed  lines that depend on weights and sources alone
    kept   those of them that must be stored, and other lines that must
    """

    fixed: set[int] = field(default_factory=set)
    kept: set[int] = field(default_factory=set)


class _Border:
    def __init__(self, graph: Graph, weights: set[int], kept: set[int], passing: set[int], *, repack: bool) -> None:
        self.graph, self.weights, self.repack = graph, weights, repack
        self.fixed = _fixed(graph, weights, passing)
        self.kept = kept
        self.below: dict[int, frozenset[int]] = {}
        self.work: dict[int, int] = {}
        for i in sorted(self.fixed):
            self.describe(i)

    def describe(self, i: int) -> None:
        """Which weights line i is made of, and what making it takes: 0 movement only, 1 cheap arithmetic, 2 more."""
        line = self.graph.lines[i]
        self.below[i] = frozenset([i]) if i in self.weights else frozenset().union(*(self.below[a] for a in line.args))
        own = 0 if self.moves(i) or i in self.weights else 1 if line.op in CHEAP_OPS else 2
        if line.op == "concat":
            own = 1  # each element asks in which part it is
        self.work[i] = max([own, *(self.work[a] for a in line.args)])

    def moves(self, i: int) -> bool:
        op = self.graph.lines[i].op
        return op == "cast" or (op != "input" and REGISTRY[op].family in ("movement", "source"))

    def nbytes(self, i: int) -> int:
        return prod(self.graph.lines[i].shape) * self.graph.lines[i].dtype.itemsize

    def run(self) -> Prepared:
        for i, line in enumerate(self.graph.lines):
            if i in self.fixed or line.op == "input":
                continue
            for a in line.args:
                self.keep(a)
                if self.repack and REGISTRY[line.op].family == "contraction":
                    self.keep_moved(a)
        return Prepared(self.fixed, self.kept)

    def keep(self, i: int) -> None:
        """Store line i, or what it is made of, so that a call need only move and widen."""
        if i not in self.fixed or i in self.kept or self.work[i] <= (0 if self.below[i] else 1):
            return
        # what is wider than its weights costs a call more memory traffic than cheap arithmetic costs time
        grows = self.nbytes(i) > max(SMALL, sum(map(self.nbytes, self.below[i])))
        joins = self.graph.lines[i].op == "concat" and not grows
        if not joins and (self.moves(i) or (grows and self.work[i] == 1)):
            for a in self.graph.lines[i].args:
                self.keep(a)
        else:
            self.kept.add(i)

    def keep_moved(self, i: int) -> None:
        """Store a contraction's factor in the order in which it is read, and as narrow as it is."""
        while i in self.fixed and self.graph.lines[i].op == "cast":
            (i,) = self.graph.lines[i].args
        if i not in self.fixed or i in self.kept or self.nbytes(i) > 2 * sum(map(self.nbytes, self.below[i])):
            return
        if self.is_laid_out(i):
            return
        mover = i
        while self.stays(mover):
            (mover,) = self.graph.lines[mover].args
        if self.moves(mover) and self.below[mover]:
            self.kept.add(i)

    def stays(self, i: int) -> bool:
        """Whether line i has the elements of its argument in the same order of memory."""
        line = self.graph.lines[i]
        if line.op != "permute":
            return line.op in SAME_ORDER
        sizes = self.graph.lines[line.args[0]].shape
        long = [axis for axis in dict(line.attrs)["axes"] if sizes[axis] > 1]
        return long == sorted(long)

    def is_laid_out(self, i: int) -> bool:
        """Whether line i is read from where it was stored for just this use (compiler/pack.py)."""
        while i not in self.kept and self.moves(i) and len(self.graph.lines[i].args) == 1:
            (i,) = self.graph.lines[i].args
        return i in self.kept


def _fixed(graph: Graph, weights: set[int], passing: set[int]) -> set[int]:
    fixed: set[int] = set()
    anew = passing | set(graph.outputs)  # these are the caller's memory
    for i, line in enumerate(graph.lines):
        if i in weights or (line.op != "input" and i not in anew and all(a in fixed for a in line.args)):
            fixed.add(i)
    return fixed


def prepare(graph: Graph, weights: set[int], target: str, kept: set[int], passing: set[int]) -> Prepared:
    """What to compute once.

    weights  the inputs whose values stay from call to call
    kept     lines that are stored; those of them in `passing` are made in each call
    """
    border = _Border(graph, weights, kept, passing, repack=target == "wasm")
    return border.run() if weights else Prepared(set(), kept)
