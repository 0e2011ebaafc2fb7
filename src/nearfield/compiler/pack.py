"""Graph -> Graph for WebAssembly: right factors of large contractions are stored in panels, images with their padding.

A panel is eight columns side by side, for all steps of the sum: [batch, columns / 8, steps, 8]. The contraction reads
it through the inverse movement, so its meaning stays, and index algebra leaves the panel's plain addresses. What is
packed depends on weights alone as often as not, and is then computed once. Weights of 16 bits are packed as they are:
few rows widen them in registers; many rows read a wide copy, which is made in each call, in memory that is used again.

A convolution becomes a product of windows, so that there is one kind of contraction; its padding is stored, so that no
load needs a mask.
"""

from dataclasses import dataclass
from itertools import product
from math import prod
from typing import Any

from ..dtype import DType
from ..graph.graph import Graph, Line
from ..op import REGISTRY
from . import winograd
from .pack_bytes import FOUR, depthwise, filled, of_few_channels, offset_of, without_sign
from .pack_quantised import is_quantised, with_sources
from .writer import Writer

__all__ = ["PANEL", "Packed", "pack"]

PANEL = 8  # columns
MOVES = {"reshape", "permute", "slice", "windows"}
LEAST = 2**15  # multiplications that are worth more than being laid out for
FEW = 24  # rows that a right factor must serve to be laid out in each call
LOTS = 1024  # rows that a right factor must serve to be laid out even if it is small and its columns are neighbours
LIGHT = 256  # columns that a left factor of bytes must serve to be stored without a sign
MANY = 64  # columns that a left factor must serve to be turned
APART = 256  # elements: steps of the sum so far apart are each on a page of their own, or fight for the same place
NEAR = 256 * 1024  # bytes of a right factor that stay in the cache as they lie
LONG = 8192  # steps of a sum that are split, so that both factors stay near and threads have something to share
MOST = 64  # parts of a sum
ROOM = 2**23  # elements that all parts together may have
TILE = 5  # rows that one tile has at least: so many widen what they read themselves
WIDE = 2**20  # elements of a weight that may be widened in each call
WIDER = {"int8": {"int32"}, "uint8": {"int32"}, "float16": {"float32"}}  # what stored elements are multiplied as


@dataclass(frozen=True, slots=True)
class Packed:
    """The Graph, the lines in it that must be stored, and those of them that every call makes anew."""

    graph: Graph
    kept: set[int]
    passing: set[int]


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


