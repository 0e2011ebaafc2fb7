"""Which loops a kernel gets: axes that run together become one, and the rest is said by a Schedule."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import product
from math import prod

from .. import scalar as k
from ..index import linear
from ..scalar import K, walk
from .kernel import Kernel, Store, vary
from .wasm_edges import ROWS, across_edges
from .wasm_rounding import last_byte, round_by_addition
from .wasm_rows import blind_maxima, lifted_quotients
from .wasm_strips import CACHE_LINE, in_strips

__all__ = ["FOLD", "Schedule", "extent", "loads_of", "reduces_of", "schedule", "simplified", "weigh"]

FOLD = {"sum": "add", "prod": "mul", "min": "min", "max": "max"}  # the instruction that a reduction repeats
PIECES = 32  # a range has about this many parts, if it can
CACHE = 256 * 1024  # bytes of one operand that should stay near while the rows go by
WORK, UNROLLED = 24, 4  # instructions, and vectors, of one turn of a loop without reductions
ACCUMULATORS = {True: 12, False: 10}  # that V8 keeps in registers, with relaxed SIMD or without
WIDE = ("float64", "int64")
WORTH_KEEPING = 6  # fewer instructions than this are rather repeated than stored and loaded
SMALL = 9  # turns of an inner loop that are written out


def extent(v: K) -> int:
    """How often a loop variable runs."""
    return int(v.value[1])


@dataclass
class Schedule:
    """How a kernel runs.

    axes    the loops over the grid, outermost first
    stores  what is done inside
    lane    the axis of which four elements are computed at a time, or None
    tiles   axes of which several elements (of the lane: groups of four) are computed together, sharing loads
    ranged  the first so many loops make up the range that threads share
    blocks  a loop over parts of the lane axis, of `block` elements each, that stands among the axes; or None
    padded  the last group may reach beyond the end: all that is touched there is room that buffers keep for it
    expanded  small sums have been written out
    inner   for each reduction's variables: the innermost loop, and whether its elements may be lanes
    blind   maxima that need not see NaN
    kept    what a reduction's loop stores on its way, in the place of the row's results, which are made of it
    """

    axes: tuple[K, ...]
    stores: tuple[Store, ...]
    lane: K | None = None
    tiles: dict[K, int] = field(default_factory=dict)
    ranged: int = 0
    blocks: K | None = None
    block: int = 0
    padded: bool = False
    expanded: bool = False
    inner: dict[tuple[K, ...], tuple[K, bool]] = field(default_factory=dict)
    blind: frozenset[K] = frozenset()
    kept: Store | None = None

    def count(self, axis: K) -> int:
        """How many tiles an axis has."""
        return -(-extent(axis) // self.tiles.get(axis, 1))

    @property
    def total(self) -> int:
        """The length of the range."""
        if not self.ranged:
            return extent(self.axes[0]) if self.axes else 1
        total = 1
        for axis in self.axes[: self.ranged]:
            total *= self.count(axis)
        return total


def loads_of(roots: Iterable[K]) -> list[K]:
    """All loads in some expressions."""
    return [n for n in walk(list(roots)) if n.op == "load"]


def reduces_of(roots: Iterable[K]) -> list[K]:
    """All reductions in some expressions, inner ones first."""
    return [n for n in walk(list(roots)) if n.op == "reduce"]


# Axes that run together


def _forms(roots: list[K]) -> list[dict[K, int]]:
    """How each index expression depends on the variables that stand in it alone."""
    forms: list[dict[K, int]] = []
    for node in walk(roots):
        if node.op == "linear":
            forms.append({t: c for t, c in linear(node)[1].items() if t.op == "var"})
        else:
            forms += [{a: 1} for a in node.args if a.op == "var"]
    return forms + [{r: 1} for r in roots if r.op == "var"]


def _merge(variables: tuple[K, ...], forms: list[dict[K, int]], table: dict[K, K]) -> tuple[K, ...]:
    """Neighbours (i, j) of which only i n + j is ever used become one; the table says what takes whose place."""
    zero = k.const(0, "index")
    out: list[K] = []
    for j in variables:
        if extent(j) == 1:
            table[j] = zero
            continue
        i = out[-1] if out else None
        if i is not None and all(form.get(i, 0) == extent(j) * form.get(j, 0) for form in forms):
            both = k.var(f"{i.value[0]}{j.value[0]}", extent(i) * extent(j))
            table[i], table[j] = zero, both
            for form in forms:
                if j in form:
                    form[both] = form[j]
            out[-1] = both
        else:
            out.append(j)
    return tuple(out)


def _resolved(table: dict[K, K]) -> dict[K, K]:
    def last(x: K) -> K:
        while x in table:
            x = table[x]
        return x

    return {v: last(x) for v, x in table.items()}


def simplified(kernel: Kernel) -> tuple[tuple[K, ...], tuple[Store, ...]]:
    """The kernel's axes and stores with as few loops as possible; reductions over nothing are constants."""
    roots = [r for s in kernel.stores for r in (s.index, s.value)]
    reduces = reduces_of(roots)
    tuples = {n.value[1] for n in reduces}
    if len(kernel.axes) < 2 and 1 not in kernel.extents and all(len(t) == 1 and extent(t[0]) > 1 for t in tuples):
        return kernel.axes, kernel.stores
    forms = _forms(roots)
    table: dict[K, K] = {}
    axes = _merge(kernel.axes, forms, table)
    seen: set[K] = set()
    fewer: dict[tuple[K, ...], tuple[K, ...]] = {}
    for variables in sorted(tuples, key=str):
        alone = not seen & set(variables)
        fewer[variables] = _merge(variables, forms, table) if alone else variables
        seen |= set(variables)
    if not table and all(extent(v) for t in tuples for v in t):
        return kernel.axes, kernel.stores
    return axes, tuple(
        Store(s.argument, _replaced(s.index, table, fewer), _replaced(s.value, table, fewer)) for s in kernel.stores
    )


