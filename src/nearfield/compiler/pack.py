"""Graph -> Graph for WebAssembly: right factors of large contractions are stored in panels, images with their padding.

A panel is eight columns side by side, for all steps of the sum: [batch, columns / 8, steps, 8]. The contraction reads
it through the inverse movement, so its meaning stays, and index algebra leaves the panel's plain addresses. What is
packed depends on weights alone as often as not, and is then computed once.

A convolution becomes a product of windows, so that there is one kind of contraction; its padding is stored, so that no
load needs a mask.
"""

from dataclasses import dataclass
from math import prod
from typing import Any

from ..graph.graph import Graph, Line
from ..op import REGISTRY

__all__ = ["Packed", "pack"]

PANEL = 8
LEAST = 2**15  # multiplications that are worth more than being laid out for
FEW = 24  # rows that a right factor must serve to be laid out in each call


@dataclass(frozen=True, slots=True)
class Packed:
    """The Graph, and the lines in it that must be stored."""

    graph: Graph
    kept: set[int]


@dataclass(frozen=True, slots=True)
class _Spec:
    """Where the letters of a product go: in both factors and the result, in one and the result, in both alone."""

    left: str
    right: str
    out: str

    @property
    def batch(self) -> str:
        return "".join(c for c in self.out if c in self.left and c in self.right)

    @property
    def rows(self) -> str:
        return "".join(c for c in self.out if c not in self.right)

    @property
    def columns(self) -> str:
        return "".join(c for c in self.out if c not in self.left)

    @property
    def summed(self) -> str:
        return "".join(c for c in self.left if c not in self.out)

    def turned(self) -> "_Spec":
        return _Spec(self.right, self.left, self.out)

    def __str__(self) -> str:
        return f"{self.left},{self.right}->{self.out}"


