"""Which kernels are contractions in register tiles, and how these are cut: the claim, made of index algebra.

A tile is a few rows by the eight columns of a *panel*. Each step of the sum takes the panel's next eight elements of
the right factor b (two vectors, side by side in memory), and one element of the left factor a for each row, copied to
all lanes. For that, the place of an element of a must be a part that depends on the row, plus a fixed step for each
variable of the sum; so convolutions, whose rows are pixels, need nothing of their own. compiler/pack.py sees to it that
large right factors lie in panels. wasm_tile.py writes the code.
"""

from dataclasses import dataclass
from itertools import product
from math import prod

from .. import scalar as k
from ..dtype import DType
from ..index import linear
from ..scalar import K, walk
from .contraction import Contraction, contraction_of
from .kernel import Kernel, Store
from .wasm_schedule import extent, simplified

__all__ = ["PANEL", "Factor", "Tiling", "tiling"]

PANEL = 8  # columns that a tile computes
ROWS = {True: 6, False: 5}  # of a tile: accumulators, two vectors of b and one element of a fit V8's 15 registers
NEAR = 384 * 1024  # bytes of the left factor that stay in the second cache while the panels go by
PARTS = 32  # a range has about this many parts, if it can
WRITTEN_OUT = 12  # steps of a sum that are written out rather than looped over
SHORT = 4  # sums of fewer steps are not worth a tile
TYPES = ("float32", "int32", "uint32")


