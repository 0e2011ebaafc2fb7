"""A claim: each channel of bytes with a window of its own, sixteen channels at a time, four rows in one product.

A row of the result goes along the image's columns. The bytes of a column (of up to four rows) are put side by side
for each channel, so that one dot product (wasm_dot.py) takes all of them at once; it serves all windows that the column
is in, whose sums are kept until their last column has come:

    for each row, sixteen channels: the window's columns; what the sums begin with
        for each result along the row:
            for each column that is new: load its rows, put them side by side; for each window: four dot products
            store what is made of the sums of the first window; the others move up

The window lies as [column, channel, 4 rows], as compiler/pack.py lays it out. Rows outside the image, and what is in
place of a short window's fourth row, count nothing: their part of the window is masked.
"""

from dataclasses import dataclass
from math import prod

from .. import scalar as k
from ..index import linear
from ..scalar import K, const_value, walk
from .kernel import Kernel, Store, cost, vary
from .wasm_bytes import OP, get, i32, memarg, put, v128
from .wasm_dot import DOT, ONES, SEVEN, Eighth
from .wasm_loops import WORTH, Compiled
from .wasm_rounding import begun
from .wasm_schedule import extent, reduces_of, simplified
from .wasm_storage import BYTES
from .wasm_values import Values

__all__ = ["LANES", "ROWS", "compile_depthwise"]

LANES = 16  # channels at a time
ROWS = 4  # of a window, at most
WIDTH = 5  # columns of a window, at most
EDGES = 4  # results at the beginning and end of a row that are written out: those whose window is partly outside
QUARTERS = range(4)


