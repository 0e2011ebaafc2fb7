"""Graph -> Graph for WebGPU: products of a few reals with many numbers of 4 bits become products of whole numbers.

To widen a number of 4 bits to a real and multiply takes a graphics card longer than to read it. Bytes are multiplied
four at a time, so each group of reals becomes whole numbers times a step, of 24 bits, that is of three digits of base
256 which are signed bytes. Sums of a group's products are exact, one for each digit; then they are put together. A
whole number has as many bits as a float32: of the group's largest real all, of smaller ones what is above its last bit.

To find the steps and digits takes two small kernels, so it is done where a row of reals meets enough numbers. In groups
with an infinity or NaN, every product is NaN.
"""

from dataclasses import dataclass
from math import prod
from typing import Any

from ..dtype import DTYPES
from ..graph.graph import Graph, Line
from .writer import Writer

__all__ = ["in_digits"]

WORTH = 3 << 25  # numbers: 6 matrices of 4096 x 4096 gain what the two small kernels take, or more
ROWS = 8
DIGITS, BASE = 3, 256
MOST = 0x7F7F00  # of the whole numbers: 127 at the most in each digit, and something left for rounding
PIECE = 16  # digits that a thread reads at a time: where all threads' are neighbours, they are read twice as fast
HALVES = 0x808080  # half a base in each digit: added, so that digits from -128 on are found as digits from 0 on
WIDENING = {"bitwise_right_shift", "cast", "expand", "multiply", "reshape"}


@dataclass(frozen=True, slots=True)
class _Product:
    """Reals times numbers and scales of groups: line x, of int32 [n, groups, size], of float32 [n, groups, 1]."""

    x: int
    numbers: int
    scales: int


