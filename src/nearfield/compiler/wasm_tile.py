"""A contraction in register tiles as a WebAssembly function; wasm_contraction.py says what is computed.

    for each part of the range: (a product of the batch, a block of rows, a panel)
        for each tile of rows in the block:
            accumulators = 0
            for each step of the sum: two vectors of b; for each row: one element of a, and two products added
            for each row: what is done with the sums, in vectors along the columns; stored

Loads have constant offsets from pointers that move once per loop. One element of a is live at a time: V8 has 15 vector
registers for the rest. Cranelift moves all products of a block of code behind all its loads (wasm_generator.py); for
it, blocks end within a step, by branches that are never taken.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import prod

from ..index import linear
from ..scalar import K
from .kernel import Kernel, vary
from .wasm_bytes import OP, get, i32, memarg, put, tee, uleb, v128
from .wasm_contraction import PANEL, Factor, Tiling, written_out
from .wasm_schedule import extent
from .wasm_storage import BYTES, load_weights
from .wasm_values import Values

__all__ = ["Tile", "Tiles"]

UNROLL = 4  # steps of the sum in one turn of the loop; twice as many where most of the time is spent
TILES = 24  # that a panel serves: with more, waiting for it is little of the time
LINE = 64  # bytes of a cache line
CHAINS = 8  # sums that wait for each other as little as the processor can make them
MULTIPLY = {"float32": ("f32x4.mul", "f32x4.add"), "int32": ("i32x4.mul", "i32x4.add")}
MULTIPLY["uint32"] = MULTIPLY["int32"]
Pointer = tuple[int, int]  # a local, and a constant to add to it


@dataclass(frozen=True, slots=True)
class Tile:
    """The registers of a tile.

    left     where each row of a is
    vectors  of b: the column where each begins, and how many of its lanes may be read
    sums     accumulators: for each row one for each vector; and copies of these, for short sums of few rows
    """

    left: list[Pointer]
    vectors: list[tuple[int, int]]
    sums: list[list[int]]


class Tiles(Values):
    """The function of one kernel."""

    together = True  # whether a panel's vectors are stored side by side

    def __init__(self, kernel: Kernel, plan: Tiling) -> None:
        super().__init__(kernel.arguments, plan.kind != "plain")
        self.plan = plan
        self.jams = self.shifted()
        near = vary(plan.store.index, plan.lane) == 1 and all(t.op == "var" for t in linear(plan.store.index)[1])
        self.eights = self.together and near and plan.columns % PANEL == 0  # whether bytes are stored eight at a time
        value, self.saturate = self.stored_value(plan.store, self.eights)
        self.plan = plan = replace(plan, store=replace(plan.store, value=value))
        self.count([plan.store.value, plan.store.index])
        self.begin, self.end = len(kernel.arguments), len(kernel.arguments) + 1
        self.zero = self.f.local("i32")  # where the lanes of a panel begin to count
        self.kind = plan.total.type
        self.loops, self.steps = written_out(plan)
        self.sums: list[int] = []
        self.vectors = [self.f.local("v128") for _ in range(PANEL)]
        self.splat = self.f.local("v128")
        self.pointers: list[int] = []
        self.right = self.f.local("i32")
        self.again = False  # whether a loop before this one reads the left factor at the same offsets
        self.block = plan.generator.block
        self.depth: int | None = None  # loops to leave for the end of the present block of code; None: it has none
        self.following, self.pace = self.f.local("i32"), self._pace()

    def shifted(self) -> tuple[K, ...]:
        """The variables whose neighbouring values are computed side by side."""
        return (self.plan.row, self.plan.lane)

    def written(self) -> bytes:
        """The function's entry in the code section."""
        self.parts()
        return self.f.body(bytes(self.chain[0].code))

    def parts(self) -> None:
        """The parts of the range."""
        part = self.begin
        self._loop(None, part, 1, get(self.end), lambda: self._part(part))

    # Loops

    def _loop(self, var: K | None, local: int, step: int, limit: bytes, body: Callable[[], None]) -> None:
        """Run body while the variable, whose local is set, is below the limit."""
        self.enter(var, local, step)
        body()
        scope = self.leave()
        again = get(local) + i32(step) + OP["i32.add"] + tee(local) + limit + OP["i32.lt_s"] + OP["br_if"] + b"\0"
        first = get(local) + limit + OP["i32.lt_s"] + OP["if"]
        self.emit(first + scope.init + OP["loop"] + scope.code + scope.moves + again + OP["end"] + OP["end"])

    def _set(self, code: bytes) -> int:
        local = self.f.local("i32")
        self.emit(code + put(local))
        return local

    def _part(self, part: int) -> None:
        """One panel of one block of rows of one product."""
        plan, stride = self.plan, extent(self.plan.panel)
        panel = self._set(get(part) + i32(stride) + OP["i32.rem_u"])
        block = self._set(get(part) + i32(stride) + OP["i32.div_u"] + i32(plan.blocks) + OP["i32.rem_u"])
        stride *= plan.blocks
        places = []
        for v in reversed(plan.batch):
            code = get(part) + i32(stride) + OP["i32.div_u"]
            places.append((v, self._set(code + i32(extent(v)) + OP["i32.rem_u"])))
            stride *= extent(v)
        for v, local in [*places, (plan.panel, panel)]:
            self.enter(v, local)
        if self.pace:
            more = (
                i32(self.panel_bytes)
                + i32(0)
                + get(panel)
                + i32(extent(plan.panel) - 1)
                + OP["i32.lt_u"]
                + OP["select"]
            )
            self.point(self.following, plan.b)
            self.emit(get(self.following) + more + OP["i32.add"] + put(self.following))
        full, rest = divmod(plan.columns, PANEL)
        whole = self.written_apart(lambda: self.rows(block, PANEL)) if full else b""
        partial = self.written_apart(lambda: self.rows(block, rest)) if rest else b""
        if full and rest:
            whole = get(panel) + i32(full) + OP["i32.lt_u"] + OP["if"] + whole + OP["else"] + partial + OP["end"]
        self.emit(whole or partial)
        for _ in range(len(places) + 1):
            scope = self.leave()
            self.emit(bytes(scope.code))

    def written_apart(self, body: Callable[[], None]) -> bytes:
        """The code that body emits, for a branch."""
        self.enter()
        body()
        return bytes(self.leave().code)

    def rows(self, block: int, width: int) -> None:
        """The tiles of a block: first those of the larger size, then those of the smaller."""
        plan = self.plan
        size, larger = divmod(plan.rows, plan.tiles)
        edge = larger * (size + 1)
        first = get(block) + i32(plan.block) + OP["i32.mul"]
        if plan.blocks == 1:
            low, high = i32(0), i32(plan.rows)
        else:
            low = self._row_of(first, size, larger)
            high = get(self._set(self._row_of(first + i32(plan.block) + OP["i32.add"], size, larger)))
        row = self._set(low)
        if larger:
            limit = high
            if larger < plan.tiles:
                limit = get(self._set(high + i32(edge) + high + i32(edge) + OP["i32.lt_s"] + OP["select"]))
            self._loop(plan.row, row, size + 1, limit, lambda: self._tile(size + 1, width))
        if larger < plan.tiles:
            self.again = larger > 0
            self._loop(plan.row, row, size, high, lambda: self._tile(size, width))
            self.again = False

    def _row_of(self, tile: bytes, size: int, larger: int) -> bytes:
        """The first row of a tile (or the end): tile · size + min(tile, larger)."""
        n = self._set(tile)
        last = self._set(get(n) + i32(self.plan.tiles) + get(n) + i32(self.plan.tiles) + OP["i32.lt_s"] + OP["select"])
        least = get(last) + i32(larger) + get(last) + i32(larger) + OP["i32.lt_s"] + OP["select"]
        return get(last) + i32(size) + OP["i32.mul"] + least + OP["i32.add"]

    # Tiles

    def _tile(self, rows: int, width: int) -> None:
        vectors = self.plan.vectors(width)
        copies = max(1, min(CHAINS // (rows * len(vectors)), len(self.steps) if self.loops == 0 else UNROLL))
        count = rows * len(vectors)
        while len(self.sums) < count * copies:
            self.sums.append(self.f.local("v128"))
        tile = Tile(self.left(rows), vectors, [self.sums[c * count : (c + 1) * count] for c in range(copies)])
        self.point(self.right, self.plan.b)
        self.summed(tile)
        self._finish(rows, tile, width)

    def summed(self, tile: Tile) -> None:
        """Leave a tile's sums in the first copy of its accumulators."""
        self.emit(b"".join(v128(bytes(4)) + put(s) for copy in tile.sums for s in copy))
        if self.block:
            self._in_blocks(tile)
        else:
            self.over(0, tile)
        self.join(tile)

    def _in_blocks(self, tile: Tile) -> None:
        """The loops of the sum, out of which branches lead that take all sums along: so these are computed before."""
        self.depth = 0
        self.emit(OP["block"] + OP["block"])
        self.over(0, tile)
        self.emit(OP["br"] + b"\1" + OP["end"])
        for s in (s for copy in tile.sums for s in copy):
            self.emit(get(self.right) + get(s) + OP["v128.store"] + memarg())
        self.emit(OP["unreachable"] + OP["end"])
        self.depth = None

    def _block_ends(self) -> None:
        """A branch that is taken where the right factor is at address 0, which it never is."""
        if self.depth is not None:
            self.emit(get(self.right) + OP["i32.eqz"] + OP["br_if"] + uleb(self.depth))

    def join(self, tile: Tile) -> None:
        """Add the copies of the accumulators up."""
        add = OP[MULTIPLY[self.kind][1]]
        for other in tile.sums[1:]:
            for s, t in zip(tile.sums[0], other, strict=True):
                self.emit(get(s) + get(t) + add + put(s))

    def point(self, local: int, factor: Factor) -> None:
        """Let a local point to the first element of a factor."""
        for term in self._nested(factor.place):
            self.value(term, "s")
        address, offset = self.address(factor.argument, factor.place)
        self.emit(address + (i32(offset) + OP["i32.add"] if offset else b"") + put(local))

    def left(self, rows: int) -> list[Pointer]:
        """Where each row of a begins: a pointer each, or constant distances from one, where loads take these along."""
        a, found, known = self.plan.a, [], dict[bytes, int]()
        for n in range(rows):
            self.shift = {self.plan.row: n}
            for term in self._nested(a.place):
                self.value(term, "s")
            address, offset = self.address(a.argument, a.place)
            if not self.again and not self.block:
                address += i32(offset) + OP["i32.add"] if offset else b""
                offset = 0
            if address not in known:
                if len(self.pointers) <= len(known):
                    self.pointers.append(self.f.local("i32"))
                known[address] = self.pointers[len(known)]
                self.emit(address + put(known[address]))
            found.append((known[address], offset))
        self.shift = {}
        return found

    # Sums

    def over(self, level: int, tile: Tile) -> None:
        """The loops of the sum from `level` on. Pointers are then where they were before, but for the outermost."""
        plan = self.plan
        if level == self.loops:
            self._steps(self.steps, tile)
            return
        n, one, other = plan.summed[level], plan.a.steps[level], plan.b.steps[level]
        innermost = level == self.loops - 1
        turn = self._turn(n) if innermost else 1
        turns, rest = divmod(n, turn)
        local = self.f.local("i32")
        self.emit(i32(turns) + put(local) + OP["loop"])
        if self.depth is not None:
            self.depth += 1
        if innermost:
            self._steps([(u * one + x, u * other + y) for u in range(turn) for x, y in self.steps], tile)
            if tile.left:
                self._fetch()
        else:
            self.over(level + 1, tile)
        self._move(tile, turn * one, turn * other)
        self.emit(get(local) + i32(1) + OP["i32.sub"] + tee(local) + OP["br_if"] + b"\0" + OP["end"])
        if self.depth is not None:
            self.depth -= 1
        if rest:
            before, self.again = self.again, True
            self._steps([(u * one + x, u * other + y) for u in range(rest) for x, y in self.steps], tile)
            self.again = before
        if level:
            self._move(tile, -turns * turn * one, -turns * turn * other)

    def _pace(self) -> int:
        """How many bytes of the next panel each turn of the innermost loop fetches, all of it in a block's tiles; or 0.

        The first tile of a panel would wait for it: if weights are more than caches hold, and rows few, for a tenth of
        all the time.
        """
        plan, b, block = self.plan, self.plan.b, self.plan.block
        dense = vary(b.place, plan.panel) == self.panel_bytes // b.size
        if not dense or not self.loops or not 1 < block <= TILES or plan.generator.block:
            return 0
        if b.dtype.name != "float32" and plan.kind != "dot":
            return 0  # a tile has its own way to widen what it reads
        short, n = max(1, UNROLL // len(self.steps)), plan.summed[self.loops - 1]
        larger = block if plan.rows % plan.tiles == 0 else plan.rows % plan.tiles if plan.blocks == 1 else 0
        turns = larger * (n // self._turn(n)) + (block - larger) * (n // short)
        return self.panel_bytes // max(1, turns * prod(plan.summed[: self.loops - 1]))

    @property
    def panel_bytes(self) -> int:
        """Bytes of a panel."""
        return self.plan.length * PANEL * self.plan.apart

    def _fetch(self) -> None:
        """Load a byte of each cache line of a piece of the next panel."""
        if self.pace:
            touched = (get(self.following) + OP["i32.load8_u"] + memarg(n, 0) for n in range(0, self.pace, LINE))
            self.emit(b"".join(load + OP["drop"] for load in touched))
            self.emit(get(self.following) + i32(self.pace) + OP["i32.add"] + put(self.following))

    def _turn(self, n: int) -> int:
        """How many of n times the innermost steps are in one turn of their loop."""
        turn = max(1, UNROLL // len(self.steps))
        return turn if self.again or self.block or self.plan.kind == "dot" or n % (2 * turn) else 2 * turn

    def _move(self, tile: Tile, one: int, other: int) -> None:
        for pointer in dict.fromkeys(p for p, _ in tile.left) if one else ():
            self.emit(get(pointer) + i32(one * self.plan.a.size) + OP["i32.add"] + put(pointer))
        if other:
            self.emit(get(self.right) + i32(other * self.plan.b.size) + OP["i32.add"] + put(self.right))

    def _steps(self, steps: list[tuple[int, int]], tile: Tile) -> None:
        """Some steps of the sum, in a row."""
        b = self.plan.b
        for n, (one, other) in enumerate(steps):
            for (column, lanes), v in zip(tile.vectors, self.vectors, strict=False):
                offset = other * b.size + self.plan.apart * column
                if b.dtype.name == "float16":
                    self.emit(load_weights(self.f, get(self.right), offset) + put(v))
                    continue
                op = OP["v128.load" if lanes == 4 else "v128.load32_zero"]
                self.emit(get(self.right) + op + memarg(offset) + put(v))
            self.step(tile, n, one)

    def step(self, tile: Tile, n: int, one: int) -> None:
        """Step n of some: the element of a, `one` further, of each row, times the vectors of b."""
        sums, width = tile.sums[n % len(tile.sums)], len(tile.vectors)
        last, fused = len(tile.left) - 1, self.plan.kind == "fused"
        for r, (pointer, offset) in enumerate(tile.left):
            self.emit(self.repeated(get(pointer), offset + one * self.plan.a.size) + put(self.splat))
            for v, at in zip(self.vectors, sums[r * width : (r + 1) * width], strict=False):
                # the first factor is what Cranelift's sum replaces; after the last row, that may be b
                factors = (get(v), get(self.splat)) if self.block and fused and r == last else (get(self.splat), get(v))
                self.emit(self.added(*factors, get(at)) + put(at))
            if self.block and (r == last or r % self.block == self.block - 1):
                self._block_ends()

    def repeated(self, address: bytes, offset: int) -> bytes:
        """What is multiplied: four bytes of a in each lane.

        V8 makes `load32_splat` two instructions, of which one adds the offset to where memory begins: once for all rows
        if these have pointers of their own, but also once for two loops, and then the first stores the sum for the
        second. So that one loads a number and repeats it; in the first, the port that repeats would be the limit.
        """
        if self.again or self.block:
            return address + OP["f32.load"] + memarg(offset, 0) + OP["f32x4.splat"]
        return address + OP["v128.load32_splat"] + memarg(offset)

    def added(self, a: bytes, b: bytes, total: bytes) -> bytes:
        """total + a · b"""
        if self.plan.kind == "fused":
            return a + b + total + OP["f32x4.relaxed_madd"]
        multiply, add = MULTIPLY[self.kind]
        return total + a + b + OP[multiply] + OP[add]

    # Results

    def _finish(self, rows: int, tile: Tile, width: int) -> None:
        """Store what is made of the sums."""
        plan = self.plan
        self.enter(plan.lane, self.zero)
        for r in range(rows):
            found = tile.sums[0][r * len(tile.vectors) : (r + 1) * len(tile.vectors)]
            whole = [
                (c, at) for (c, lanes), at in zip(tile.vectors, found, strict=True) if lanes == 4 and c + 4 <= width
            ]
            self.lane = plan.lane
            if self.eights and self.arguments[plan.store.argument].name in BYTES:
                self._store_bytes(r, whole)
            else:
                for column, at in whole:
                    self._store(r, column, get(at))
            self.lane = None
            for (column, lanes), at in zip(tile.vectors, found, strict=True):
                for n in range(min(lanes, width - column)) if (column, at) not in whole else ():
                    take = OP["f32x4.extract_lane" if self.kind == "float32" else "i32x4.extract_lane"] + bytes([n])
                    self._store(r, column + n, get(at) + take)
        self.shift = {}
        self.emit(bytes(self.leave().code))

    def _store(self, row: int, column: int, total: bytes) -> None:
        self.shift = {self.plan.row: row, self.plan.lane: column}
        self.stored(total)

    def stored(self, total: bytes) -> None:
        """Store what is made of a sum, at the present shift."""
        self.set(self.plan.total, len(self.chain) - 1, total)
        store = self.plan.store
        self.store(store.argument, store.index, self.value(store.value, "v" if self.lane is not None else "s"))

    def _store_bytes(self, row: int, sums: list[tuple[int, int]]) -> None:
        """Two vectors of a row at a time."""
        store, values = self.plan.store, []
        for column, at in sums:
            self.shift = {self.plan.row: row, self.plan.lane: column}
            self.set(self.plan.total, len(self.chain) - 1, get(at))
            values.append(self.value(store.value, "v"))
        self.shift = {self.plan.row: row, self.plan.lane: sums[0][0]}
        self.store_together(store, values, self.saturate)