class _Packer(Writer):
    def __init__(self, graph: Graph, weights: frozenset[int], *, dots: bool) -> None:
        super().__init__()
        self.graph, self.weights, self.dots = graph, weights, dots
        self.number: list[int] = []
        self.users = graph.users()
        self.passing: set[int] = set()  # of what is stored, copies that last for one product only

    def run(self) -> Packed:
        for line in self.graph.lines:
            at = self.rewritten(
                Line(line.op, tuple(self.number[a] for a in line.args), line.attrs, line.shape, line.dtype)
            )
            if line.op == "input" and len(self.number) in self.weights:
                self.fixed.add(at)
            self.number.append(at)
        graph = Graph(tuple(self.lines), tuple(self.number[i] for i in self.graph.outputs))
        return Packed(graph, self.kept, self.passing)

    def rewritten(self, line: Line) -> int:
        real = line.dtype.name == "float32"
        if line.op == "einsum" and (real or self.are_bytes(*line.args)):
            left, _, right = dict(line.attrs)["spec"].partition("->")[0].partition(",")
            spec = _Spec(left, right, dict(line.attrs)["spec"].partition("->")[2])
            return self.product(spec, *line.args) or self.add(line)
        if line.op == "conv" and (real or self.are_bytes(*line.args)):
            return self.convolution(line) or depthwise(self, line) or self.add(line)
        return self.add(line)

    def stored(self, i: int) -> int:
        """The narrow elements that line i is made of by widening, also where they were moved since; else line i."""
        line = self.lines[i]
        if self.is_narrow(i) or line.op not in MOVES | {"cast"}:
            return i
        (source,) = line.args
        if line.op == "cast":
            return source if line.dtype.name in WIDER.get(self.lines[source].dtype.name, ()) else i
        below = self.stored(source)
        return (
            self.add(Line(line.op, (below,), line.attrs, line.shape, self.lines[below].dtype))
            if self.is_narrow(below)
            else i
        )

    def widened(self, i: int, dtype: DType) -> int:
        return i if self.lines[i].dtype is dtype else self.op("cast", i, dtype=dtype)

    def is_narrow(self, i: int) -> bool:
        return self.lines[i].dtype.name in WIDER

    def are_bytes(self, *factors: int) -> bool:
        """Whether both factors are bytes, one at least signed."""
        names = [self.lines[self.stored(i)].dtype.name for i in factors]
        return self.dots and set(names) <= {"int8", "uint8"} and "int8" in names

    # Products

    def product(self, spec: _Spec, a: int, b: int) -> int:
        """The product with its factors laid out for it; 0 if that is not worth it."""
        if set(spec.left) - set(spec.out) != set(spec.right) - set(spec.out):
            return 0
        if spec.out and spec.out[-1] in spec.rows:
            return self.product(spec.turned(), b, a)
        sizes = dict(zip(spec.left + spec.right, self.lines[a].shape + self.lines[b].shape, strict=True))
        rows, columns, length = (prod(sizes[c] for c in letters) for letters in (spec.rows, spec.columns, spec.summed))
        if columns < 4 or length < 4 or prod(sizes.values()) < LEAST:
            return 0
        if self.lines[a].dtype.kind != "f":
            return self.of_bytes(spec, a, b, sizes, rows)
        if length >= LONG:
            return self.shared(spec, a, b, sizes)
        return self.laid_out(spec, a, b, sizes, rows, columns, length)

    def laid_out(self, spec: _Spec, a: int, b: int, sizes: dict[str, int], rows: int, columns: int, length: int) -> int:
        """The product with the right factor in panels, and the left one turned so that sums run along memory."""
        steps = dict(zip(spec.left, self.strides(a), strict=True))
        fixed = b in self.fixed
        near = rows < LOTS and self.is_natural(b, spec) and 4 * length * columns <= NEAR
        if fixed and self.is_narrow(self.stored(b)):
            dtype = self.lines[b].dtype
            wide = dtype if rows > TILE and prod(self.lines[b].shape) <= WIDE else None
            b = self.widened(self.panels(self.stored(b), spec, sizes, steps, wide=wide), dtype)
        elif is_quantised(self.lines, b):
            if rows > TILE and prod(self.lines[b].shape) <= WIDE:
                b = self.panels(b, spec, sizes, steps, passing=True)
            elif fixed and len(spec.right) == 2 and spec.right[0] in spec.columns:
                b = with_sources(self.lines, b, self.add, self.side_by_side)
        elif fixed or (rows >= FEW and not near):
            b = self.panels(b, spec, sizes, steps)
        if columns >= MANY and min(steps[c] for c in spec.summed) >= APART:
            order = spec.batch + spec.rows + spec.summed
            x = self.op("permute", a, axes=tuple(spec.left.index(c) for c in order))
            self.kept.add(x)
            a = self.op("permute", x, axes=tuple(order.index(c) for c in spec.left))
        return self.op("einsum", a, b, spec=str(spec))

    def of_bytes(self, spec: _Spec, a: int, b: int, sizes: dict[str, int], rows: int) -> int:
        """The product of bytes, four steps of the sum side by side in each column of a panel."""
        if self.lines[self.stored(b)].dtype.name != "int8" or (b not in self.fixed and rows < FEW):
            return 0
        steps = dict(zip(spec.left, self.strides(self.stored(a)), strict=True))
        last = min((c for c in spec.summed if sizes[c] > 1), key=lambda c: steps[c])
        if steps[last] != 1 or sizes[last] % FOUR:
            return 0
        dtype, x = self.lines[a].dtype, self.stored(a)
        panels = self.widened(self.panels(self.stored(b), spec, sizes, steps, deep=FOUR), self.lines[b].dtype)
        if not self.is_signed(x, dtype) or b not in self.fixed or sizes[spec.out[-1]] < LIGHT:
            return self.op("einsum", self.widened(x, dtype), panels, spec=str(spec))
        y = self.op("einsum", self.widened(without_sign(self, x), dtype), panels, spec=str(spec))
        return self.op("subtract", y, offset_of(self, b, spec.right, spec.out, self.lines[y].shape))

    def is_signed(self, x: int, dtype: DType) -> bool:
        """Whether line x is int8 as it lies in memory, to be multiplied as int32."""
        line = self.lines[x]
        return (line.dtype.name, dtype.name) == ("int8", "int32") and line.op not in MOVES

    def shared(self, spec: _Spec, a: int, b: int, sizes: dict[str, int]) -> int:
        """A long sum in parts: products of parts of the factors, added up by a second kernel."""
        length, columns = (prod(sizes[c] for c in letters) for letters in (spec.summed, spec.columns))
        most = min(MOST, ROOM // prod(sizes[c] for c in spec.out))
        wanted = max(2, 4 * length * columns // NEAR)
        letter, parts = max(((c, _parts(sizes[c], wanted, most)) for c in spec.summed), key=lambda found: found[1])
        if parts == 1:
            return self.laid_out(spec, a, b, sizes, prod(sizes[c] for c in spec.rows), columns, length)
        if self.split_strides(self.lines[a]) is None:
            self.kept.add(a)
        new = next(c for c in "abcdefghijklmnopqrstuvwxyz" if c not in spec.left + spec.right)
        left, right = (text.replace(letter, new + letter) for text in (spec.left, spec.right))
        split = _Spec(left, right, new + spec.out)
        sizes = sizes | {new: parts, letter: sizes[letter] // parts}
        a = self.op("reshape", a, shape=tuple(sizes[c] for c in split.left))
        b = self.op("reshape", b, shape=tuple(sizes[c] for c in split.right))
        rows = prod(sizes[c] for c in split.rows)
        y = self.laid_out(split, a, b, sizes, rows, columns, length // parts)
        y = self.op("sum", y, axes=(0,))
        return self.op("reshape", y, shape=tuple(sizes[c] for c in spec.out))

    def strides(self, i: int) -> tuple[int, ...]:
        """How far apart in memory neighbours along each axis of line i are, as far as movement tells."""
        line = self.lines[i]
        attrs = dict(line.attrs)
        if i not in self.kept and line.op == "permute":
            below = self.strides(line.args[0])
            return tuple(below[axis] for axis in attrs["axes"])
        if i not in self.kept and line.op == "windows":
            below, n = self.strides(line.args[0]), len(attrs["size"])
            outer = tuple(s * h for s, h in zip(below[-n:], attrs["stride"], strict=True))
            return below[:-n] + outer + tuple(s * d for s, d in zip(below[-n:], attrs["dilation"], strict=True))
        if i not in self.kept and line.op == "slice":
            return tuple(abs(s * h) for s, h in zip(self.strides(line.args[0]), attrs["step"], strict=True))
        if i not in self.kept and line.op == "reshape":
            split = self.split_strides(line)
            if split is not None:
                return split
        return _contiguous(line.shape)

    def split_strides(self, line: Line) -> tuple[int, ...] | None:
        """The strides of a reshape of what lies in order, or that only splits axes, or adds or drops such of size 1."""
        if line.op != "reshape":
            return ()
        source, below = self.lines[line.args[0]].shape, self.strides(line.args[0])
        if below == _contiguous(source):
            return _contiguous(line.shape)
        found: list[int] = []
        axes = iter([(n, s) for n, s in zip(source, below, strict=True) if n > 1])
        left, step = 1, 0
        for n in line.shape:
            if n == 1:
                found.append(0)
                continue
            if left == 1:
                left, step = next(axes)
                step *= left
            if left % n:
                return None
            left, step = left // n, step // n
            found.append(step)
        return tuple(found)

    def is_natural(self, b: int, spec: _Spec) -> bool:
        """Whether the columns of the right factor are neighbours in memory, in order."""
        steps, expected = dict(zip(spec.right, self.strides(b), strict=True)), 1
        for c in reversed(spec.columns):
            size = self.lines[b].shape[spec.right.index(c)]
            if size > 1 and steps[c] != expected:
                return False
            expected *= size
        return True

    def panels(
        self,
        b: int,
        spec: _Spec,
        sizes: dict[str, int],
        steps: dict[str, int],
        *,
        deep: int = 1,
        wide: DType | None = None,
        passing: bool = False,
    ) -> int:
        """The right factor again, read from where it is stored in panels, in the order in which the left one lies.

        deep     steps of the sum that stand together in a column
        wide     what each call widens the panels to, before it reads them
        passing  whether each call makes the panels anew
        """
        order = spec.batch + "".join(sorted(spec.summed, key=lambda c: -steps[c])) + spec.columns
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
        x = self.op("reshape", x, shape=(batch, length // deep, deep, count, PANEL))
        x = self.op("permute", x, axes=(0, 3, 1, 4, 2))
        self.kept.add(x)
        if passing:
            self.passing.add(x)
        if wide is not None:
            x = self.op("cast", x, dtype=wide)
            self.kept.add(x)
            self.passing.add(x)
        x = self.op("permute", x, axes=(0, 2, 4, 1, 3))
        x = self.op("reshape", x, shape=(batch, length, count * PANEL))
        if columns % PANEL:
            x = self.op("slice", x, start=(0, 0, 0), stop=(batch, length, columns), step=(1, 1, 1))
        x = self.op("reshape", x, shape=shape)
        return self.op("permute", x, axes=tuple(order.index(c) for c in spec.right))

    def side_by_side(self, i: int) -> int:
        """Line i [columns, n] again, read from where eight columns stand side by side in each place."""
        if len(self.lines[i].shape) != 2:
            return i
        columns, n = self.lines[i].shape
        count = -(-columns // PANEL)
        x = i
        if columns % PANEL:
            x = self.op("pad", x, low=(0, 0), high=(count * PANEL - columns, 0), step=(1, 1), value=0.0)
        x = self.op("permute", self.op("reshape", x, shape=(count, PANEL, n)), axes=(0, 2, 1))
        self.kept.add(x)
        x = self.op("reshape", self.op("permute", x, axes=(0, 2, 1)), shape=(count * PANEL, n))
        return self.op("slice", x, start=(0, 0), stop=(columns, n), step=(1, 1)) if columns % PANEL else x

    # Convolutions

    def convolution(self, line: Line) -> int:
        """The convolution as a product of windows; 0 if it is none that is worth it."""
        x, w = line.args
        attrs = dict(line.attrs)
        window = self.lines[w].shape
        rank = len(window) - 3
        if window[-1] < 4 or prod(line.shape) * prod(window[:-1]) // window[-3] < LEAST:
            return 0
        if prod(window[:rank]) * window[-2] < 4 or any(p < 0 for pair in attrs["pad"] for p in pair):
            return 0
        if max(attrs["spread"]) > 1 and max(*attrs["stride"], *attrs["dilation"]) == 1 and line.dtype.kind == "f":
            y = self.apart(line) if max(window[:rank]) == 1 else self.phases(line)
            if y:
                return y
        if line.dtype.kind == "f":
            wide = not self.is_narrow(self.stored(w)) and not is_quantised(self.lines, w)
            if w in self.fixed and wide and winograd.suits(line.shape, window, attrs):
                return self.in_tiles(line)
            return self.windowed(self.padded(x, attrs), w, attrs, line.dtype)
        x, w = self.stored(x), self.stored(w)
        if window[-2] % FOUR and rank == 2 and window[-3] == attrs["dilation"][-1] == max(attrs["spread"]) == 1:
            return of_few_channels(self, x, w, attrs, line)
        x, w = filled(self, x, -1), self.widened(filled(self, w, -2), line.dtype)
        image = self.padded(x, attrs)
        if self.lines[image].op == "pad":
            self.kept.add(image)
        return self.windowed(image, w, attrs, line.dtype)

    def windowed(self, x: int, w: int, attrs: dict[str, Any], dtype: DType) -> int:
        """Windows of x, all of them inside, times w."""
        window = self.lines[w].shape
        rank = len(window) - 3
        space, places = "xyz"[:rank], "uvw"[:rank]
        x = self.op("permute", x, axes=(0, rank + 1, rank + 2, *range(1, rank + 1)))
        x = self.op("windows", x, size=window[:rank], stride=attrs["stride"], dilation=attrs["dilation"])
        x = self.widened(x, dtype)
        spec = _Spec(f"ngc{space}{places}", f"{places}gcd", f"n{space}gd")
        return self.product(spec, x, w) or self.op("einsum", x, w, spec=str(spec))

    def in_tiles(self, line: Line) -> int:
        """The convolution in fewer multiplications (winograd.py)."""
        x, w = line.args
        attrs, side = dict(line.attrs), winograd.SIDE
        shape = (line.shape[0], *(-(-n // side) * side for n in line.shape[1:3]), *line.shape[3:])
        more = (new - n for new, n in zip(shape[1:3], line.shape[1:3], strict=True))
        pad = tuple((low, high + n) for (low, high), n in zip(attrs["pad"], more, strict=True))
        tiles = winograd.image_tiles(self, self.padded(x, attrs | {"pad": pad}))
        self.kept.add(tiles)
        spec = _Spec("nxtygc", "tgcd", "tnxygd")
        y = winograd.results(self, self.product(spec, tiles, winograd.window_tiles(self, w)))
        y = self.interleaved(y, shape, (side, side))
        if shape == line.shape and self.is_elementwise_next():
            return y  # the tiles' results go where their sum with a bias, or whatever is made of them, belongs
        self.kept.add(y)
        return self.op("slice", y, start=(0,) * 5, stop=line.shape, step=(1,) * 5)

    def is_elementwise_next(self) -> bool:
        """Whether all that becomes of the line that is rewritten is work on each of its elements, or an output."""
        at = len(self.number)
        while len(self.users[at]) == 1:
            (at,) = self.users[at]
            if self.graph.lines[at].op != "reshape":
                return REGISTRY[self.graph.lines[at].op].family == "elementwise"
        return not self.users[at]

    def apart(self, line: Line) -> int:
        """A window of one element over what is spread: its results are spread."""
        attrs = dict(line.attrs)
        x, w = line.args
        y = self.windowed(x, w, attrs, line.dtype)
        low, high = zip((0, 0), *attrs["pad"], (0, 0), (0, 0), strict=True)
        return self.op("pad", y, low=low, high=high, step=(1, *attrs["spread"], 1, 1), value=0.0)

    def phases(self, line: Line) -> int:
        """A convolution over what is spread, without its zeros; 0 if a phase has no element of the window.

        Results o = s t + r meet only the elements p = p0 + s j of the window, and these only x[t + j - low]: for each r
        a convolution of its own, over x itself. Their results are put side by side, and then in order.
        """
        x, w = line.args
        attrs, image, window = dict(line.attrs), self.lines[x].shape, self.lines[w].shape
        rank = len(window) - 3
        spread, axes = attrs["spread"], range(rank)
        first = [[(attrs["pad"][d][0] - r) % spread[d] for r in range(spread[d])] for d in axes]
        if any(p >= window[d] for d in axes for p in first[d]):
            return 0
        low = [[(attrs["pad"][d][0] - r - p) // spread[d] for r, p in enumerate(first[d])] for d in axes]
        taps = [[-(-(window[d] - p) // spread[d]) for p in first[d]] for d in axes]
        turns = [-(-line.shape[1 + d] // spread[d]) for d in axes]
        before = [max(0, *low[d]) for d in axes]
        after = [
            max(0, *(turns[d] + j - 1 - b - image[1 + d] for j, b in zip(taps[d], low[d], strict=True))) for d in axes
        ]
        x = self.padded(x, {"pad": tuple(zip(before, after, strict=True)), "spread": (1,) * rank})
        around, plain = (0, 0), {"stride": (1,) * rank, "dilation": (1,) * rank}
        parts = []
        for phase in product(*(range(s) for s in spread)):
            begin = [before[d] - low[d][phase[d]] for d in axes]
            end = [begin[d] + turns[d] + taps[d][phase[d]] - 1 for d in axes]
            shape = self.lines[x].shape
            part = self.op(
                "slice", x, start=(0, *begin, 0, 0), stop=(shape[0], *end, *shape[-2:]), step=(1,) * len(shape)
            )
            some = self.op(
                "slice",
                self.stored(w),
                start=(*(first[d][phase[d]] for d in axes), 0, *around),
                stop=window,
                step=(*spread, 1, 1, 1),
            )
            y = self.windowed(part, self.widened(some, line.dtype), plain, line.dtype)
            parts.append(self.op("reshape", y, shape=(1, *self.lines[y].shape)))
        return self.interleaved(self.op("concat", *parts, axis=0), line.shape, spread)

    def interleaved(self, y: int, shape: tuple[int, ...], spread: tuple[int, ...]) -> int:
        """[phases, n, *turns, group, co], one after the other, in the order of the places that they are results for."""
        rank = len(spread)
        _, n, *turns, group, co = self.lines[y].shape
        y = self.op("reshape", y, shape=(*spread, n, *turns, group, co))
        pairs = [axis for d in range(rank) for axis in (rank + 1 + d, d)]
        y = self.op("permute", y, axes=(rank, *pairs, 2 * rank + 1, 2 * rank + 2))
        y = self.op("reshape", y, shape=(n, *(t * s for t, s in zip(turns, spread, strict=True)), group, co))
        return self.op("slice", y, start=(0,) * len(shape), stop=shape, step=(1,) * len(shape))

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


def _contiguous(shape: tuple[int, ...]) -> tuple[int, ...]:
    """How far apart neighbours along each axis are in row-major order."""
    return tuple(prod(shape[axis + 1 :]) for axis in range(len(shape)))


def _parts(n: int, wanted: int, most: int) -> int:
    """The divisor of n next to `wanted`, above it if it can be, but not above `most`; 1 if there is none."""
    divisors = [1, *(d for d in range(2, most + 1) if n % d == 0)]
    return min((d for d in divisors if d >= wanted), default=divisors[-1])


def pack(graph: Graph, weights: frozenset[int], *, dots: bool = True) -> Packed:
    """An equal Graph whose large contractions read panels.

    weights  inputs that seldom change, by position
    dots     whether bytes are multiplied four at a time (wasm_dot.py)
    """
    inputs = graph.inputs
    return _Packer(graph, frozenset(inputs[n] for n in weights), dots=dots).run()
