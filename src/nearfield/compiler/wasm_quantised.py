"""Contractions in register tiles whose right factor is quantised: bytes, widened and scaled where they are read.

compiler/pack.py lays bytes and scales out in panels of eight columns. A step of the sum reads eight bytes, one of each
column, widens them, and multiplies them with the scales of the present group, which stay in registers. A byte may hold
two numbers: then it is two steps, of which the second is a fixed distance further in the left factor.
"""

from dataclasses import dataclass, fields, replace
from typing import Any

from .. import scalar as k
from ..dtype import DType
from ..index import linear
from ..scalar import K, const_value, walk
from .contraction import Contraction, contraction_of
from .kernel import Kernel
from .wasm_bytes import OP, get, i32, memarg, put
from .wasm_contraction import PANEL, Factor, Tiling, factor, numbered, tiled, written_out
from .wasm_generator import V8, CodeGenerator
from .wasm_schedule import extent, simplified
from .wasm_storage import load_lanes
from .wasm_tile import Tile, Tiles

__all__ = ["QuantisedTiles", "QuantisedTiling", "quantised_tiling"]


@dataclass(frozen=True, slots=True)
class QuantisedTiling(Tiling):
    """How a contraction with a quantised right factor is computed; its outermost loop is that of the groups.

    scale  the factor that each group has in each column
    half   how much further in a the second number of a byte is, or 0 where bytes are numbers
    """

    scale: Factor
    half: int

    @property
    def height(self) -> int:
        """Rows that a tile has at most."""
        return self.generator.rows["quantised"]


@dataclass(frozen=True, slots=True)
class _Numbers:
    """Quantised numbers in K: what is loaded of the bytes and of the scales, and the variable of a byte's halves."""

    load: K
    scale: K
    half: K | None


def _numbers_of(b: K) -> _Numbers | None:
    """The parts of b = number · scale, the number an int8 element or a half of one."""
    if b.op != "mul" or b.args[0].op != "cast" or b.args[1].op != "load":
        return None
    number, scale = b.args[0].args[0], b.args[1]
    if number.op == "load":
        return _Numbers(number, scale, None)
    if number.op != "shr" or number.args[0].op != "mul" or number.args[1].op != "const":
        return None
    element, up = number.args[0].args
    if element.op != "load" or const_value(number.args[1]) != 28 or len(up.free) != 1:
        return None
    (half,) = up.free
    ups = [k.substitute(up, {half: k.const(n, "index")}) for n in range(extent(half))]
    if half in element.free | scale.free or [x.op == "const" and const_value(x) for x in ups] != [2**28, 2**24]:
        return None
    return _Numbers(element, scale, half)


