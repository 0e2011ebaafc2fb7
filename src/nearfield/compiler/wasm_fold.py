"""Reductions as WebAssembly: one loop nest for all that run over the same variables, with accumulators in locals."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from .. import scalar as k
from ..scalar import K, walk
from .kernel import vary
from .wasm import VALUE, spell, spell_lanes
from .wasm_bytes import OP, get, i32, put
from .wasm_masks import inside, interior, masks_of
from .wasm_schedule import FOLD, extent, weigh
from .wasm_values import BOUND, REVERSED

if TYPE_CHECKING:
    from .wasm_loops import Loops

__all__ = ["Fold", "Member"]

LONG = 512  # elements of rows that no prefetcher has loaded when they begin: it stops at the end of a page

SWAPPED = OP["i8x16.shuffle"] + bytes([8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7])
Member = tuple[K, dict[K, int]]  # a reduction and the shifts of one of its copies


class Fold:
    """One loop nest that computes several reductions over the same variables."""

    def __init__(self, loops: "Loops", node: K, members: list[Member]) -> None:
        self.loops = loops
        self.members = members
        self.variables: tuple[K, ...] = node.value[1]
        self.inner, even = loops.plan.inner[self.variables]
        self.lanes = even and loops.lane is None
        self.vector = loops.lane is not None or self.lanes
        self.kept = loops.plan.kept if self._keeps() else None
        self.next: list[K] = []  # loads of the next row that bring it near, while there is work enough to wait with
        copies = min(self._copies(), extent(self.inner) // 4) if self.lanes else 1
        self.chains = [[self._accumulator(n, self.vector) for _ in range(copies)] for n, _ in members]
        self.bodies: dict[K, K] = {}
        self.tails = [self._accumulator(n, False) for n, _ in members] if self.lanes and extent(self.inner) % 4 else []

    def _keeps(self) -> bool:
        """Whether this is the loop that stores parts of the row: a sum of such sums has them in its terms, too."""
        kept = self.loops.plan.kept
        if kept is None or self.inner not in kept.value.free:
            return False
        return any(kept.value in walk([n.args[0]]) for n, _ in self.members)

    def _copies(self) -> int:
        """Accumulators of each reduction: enough to hide how long an addition takes, few where bodies are long."""
        weight = max(1, weigh({n.args[0] for n, _ in self.members}, self.inner))
        return max(1, min(-(-4 // len(self.members)), 16 // weight))

    def _accumulator(self, node: K, vector: bool) -> int:
        start = k.identity(node.value[0], node.type)
        local = self.loops.f.local("v128" if vector else VALUE[node.type])
        self.loops.emit(self.loops.value(start, "v" if vector else "s") + put(local))
        return local

    def write(self) -> None:
        """The loops, and after them the results."""
        loops = self.loops
        home = len(loops.chain) - 1
        row = loops.chain[-1].var
        if self.kept is not None and self.lanes and row is not None and extent(self.inner) >= LONG:
            self._look_ahead(row)
        self._around([v for v in self.variables if v is not self.inner])
        if self.next:
            loops.emit(bytes(loops.leave().code))
        for n, (node, shift) in enumerate(self.members):
            loops.shift = shift
            result = self.chains[n][0]
            for other in self.chains[n][1:]:
                self._join(node, result, get(other), self.vector)
            if self.lanes:
                result = self._across(node, result)
                if self.tails:
                    self._join(node, result, get(self.tails[n]), False)
            loops.set(node, home, get(result))

    def _look_ahead(self, row: K) -> None:
        """A scope with a variable that is 1, or 0 in the last row: what is loaded in this row, and in the next one."""
        loops = self.loops
        loads = [n for n in walk([n.args[0] for n, _ in self.members]) if n.op == "load" and len(n.args) == 1]
        steps = {n: vary(n.args[0], row) for n in loads if vary(n.args[0], self.inner) == 1}
        last = i32(extent(row) - 1)
        ahead = k.var("ahead", 2)
        self.next = [k.load(n.value, n.args[0] + ahead * step, n.type) for n, step in steps.items() if step]
        if self.next:
            loops.enter(ahead, loops.counter(get(loops.chain[-1].local) + last + OP["i32.lt_s"]))

    def _around(self, outer: Sequence[K]) -> None:
        if not outer:
            self._innermost()
            return
        loops = self.loops
        local = loops.counter(i32(0))
        loops.loop(outer[0], local, 1, extent(outer[0]), lambda: self._around(outer[1:]))

    def _innermost(self) -> None:
        """The innermost loop; of one with masks first the beginning, then what is surely inside, then the end."""
        bodies, n = list(dict.fromkeys(node.args[0] for node, _ in self.members)), extent(self.inner)
        # a reduction inside may run over the same variable, and has all of its own masks
        whole = self.lanes or not masks_of(bodies) or any(x.op == "reduce" for x in walk(bodies))
        low, high = (0, n) if whole else interior(self.inner, bodies)
        if (low, high) in ((0, 0), (0, n)):
            self._guarded(bodies, bodies, 0, n)
            return
        self._guarded(bodies, bodies, 0, low)
        self._guarded(bodies, inside(self.inner, bodies), low, high)
        self._guarded(bodies, bodies, high, n)

    def _guarded(self, bodies: list[K], texts: list[K], start: int, stop: int) -> None:
        if start == stop:
            return

        def write(table: dict[K, K]) -> None:
            self._folded({body: table[text] for body, text in zip(bodies, texts, strict=True)}, start, stop)

        self.loops.count(texts)
        self.loops.guarded(texts, [shift for _, shift in self.members], write)

    def _folded(self, bodies: dict[K, K], start: int, stop: int) -> None:
        """A part of the innermost loop; `bodies` says what stands for each reduction's body."""
        n = stop - start
        slow = any(len(x.args) == 2 for b in bodies.values() for x in walk([b]) if x.op == "load")
        self.bodies = bodies
        if not self.lanes:
            unroll = n if n <= 4 and not slow else 1
            local = self._passes(0, n // unroll, unroll, 1, self.chains, start)
            self._passes(local, 1, n % unroll, 1, self.chains, stop - n % unroll)
            return
        copies = len(self.chains[0])
        self.loops.lane = self.inner
        local = self._passes(0, n // (4 * copies), copies, 4, self.chains)
        done = n // (4 * copies) * 4 * copies
        local = self._passes(local, (n - done) // 4, 1, 4, self.chains, done)
        self.loops.lane = None
        self._passes(local, 1, n % 4, 1, [[t] for t in self.tails], n - n % 4)

    def _passes(self, local: int, times: int, copies: int, width: int, chains: list[list[int]], start: int = 0) -> int:
        """`times` rounds of so many unrolled copies of `width` elements; `local` counts them (0: make one)."""
        loops = self.loops
        if not times or not copies:
            return local
        local = local or loops.counter(i32(start))
        step = width * copies

        def body() -> None:
            for c in range(copies):
                for n, (node, shift) in enumerate(self.members):
                    loops.shift = {**shift, self.inner: c * width}
                    self._add(node, chains[n][c % len(chains[n])])
                if self.kept is not None:
                    loops.store(self.kept.argument, self.kept.index, loops.value(self.kept.value))
            if width > 1:
                loops.shift = {}
                for load in self.next:
                    loops.touch(load)

        loops.loop(self.inner, local, step, start + (times - 1) * step + 1, body)
        return local

    def _add(self, node: K, accumulator: int) -> None:
        loops, body = self.loops, self.bodies[node.args[0]]
        vector = loops.lane is not None
        mode = "v" if vector else "s"
        if (
            vector
            and loops.relaxed
            and node.value[0] == "sum"
            and body.op == "mul"
            and body.type == "float32"
            and loops._counts.get(body, 1) < 2
        ):
            a, b = (loops.value(x, "v") for x in body.args)
            loops.emit(a + b + get(accumulator) + OP["f32x4.relaxed_madd"] + put(accumulator))
            return
        self._join(node, accumulator, loops.value(body, mode), vector)

    def _join(self, node: K, accumulator: int, value: bytes, vector: bool) -> None:
        args = [get(accumulator), value]
        op, f = FOLD[node.value[0]], self.loops.f
        kind = "int32" if node.type == "index" else node.type
        if vector and node in self.loops.plan.blind:
            self.loops.emit(b"".join(args) + BOUND[op] + put(accumulator))  # which keeps the accumulator at NaN
            return
        code = spell_lanes(f, op, [kind, kind], kind, args) if vector else spell(f, op, kind, args)
        self.loops.emit(code + put(accumulator))

    def _across(self, node: K, vector: int) -> int:
        """The four lanes folded into one."""
        loops = self.loops
        for order in (SWAPPED, REVERSED):
            self._join(node, vector, get(vector) + get(vector) + order, True)
        local = loops.f.local(VALUE[node.type])
        take = OP["f32x4.extract_lane" if node.type == "float32" else "i32x4.extract_lane"] + b"\0"
        truth = i32(1) + OP["i32.and"] if node.type == "bool" else b""
        loops.emit(get(vector) + take + truth + put(local))
        return local