def _together(stores: tuple[Store, ...]) -> tuple[Store, ...]:
    """Reductions over as many elements, none inside another, count them by one variable: so they can share a loop."""
    reduces = reduces_of(s.value for s in stores)
    if len(reduces) < 2:
        return stores
    level: dict[K, int] = {}  # how many reductions are inside each, one in the other
    first: dict[tuple[int, int, bool], K] = {}
    table: dict[K, K] = {}
    fewer: dict[tuple[K, ...], tuple[K, ...]] = {}
    for node in reduces:
        level[node] = 1 + max((level[n] for n in reduces_of(node.args)), default=0)
        variables = fewer[node.value[1]] = node.value[1]
        if len(variables) == 1 and variables[0] not in table:
            (v,) = variables
            along = all(_lane_step(x, v) in (0, 1) for x in loads_of(node.args))
            table[v] = first.setdefault((extent(v), level[node], along), v)
    table = {v: same for v, same in table.items() if v is not same}
    fewer |= {(v,): (same,) for v, same in table.items()}
    if not table:
        return stores
    return tuple(Store(s.argument, s.index, _replaced(s.value, table, fewer)) for s in stores)


def _replaced(root: K, table: dict[K, K], fewer: dict[tuple[K, ...], tuple[K, ...]]) -> K:
    """`substitute`, with fewer variables in reductions."""
    done = _resolved(table)
    for node in walk([root]):
        if node in done:
            continue
        args = tuple(done[a] for a in node.args)
        if node.op != "reduce":
            done[node] = k.rebuild(node, args)
            continue
        done[node] = _shorter(node, args[0], fewer)
    return done[root]


def _shorter(node: K, body: K, fewer: dict[tuple[K, ...], tuple[K, ...]]) -> K:
    kind, variables = node.value
    if 0 in map(extent, variables):
        return k.identity(kind, node.type)
    left = fewer[variables]
    return k.reduce(kind, left, body) if left else body


# Small sums


def expanded(plan: Schedule) -> None:
    """Sums of a few terms, side by side for neighbouring lanes, become plain additions: depthwise windows, pooling."""
    if not plan.axes or extent(plan.axes[-1]) < 4:
        return
    lane, table = plan.axes[-1], {}
    for node in reduces_of(s.value for s in plan.stores):
        body = node.args[0]
        nodes = walk([body])
        steps = [vary(n.args[0], lane) for n in nodes if n.op == "load"]
        if lane in body.free and len(nodes) <= 40 and all(s in (0, 1) for s in steps) and reduces_of([body]) == []:
            table[node] = _written_out(node)
    if any(node is not text for node, text in table.items()):
        plan.stores = tuple(Store(s.argument, s.index, k.substitute(s.value, table)) for s in plan.stores)
        plan.expanded = True


