"""Which kernels are contractions in register tiles, and how these are cut: the claim, made of index algebra.

A tile is a few rows by the eight columns of a *panel*. Each step of the sum takes the panel's next eight elements of
the right factor b (two vectors, side by side in memory), and one element of the left factor a for each row, copied to
all lanes. For that, the place of an element of a must be a part that depends on the row, plus a fixed step for each
variable of the sum; so convolutions, whose rows are pixels, need nothing of their own. compiler/pack.py sees to it that
large right factors lie in panels; elements of b in float16 are widened where they are loaded. wasm_tile.py writes the
code.
"""

from dataclasses import dataclass, replace
from itertools import product
from math import prod

from .. import scalar as k
from ..dtype import DType
from ..index import linear
from ..scalar import K, walk
from .contraction import Contraction, contraction_of
from .kernel import Kernel, Store, vary
from .pack import PANEL
from .wasm_generator import V8, CodeGenerator
from .wasm_schedule import extent, simplified

__all__ = ["PANEL", "Factor", "Tiling", "factor", "numbered", "tiled", "tiling", "written_out"]

FOUR = 4  # bytes that one instruction multiplies and adds up in each lane
NEAR = 384 * 1024  # bytes of the left factor that stay in the second cache while the panels go by
PANELS = 256 * 1024  # bytes of a right factor that stay there while blocks of rows go by
STORED = 128 * 1024  # bytes of a block's results, each of whose cache lines is written for two panels
PARTS = 32  # a range has about this many parts, if it can
WRITTEN_OUT = 12  # steps of a sum that are written out rather than looped over
FEW = 5  # rows: fewer, and it costs more to read a right factor across than to multiply
SHORT = 4  # sums of fewer steps are not worth a tile
TYPES = ("float32", "int32", "uint32")


@dataclass(frozen=True, slots=True)
class Factor:
    """How the tile reads a factor.

    argument  of the kernel
    place     the element for the first step of the sum, at the row, or at the panel's first column
    steps     how much further each loop of the sum moves
    dtype     of an element, as it is stored
    """

    argument: int
    place: K
    steps: tuple[int, ...]
    dtype: DType

    @property
    def size(self) -> int:
        """Bytes of an element."""
        return self.dtype.itemsize