class _Packer:
    def __init__(self, graph: Graph, weights: frozenset[int]) -> None:
        self.graph, self.weights = graph, weights
        self.lines: list[Line] = []
        self.seen: dict[Line, int] = {}
        self.number: list[int] = []
        self.kept: set[int] = set()
        self.fixed: set[int] = set()  # lines that depend on weights and constants alone

    def add(self, line: Line) -> int:
        if line.op != "input" and line in self.seen:
            return self.seen[line]
        self.lines.append(line)
        at = self.seen[line] = len(self.lines) - 1
        if line.op != "input" and all(a in self.fixed for a in line.args):
            self.fixed.add(at)
        return at

    def op(self, name: str, *args: int, **attrs: Any) -> int:
        lines = [self.lines[a] for a in args]
        shape, dtype = REGISTRY[name].infer([x.shape for x in lines], [x.dtype for x in lines], attrs)
        return self.add(Line(name, args, tuple(attrs.items()), shape, dtype))

    def run(self) -> Packed:
        for line in self.graph.lines:
            at = self.rewritten(
                Line(line.op, tuple(self.number[a] for a in line.args), line.attrs, line.shape, line.dtype)
            )
            if line.op == "input" and len(self.number) in self.weights:
                self.fixed.add(at)
            self.number.append(at)
        return Packed(Graph(tuple(self.lines), tuple(self.number[i] for i in self.graph.outputs)), self.kept)

    def rewritten(self, line: Line) -> int:
        if line.op == "einsum" and line.dtype.name == "float32":
            left, _, right = dict(line.attrs)["spec"].partition("->")[0].partition(",")
            spec = _Spec(left, right, dict(line.attrs)["spec"].partition("->")[2])
            return self.product(spec, *line.args) or self.add(line)
        if line.op == "conv" and line.dtype.name == "float32":
            return self.convolution(line) or self.add(line)
        return self.add(line)

    # Products

    def product(self, spec: _Spec, a: int, b: int) -> int:
        """The product with its right factor in panels; 0 if that is not worth it."""
        if set(spec.left) - set(spec.out) != set(spec.right) - set(spec.out):
            return 0
        if spec.out and spec.out[-1] in spec.rows:
            return self.product(spec.turned(), b, a)
        sizes = dict(zip(spec.right, self.lines[b].shape, strict=True))
        sizes |= dict(zip(spec.left, self.lines[a].shape, strict=True))
        rows, columns, length = (prod(sizes[c] for c in letters) for letters in (spec.rows, spec.columns, spec.summed))
        if columns < 4 or length < 4 or prod(sizes.values()) < LEAST:
            return 0
        if b not in self.fixed and rows < FEW:
            return 0
        return self.op("einsum", a, self.panels(b, spec, sizes), spec=str(spec))

    def panels(self, b: int, spec: _Spec, sizes: dict[str, int]) -> int:
        """The right factor again, read from where it is stored in panels."""
        order = spec.batch + spec.summed + spec.columns
        shape = tuple(sizes[c] for c in order)
        batch, length, columns = (
            prod(sizes[c] for c in letters) for letters in (spec.batch, spec.summed, spec.columns)
        )
        count = -(-columns // PANEL)
        x = self.op("permute", b, axes=tuple(spec.right.index(c) for c in order))
        x = self.op("reshape", x, shape=(batch, length, columns))
        if columns % PANEL:
            high = (0, 0, count * PANEL - columns)
            x = self.op("pad", x, low=(0, 0, 0), high=high, step=(1, 1, 1), value=0.0)
        x = self.op("reshape", x, shape=(batch, length, count, PANEL))
        x = self.op("permute", x, axes=(0, 2, 1, 3))
        self.kept.add(x)
        x = self.op("permute", x, axes=(0, 2, 1, 3))
        x = self.op("reshape", x, shape=(batch, length, count * PANEL))
        if columns % PANEL:
            x = self.op("slice", x, start=(0, 0, 0), stop=(batch, length, columns), step=(1, 1, 1))
        x = self.op("reshape", x, shape=shape)
        return self.op("permute", x, axes=tuple(order.index(c) for c in spec.right))

    # Convolutions

    def convolution(self, line: Line) -> int:
        """The convolution as a product of windows; 0 if it is none that is worth it."""
        x, w = line.args
        attrs = dict(line.attrs)
        image, window = self.lines[x].shape, self.lines[w].shape
        rank = len(image) - 3
        if window[-1] < 4 or prod(line.shape) * prod(window[:-1]) // window[-3] < LEAST:
            return 0
        if prod(window[:rank]) * window[-2] < 4 or any(p < 0 for pair in attrs["pad"] for p in pair):
            return 0
        x = self.padded(x, attrs)
        space, places = "xyz"[:rank], "uvw"[:rank]
        x = self.op("permute", x, axes=(0, rank + 1, rank + 2, *range(1, rank + 1)))
        x = self.op("windows", x, size=window[:rank], stride=attrs["stride"], dilation=attrs["dilation"])
        spec = _Spec(f"ngc{space}{places}", f"{places}gcd", f"n{space}gd")
        return self.product(spec, x, w) or self.op("einsum", x, w, spec=str(spec))

    def padded(self, x: int, attrs: dict[str, Any]) -> int:
        """The image with its zeros, stored; those of a turned image are put around the original."""
        if not any(p for pair in attrs["pad"] for p in pair) and max(attrs["spread"]) == 1:
            return x
        low, high = zip((0, 0), *attrs["pad"], (0, 0), (0, 0), strict=True)
        step = (1, *attrs["spread"], 1, 1)
        line = self.lines[x]
        if line.op == "permute":
            axes = dict(line.attrs)["axes"]
            low, high, step = (tuple(v[axes.index(n)] for n in range(len(axes))) for v in (low, high, step))
            return self.op("permute", self.stored_pad(line.args[0], low, high, step), axes=axes)
        return self.stored_pad(x, low, high, step)

    def stored_pad(self, x: int, low: tuple[int, ...], high: tuple[int, ...], step: tuple[int, ...]) -> int:
        y = self.op("pad", x, low=low, high=high, step=step, value=0.0)
        self.kept.add(y)
        return y


def pack(graph: Graph, weights: frozenset[int]) -> Packed:
    """An equal Graph whose large contractions read panels; `weights` are inputs that seldom change, by position."""
    inputs = graph.inputs
    return _Packer(graph, frozenset(inputs[n] for n in weights)).run()
