"""Graph -> Graph: dead lines dropped, movement before widening, long reductions into few results split in two."""

from math import prod
from typing import Any

from ..graph.graph import Graph, Line, constant_of
from ..op import REGISTRY
from .split import split_contraction

__all__ = ["simplify"]

MOVES = {"expand", "permute", "reshape", "slice"}
SPLIT = {"webgpu": (4096, 4096), "wasm": (8192, 64)}  # shortest reduction to split, most results
ROWS = 512  # most results on WebGPU where each is of neighbours: hundreds of threads share a row as it is
WIDE, STRIP = 512, 64  # of rows so wide that each is on a page of its own, so many are folded before the next columns
PARTS = 1 << 18  # of results, at the most, to be folded at the same time


class _Rewriter:
    def __init__(self, graph: Graph, target: str, whole: set[int]) -> None:
        self.graph, self.target, self.whole = graph, target, whole
        self.lines: list[Line] = []
        self.number: dict[int, int] = {}
        self.seen: dict[Line, int] = {}

    def add(self, line: Line) -> int:
        if line.op == "input":
            self.lines.append(line)
            return len(self.lines) - 1
        if line not in self.seen:
            self.seen[line] = len(self.lines)
            self.lines.append(line)
        return self.seen[line]

    def op(self, name: str, args: tuple[int, ...], **attrs: Any) -> int:
        lines = [self.lines[a] for a in args]
        shape, dtype = REGISTRY[name].infer([x.shape for x in lines], [x.dtype for x in lines], attrs)
        return self.add(Line(name, args, tuple(attrs.items()), shape, dtype))

    def run(self) -> Graph:
        live = _live(self.graph)
        for i, line in enumerate(self.graph.lines):
            if i in live or line.op == "input":
                moved = Line(line.op, tuple(self.number[a] for a in line.args), line.attrs, line.shape, line.dtype)
                self.number[i] = self.add(moved) if i in self.whole else self.rewrite(moved)
        return _pruned(Graph(tuple(self.lines), tuple(self.number[i] for i in self.graph.outputs)))

    def rewrite(self, line: Line) -> int:
        if line.op in ("sum", "max", "min", "prod"):
            return self.split(line)
        if line.op in ("einsum", "conv") and self.target == "webgpu":
            found = split_contraction(self.lines, line, self.op)
            return self.add(line) if found is None else found
        if line.op in MOVES and self.lines[line.args[0]].op == "cast":
            return self.narrow(line)
        if line.op == "add":
            for sums, other in (line.args, line.args[::-1]):
                if self.lines[sums].op in ("put_add", "put_along") and self.is_zero(other):
                    return sums  # which begin with 0 themselves
        if line.op == "reshape" and self.lines[line.args[0]].op == "reshape":
            source = self.lines[line.args[0]].args[0]
            if self.lines[source].shape == line.shape:
                return source
            return self.add(Line("reshape", (source,), line.attrs, line.shape, line.dtype))
        return self.add(line)

    def is_zero(self, i: int) -> bool:
        """Whether all elements of a line are the constant 0."""
        value = constant_of(self.lines, i)
        return value is not None and not any(value)

    def narrow(self, line: Line) -> int:
        """Move elements while they are small, and widen them after that: what is stored in between is then small."""
        cast = self.lines[line.args[0]]
        source = self.lines[cast.args[0]].dtype
        if source.itemsize >= cast.dtype.itemsize:
            return self.add(line)
        moved = self.rewrite(Line(line.op, cast.args, line.attrs, line.shape, source))
        return self.add(Line("cast", (moved,), cast.attrs, line.shape, cast.dtype))

    def split(self, line: Line) -> int:
        """Fold a long reduction with few results in two, so that many threads can share it."""
        axes = dict(line.attrs)["axes"]
        source = self.lines[line.args[0]].shape
        axis = max(axes, key=lambda a: source[a], default=0)
        wanted = self.wanted(source, axes, axis, prod(line.shape)) if axes and 0 not in source else 1
        parts = _parts(source[axis], wanted) if wanted > 1 else 1
        if parts == 1:
            return self.add(line)
        shape = (*source[:axis], parts, source[axis] // parts, *source[axis + 1 :])
        x = self.op("reshape", line.args, shape=shape)
        first = tuple(a if a < axis else a + 1 for a in axes)
        y = self.op(line.op, (x,), axes=first)
        y = self.op(line.op, (y,), axes=(axis,))
        return self.op("reshape", (y,), shape=line.shape)

    def wanted(self, source: tuple[int, ...], axes: tuple[int, ...], axis: int, results: int) -> int:
        """In how many parts the longest axis is best folded; 1 for as it is."""
        length, row = prod(source[a] for a in axes), prod(source[max(axes) + 1 :])
        if self.target == "wasm" and row >= WIDE and length >= 32 * STRIP and results * length >= 1 << 20:
            return max(2, source[axis] // STRIP)
        least, most = SPLIT[self.target]
        if self.target == "webgpu" and row == 1:
            most = ROWS
        if length < least or results > most or results * length < 16 * least:
            return 1
        return max(2, min(256, PARTS // max(results, 1), int(length**0.5)))


def _parts(n: int, wanted: int) -> int:
    """The divisor of n nearest to `wanted` from below; 1 if there is none worth it."""
    best = max((d for d in range(1, wanted + 1) if n % d == 0), default=1)
    return best if best >= 4 else 1


def _live(graph: Graph) -> set[int]:
    live: set[int] = set()
    stack = list(graph.outputs)
    while stack:
        i = stack.pop()
        if i not in live:
            live.add(i)
            stack.extend(graph.lines[i].args)
    return live


def _pruned(graph: Graph) -> Graph:
    """The lines that something needs, and the inputs."""
    live = _live(graph)
    number: dict[int, int] = {}
    lines: list[Line] = []
    for i, line in enumerate(graph.lines):
        if i in live or line.op == "input":
            number[i] = len(lines)
            lines.append(Line(line.op, tuple(number[a] for a in line.args), line.attrs, line.shape, line.dtype))
    return Graph(tuple(lines), tuple(number[i] for i in graph.outputs))


def simplify(graph: Graph, target: str, whole: set[int] | None = None) -> Graph:
    """An equal Graph that is better to compile; inputs keep their order.

    whole  lines that stay as they are
    """
    return _Rewriter(graph, target, whole or set()).run()
