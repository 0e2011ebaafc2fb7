"""A contraction in register tiles as a WebAssembly function; wasm_contraction.py says what is computed.

    for each part of the range: (a product of the batch, a block of rows, a panel)
        for each tile of rows in the block:
            accumulators = 0
            for each step of the sum: two vectors of b; for each row: one element of a, and two products added
            for each row: what is done with the sums, in vectors along the columns; stored

Loads have constant offsets from pointers that move once per loop. One element of a is live at a time: V8 has 15 vector
registers for the rest.
"""

from collections.abc import Callable

from ..scalar import K
from .kernel import Kernel, cost
from .wasm_bytes import OP, get, i32, memarg, put, tee, v128
from .wasm_contraction import PANEL, Tiling, tiling, written_out
from .wasm_loops import WORTH, Compiled
from .wasm_schedule import extent
from .wasm_values import Values

__all__ = ["compile_contraction"]

UNROLL = 4  # steps of the sum in one turn of the loop
CHAINS = 8  # sums that wait for each other as little as the processor can make them
MULTIPLY = {"float32": ("f32x4.mul", "f32x4.add"), "int32": ("i32x4.mul", "i32x4.add")}
MULTIPLY["uint32"] = MULTIPLY["int32"]
Pointer = tuple[int, int]  # a local, and a constant to add to it