def _split(c: Contraction) -> Contraction:
    """Variables of the sum are split in two where quotients and remainders are taken of them."""
    for node in walk([c.a, c.b]):
        v = node.args[0] if node.op in ("div", "rem") else None
        if v is None or v not in c.summed or extent(v) % int(node.args[1].value):
            continue
        low = int(node.args[1].value)
        outer, inner = k.var(f"{v.value[0]}o", extent(v) // low), k.var(f"{v.value[0]}i", low)
        a, b = (k.substitute(x, {v: outer * low + inner}) for x in (c.a, c.b))
        at = c.summed.index(v)
        return _split(replace(c, a=a, b=b, summed=(*c.summed[:at], outer, inner, *c.summed[at + 1 :])))
    return c


def quantised_tiling(kernel: Kernel, *, relaxed: bool, generator: CodeGenerator = V8) -> QuantisedTiling | None:
    """How to compute the kernel, or None if its right factor is not quantised and laid out for this."""
    if len(kernel.stores) != 1 or all(t.name != "int8" for t in kernel.arguments):
        return None
    axes, stores = simplified(kernel)
    found = contraction_of(Kernel(kernel.name, axes, stores, kernel.arguments))
    if found is None or len(found.columns) != 1 or found.batch or found.a.op != "load" or found.total.type != "float32":
        return None
    found = _split(found)
    numbers = _numbers_of(found.b)
    if numbers is None or len(numbers.load.args) == 2 or len(numbers.scale.args) == 2 or len(found.a.args) == 2:
        return None
    types = [kernel.arguments[x.value] for x in (found.a, numbers.load, numbers.scale)]
    if types[0].name != "float32" or types[1].name != "int8" or types[2].name not in ("float16", "float32"):
        return None
    halves = factor(found.a, found.summed, {}, types[0])
    half = 0
    if numbers.half is not None and halves is not None:
        half = halves.steps[found.summed.index(numbers.half)]
    plain = replace(found, b=numbers.load, summed=tuple(v for v in found.summed if v is not numbers.half))
    a = k.substitute(found.a, {numbers.half: k.const(0, "index")}) if numbers.half is not None else found.a
    plan = tiled(replace(plain, a=a), (types[0], types[1]), "fused" if relaxed else "plain", generator)
    if plan is None or (numbers.half is not None and not half) or not plan.is_whole:
        return None
    return _by_groups(plan, plain, numbers.scale, types[2], half)


def _by_groups(plan: Tiling, c: Contraction, scale: K, dtype: DType, half: int) -> QuantisedTiling | None:
    """The tiling with the loop of the groups as its outermost."""
    table = numbered(c.columns, plan.panel * PANEL + plan.lane if plan.columns > PANEL else plan.lane)
    found = factor(scale, c.summed, table, dtype)
    if found is None or sum(step > 0 for step in found.steps) > 1:
        return None
    _, terms = linear(found.place)
    if terms.get(plan.lane) != 1 or any(plan.lane in t.free for t in terms if t is not plan.lane):
        return None
    place = k.substitute(found.place, {plan.lane: k.const(0, "index")})
    step = max(found.steps)
    groups = extent(c.summed[found.steps.index(step)]) if step else 1
    if step not in (0, PANEL) or plan.summed[0] % groups:
        return None
    each = plan.summed[0] // groups
    if groups > 1:
        a, b = (replace(f, steps=(f.steps[0] * each, *f.steps)) for f in (plan.a, plan.b))
        at = found.steps.index(step)
        wholes = (factor(c.a, c.summed, {}, dtype), factor(c.b, c.summed, {}, dtype))
        if any(w is None or w.steps[at] != f.steps[0] for w, f in zip(wholes, (a, b), strict=True)):
            return None  # groups are not parts of the outermost loop
        plan = replace(plan, a=a, b=b, summed=(groups, each, *plan.summed[1:]))
        if written_out(plan)[0] < 2:
            return None  # scales are loaded in a loop around that of a group
    whole: dict[str, Any] = {f.name: getattr(plan, f.name) for f in fields(Tiling)}
    return QuantisedTiling(**whole, scale=Factor(found.argument, place, (step,), dtype), half=half)


class QuantisedTiles(Tiles):
    """The function of a kernel whose right factor is quantised."""

    plan: QuantisedTiling

    def __init__(self, kernel: Kernel, plan: QuantisedTiling) -> None:
        super().__init__(kernel, plan)
        self.scales = [self.f.local("v128") for _ in range(PANEL // 4)]
        self.bytes = self.f.local("v128")
        self.group = self.f.local("i32")  # where the scales of the next group are
        self.inside = 1 if plan.scale.steps[0] else 0  # loops around what has one scale

    def summed(self, tile: Tile) -> None:
        self.point(self.group, self.plan.scale)
        super().summed(tile)

    def over(self, level: int, tile: Tile) -> None:
        if level == self.inside:
            scale = self.plan.scale
            for n, at in zip(range(len(tile.vectors)), self.scales, strict=False):
                self.emit(load_lanes(self.f, scale.dtype.name, get(self.group), 4 * n * scale.size) + put(at))
            self.emit(get(self.group) + i32(PANEL * scale.size) + OP["i32.add"] + put(self.group))
        super().over(level, tile)

    def _steps(self, steps: list[tuple[int, int]], tile: Tile) -> None:
        for n, (one, other) in enumerate(steps):
            self.emit(get(self.right) + OP["v128.load8x8_s"] + memarg(other) + put(self.bytes))
            if not self.plan.half:
                self.widened(tile, get(self.bytes))
                self.step(tile, n, one)
                continue
            low = get(self.bytes) + i32(12) + OP["i16x8.shl"] + i32(12) + OP["i16x8.shr_s"]
            for number, at in ((low, one), (get(self.bytes) + i32(4) + OP["i16x8.shr_s"], one + self.plan.half)):
                self.widened(tile, number)
                self.step(tile, n, at)

    def widened(self, tile: Tile, number: bytes) -> None:
        """Put eight numbers of 16 bits, scaled, into the vectors of b."""
        ends = ("i32x4.extend_low_i16x8_s", "i32x4.extend_high_i16x8_s")
        for end, scale, at, _ in zip(ends, self.scales, self.vectors, tile.vectors, strict=False):
            self.emit(number + OP[end] + OP["f32x4.convert_i32x4_s"] + get(scale) + OP["f32x4.mul"] + put(at))