@dataclass(frozen=True, slots=True)
class Factor:
    """How the tile reads a factor.

    argument  of the kernel
    place     the element for the first step of the sum, at the row, or at the panel's first column
    steps     how much further each variable of the sum moves
    """

    argument: int
    place: K
    steps: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Tiling:
    """How a contraction is computed.

    batch, row, panel, lane  variables that number the products, the rows, the panels, and the columns in a panel
    a, b       the factors
    summed     variables of the sum, the innermost loop last
    store      what to do with a sum, which stands in it as `total`
    relaxed    whether a product and a sum are one instruction
    """

    batch: tuple[K, ...]
    row: K
    panel: K
    lane: K
    a: Factor
    b: Factor
    summed: tuple[K, ...]
    store: Store
    total: K
    columns: int
    relaxed: bool

    @property
    def rows(self) -> int:
        """How many rows a product has."""
        return extent(self.row)

    @property
    def tiles(self) -> int:
        """How many tiles the rows are cut into, of sizes that differ by at most one."""
        return -(-self.rows // ROWS[self.relaxed])

    @property
    def length(self) -> int:
        """The number of steps of the sum."""
        return prod(map(extent, self.summed))

    @property
    def block(self) -> int:
        """Tiles of rows that go by one panel after the other, so many that their part of the left factor stays near."""
        unique = 4 * (self.a.place.high + 1) // self.rows  # windows overlap: a row has less than `length` of its own
        size = self.rows // self.tiles * min(4 * self.length, max(unique, 64))
        near = max(1, NEAR // size)
        products = prod(map(extent, self.batch)) * extent(self.panel)
        shared = max(1, self.tiles * products // PARTS)
        blocks = -(-self.tiles // min(near, shared))
        return -(-self.tiles // blocks)

    @property
    def blocks(self) -> int:
        """How many blocks the rows have."""
        return -(-self.tiles // self.block)

    @property
    def total_parts(self) -> int:
        """The length of the range: every panel of every block of every product."""
        return prod(map(extent, self.batch)) * self.blocks * extent(self.panel)

    def vectors(self, width: int) -> list[tuple[int, int]]:
        """The vectors that cover a panel's first `width` columns: where each begins, and how many lanes may be read."""
        whole = width // 4
        found = [(4 * n, 4) for n in range(whole)]
        if width % 4 and self._is_padded():
            return [*found, (4 * whole, 4)]
        return found + [(n, 1) for n in range(4 * whole, width)]

    def _is_padded(self) -> bool:
        """Whether four elements of b from a panel's start are in memory, also where there are not so many columns."""
        constant, terms = linear(self.b.place)
        return all(c % 4 == 0 for c in (constant, *terms.values(), *self.b.steps))


def tiling(kernel: Kernel, *, relaxed: bool) -> Tiling | None:
    """How to compute the kernel in tiles, or None if it is no contraction that they suit."""
    if len(kernel.stores) != 1 or any(t.name in ("float64", "int64") for t in kernel.arguments):
        return None
    axes, stores = simplified(kernel)
    found = contraction_of(Kernel(kernel.name, axes, stores, kernel.arguments))
    if found is None or not found.columns or found.total.type not in TYPES:
        return None
    if not all(_is_plain(x, kernel.arguments) for x in (found.a, found.b)):
        return None
    found = _split(found)
    return _tiled(found, relaxed)


def _is_plain(x: K, arguments: tuple[DType, ...]) -> bool:
    """Whether a factor is an element as it lies in memory."""
    return x.op == "load" and len(x.args) == 1 and arguments[x.value].itemsize == 4


def _split(c: Contraction) -> Contraction:
    """Variables of the sum of which indices take quotients and remainders are split in two."""
    places = [c.a.args[0], c.b.args[0]]
    for node in walk(places):
        v = node.args[0] if node.op in ("div", "rem") else None
        if v is None or v not in c.summed or extent(v) % int(node.args[1].value):
            continue
        low = int(node.args[1].value)
        outer, inner = k.var(f"{v.value[0]}o", extent(v) // low), k.var(f"{v.value[0]}i", low)
        table = {v: outer * low + inner}
        a, b = (k.load(x.value, k.substitute(x.args[0], table), x.type) for x in (c.a, c.b))
        at = c.summed.index(v)
        summed = (*c.summed[:at], outer, inner, *c.summed[at + 1 :])
        return _split(Contraction(c.store, c.total, a, b, c.batch, c.rows, c.columns, summed))
    return c


def _numbered(variables: tuple[K, ...], number: K) -> dict[K, K]:
    """The variables, as numbered in row-major order; numbers beyond the last only make the first variable too large."""
    table = {}
    for v in reversed(variables[1:]):
        table[v], number = number % extent(v), number // extent(v)
    return table | dict.fromkeys(variables[:1], number)


def _tiled(c: Contraction, relaxed: bool) -> Tiling | None:
    _, rows, columns, length = c.sizes
    if columns < 4 or length < SHORT:
        return None
    row, panel, lane = k.var("row", rows), k.var("panel", -(-columns // PANEL)), k.var("lane", PANEL)
    table = _numbered(c.rows, row if rows > 1 else k.const(0, "index"))
    table |= _numbered(c.columns, panel * PANEL + lane if columns > PANEL else lane)
    a = _factor(c.a, c.summed, table)
    b = _factor(c.b, c.summed, table)
    if a is None or b is None or lane in a.place.free:
        return None
    _, terms = linear(b.place)
    if terms.get(lane) != 1 or any(lane in t.free for t in terms if t is not lane):
        return None
    b = Factor(b.argument, k.substitute(b.place, {lane: k.const(0, "index")}), b.steps)
    total = k.make("total", c.total.type, (*c.batch, row, panel, lane))
    table[c.total] = total
    store = Store(c.store.argument, k.substitute(c.store.index, table), k.substitute(c.store.value, table))
    return Tiling(c.batch, row, panel, lane, a, b, c.summed, store, total, columns, relaxed)


def _factor(x: K, summed: tuple[K, ...], table: dict[K, K]) -> Factor | None:
    """A factor's place and steps, if the variables of the sum each move it by a fixed step that is not negative."""
    constant, terms = linear(k.substitute(x.args[0], table))
    place = k.const(constant, "index")
    steps = dict.fromkeys(summed, 0)
    for term, c in terms.items():
        if term in steps and c > 0:
            steps[term] = c
        elif not term.free.isdisjoint(summed):
            return None
        else:
            place = place + term * c
    return Factor(x.value, place, tuple(steps.values()))


def written_out(t: Tiling) -> tuple[int, list[tuple[int, int]]]:
    """How many of the sum's variables are loops, and where the steps inside them read a and b."""
    steps = [(0, 0)]
    loops = len(t.summed)
    while loops and len(steps) * extent(t.summed[loops - 1]) <= WRITTEN_OUT:
        loops -= 1
        v = range(extent(t.summed[loops]))
        one, other = t.a.steps[loops], t.b.steps[loops]
        steps = [(n * one + x, n * other + y) for n, (x, y) in product(v, steps)]
    return loops, steps
