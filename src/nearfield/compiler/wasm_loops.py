"""A kernel as one WebAssembly function: (address of each argument, begin, end) → (), for a part of its range."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product

from .. import scalar as k
from ..scalar import K, walk
from .kernel import Kernel, Store, cost, vary
from .wasm import VALUE
from .wasm_bytes import OP, get, i32, put, tee
from .wasm_fold import Fold, Member
from .wasm_masks import inside, interior, masks_of
from .wasm_schedule import Schedule, extent, schedule
from .wasm_values import Values

__all__ = ["Compiled", "compile_kernel"]

COPIED = 512  # bytes side by side from which on a call to copy them takes less time than a loop
WORTH = 1 << 17  # operations that a piece of the range should hold: some microseconds, as a barrier takes


@dataclass(frozen=True, slots=True)
class Compiled:
    """A kernel's function, and the range that steps call it for: 0 … total, cut at multiples of grain."""

    parameters: int
    body: bytes
    total: int
    grain: int


def compile_kernel(kernel: Kernel, *, relaxed: bool) -> Compiled:
    """The function of a kernel."""
    plan = schedule(kernel, relaxed)
    loops = Loops(kernel, plan, relaxed)
    body = loops.written()
    unit = 1 if plan.ranged or plan.lane is None else 4 * plan.tiles.get(plan.lane, 1)
    work = max(1, cost(kernel))
    total = plan.total
    # of a single row, each thread would store all kept parts, upon results of others
    alone = work < 4 * WORTH or (plan.kept is not None and not plan.ranged)
    grain = total if alone else -(-WORTH * total // work)
    return Compiled(len(kernel.arguments) + 2, body, total, max(unit, -(-grain // unit) * unit))


class Loops(Values):
    """The loop nest of one kernel, as its Schedule says."""

    def __init__(self, kernel: Kernel, plan: Schedule, relaxed: bool) -> None:
        super().__init__(kernel.arguments, relaxed)
        self.plan = plan
        inner = {v for v, _ in plan.inner.values()}
        self.jams = (
            *([plan.lane] if plan.lane is not None else []),
            *(a for a in plan.tiles if a is not plan.lane),
            *inner,
        )
        roots = [s.value for s in plan.stores]
        self.count([*roots, *(s.index for s in plan.stores)])
        if plan.kept is not None:
            self._counts[plan.kept.value] += 1
        self.stores = plan.stores
        self.share = plan.expanded
        self._reduces = [n for n in walk(roots) if n.op == "reduce"]
        self._inside = {n: [m for m in walk([n.args[0]]) if m.op == "reduce"] for n in self._reduces}
        self.low = self.high = 0  # locals: the present block of the lane axis
        self.begin, self.end = len(kernel.arguments), len(kernel.arguments) + 1

    def written(self) -> bytes:
        """The function's entry in the code section."""
        plan = self.plan
        if plan.ranged:
            self._parts()
        elif plan.axes and plan.axes[0] is plan.lane and len(plan.axes) == 1:
            self._along_lane(0, self.begin, self.end)
        else:
            self.enter()
            self._nest(0)
            scope = self.leave()
            self.emit(get(self.begin) + get(self.end) + OP["i32.lt_u"] + OP["if"] + scope.code + OP["end"])
        return self.f.body(bytes(self.chain[0].code))

    # Loops over the grid

    def loop(self, var: K | None, local: int, step: int, limit: int | bytes, body: Callable[[], None]) -> None:
        """Run body while the variable, whose local is set, is below the limit (a number: it is so at first)."""
        self.enter(var, local, step)
        body()
        scope = self.leave()
        bound = i32(limit) if isinstance(limit, int) else limit
        again = get(local) + i32(step) + OP["i32.add"] + tee(local) + bound + OP["i32.lt_s"] + OP["br_if"] + b"\0"
        code = scope.init + OP["loop"] + scope.code + scope.moves + again + OP["end"]
        if not isinstance(limit, int):
            code[:0] = get(local) + bound + OP["i32.lt_s"] + OP["if"]
            code += OP["end"]
        self.emit(bytes(code))

    def counter(self, start: bytes) -> int:
        """A new local that holds a number from here on."""
        local = self.f.local("i32")
        self.emit(start + put(local))
        return local

    def _parts(self) -> None:
        """The range, of which each number stands for one combination of the leading loops."""
        plan, part = self.plan, self.begin
        leading = plan.axes[: plan.ranged]
        plain = len(leading) == 1 and leading[0] not in plan.tiles and leading[0] is not plan.blocks

        places, stride = {leading[0]: part}, 1
        for axis in reversed(leading) if len(leading) > 1 else ():
            code = get(part)
            code += i32(stride) + OP["i32.div_u"] if stride > 1 else b""
            code += i32(plan.count(axis)) + OP["i32.rem_u"] if axis is not leading[0] else b""
            places[axis] = self.counter(code)
            stride *= plan.count(axis)

        def body() -> None:
            if plain:
                self._nest(1)
                return
            self._part(0, places)
            if len(leading) > 1:
                self.emit(self._next([(places[axis], plan.count(axis)) for axis in leading]))

        self.loop(leading[0] if plain else None, part, 1, get(self.end), body)

    def _next(self, places: Sequence[tuple[int, int]]) -> bytes:
        """The next combination of some counters, each with its limit; the last one runs fastest."""
        *slower, (local, limit) = places
        code = get(local) + i32(1) + OP["i32.add"] + tee(local)
        if not slower:
            return code[: -len(tee(local))] + put(local)
        return code + i32(limit) + OP["i32.eq"] + OP["if"] + i32(0) + put(local) + self._next(slower) + OP["end"]

    def _part(self, level: int, places: dict[K, int]) -> None:
        """The leading loops' bodies for one number of the range."""
        plan = self.plan
        if level == plan.ranged:
            self._nest(level)
            return
        axis = plan.axes[level]
        place = places[axis]
        if axis is plan.blocks:
            self._block(place)
            self._part(level + 1, places)
            return
        full, rest = divmod(extent(axis), plan.tiles.get(axis, 1))
        first = self.counter(get(place) + i32(plan.tiles.get(axis, 1)) + OP["i32.mul"]) if axis in plan.tiles else place
        whole = (
            self._branch(axis, first, plan.tiles.get(axis, 1), lambda: self._part(level + 1, places)) if full else b""
        )
        if not rest:
            self.emit(whole)
            return
        partial = self._branch(axis, first, rest, lambda: self._part(level + 1, places))
        if not full:
            self.emit(partial)
            return
        self.emit(get(place) + i32(full) + OP["i32.lt_u"] + OP["if"] + whole + OP["else"] + partial + OP["end"])

    def _all_blocks(self, level: int) -> None:
        local = self.counter(i32(0))

        def body() -> None:
            self._block(local)
            self._nest(level + 1)

        self.loop(None, local, 1, self.plan.count(self.plan.axes[level]), body)

    def _block(self, place: int) -> None:
        """Where a block of the lane axis begins and ends."""
        plan = self.plan
        assert plan.lane is not None
        self.low = self.counter(get(place) + i32(plan.block) + OP["i32.mul"])
        end = get(self.low) + i32(plan.block) + OP["i32.add"]
        last = i32(extent(plan.lane))
        self.high = self.counter(end + last + end + last + OP["i32.lt_s"] + OP["select"])

    def _branch(self, axis: K, local: int, copies: int, body: Callable[[], None]) -> bytes:
        """Code for one tile of an axis."""
        self.enter(axis, local)
        self.copies[axis] = copies
        body()
        del self.copies[axis]
        return bytes(self.leave().code)

    def _nest(self, level: int) -> None:
        """The remaining loops, and the stores inside."""
        plan = self.plan
        if level == len(plan.axes):
            self._stores()
            return
        axis = plan.axes[level]
        if axis is plan.lane:
            start = get(self.low) if plan.blocks is not None else i32(0)
            self._along_lane(level, self.counter(start), self.high if plan.blocks is not None else None)
            return
        if axis is plan.blocks:
            self._all_blocks(level)
            return
        whole = self.stores
        low, high = (
            interior(axis, [s.value for s in whole]) if masks_of([s.value for s in whole]) else (0, extent(axis))
        )
        if self._reduces or (low, high) == (0, 0):
            low, high = 0, extent(axis)
        else:
            self._tiles(level, 0, low, 1)
            values = inside(axis, [s.value for s in whole])
            self.count(values)
            self.stores = tuple(Store(s.argument, s.index, v) for s, v in zip(whole, values, strict=True))
        self._tiles(level, low, high, plan.tiles.get(axis, 1))
        self.stores = whole
        self._tiles(level, high, extent(axis), 1)

    def _tiles(self, level: int, low: int, high: int, step: int) -> None:
        """A part of an axis, some elements at a time, and what is left of it."""
        axis = self.plan.axes[level]
        full = low + (high - low) // step * step
        local = self.counter(i32(low)) if low < high else 0
        for copies, limit in ((step if full > low else 0, full), (high - full, high)):
            if copies:
                self.copies[axis] = copies
                self.loop(axis, local, copies, limit - copies + 1, lambda: self._nest(level + 1))
        self.copies.pop(axis, None)

    def _along_lane(self, level: int, low: int, high: int | None) -> None:
        """The lane axis up to the local `high` (None: all); where masks are surely true along it, without these."""
        plan, whole = self.plan, self.stores
        lane = plan.lane
        assert lane is not None
        values = [s.value for s in whole]
        cut = any(lane in mask.free for mask in masks_of(values).values())
        cut = cut and high is None and not self._reduces and not plan.padded
        first, last = interior(lane, values) if cut else (0, 0)
        self._stretch(level, low, 0, first or (0 if last else extent(lane)), high)
        if last:
            values = inside(lane, values)
            self.count(values)
            self.stores = tuple(Store(s.argument, s.index, v) for s, v in zip(whole, values, strict=True))
            self._stretch(level, low, first, last, None)
            self.stores = whole
            self._stretch(level, low, last, extent(lane), None)

    def _stretch(self, level: int, low: int, first: int, last: int, high: int | None) -> None:
        """A part of the lane axis: several vectors at a time, then one, then single ones.

        low   a local that counts from `first`, and is `last` (or what the local `high` is) afterwards
        """
        plan = self.plan
        lane = plan.lane
        assert lane is not None
        n, group = last - first, 4 * plan.tiles.get(lane, 1)
        if not n or self._copied(lane, low, i32(last) if high is None else get(high), n):
            return
        rest = n % group if n >= group else n
        passes = [group] if n >= group else []
        passes += [4] if rest >= (1 if plan.padded else 4) else []
        passes += [1] if n % 4 and not plan.padded else []
        for step in passes:
            self.lane = lane if step > 1 else None
            self.copies[lane] = max(1, step // 4)
            reach = 0 if plan.padded and step == 4 else step - 1
            limit = last - reach if high is None else get(high) + (i32(reach) + OP["i32.sub"] if reach else b"")
            self.loop(lane, low, step, limit, lambda: self._nest(level + 1))
        self.lane = None
        del self.copies[lane]

    def _copied(self, lane: K, low: int, limit: bytes, n: int) -> bool:
        """Elements that move side by side and as they are: by the engine's own copy, in vectors of its processor.

        Where a mask says so for all of them, they are zeros.
        """
        (store, *others), rows = self.stores, max(self.copies.values(), default=1)
        load = store.value
        if others or rows > 1 or load.op != "load" or vary(load.args[0], lane) != 1:
            return False
        if vary(store.index, lane) != 1 or self.arguments[load.value] is not self.arguments[store.argument]:
            return False
        size = self.arguments[load.value].itemsize
        masks = load.args[1:]
        if min(n, self.plan.block or n) * size < COPIED or any(lane in m.free for m in masks):
            return False
        self.enter(lane, low)
        places = []
        for argument, index in ((store.argument, store.index), (load.value, load.args[0])):
            for term in self._nested(index):
                self.value(term, "s")
            address, offset = self.address(argument, index)
            places.append(address + i32(offset) + OP["i32.add"] if offset else address)
        count = limit + get(low) + OP["i32.sub"] + i32(size) + OP["i32.mul"]
        code = b"".join(places) + count + OP["memory.copy"]
        for mask in masks:
            zeros = places[0] + i32(0) + count + OP["memory.fill"]
            code = self.value(mask, "s") + OP["if"] + code + OP["else"] + zeros + OP["end"]
        self.emit(code + limit + put(low))
        self.emit(bytes(self.leave().code))
        return True

    def _combinations(self) -> list[dict[K, int]]:
        """The shifts of all copies that are written side by side."""
        ranges = [range(0, n * 4, 4) if v is self.plan.lane else range(n) for v, n in self.copies.items()]
        return [dict(zip(self.copies, shifts, strict=True)) for shifts in product(*ranges)]

    def _stores(self) -> None:
        values = [s.value for s in self.stores]
        masks = set(masks_of(values).values())
        if masks and not self._reduces and (self.plan.expanded or len(masks) == 1):
            self.guarded(values, self._combinations(), self._stored_values)
        else:
            self._stored_values({v: v for v in values})
        self.shift = {}

    def _stored_values(self, texts: dict[K, K]) -> None:
        for shift in self._combinations():
            self.shift = shift
            codes = []
            for s in self.stores:
                mode = "v" if self.is_vector(s.index) else "s"
                codes.append(self.value(texts[s.value], mode))
                if len(self.stores) > 1:  # all loads come before the first store
                    local = self.f.local("v128" if mode == "v" else VALUE[s.value.type])
                    self.emit(codes[-1] + put(local))
                    codes[-1] = get(local)
            for s, code in zip(self.stores, codes, strict=True):
                self.store(s.argument, s.index, code)

    # Masks

    def guarded(self, roots: list[K], shifts: list[dict[K, int]], write: Callable[[dict[K, K]], None]) -> None:
        """Write code twice if loads have masks that are known here: without these, for when all are true, and as it is.

        write  takes what stands for each root
        """
        masked = masks_of(roots)
        masked = {n: m for n, m in masked.items() if self.bound(m) and not self.is_vector(m)}
        if not masked or any(n.op == "reduce" for n in walk(roots)):  # another reduction inside is planned as it is
            write({r: r for r in roots})
            return
        ghost = k.var(f"ghost{len(self.chain)}", 1)  # keeps loads, and what is made of them, inside their branch
        free = {n: k.load(n.value, n.args[0] + ghost, n.type) for n in masked}
        free |= dict.fromkeys(masked.values(), k.const(True, "bool"))
        bound = {n: k.load(n.value, n.args[0] + ghost, n.type, m) for n, m in masked.items()}
        condition = self._all_true(list(dict.fromkeys(masked.values())), shifts)
        branches = []
        for table in (free, bound):
            texts = {r: k.substitute(r, table) for r in roots}
            self.count(list(texts.values()))
            self.enter(ghost)
            write(texts)
            branches.append(self.leave().code)
        self.emit(condition + OP["if"] + branches[0] + OP["else"] + branches[1] + OP["end"])

    def _all_true(self, masks: list[K], shifts: list[dict[K, int]]) -> bytes:
        parts: dict[bytes, int] = {}
        for shift in shifts:
            self.shift = shift
            parts |= {self.value(m, "s"): self.home(m) for m in masks}
        code = b""
        for depth in sorted(set(parts.values())):  # what is known in an outer loop is joined there
            some = [part for part, d in parts.items() if d == depth]
            local = self.f.local("i32")
            code = code + b"".join(some) + OP["i32.and"] * (len(some) - (not code))
            self.chain[depth].code += code + put(local)
            code = get(local)
        return code

    # Reductions

    def reduce(self, node: K) -> None:
        """A reduction, its copies and others over the same variables, in one loop nest as far out as they may be."""
        home = self.home(node)
        lane, shift = self.lane, self.shift
        suspended = self.chain[home + 1 :]
        del self.chain[home + 1 :]
        if not self.is_vector(node):
            self.lane = None
        members = self._members(node, home)
        for member, at in members:  # what is reduced before, outside of these loops
            for before in self._inside[member]:
                if self.bound(before) and not before.free & set(node.value[1]):
                    self.shift = at
                    self.value(before)
        Fold(self, node, members).write()
        self.lane, self.shift = lane, shift
        self.chain += suspended

    def _members(self, node: K, home: int) -> list[Member]:
        found: list[Member] = []
        seen = set()
        variables = node.value[1]
        for other in self._reduces:
            alike = other.value[1] == variables and other not in self._inside[node] and node not in self._inside[other]
            if (
                not alike
                or not self.bound(other)
                or self.home(other) != home
                or (self.lane in other.free) != (self.lane is not None)
            ):
                continue
            for shift in self._combinations() or [{}]:
                self.shift = {v: shift.get(v, 0) for v in self.moved(other)}
                key = self.key(other)
                if key not in seen and (key, "v" if self.is_vector(other) else "s") not in self._known:
                    seen.add(key)
                    found.append((other, dict(self.shift)))
        return found