def compile_contraction(kernel: Kernel, *, relaxed: bool) -> Compiled | None:
    """The function of a kernel that is a contraction which tiles suit, or None."""
    found = tiling(kernel, relaxed=relaxed)
    if found is None:
        return None
    body = _Tiles(kernel, found).written()
    total, work = found.total_parts, cost(kernel)
    return Compiled(len(kernel.arguments) + 2, body, total, max(1, -(-WORTH * total // max(1, work))))


class _Tiles(Values):
    """The function of one kernel."""

    def __init__(self, kernel: Kernel, plan: Tiling) -> None:
        super().__init__(kernel.arguments, plan.relaxed)
        self.plan = plan
        self.jams = (plan.row, plan.lane)
        self.count([plan.store.value, plan.store.index])
        self.begin, self.end = len(kernel.arguments), len(kernel.arguments) + 1
        self.zero = self.f.local("i32")  # where the lanes of a panel begin to count
        self.kind = plan.total.type
        self.loops, self.steps = written_out(plan)
        self.sums: list[int] = []
        self.vector = [self.f.local("v128") for _ in range(3)]
        self.pointers: list[int] = []
        self.right = self.f.local("i32")

    def written(self) -> bytes:
        """The function's entry in the code section."""
        part = self.begin
        self._loop(None, part, 1, get(self.end), lambda: self._part(part))
        return self.f.body(bytes(self.chain[0].code))

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
        full, rest = divmod(plan.columns, PANEL)
        whole = self._branch(lambda: self._rows(block, PANEL)) if full else b""
        partial = self._branch(lambda: self._rows(block, rest)) if rest else b""
        if full and rest:
            whole = get(panel) + i32(full) + OP["i32.lt_u"] + OP["if"] + whole + OP["else"] + partial + OP["end"]
        self.emit(whole or partial)
        for _ in range(len(places) + 1):
            scope = self.leave()
            self.emit(bytes(scope.code))

    def _branch(self, body: Callable[[], None]) -> bytes:
        self.enter()
        body()
        return bytes(self.leave().code)

    def _rows(self, block: int, width: int) -> None:
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
            self._loop(plan.row, row, size, high, lambda: self._tile(size, width))

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
        self.emit(b"".join(v128(bytes(4)) + put(s) for s in self.sums[: count * copies]))
        left = self._left(rows)
        self._point(self.right, self.plan.b.argument, self.plan.b.place)
        self._over(0, left, vectors, count, copies)
        add = OP[MULTIPLY[self.kind][1]]
        for n in range(count):
            for c in range(1, copies):
                self.emit(get(self.sums[n]) + get(self.sums[n + c * count]) + add + put(self.sums[n]))
        self._finish(rows, vectors, width)

    def _point(self, local: int, argument: int, place: K) -> None:
        for term in self._nested(place):
            self.value(term, "s")
        address, offset = self.address(argument, place)
        self.emit(address + (i32(offset) + OP["i32.add"] if offset else b"") + put(local))

    def _left(self, rows: int) -> list[Pointer]:
        """Where each row of a begins: constant distances from one pointer, or from pointers of their own."""
        a, found, known = self.plan.a, [], dict[bytes, int]()
        for n in range(rows):
            self.shift = {self.plan.row: n}
            for term in self._nested(a.place):
                self.value(term, "s")
            address, offset = self.address(a.argument, a.place)
            if address not in known:
                if len(self.pointers) <= len(known):
                    self.pointers.append(self.f.local("i32"))
                known[address] = self.pointers[len(known)]
                self.emit(address + put(known[address]))
            found.append((known[address], offset))
        self.shift = {}
        return found

    # Sums

    def _over(self, level: int, left: list[Pointer], vectors: list[tuple[int, int]], count: int, copies: int) -> None:
        """The loops over the variables of the sum from `level` on. Pointers are afterwards where they were before."""
        plan = self.plan
        if level == self.loops:
            self._steps(self.steps, left, vectors, count, copies)
            return
        n, one, other = extent(plan.summed[level]), plan.a.steps[level], plan.b.steps[level]
        innermost = level == self.loops - 1
        turn = max(1, UNROLL // len(self.steps)) if innermost else 1
        turns, rest = divmod(n, turn)
        local = self.f.local("i32")
        self.emit(i32(turns) + put(local) + OP["loop"])
        if innermost:
            steps = [(u * one + x, u * other + y) for u in range(turn) for x, y in self.steps]
            self._steps(steps, left, vectors, count, copies)
        else:
            self._over(level + 1, left, vectors, count, copies)
        self._move(left, turn * one, turn * other)
        self.emit(get(local) + i32(1) + OP["i32.sub"] + tee(local) + OP["br_if"] + b"\0" + OP["end"])
        if rest:
            steps = [(u * one + x, u * other + y) for u in range(rest) for x, y in self.steps]
            self._steps(steps, left, vectors, count, copies)
        if level:
            self._move(left, -turns * turn * one, -turns * turn * other)

    def _move(self, left: list[Pointer], one: int, other: int) -> None:
        for pointer in dict.fromkeys(p for p, _ in left) if one else ():
            self.emit(get(pointer) + i32(4 * one) + OP["i32.add"] + put(pointer))
        if other:
            self.emit(get(self.right) + i32(4 * other) + OP["i32.add"] + put(self.right))

    def _steps(
        self, steps: list[tuple[int, int]], left: list[Pointer], vectors: list[tuple[int, int]], count: int, copies: int
    ) -> None:
        """Some steps of the sum, in a row."""
        code = bytearray()
        splat = self.vector[2]
        for n, (one, other) in enumerate(steps):
            sums = self.sums[count * (n % copies) :]
            for v, (column, lanes) in enumerate(vectors):
                op = OP["v128.load" if lanes == 4 else "v128.load32_zero"]
                code += get(self.right) + op + memarg(4 * (other + column), 2) + put(self._right_vector(v))
            for r, (pointer, offset) in enumerate(left):
                code += get(pointer) + OP["v128.load32_splat"] + memarg(offset + 4 * one, 2) + put(splat)
                for v in range(len(vectors)):
                    at = sums[r * len(vectors) + v]
                    code += self._added(get(splat), get(self._right_vector(v)), at)
        self.emit(bytes(code))

    def _right_vector(self, n: int) -> int:
        while len(self.vector) < n + 2:
            self.vector.append(self.f.local("v128"))
        return self.vector[n if n < 2 else n + 1]

    def _added(self, a: bytes, b: bytes, at: int) -> bytes:
        if self.kind == "float32" and self.relaxed:
            return a + b + get(at) + OP["f32x4.relaxed_madd"] + put(at)
        multiply, add = MULTIPLY[self.kind]
        return get(at) + a + b + OP[multiply] + OP[add] + put(at)

    # Results

    def _finish(self, rows: int, vectors: list[tuple[int, int]], width: int) -> None:
        """Store what is made of the sums."""
        plan = self.plan
        self.enter(plan.lane, self.zero)
        for r in range(rows):
            for v, (column, lanes) in enumerate(vectors):
                at = self.sums[r * len(vectors) + v]
                if lanes == 4 and column + 4 <= width:
                    self.lane = plan.lane
                    self._store(r, column, get(at))
                    self.lane = None
                    continue
                for n in range(min(lanes, width - column)):
                    take = OP["f32x4.extract_lane" if self.kind == "float32" else "i32x4.extract_lane"] + bytes([n])
                    self._store(r, column + n, get(at) + take)
        self.shift = {}
        self.emit(bytes(self.leave().code))

    def _store(self, row: int, column: int, total: bytes) -> None:
        self.shift = {self.plan.row: row, self.plan.lane: column}
        self.set(self.plan.total, len(self.chain) - 1, total)
        store = self.plan.store
        self.store(store.argument, store.index, self.value(store.value, "v" if self.lane is not None else "s"))