class _Rewriter(Writer):
    def __init__(self, graph: Graph) -> None:
        super().__init__()
        self.graph, self.old = graph, graph.lines
        self.number: dict[int, int] = {}

    def run(self) -> Graph:
        """The Graph with the products that are worth it in digits."""
        products = self.products()
        if not products:
            return self.graph
        for i, (op, args, attrs, shape, dtype) in enumerate(self.old):
            if i in products:
                self.number[i] = self.in_digits(products[i], shape)
            else:
                self.number[i] = self.add(Line(op, tuple(self.number[a] for a in args), attrs, shape, dtype))
        return Graph(tuple(self.lines), tuple(self.number[i] for i in self.graph.outputs))

    # -- which ---------------------------------------------------------------------------------------------------------

    def products(self) -> dict[int, _Product]:
        """By the line of the result; those of the same reals, with groups of one size, share the digits."""
        found = {i: product for i in range(len(self.old)) if (product := self.product(i))}
        met: dict[tuple[int, int], int] = {}
        for product in found.values():
            shape = self.old[product.numbers].shape
            met[product.x, shape[-1]] = met.get((product.x, shape[-1]), 0) + prod(shape)
        return {i: p for i, p in found.items() if met[p.x, self.old[p.numbers].shape[-1]] >= WORTH}

    def product(self, i: int) -> _Product | None:
        """Line i as few rows times the transpose of numbers of 4 bits times scales; else None."""
        if self.old[i].op != "einsum" or self.old[i].dtype.name != "float32":
            return None
        (left, right), out = (s.split(",") for s in dict(self.old[i].attrs)["spec"].split("->"))
        x, weights = self.old[i].args
        same = len(right) == 2 and left[-1:] == right[1] and out == [left[:-1] + right[0]]
        if not same or prod(self.old[x].shape[:-1]) > ROWS:
            return None
        found = self.scaled(weights)
        return found and _Product(x, *found)

    def scaled(self, i: int) -> tuple[int, int] | None:
        """Numbers and scales that line i, [n, groups · size], is made of."""
        scaled = self.argument(i, "reshape")
        if scaled is None or self.old[scaled].op != "multiply":
            return None
        wide, spread = self.old[scaled].args
        numbers, scales = self.argument(wide, "cast"), self.argument(spread, "expand")
        if numbers is None or scales is None or self.old[numbers].dtype.name != "int32":
            return None
        n, groups, *size = self.old[numbers].shape
        if len(size) != 1 or self.old[i].shape[0] != n or self.old[scales].shape != (n, groups, 1):
            return None
        return (numbers, scales) if self.is_packed(numbers) else None

    def argument(self, i: int, op: str) -> int | None:
        """What this operation is applied to in line i."""
        return self.old[i].args[0] if self.old[i].op == op else None

    def is_packed(self, i: int) -> bool:
        """Whether line i is widened from half as many bytes."""
        count = prod(self.old[i].shape)
        while self.old[i].op in WIDENING and self.old[i].dtype.name == "int32":
            i = self.old[i].args[0]
        return self.old[i].dtype.name == "int8" and 2 * prod(self.old[i].shape) == count

    # -- what they become ----------------------------------------------------------------------------------------------

    def in_digits(self, product: _Product, shape: tuple[int, ...]) -> int:
        """The line of the product."""
        numbers, scales = self.number[product.numbers], self.number[product.scales]
        n, groups, size = self.lines[numbers].shape
        rows = prod(shape[:-1])
        x = self.op("reshape", self.number[product.x], shape=(rows, groups, size))
        largest = self.op("max", self.op("abs", x), axes=(2,))
        digits = self.digits(x, largest)
        high, middle, low = (self.sums(digits, digit, numbers) for digit in range(DIGITS))
        lower = self.op("add", self.times(middle, BASE), low)
        both = self.op("add", self.times(self.real(high), BASE**2), self.real(lower))
        all_ = (rows, n, groups)
        steps = self.times(self.spread(self.op("reshape", largest, shape=(rows, 1, groups)), all_), 1 / MOST)
        by = self.op("multiply", steps, self.spread(self.op("reshape", scales, shape=(1, n, groups)), all_))
        total = self.op("sum", self.op("multiply", both, by), axes=(2,))
        return self.op("reshape", total, shape=shape)

    def digits(self, x: int, largest: int) -> int:
        """int8 [digits, rows, pieces of a group, groups, of a piece], the highest first, of reals and largest ones."""
        rows, groups, size = self.lines[x].shape
        all_ = (DIGITS, rows, size // PIECE, groups, PIECE)
        x = self.op("reshape", x, shape=(1, rows, groups, size // PIECE, PIECE))
        x = self.spread(self.op("permute", x, axes=(0, 1, 3, 2, 4)), all_)
        step = self.spread(self.op("reshape", largest, shape=(1, rows, 1, groups, 1)), all_)
        step = self.times(step, 1 / MOST)
        safe = self.op("where", self.op("greater", step, self.like(step, 0.0)), step, self.like(step, 1.0))
        whole = self.op("cast", self.op("round", self.op("divide", x, safe)), dtype=DTYPES["int32"])
        place = self.op("iota", n=DIGITS)
        bits = self.op("subtract", self.like(place, 8 * (DIGITS - 1)), self.times(place, 8))
        bits = self.spread(self.op("reshape", bits, shape=(DIGITS, 1, 1, 1, 1)), all_)
        moved = self.op("bitwise_right_shift", self.op("add", whole, self.like(whole, HALVES)), bits)
        digit = self.op("bitwise_and", moved, self.like(moved, BASE - 1))
        return self.op("cast", self.op("subtract", digit, self.like(digit, BASE // 2)), dtype=DTYPES["int8"])

    def sums(self, digits: int, digit: int, numbers: int) -> int:
        """The sums of groups of one digit's products: int32 [rows, n, groups]"""
        _, rows, pieces, groups, piece = self.lines[digits].shape
        start, stop = (digit, 0, 0, 0, 0), (digit + 1, rows, pieces, groups, piece)
        one = self.op("slice", digits, start=start, stop=stop, step=(1,) * 5)
        one = self.op("permute", self.op("reshape", one, shape=stop[1:]), axes=(0, 2, 1, 3))
        one = self.op("reshape", one, shape=(rows, groups, pieces * piece))
        wide = self.op("cast", one, dtype=DTYPES["int32"])
        return self.op("einsum", wide, numbers, spec="agk,ngk->ang")

    def real(self, i: int) -> int:
        return self.op("cast", i, dtype=DTYPES["float32"])

    def times(self, i: int, by: float) -> int:
        return self.op("multiply", i, self.like(i, by))

    def spread(self, i: int, shape: tuple[int, ...]) -> int:
        return self.op("expand", i, shape=shape)

    def like(self, i: int, value: Any) -> int:
        """A number in the shape and type of line i."""
        shape = self.lines[i].shape
        one = self.op("const", value=value, dtype=self.lines[i].dtype)
        return self.spread(self.op("reshape", one, shape=(1,) * len(shape)), shape)


def in_digits(graph: Graph) -> Graph:
    """An equal Graph, up to rounding, with products that are made faster of whole numbers."""
    return _Rewriter(graph).run()