def _interleaved(size: int, first: int) -> bytes:
    """Elements of so many bytes of two vectors in turn, from element `first` of each."""
    at = [n * size + b for n in range(first, first + 8 // size) for b in range(size)]
    pairs = [at[n : n + size] for n in range(0, 8, size)]
    return OP["i8x16.shuffle"] + bytes(x for p in pairs for x in (*p, *(16 + y for y in p)))


SINGLE = [_interleaved(1, 0), _interleaved(1, 8)]
PAIRS = [_interleaved(2, 0), _interleaved(2, 4)]


@dataclass(frozen=True, slots=True)
class Depthwise:
    """store = what is made of `total`, a sum over the window of image · window.

    outer      axes of the result without the columns and the channels
    x, channel the other axes
    image, window   the factors, both loads
    p, q       variables of the window: its rows (None: one row) and columns
    stride     of the windows along a row
    low, high  the columns of the padded image that the image has, counted from the first window's first
    inside     for each row of the window whether it is in the image, where that is not sure
    """

    store: Store
    total: K
    outer: tuple[K, ...]
    x: K
    channel: K
    image: K
    window: K
    p: K | None
    q: K
    stride: int
    low: int
    high: int
    inside: tuple[K | None, ...]

    @property
    def width(self) -> int:
        """Columns of the window."""
        return extent(self.q)

    @property
    def fresh(self) -> int:
        """Columns of a window that no window before it has."""
        return min(self.stride, self.width)

    @property
    def waiting(self) -> int:
        """How many further windows have columns in common with one."""
        return -(-self.width // self.stride) - 1

    def has(self, column: int) -> bool:
        """Whether a column is in the image."""
        return self.low <= column < self.high

    @property
    def plain(self) -> tuple[int, int]:
        """From which result to which all new columns of a window are in the image."""
        first = self.width - self.fresh
        n = extent(self.x)
        good = [j for j in range(n) if all(self.has(j * self.stride + c) for c in range(first, self.width))]
        return (good[0], good[-1] + 1) if good else (0, 0)


def compile_depthwise(kernel: Kernel, *, relaxed: bool) -> Compiled | None:
    """The function of a kernel that is a depthwise convolution of bytes along contiguous channels; None for others."""
    plan = _depthwise_of(kernel) if relaxed else None
    if plan is None:
        return None
    body = _Rows(kernel, plan).written()
    total = prod(map(extent, plan.outer))
    return Compiled(len(kernel.arguments) + 2, body, total, max(1, -(-WORTH * total // max(1, cost(kernel)))))


def _depthwise_of(kernel: Kernel) -> Depthwise | None:
    axes, stores = simplified(kernel)
    if len(stores) != 1 or len(axes) < 2 or extent(axes[-1]) < LANES:
        return None
    store, sums = stores[0], reduces_of([stores[0].value])
    if len(sums) != 1 or sums[0].value[0] != "sum" or sums[0].args[0].op != "mul" or sums[0].type != "int32":
        return None
    total = sums[0]
    image, window = map(_loaded, total.args[0].args)
    if window.op == "load" and kernel.arguments[window.value].name != "int8":
        image, window = window, image
    if any(f.op != "load" or kernel.arguments[f.value].itemsize != 1 for f in (image, window)) or len(window.args) > 1:
        return None
    if kernel.arguments[window.value].name != "int8" or kernel.arguments[image.value].kind == "b":
        return None
    if any(n.op == "load" and n.value == store.argument for n in walk([store.value])):
        return None  # sixteen channels at the end may be computed twice
    return _planned(Store(store.argument, store.index, store.value), total, axes, image, window)


def _loaded(x: K) -> K:
    """What is loaded for a factor, a signed or unsigned integer of 32 bits: outside the image that is 0 anyway."""
    factor = x.args[1] if x.op == "select" and x.args[2] is k.const(0, x.type) else x
    if factor.op == "cast" and {factor.type, factor.args[0].type} <= {"int32", "uint32"}:
        factor = factor.args[0]
    return factor if x.op != "select" or factor.args[1:] == x.args[:1] else x


def _planned(store: Store, total: K, axes: tuple[K, ...], image: K, window: K) -> Depthwise | None:
    *outer, x, channel = axes
    place, weights, variables = image.args[0], window.args[0], total.value[1]
    by_row = [v for v in variables if vary(weights, v) == 1]
    p, others = (by_row[0] if by_row else None), [v for v in variables if v not in by_row[:1]]
    if len(others) != 1 or extent(others[0]) > WIDTH or (p is not None and extent(p) > ROWS):
        return None
    (q,) = others
    column, hop = vary(place, q), vary(place, x)
    if (vary(place, channel), vary(weights, channel), vary(store.index, channel)) != (1, ROWS, 1):
        return None
    if not column or column < 0 or not hop or hop < 0 or hop % column:
        return None  # a mirrored image
    if linear(weights)[0] % ROWS or not weights.free <= {channel, q, *by_row[:1]}:
        return None
    edges = _edges(image, x, q, hop // column)
    inside = _rows_inside(image, p, {x, q})
    if edges is None or inside is None or any(channel in t.free for t in _terms(image)):
        return None
    plan = Depthwise(store, total, tuple(outer), x, channel, image, window, p, q, hop // column, *edges, inside)
    begin, end = plan.plain
    if begin == end or begin + extent(x) - end > EDGES or plan.low > plan.width - plan.fresh:
        return None
    return plan


def _terms(image: K) -> list[K]:
    """What is all true where the image has an element."""
    stack, found = list(image.args[1:]), []
    while stack:
        mask = stack.pop()
        if mask.op == "and":
            stack.extend(mask.args)
        else:
            found.append(mask)
    return found


def _edges(image: K, x: K, q: K, stride: int) -> tuple[int, int] | None:
    """From which column to which the image reaches, counted from the first window's first; None if nobody knows."""
    count = (extent(x) - 1) * stride + extent(q)
    good = set(range(count))
    for term in _terms(image):
        if not term.free & {x, q}:
            continue
        if not term.free <= {x, q} or term.op not in ("lt", "le"):
            return None
        apart = term.args[1] - term.args[0]
        if vary(apart, x) is None or vary(apart, x) != stride * (vary(apart, q) or 0):
            return None
        one = {x: k.const(0, "index")}
        good &= {c for c in good if const_value(k.substitute(term, one | {q: k.const(c, "index")}))}
    return (min(good), max(good) + 1) if good else None


def _rows_inside(image: K, p: K | None, along: set[K]) -> tuple[K | None, ...] | None:
    """For each row of the window, what is true where it is in the image, or None where it always is."""
    terms = [t for t in _terms(image) if not t.free & along]
    found: list[K | None] = []
    for n in range(extent(p) if p is not None else 1):
        all_of = k.const(True, "bool")
        for term in terms:
            all_of = all_of & (term if p is None else k.substitute(term, {p: k.const(n, "index")}))
        found.append(None if all_of.op == "const" and const_value(all_of) else all_of)
    return tuple(found)


class _Rows(Values):
    """The function of one kernel: for some rows of results, all their columns and channels."""

    def __init__(self, kernel: Kernel, plan: Depthwise) -> None:
        super().__init__(kernel.arguments, True)
        self.plan = plan
        self.jams = (plan.channel,)
        self.packed = kernel.arguments[plan.store.argument].name in BYTES
        value, self.saturate = self.stored_value(plan.store, self.packed)
        self.bias, self.value_stored = begun(value, plan.total, frozenset([plan.channel]))
        self.count([self.value_stored, plan.store.index, *(b for b in (self.bias,) if b is not None)])
        self.begin, self.end = len(kernel.arguments), len(kernel.arguments) + 1
        self.eighth = Eighth(self.f, kernel.arguments[plan.image.value].name == "int8")
        self.slow = False
        rows = extent(plan.p) if plan.p is not None else 1
        self.masked = rows < ROWS or any(plan.inside)  # what is beside a short window in memory counts nothing
        self.rows = self._vectors_for(rows)
        self.pairs, self.start = self._vectors_for(4), self._vectors_for(4)
        self.column, self.mask = self._vectors_for(2)
        self.weights = [self._vectors_for(4) for _ in range(plan.width)]
        self.sums = [self._vectors_for(4) for _ in range(plan.waiting + 1)]
        self.pointers = [self.f.local("i32") for _ in range(rows)]
        self.at = self.f.local("i32")  # the column of the result

    def _vectors_for(self, n: int) -> list[int]:
        return [self.f.local("v128") for _ in range(n)]

    def written(self) -> bytes:
        """The function's entry in the code section."""
        self.emit(self.eighth.asked())
        fast = self._apart(False)
        slow = self._apart(True)
        self.emit(get(self.eighth.fast) + OP["if"] + fast + OP["else"] + slow + OP["end"])
        return self.f.body(bytes(self.chain[0].code))

    def _apart(self, slow: bool) -> bytes:
        self.slow = slow
        self.enter()
        self._range()
        return bytes(self.leave().code)

    # Loops

    def _loop(self, local: int, limit: bytes, body: bytes) -> bytes:
        """A loop until the local reaches the limit, at least once; the body counts."""
        return OP["loop"] + body + get(local) + limit + OP["i32.lt_s"] + OP["br_if"] + b"\0" + OP["end"]

    def _stepped(self, local: int, step: int) -> bytes:
        return get(local) + i32(step) + OP["i32.add"] + put(local)

    def _range(self) -> None:
        """The rows of the range, each with its place along every outer axis."""
        plan, part, stride = self.plan, self.begin, 1
        self.enter()
        for axis in reversed(plan.outer):
            local = self.f.local("i32")
            self.emit(get(part) + i32(stride) + OP["i32.div_u"] + i32(extent(axis)) + OP["i32.rem_u"] + put(local))
            self.enter(axis, local)
            stride *= extent(axis)
        self._masks()
        self._blocks()
        for _ in plan.outer:
            code = bytes(self.leave().code)
            self.emit(code)
        body = bytes(self.leave().code) + self._stepped(part, 1)
        within = get(part) + get(self.end) + OP["i32.lt_s"]
        self.emit(within + OP["if"] + self._loop(part, get(self.end), body) + OP["end"])

    def _masks(self) -> None:
        """Ones for the rows of the window that are in the image."""
        if not self.masked:
            return
        code = i32(0)
        for n, inside in enumerate(self.plan.inside):
            ones = i32(255 << 8 * n)
            if inside is not None:
                ones = i32(0) + self.value(inside, "s") + OP["i32.sub"] + ones + OP["i32.and"]
            code += ones + OP["i32.or"]
        self.emit(code + OP["i32x4.splat"] + put(self.mask))

    def _blocks(self) -> None:
        """Sixteen channels after the other; the last sixteen may have some of those before."""
        plan = self.plan
        channel, n = self.f.local("i32"), extent(plan.channel)
        self.emit(i32(0) + put(channel))
        self.enter(plan.channel, channel)
        self.lane = plan.channel
        self._window()
        self._row()
        self.lane = None
        body = bytes(self.leave().code) + self._stepped(channel, LANES)
        if n % LANES:
            last, past = i32(n - LANES), get(channel) + i32(n - LANES) + OP["i32.gt_s"]
            ends = get(channel) + i32(n) + OP["i32.lt_s"] + past + OP["i32.and"]
            body += ends + OP["if"] + last + put(channel) + OP["end"]
        self.emit(self._loop(channel, i32(n), body))

    def _window(self) -> None:
        """The window of these channels, and what sums begin with."""
        plan, zero = self.plan, {self.plan.p: k.const(0, "index")} if self.plan.p is not None else {}
        for n, column in enumerate(self.weights):
            index = k.substitute(plan.window.args[0], {plan.q: k.const(n, "index")} | zero)
            for quarter, local in enumerate(column):
                self.shift = {plan.channel: 4 * quarter}
                address, offset = self.address(plan.window.value, index)
                masked = get(self.mask) + OP["v128.and"] if self.masked else b""
                self.emit(address + OP["v128.load"] + memarg(offset, 2) + masked + put(local))
        for quarter, start in enumerate(self.start):
            if self.slow:
                self.emit(v128(bytes(4)))
            else:
                self.emit(v128(bytes(4)))
                for column in self.weights:
                    self.emit(put(start) + get(column[quarter]) + ONES + get(start) + DOT)
                self.emit(get(self.eighth.weight) + OP["i32x4.mul"])
            if self.bias is not None:
                self.shift = {plan.channel: 4 * quarter}
                self.emit(put(start))
                code = self.value(self.bias, "v")
                self.emit(get(start) + code + OP["i32x4.add"])
            self.emit(put(start))
        self.shift = {}

    # One row of results, of sixteen channels

    def _row(self) -> None:
        plan = self.plan
        for n, local in enumerate(self.pointers):
            self.emit(self._beginning(n) + put(local))
        self.emit(i32(0) + put(self.at))
        for column in range(plan.width - plan.fresh):
            self._column(column - plan.low if plan.has(column) else None, column)
        begin, end = plan.plain
        for j in (*range(begin), None, *range(end, extent(plan.x))):
            self.enter(plan.x, self.at)
            self._result(begin if j is None else j)
            self._advance()
            body = bytes(self.leave().code)
            self.emit(self._loop(self.at, i32(end), body) if j is None else body)

    def _beginning(self, row: int) -> bytes:
        """The address of a row's first column that is in the image; of the image's first row, where the row is not."""
        plan = self.plan
        table = {plan.x: k.const(0, "index"), plan.q: k.const(plan.low, "index")}
        if plan.p is not None:
            table[plan.p] = k.const(row, "index")
        index = k.substitute(plan.image.args[0], table)
        for term in self._nested(index):
            self.value(term, "s")
        address, offset = self.address(plan.image.value, index)
        code, inside = address + i32(offset) + OP["i32.add"], plan.inside[row]
        if inside is None:
            return code
        channel = get(self.chain[self._depth[plan.channel]].local)
        return code + get(plan.image.value) + channel + OP["i32.add"] + self.value(inside, "s") + OP["select"]

    def _result(self, j: int) -> None:
        """The new columns of a window, and its result."""
        plan = self.plan
        first = plan.width - plan.fresh
        for c in range(first, plan.width):
            self._column(c - plan.low if plan.has(j * plan.stride + c) else None, c)
        self._finish()
        for one, following in zip(self.sums, self.sums[1:], strict=False):
            for a, b in zip(one, following, strict=True):
                self.emit(get(b) + put(a))

    def _advance(self) -> None:
        plan = self.plan
        step = plan.stride * (vary(plan.image.args[0], plan.q) or 0)
        for local in self.pointers:
            self.emit(self._stepped(local, step))
        self.emit(self._stepped(self.at, 1))

    def _column(self, place: int | None, c: int) -> None:
        """A column, `place` columns from the pointers (None: it is outside), in all windows from the present one."""
        plan = self.plan
        if place is not None:
            step = vary(plan.image.args[0], plan.q) or 0
            for local, pointer in zip(self.rows, self.pointers, strict=True):
                turned = b"" if self.slow else get(self.eighth.flip) + OP["v128.xor"]
                self.emit(get(pointer) + OP["v128.load"] + memarg(place * step) + turned + put(local))
            a, b, *more = [*self.rows, *self.rows[-1:] * 3] if len(self.rows) < ROWS else self.rows
            other = (more[0], more[1]) if len(self.rows) == ROWS else (self.rows[-1],) * 2
            pairs = [(a, b if len(self.rows) > 1 else a, n) for n in (0, 1)] + [(*other, n) for n in (0, 1)]
            for local, (one, two, n) in zip(self.pairs, pairs, strict=True):
                self.emit(get(one) + get(two) + SINGLE[n] + put(local))
        elif self.slow:
            self.emit(v128(bytes(4)) + put(self.column))
        else:
            self.emit(get(self.eighth.flip) + put(self.column))
        for quarter in QUARTERS:
            if place is not None:
                low, high = self.pairs[quarter // 2], self.pairs[2 + quarter // 2]
                self.emit(get(low) + get(high) + PAIRS[quarter % 2] + put(self.column))
            for n, sums in enumerate(self.sums):
                q = c - n * plan.stride
                if 0 <= q < plan.width:
                    before = self.start[quarter] if q == 0 else sums[quarter]
                    self.emit(self._added(self.weights[q][quarter], before) + put(sums[quarter]))

    def _added(self, weights: int, before: int) -> bytes:
        """Four products of the column's bytes in each channel, added to what there is."""
        if not self.slow:
            return get(weights) + get(self.column) + get(before) + DOT
        low = get(weights) + get(self.column) + SEVEN + OP["v128.and"] + get(before) + DOT
        high = get(weights) + get(self.column) + i32(7) + OP["i8x16.shr_u"] + v128(bytes(4)) + DOT
        return low + high + i32(7) + OP["i32x4.shl"] + OP["i32x4.sub" if self.eighth.signed else "i32x4.add"]

    def _finish(self) -> None:
        """Store what is made of the sums of the present window."""
        plan, store, values = self.plan, self.plan.store, []
        for quarter in QUARTERS:
            self.shift = {plan.channel: 4 * quarter}
            self.set(plan.total, len(self.chain) - 1, get(self.sums[0][quarter]))
            code = self.value(self.value_stored, "v")
            if self.packed:
                values.append(code)
            else:
                self.store(store.argument, store.index, code)
        self.shift = {}
        if self.packed:
            self.store_together(store, values, self.saturate)
