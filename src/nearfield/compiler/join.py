"""Graph -> Graph for WebGPU: products of one line with several weights become one product with these side by side.

Queries, keys and values of attention are three products of the same rows. Each alone is too small to keep a graphics
card busy, and starting a kernel costs more than it computes. The weights are put side by side once, where everything
that depends on weights alone is made (prepare.py); so are biases. Weights that change with each call stay apart.
"""

from dataclasses import dataclass, field
from math import prod

from ..graph.graph import Graph, Line
from .split import SIDE, TILES
from .writer import Writer

__all__ = ["join"]

TURNS = {"permute", "reshape"}


@dataclass(slots=True)
class _Product:
    """What several weights [steps, columns] are multiplied with.

    lines   the products, in order; their last axis numbers the columns
    biases  for each product the line that adds one, and the bias as a row; empty unless all have one
    """

    lines: list[int] = field(default_factory=list)
    biases: list[tuple[int, int]] = field(default_factory=list)


class _Joiner(Writer):
    def __init__(self, graph: Graph, weights: frozenset[int]) -> None:
        super().__init__()
        self.graph, self.old = graph, graph.lines
        self.steady: set[int] = set()  # lines that depend on weights alone
        for i, line in enumerate(self.old):
            if i in weights or (line.op != "input" and all(a in self.steady for a in line.args)):
                self.steady.add(i)
        self.users = graph.users()

    def run(self) -> Graph:
        """The Graph with its products joined; weights, and what is made of them, come first."""
        first: dict[int, _Product] = {product.lines[0]: product for product in self.products()}
        if not first:
            return self.graph
        number: dict[int, int] = {}
        for i in [*self.graph.inputs, *sorted(self.steady), *range(len(self.old))]:
            if i in first:
                number |= self.joined(first[i], number)
            elif i not in number:
                op, args, attrs, shape, dtype = self.old[i]
                number[i] = self.add(Line(op, tuple(number[a] for a in args), attrs, shape, dtype))
        return Graph(tuple(self.lines), tuple(number[i] for i in self.graph.outputs))

    def products(self) -> list[_Product]:
        """Those to join, each of at least two lines."""
        found: dict[tuple[object, ...], _Product] = {}
        for i, line in enumerate(self.old):
            if line.op == "einsum" and self.is_small(i) and self.weight(line.args[1]) in self.steady:
                right = self.old[line.args[1]]
                stored = self.old[self.weight(line.args[1])].dtype
                key = line.args[0], line.attrs, right.shape[0], right.dtype, stored
                found.setdefault(key, _Product()).lines.append(i)
        several = [product for product in found.values() if len(product.lines) > 1]
        for product in several:
            biases = [self.bias(i) for i in product.lines]
            product.biases = [b for b in biases if b is not None] if None not in biases else []
        return several

    def is_small(self, i: int) -> bool:
        """Whether line i is rows times a matrix, too few results to keep a graphics card busy."""
        (left, right), out = _letters(self.old[i])
        if len(right) != 2 or left[-1:] != right[0] or out != left[:-1] + right[1]:
            return False
        *rows, columns = self.old[i].shape
        return 0 < -(-prod(rows) // SIDE) * -(-columns // SIDE) < TILES

    def weight(self, i: int) -> int:
        """The input that line i is, turned and once widened perhaps; −1 if there is more to it."""
        wide = self.old[i].dtype
        casts = 0
        while self.old[i].op in TURNS | {"cast"}:
            casts += self.old[i].op == "cast"
            (i,) = self.old[i].args
        widened = self.old[i].dtype.name == "float16" and wide.name == "float32" and casts == 1
        return i if self.old[i].op == "input" and (widened or not casts) else -1

    def narrow(self, i: int, number: dict[int, int]) -> int:
        """A weight in the new Graph, turned and not widened."""
        line = self.old[i]
        if line.op == "input":
            return number[i]
        below = self.narrow(line.args[0], number)
        if line.op == "cast":
            return below
        return self.add(Line(line.op, (below,), line.attrs, line.shape, self.lines[below].dtype))

    def bias(self, i: int) -> tuple[int, int] | None:
        """The only user of a product, if it adds a row that depends on weights alone to every row; and this row."""
        users = self.users[i]
        if len(users) != 1 or self.old[users[0]].op != "add" or i in self.graph.outputs:
            return None
        other = sum(self.old[users[0]].args) - i
        line = self.old[other]
        if line.op != "expand" or line.args[0] not in self.steady:
            return None
        row = self.old[line.args[0]].shape
        return (users[0], line.args[0]) if row == (1,) * (len(row) - 1) + line.shape[-1:] else None

    def joined(self, product: _Product, number: dict[int, int]) -> dict[int, int]:
        """What the results of a product are in the new Graph."""
        first = self.old[product.lines[0]]
        weights = self.op("concat", *(self.narrow(self.old[i].args[1], number) for i in product.lines), axis=1)
        wide = self.old[first.args[1]].dtype
        if self.lines[weights].dtype is not wide:
            weights = self.op("cast", weights, dtype=wide)
        y = self.op("einsum", number[first.args[0]], weights, **dict(first.attrs))
        shape = self.lines[y].shape
        results = product.lines
        if product.biases:
            results = [i for i, _ in product.biases]
            row = self.op("concat", *(number[b] for _, b in product.biases), axis=len(shape) - 1)
            y = self.op("add", y, self.op("expand", row, shape=shape))
        made, at = {}, 0
        for i in results:
            *rows, columns = self.old[i].shape
            start, stop = (*(0 for _ in rows), at), (*rows, at + columns)
            made[i] = self.op("slice", y, start=start, stop=stop, step=(1,) * len(shape))
            at += columns
        return dict.fromkeys(product.lines, y) | made


def _letters(line: Line) -> tuple[list[str], str]:
    factors, out = dict(line.attrs)["spec"].split("->")
    return factors.split(","), out


def join(graph: Graph, weights: frozenset[int]) -> Graph:
    """An equal Graph with fewer products.

    weights  inputs that seldom change, by position
    """
    inputs = graph.inputs
    return _Joiner(graph, frozenset(inputs[n] for n in weights)).run() if len(weights) > 1 else graph