def _written_out(node: K) -> K:
    kind, variables = node.value
    few = 1
    last = len(variables)
    while last and few * extent(variables[last - 1]) <= SMALL:
        last -= 1
        few *= extent(variables[last])
    if last == len(variables):
        return node
    places = product(*(range(extent(v)) for v in variables[last:]))
    terms = [
        k.substitute(node.args[0], {v: k.const(n, "index") for v, n in zip(variables[last:], place, strict=True)})
        for place in places
    ]
    total = terms[0]
    for term in terms[1:]:
        total = k.binary(FOLD[kind], total, term)
    return k.reduce(kind, variables[:last], total) if last else total


# Rows whose parts are kept


def _choose_kept(plan: Schedule, reduces: list[K]) -> None:
    """What is costly and made for a whole row by a reduction is stored there, and the row's results are made of it.

    So softmax computes each exponential once: its sum's loop leaves it where the quotient goes.
    """
    lane, store = plan.lane, plan.stores[0]
    assert lane is not None
    found = [n for n in reduces if len(n.value[1]) == 1 and plan.inner[n.value[1]][1] and _spans(n, lane, store)]
    loads = loads_of([store.value])
    if len(plan.stores) > 1 or not found or any(x.value == store.argument or len(x.args) == 2 for x in loads):
        return
    if store.value.type != "float32" or vary(store.index, lane) != 1:
        return
    best, most = None, WORTH_KEEPING
    for node in found:
        (r,) = node.value[1]
        for part, in_row in _moved(store.value, lane, r, set(walk([node.args[0]]))):
            weight = weigh([part], lane)
            if part.type == "float32" and weight > most:
                best, most = (part, in_row, r), weight
    if best is not None:
        part, in_row, r = best
        again = k.load(store.argument, store.index, "float32")
        plan.stores = (Store(store.argument, store.index, k.substitute(store.value, {part: again})),)
        plan.kept = Store(store.argument, k.substitute(store.index, {lane: r}), in_row)


def _spans(node: K, lane: K, store: Store) -> bool:
    """Whether a reduction runs over the very row that is stored along the lane."""
    return extent(node.value[1][0]) == extent(lane) and store.index.free - {lane} <= node.free and lane not in node.free


def _moved(root: K, lane: K, r: K, inside: set[K]) -> list[tuple[K, K]]:
    """The parts of an expression that, with r for the lane, are inside a reduction too; each with that form."""
    done: dict[K, K] = {lane: r}
    for node in walk([root]):
        if node not in done:
            done[node] = k.rebuild(node, tuple(done[a] for a in node.args)) if lane in node.free else node
    return [(node, moved) for node, moved in done.items() if node is not lane and lane in node.free and moved in inside]


def weigh(roots: Iterable[K], variable: K) -> int:
    """How many instructions of some expressions depend on a variable, those of indices left out."""
    return sum(variable in n.free and n.type != "index" and n.op not in ("load", "reduce") for n in walk(list(roots)))


# What to vectorise and tile


def schedule(kernel: Kernel, relaxed: bool) -> Schedule:
    """The loops for a kernel."""
    axes, stores = in_strips(*across_edges(*simplified(kernel)))
    values = round_by_addition(lifted_quotients([_stored(s, kernel) for s in _together(stores)], relaxed))
    plan = Schedule(axes, tuple(Store(s.argument, s.index, v) for s, v in zip(stores, values, strict=True)))
    expanded(plan)
    stores = plan.stores
    values = [s.value for s in stores]
    nodes = walk([*values, *(s.index for s in stores)])
    simd = not any(n.type in WIDE for n in nodes) and not any(t.name in WIDE for t in kernel.arguments)
    reduces = [n for n in nodes if n.op == "reduce"]
    for node in reduces:
        variables = node.value[1]
        plan.inner[variables] = _innermost(variables, [n for n in reduces if n.value[1] == variables], simd)
    if simd and axes:
        _choose_lane(plan, reduces)
    if plan.lane is not None and kernel.arguments[stores[0].argument].name == "float32":
        _choose_kept(plan, reduces)
    if simd:
        plan.blind = blind_maxima(values)
        _choose_tiles(plan, reduces, relaxed)
    plan.padded = plan.lane is not None and len(axes) == 1 and not reduces and _is_padded(plan.lane, nodes, stores)
    _choose_blocks(plan, reduces)
    _choose_range(plan)
    return plan


