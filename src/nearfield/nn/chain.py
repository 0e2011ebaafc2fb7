"""Which parts of a traced model can be computed in 8 bits: products with a weight, and what is done with the result.

A chain begins with a convolution, or a product, of something and a weight. While nobody else asks for a result, what
follows belongs to it: factors and summands of each channel (a bias, a batch normalisation), another chain's result
added, and bounds (relu, relu6).
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from typing import NamedTuple

from ..graph.graph import Graph, Line

__all__ = ["MOVES", "Chain", "Step", "chains_of"]

MOVES = ("reshape", "permute", "slice", "windows")
AFFINE = ("add", "subtract", "multiply", "divide")
BOUNDS = ("maximum", "minimum")


class Step(NamedTuple):
    """Something done with a product's result.

    op      an elementwise operation: of AFFINE with a line for each channel, "residual" with another chain's end, or
            of BOUNDS with a number
    line    the number of the other operand's line
    number  its value, if that is known
    """

    op: str
    line: int
    number: float = 0.0


@dataclass(slots=True)
class Chain:
    """A product and what is done with its result.

    name      of the weight
    weight    number of the weight's line
    start     number of the product's line, whose operands are factors
    source    what its left factor is made of by movement alone
    channels  how many the result has, along its last axis, as the weight along its own
    steps     what follows
    end       number of the last line
    """

    name: str
    weight: int
    start: int
    source: int
    channels: int
    steps: list[Step] = field(default_factory=list)
    end: int = -1

    @property
    def residual(self) -> int:
        """The line that is added, or -1."""
        return next((s.line for s in self.steps if s.op == "residual"), -1)


def chains_of(graph: Graph, weights: Mapping[int, str], given: int) -> list[Chain]:
    """The chains of a Graph, in order.

    weights  names of the inputs that are weights, by line number
    given    how many of the first inputs are none
    """
    return _Finder(graph, weights, given).run()


class _Finder:
    def __init__(self, graph: Graph, weights: Mapping[int, str], given: int) -> None:
        self.lines, self.weights, self.outputs = graph.lines, weights, set(graph.outputs)
        self.users = graph.users()
        self.ends: set[int] = set()
        self.fixed: set[int] = set()
        for i, line in enumerate(self.lines):
            if (line.op == "input" and i not in graph.inputs[:given]) or (
                line.op != "input" and all(a in self.fixed for a in line.args)
            ):
                self.fixed.add(i)

    def run(self) -> list[Chain]:
        products = [
            (i, x) for i, x in enumerate(self.lines) if x.op in ("conv", "einsum") and x.dtype.name == "float32"
        ]
        begun = [chain for i, line in products if (chain := self.begun(i, line)) is not None]
        names = [chain.name for chain in begun]
        found = [chain for chain in begun if names.count(chain.name) == 1]
        for chain in found:
            chain.source = self.source(self.lines[chain.start].args[0])  # perhaps the end of a chain before
            self.extend(chain)
            self.ends.add(chain.end)
        return found

    def begun(self, i: int, line: Line) -> Chain | None:
        """A chain of this product, if its right factor is a weight whose last axis is the result's."""
        if len(line.args) != 2 or line.args[0] in self.fixed:
            return None
        weight, moves = line.args[1], []
        while self.lines[weight].op in ("reshape", "permute"):
            moves.append(self.lines[weight].op)
            (weight,) = self.lines[weight].args
        if weight not in self.weights:
            return None
        shape = self.lines[weight].shape
        fits = self.is_convolution(line, shape) if line.op == "conv" else not moves and self.is_product(line)
        if not fits:
            return None
        return Chain(self.weights[weight], weight, i, line.args[0], shape[-1])

    def is_convolution(self, line: Line, weight: tuple[int, ...]) -> bool:
        *window, groups, ci, co = self.lines[line.args[1]].shape
        return weight == (*window, ci, groups * co) and max(dict(line.attrs)["spread"]) == 1

    def is_product(self, line: Line) -> bool:
        factors, _, out = dict(line.attrs)["spec"].partition("->")
        left, _, right = factors.partition(",")
        return right[-1] == out[-1] and right[-1] not in left and all(c in left and c not in out for c in right[:-1])

    def source(self, i: int) -> int:
        """What line i is made of by movement, or the chain's end on the way there."""
        while i not in self.ends and self.lines[i].op in MOVES:
            (i,) = self.lines[i].args
        return i

    def extend(self, chain: Chain) -> None:
        """Take in what follows; the chain ends with the last operation on a last axis of the channels."""
        at = chain.end = chain.start
        steps: list[Step] = []
        while len(self.users[at]) == 1 and at not in self.outputs:
            (following,) = self.users[at]
            line = self.lines[following]
            if line.op != "reshape":
                step = self.step(line, at, chain.channels, {s.op for s in steps})
                if step is None:
                    break
                steps.append(step)
            at = following
            if line.shape[-1:] == (chain.channels,) and (line.op != "reshape" or not steps):
                chain.end, chain.steps = at, list(steps)

    def step(self, line: Line, at: int, channels: int, before: set[str]) -> Step | None:
        """What an operation does with line `at`, if that is known."""
        if line.args.count(at) != 1 or len(line.args) != 2:
            return None
        other = line.args[1 - line.args.index(at)]
        if line.op == "add" and other in self.ends and "residual" not in before:
            return Step("residual", other)
        base = self.of_channels(other, channels) if other in self.fixed else None
        if base is None:
            return None
        if line.op in BOUNDS:
            number = _number(self.lines[base])
            return None if number is None else Step(line.op, base, number)
        if line.op not in AFFINE or before & {"residual", *BOUNDS}:
            return None
        return None if line.op in ("subtract", "divide") and line.args[0] != at else Step(line.op, base)

    def of_channels(self, i: int, channels: int) -> int | None:
        """The line with one element, or one for each channel, that is repeated to make line i."""
        while True:
            line = self.lines[i]
            size = prod(line.shape)
            number = line.op in ("reshape", "expand") and prod(self.lines[line.args[0]].shape) == 1
            if number:  # also if there are as many of it as channels, as in one row
                (i,) = line.args
                continue
            if size == 1 or (size == channels and line.shape[-1:] == (channels,)):
                return i
            if line.op != "expand":
                return None
            (i,) = line.args


def _number(line: Line) -> float | None:
    if line.op != "const" or line.dtype.kind != "f":
        return None
    return float(struct.unpack("<" + line.dtype.code, dict(line.attrs)["value"])[0])