@dataclass(frozen=True, slots=True)
class Tiling:
    """How a contraction is computed.

    batch, row, panel, lane  variables that number the products, the rows, the panels, and the columns in a panel
    a, b       the factors
    summed     how often each loop of the sum runs, the innermost last
    store      what to do with a sum, which stands in it as `total`
    kind       of a step: "fused" is a product and a sum in one instruction, "plain" in two, "dot" four of bytes
    generator  what makes machine code of it
    """

    batch: tuple[K, ...]
    row: K
    panel: K
    lane: K
    a: Factor
    b: Factor
    summed: tuple[int, ...]
    store: Store
    total: K
    columns: int
    kind: str
    generator: CodeGenerator

    @property
    def rows(self) -> int:
        """How many rows a product has."""
        return extent(self.row)

    @property
    def tiles(self) -> int:
        """How many tiles the rows are cut into, of sizes that differ by at most one."""
        return -(-self.rows // self.height)

    @property
    def height(self) -> int:
        """Rows that a tile has at most."""
        turned = self.kind == "dot" and self.a.dtype.name == "int8"
        return self.generator.rows["turned" if turned else self.kind]

    @property
    def length(self) -> int:
        """The number of steps of the sum."""
        return prod(self.summed)

    @property
    def block(self) -> int:
        """Tiles of rows that go by one panel after the other, so many that their part of the left factor stays near.

        Where more is stored than read, so do their results: a tile's rows would else be as many waits for memory.
        """
        unique = self.a.size * (self.a.place.high + 1) // self.rows  # windows overlap, and share what they read
        size = self.rows // self.tiles * min(4 * self.length, max(unique, 64))
        near = max(1, NEAR // size)
        if self.columns > self.length and self.b.size * self.length * self.columns <= PANELS:
            stored = 4 * self.columns * (self.rows // self.tiles)
            near = min(near, max(1, STORED // (size + stored)))
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

    @property
    def apart(self) -> int:
        """Bytes between neighbouring columns of b."""
        return FOUR if self.kind == "dot" else self.b.size

    @property
    def is_whole(self) -> bool:
        """Whether all columns of b may be loaded four at a time."""
        return self.columns % 4 == 0 or self._is_padded()

    def _is_padded(self) -> bool:
        """Whether four columns of b from a panel's start are in memory, also where there are not so many."""
        constant, terms = linear(self.b.place)
        return all(c * self.b.size % (4 * self.apart) == 0 for c in (constant, *terms.values(), *self.b.steps))


def tiling(kernel: Kernel, *, relaxed: bool, generator: CodeGenerator = V8) -> Tiling | None:
    """How to compute the kernel in tiles, or None if it is no contraction that they suit."""
    if len(kernel.stores) != 1 or any(t.name in ("float64", "int64") for t in kernel.arguments):
        return None
    axes, stores = simplified(kernel)
    found = contraction_of(Kernel(kernel.name, axes, stores, kernel.arguments))
    if found is None or not found.columns or found.total.type not in TYPES:
        return None
    found = replace(found, a=_element(found.a), b=_element(found.b))
    if any(x.op != "load" or len(x.args) == 2 for x in (found.a, found.b)):
        return None
    types = tuple(kernel.arguments[x.value] for x in (found.a, found.b))
    if relaxed and types[0].itemsize == 1 and types[1].name == "int8":
        return tiled(_split(found), types, "dot", generator)
    if types[0].itemsize != 4 or (types[1].itemsize != 4 and types[1].name != "float16"):
        return None
    plan = tiled(_split(found), types, "fused" if relaxed and found.total.type == "float32" else "plain", generator)
    return None if plan is None or (types[1].name == "float16" and not plan.is_whole) else plan


def _element(x: K) -> K:
    """What is loaded for a factor that is an integer of 32 bits, signed or not."""
    return x.args[0] if x.op == "cast" and {x.type, x.args[0].type} <= {"int32", "uint32"} else x


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


def numbered(variables: tuple[K, ...], number: K) -> dict[K, K]:
    """The variables, as numbered in row-major order; numbers beyond the last only make the first variable too large."""
    table = {}
    for v in reversed(variables[1:]):
        table[v], number = number % extent(v), number // extent(v)
    return table | dict.fromkeys(variables[:1], number)


def tiled(c: Contraction, types: tuple[DType, ...], kind: str, generator: CodeGenerator) -> Tiling | None:
    """How to compute a contraction of two loads; None if they do not lie as tiles read them, or are too small."""
    _, rows, columns, length = c.sizes
    if columns < 4 or length < SHORT:
        return None
    row, panel, lane = k.var("row", rows), k.var("panel", -(-columns // PANEL)), k.var("lane", PANEL)
    near = sorted(c.rows, key=lambda v: -(vary(c.a.args[0], v) or 0))  # neighbouring rows lie near each other
    table = numbered(tuple(near), row if rows > 1 else k.const(0, "index"))
    table |= numbered(c.columns, panel * PANEL + lane if columns > PANEL else lane)
    a = factor(c.a, c.summed, table, types[0])
    b = factor(c.b, c.summed, table, types[1])
    if a is None or b is None or lane in a.place.free:
        return None
    _, terms = linear(b.place)
    if terms.get(lane) != (FOUR if kind == "dot" else 1) or any(lane in t.free for t in terms if t is not lane):
        return None
    b = replace(b, place=k.substitute(b.place, {lane: k.const(0, "index")}))
    a, b, summed = _looped(a, b, [extent(v) for v in c.summed])
    if kind == "dot":  # the innermost loop is within one instruction
        if (*summed[-1:], *a.steps[-1:], *b.steps[-1:]) != (FOUR, 1, 1):
            return None
        a, b, summed = replace(a, steps=a.steps[:-1]), replace(b, steps=b.steps[:-1]), summed[:-1]
    if rows < FEW and min(b.steps, default=PANEL) * b.size > 4 * PANEL:
        return None
    total = k.make("total", c.total.type, (*c.batch, row, panel, lane))
    table[c.total] = total
    store = Store(c.store.argument, k.substitute(c.store.index, table), k.substitute(c.store.value, table))
    return Tiling(c.batch, row, panel, lane, a, b, summed, store, total, columns, kind, generator)


def factor(x: K, summed: tuple[K, ...], table: dict[K, K], dtype: DType) -> Factor | None:
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
    return Factor(x.value, place, tuple(steps.values()), dtype)


def _looped(a: Factor, b: Factor, extents: list[int]) -> tuple[Factor, Factor, tuple[int, ...]]:
    """The loops of a sum, ordered so that the left factor is read along memory; those that run together are one."""
    loops = sorted(zip(a.steps, b.steps, extents, strict=True), reverse=True)
    merged: list[tuple[int, int, int]] = []
    for one, other, n in loops:
        if merged and merged[-1][:2] == (n * one, n * other):
            merged[-1] = (one, other, merged[-1][2] * n)
        elif n > 1:
            merged.append((one, other, n))
    ones, others, counts = zip(*merged, strict=True) if merged else ((), (), ())
    return replace(a, steps=ones), replace(b, steps=others), counts


def written_out(t: Tiling) -> tuple[int, list[tuple[int, int]]]:
    """How many of the sum's variables are loops, and where the steps inside them read a and b."""
    steps = [(0, 0)]
    loops = len(t.summed)
    while loops and len(steps) * t.summed[loops - 1] <= WRITTEN_OUT:
        loops -= 1
        v = range(t.summed[loops])
        one, other = t.a.steps[loops], t.b.steps[loops]
        steps = [(n * one + x, n * other + y) for n, (x, y) in product(v, steps)]
    return loops, steps