def _stored(store: Store, kernel: Kernel) -> K:
    return last_byte(store.value) if kernel.arguments[store.argument].name in ("int8", "uint8") else store.value


def _innermost(variables: tuple[K, ...], reduces: list[K], simd: bool) -> tuple[K, bool]:
    """The variable along which most loads are contiguous, and whether no load is worse than that."""
    loads = loads_of(n.args[0] for n in reduces)
    best, most = variables[-1], -1
    for v in variables:
        steps = [_lane_step(x, v) for x in loads]
        if extent(v) >= 8 and simd and all(s in (0, 1) for s in steps) and sum(map(bool, steps)) >= max(most, 0):
            best, most = v, sum(map(bool, steps))
    return best, most >= 0


def _lane_step(load: K, v: K) -> int | None:
    """How far apart the elements of neighbouring lanes are; None where that differs, or a mask does."""
    if len(load.args) == 2 and v in load.args[1].free:
        return None
    return vary(load.args[0], v)


def _choose_lane(plan: Schedule, reduces: list[K]) -> None:
    """The last axis, or one along which stores are contiguous; none if reductions had better run along their own."""
    last = plan.axes[-1]
    near = [a for a in plan.axes if extent(a) >= 4 and all(vary(s.index, a) == 1 for s in plan.stores)]
    mine = [n for n in reduces if last in n.free]
    for node in mine:
        steps = [vary(x.args[0], last) for x in loads_of(node.args) if last in x.free]
        if any(s not in (0, 1) for s in steps) and plan.inner[node.value[1]][1]:
            return
    if near and (last in near or not mine):
        plan.lane = near[-1]
        plan.axes = (*(a for a in plan.axes if a is not plan.lane), plan.lane)
    elif mine and extent(last) >= 4:
        plan.lane = last  # few stores, one by one, for many sums


def _choose_tiles(plan: Schedule, reduces: list[K], relaxed: bool) -> None:
    """Rows and columns that share loads, as many as accumulators fit into registers."""
    lane = plan.lane
    if not plan.axes:
        return
    if not reduces:
        _choose_rows(plan)
        return
    mine = [n for n in reduces if (lane or plan.axes[-1]) in n.free]
    if lane is not None and not mine:
        plan.tiles[lane] = _side_by_side(plan, loads_of(s.value for s in plan.stores))
        return
    room = ACCUMULATORS[relaxed] // max(1, len(mine))
    if not mine or (lane is None and not all(plan.inner[n.value[1]][1] for n in mine)):
        return
    loads = loads_of(n.args[0] for n in mine)
    if lane is None:
        _choose_columns(plan, loads)
        return
    row = _row_axis(plan, loads, lane)
    vectors = extent(lane) // 4
    if row is None:
        plan.tiles[lane] = min(8, room, vectors)
        return
    if plan.expanded:  # rows of much code each
        room = max(2, room * 12 // max(12, len(walk([n.args[0] for n in mine]))))
    plan.tiles[lane] = min(2, vectors)
    plan.tiles[row] = max(1, min(extent(row), room // plan.tiles[lane]))
    if not plan.expanded and plan.tiles[row] == extent(row):  # few rows: more columns, whole cache lines if it can be
        plan.tiles[lane] = max(1, min(4, room // extent(row), vectors))


def _row_axis(plan: Schedule, loads: list[K], lane: K) -> K | None:
    """The axis whose elements share the vectors that are loaded."""
    best: K | None = None
    for axis in plan.axes:
        shares = any(lane in x.free and axis not in x.free for x in loads) and any(axis in x.free for x in loads)
        if axis is not lane and shares and (best is None or extent(axis) >= min(extent(best), 6)):
            best = axis
    return best


def _choose_rows(plan: Schedule) -> None:
    """Without reductions: rows that share what a written-out sum loads, or lie side by side in what is transposed."""
    lane = plan.lane
    loads = loads_of(s.value for s in plan.stores)
    if lane is None:
        return
    row = _row_axis(plan, loads, lane) if plan.expanded else None
    if row is None:
        plan.tiles[lane] = _side_by_side(plan, loads)
        if len(plan.axes) > 1 and 4 * plan.tiles[lane] == extent(lane) < 4 * UNROLLED:  # short rows: some together
            plan.tiles[plan.axes[-2]] = min(UNROLLED // plan.tiles[lane], extent(plan.axes[-2]))
    for axis in plan.axes[:-1]:
        if any(vary(x.args[0], axis) == 1 and vary(x.args[0], lane) not in (0, 1) for x in loads):
            row = axis
    if row is not None:
        plan.tiles[row] = min(4 if plan.expanded else CACHE_LINE, extent(row))


def _side_by_side(plan: Schedule, loads: list[K]) -> int:
    """How many vectors are computed each time round: more than one where counting takes as long as the work itself."""
    lane, values = plan.lane, [s.value for s in plan.stores]
    assert lane is not None
    near = all(_lane_step(x, lane) in (0, 1) for x in loads)
    if not near or any(v.type not in ("float32", "int32", "uint32") for v in values):
        return 1
    most = WORK if extent(lane) > 4 * UNROLLED else 2 * WORK  # a whole row needs no counting at all
    return max(1, min(UNROLLED, extent(lane) // 4, most // max(1, weigh(values, lane))))


def _choose_columns(plan: Schedule, loads: list[K]) -> None:
    """Lanes run along the sum: up to three by three rows and columns share what they load."""
    sharing = [a for a in plan.axes if any(a not in x.free for x in loads) and any(a in x.free for x in loads)]
    for axis in sharing[-2:]:
        plan.tiles[axis] = min(3 if len(sharing) > 1 else 4, extent(axis))


def _is_padded(lane: K, nodes: list[K], stores: tuple[Store, ...]) -> bool:
    """Whether every access is to the very element that the lane counts (or the same for all lanes)."""
    places = [n.args[0] for n in nodes if n.op == "load"] + [s.index for s in stores]
    return all(p is lane or lane not in p.free for p in places)


def _split_lane(plan: Schedule, place: int, block: int) -> None:
    """A loop over blocks of the lane axis, in front of the axis at `place`."""
    assert plan.lane is not None
    n = -(-extent(plan.lane) // block)
    if n > 1:
        plan.block, plan.blocks = block, k.var("block", n)
        plan.axes = (*plan.axes[:place], plan.blocks, *plan.axes[place:])


def _choose_blocks(plan: Schedule, reduces: list[K]) -> None:
    """Columns that all rows go through before the next: what is loaded for them stays in the cache."""
    rows = [n for n, axis in enumerate(plan.axes) if axis is not plan.lane and plan.tiles.get(axis, 1) > 1]
    if plan.lane is None or not rows or not reduces:
        return
    turns = max(prod(extent(v) for v in n.value[1]) for n in reduces)
    group = 4 * plan.tiles.get(plan.lane, 1)
    _split_lane(plan, 0, max(CACHE // (4 * turns) // group, 2) * group)


def _choose_range(plan: Schedule) -> None:
    """The leading loops, until there are enough parts to share."""
    if len(plan.axes) == 1 and plan.axes[0] is plan.lane:
        return
    lane, pieces = plan.lane, prod(plan.count(a) for a in plan.axes if a is not plan.lane)
    edges = any(len(x.args) == 2 and lane in x.args[1].free for x in loads_of(s.value for s in plan.stores))
    enough = ROWS if edges else PIECES
    if lane is not None and plan.blocks is None and plan.kept is None and pieces < enough:
        group = 4 * plan.tiles.get(lane, 1)
        wanted = -(-PIECES // pieces)
        _split_lane(plan, len(plan.axes) - 1, max(-(-extent(lane) // wanted // group) * group, 16 * group))
    pieces = 1
    for n, axis in enumerate(plan.axes):
        if axis is lane or pieces >= PIECES:
            break
        plan.ranged = n + 1
        pieces *= plan.count(axis)
