"""Kernel -> WGSL: whole rows, each by a few threads together: sums of rows, softmax, norms.

The threads share out a row four neighbouring elements at a time. Short rows stay in registers, so that they are read
once, whatever is made of them; long ones are gone through in loops. What the threads found is folded in workgroup
memory.
"""

from dataclasses import dataclass
from math import prod

from .. import scalar as k
from ..index import unflatten
from ..scalar import K, identity, walk
from .kernel import Kernel, Store, vary
from .wgsl import TYPES, Scope, Writer
from .wgsl_axes import bound, collapsed, replaced
from .wgsl_points import grid, unpack
from .wgsl_stores import stores, whole
from .wgsl_wide import VECTOR, most_lanes, widths

__all__ = ["spell_rows"]

GROUP = 64  # threads of a workgroup, if a row has no more: the smaller they are, the less the last of them wait alone
FEWEST, MOST = 4, 256  # threads for a row
KEPT = 8  # vectors of a row that a thread keeps in registers: fewer, and it waits too often
STORED = 4  # where as many are stored again and no more than GROUP threads share the row: stores hide what it waits for
FEW = 512  # rows below which each gets as many threads as it can use
SMALL = 4096  # results for which a thread each is too few to hide how long a load takes
EACH = 4  # steps of a loop that are written one after the other
ROOM = 16384  # bytes of workgroup memory that every device has
NARROW = 8  # values that each thread folds by itself in workgroup memory


def _row_axes(kernel: Kernel) -> int | None:
    """How many leading axes number the rows, if all reductions are long, contiguous and the same along the rest."""
    folds = [n for n in walk([s.value for s in kernel.stores]) if n.op == "reduce"]
    if not folds or any(n.free & set(m.value[1]) for m in folds for n in folds):
        return None  # a sum of sums: each thread would need the others for each of its own
    free = frozenset().union(*(n.free for n in folds if n.free <= frozenset(kernel.axes)))
    count = max((kernel.axes.index(v) + 1 for v in free), default=0)
    longest = max(prod(v.value[1] for v in n.value[1]) for n in folds)
    inner, points = prod(kernel.extents[count:]), prod(kernel.extents)
    if longest < 32 and inner < 64:
        return None
    if inner > 1:
        return count
    short = longest < (32 if points < SMALL else 64)
    return count if points < 64 or (not short and any(_along(n, kernel.axes) for n in folds)) else None


def _along(node: K, axes: tuple[K, ...]) -> bool:
    """Whether what is folded for a row are neighbours in memory."""
    last, mine = node.value[1][-1], axes[-1:]
    loads = [n for n in walk([node.args[0]]) if n.op == "load" and n.free.issuperset(mine)]
    return any(vary(n.args[0], last) == 1 for n in loads)


@dataclass(frozen=True, slots=True)
class _Share:
    """How the threads of a row share out `size` elements, `lanes` neighbours at a time, in so many rounds."""

    size: int
    lanes: int
    rounds: int
    threads: int

    def position(self, round: K, t: K, lane: int) -> K:
        """The element that thread t has in a round; the last one if there is none."""
        place = round * self.threads + t
        steps = self.size // self.lanes
        if steps % self.threads:
            place = k.minimum(place, k.const(steps - 1, "index"))
        return place * self.lanes + lane

    def inside(self, round: K, t: K) -> K:
        """Whether there is one."""
        return k.less(round * self.threads + t, k.const(self.size // self.lanes, "index"))


def _threads(kernel: Kernel, count: int) -> int:
    """Threads for each row: so many that each keeps its share, and more if there are few rows."""
    folds = [n for n in walk([s.value for s in kernel.stores]) if n.op == "reduce"]
    sizes = [prod(v.value[1] for v in n.value[1]) for n in folds] + [prod(kernel.extents[count:])]
    vectors = -(-max(sizes) // VECTOR)
    small = any(t.itemsize < 4 for t in kernel.arguments)
    stored = not small and prod(kernel.extents[count:]) > 1 and vectors <= STORED * GROUP
    wanted = vectors if prod(kernel.extents[:count]) < FEW else -(-vectors // (STORED if stored else KEPT))
    most = MOST // VECTOR if small else MOST  # a word holds several rows
    return max(FEWEST, min(most, 1 << max(0, wanted - 1).bit_length()))


class _RowWriter(Writer):
    """Folds of whole rows are shared out among the row's threads."""

    def __init__(self, kernel: Kernel, count: int) -> None:
        super().__init__(kernel.arguments)
        self.rows, self.inner = kernel.axes[:count], kernel.axes[count:]
        self.threads = _threads(kernel, count)
        self.t = k.var("t", self.threads)
        small = any(t.itemsize < 4 for t in kernel.arguments)
        self.across = max(GROUP // self.threads, VECTOR if small else 1)  # rows of a workgroup; a word holds several
        self.top = Scope(self, frozenset((*self.rows, self.t)))
        self.top.names[self.t] = "t"
        self.round = k.var("turn", 1 << 20)
        self.arrays: list[str] = []

    def shared_out(self, variables: tuple[K, ...]) -> _Share:
        size, last = prod(v.value[1] for v in variables), variables[-1].value[1] if variables else 1
        lanes = most_lanes(self.dtypes, last)
        return _Share(size, lanes, -(-size // (lanes * self.threads)), self.threads)

    def tables(self, variables: tuple[K, ...], share: _Share, round: K) -> list[dict[K, K]]:
        """The variables' values at each lane of a round."""
        extents = tuple(v.value[1] for v in variables)
        places = [share.position(round, self.t, lane) for lane in range(share.lanes)]
        return [dict(zip(variables, unflatten(place, extents), strict=True)) for place in places]

    def is_kept(self, share: _Share) -> bool:
        return share.rounds <= (KEPT if self.threads < MOST else 2 * KEPT)

    def step(self, node: K, share: _Share, round: K) -> list[K]:
        """What a thread folds in a round."""
        kind, variables = node.value
        inside = share.inside(round, self.t)
        neutral = identity(kind, node.type)
        tables = self.tables(variables, share, round)
        return [k.select(inside, bound(node.args[0], table), neutral) for table in tables]

    def reduction(self, scope: Scope, node: K) -> str:
        if scope is not self.top:
            return super().reduction(scope, node)
        kind, variables = node.value
        share = self.shared_out(variables)
        if self.is_kept(share):
            rounds = [k.const(n, "index") for n in range(share.rounds)]
            values = [scope.value(x) for n in rounds for x in self.step(node, share, n)]
            mine = self.folded(scope, kind, node.type, values)
        else:
            mine = self.name()
            scope.lines.append(f"var {mine} = {self.identity(kind, node.type)};")
            each = EACH if share.rounds % EACH == 0 else 1
            inner = self.block()
            rounds = [self.round * each + n for n in range(each)]
            values = [inner.value(x) for n in rounds for x in self.step(node, share, n)]
            value = self.folded(inner, kind, node.type, values)
            inner.lines.append(f"{mine} = {self.fold(kind, node.type, mine, value)};")
            scope.lines += self.loop(inner, share.rounds // each)
        return self.together_all(scope, kind, node.type, mine)

    def block(self) -> Scope:
        """The inside of a loop over the rounds."""
        scope = Scope(self, frozenset((self.round,)), self.top)
        scope.names[self.round] = "turn"
        return scope

    def loop(self, inner: Scope, rounds: int) -> list[str]:
        name = self.name()
        lines = [f"let turn = {name};", *inner.lines]
        return [f"for (var {name} = 0; {name} < {rounds}; {name}++) {{", *("  " + x for x in lines), "}"]

    def together_all(self, scope: Scope, kind: str, type: str, mine: str) -> str:
        """Every thread of a row gets the fold of what all of them have."""
        if self.threads > NARROW:  # first the thread's own place in each part of the row
            shared = self.keep(scope, type, mine)
            parts = [f"lid - t + t % {NARROW} + {n}" for n in range(0, self.threads, NARROW)]
            names = self.named(scope, [f"{shared}[({at}) / 4][({at}) % 4]" for at in parts])
            mine = self.folded(scope, kind, type, names)
        shared, first = self.keep(scope, type, mine), f"lid - t + t / {NARROW} * {NARROW}"
        vectors = [f"{shared}[({first}) / 4 + {n}]" for n in range(min(self.threads, NARROW) // 4)]
        return self.folded(scope, kind, type, [f"{v}.{lane}" for v in self.named(scope, vectors) for lane in "xyzw"])

    def keep(self, scope: Scope, type: str, mine: str) -> str:
        """An array in workgroup memory with what each thread has."""
        shared = f"shared_{len(self.arrays)}"
        self.arrays.append(
            f"var<workgroup> {shared}: array<vec4<{TYPES[type]}>, {self.threads * self.across // VECTOR}>;"
        )
        scope.lines += [f"{shared}[lid / 4][lid % 4] = {mine};", "workgroupBarrier();"]
        return shared

    def named(self, scope: Scope, values: list[str]) -> list[str]:
        names = [self.name() for _ in values]
        scope.lines += [f"let {name} = {value};" for name, value in zip(names, values, strict=True)]
        return names

    def folded(self, scope: Scope, kind: str, type: str, values: list[str]) -> str:
        """One value of several."""
        if len(values) == 1:
            return values[0]
        total = self.name()
        scope.lines.append(f"var {total} = {values[0]};")
        if type != "float32" or kind not in ("min", "max"):
            scope.lines += [f"{total} = {self.fold(kind, type, total, x)};" for x in values[1:]]
            return total
        bits, found = self.name(), self.name()  # the largest pattern of bits is a NaN's, if there is one
        patterns = [f"(bitcast<u32>({x}) & 0x7fffffffu)" for x in values]
        scope.lines.append(f"var {bits} = {patterns[0]};")
        for x, pattern in zip(values[1:], patterns[1:], strict=True):
            scope.lines += [f"{total} = {kind}({total}, {x});", f"{bits} = max({bits}, {pattern});"]
        scope.lines.append(f"let {found} = select({total}, bitcast<f32>({bits}), {bits} > 0x7f800000u);")
        return found

    def head(self) -> list[str]:
        return [*super().head(), *self.arrays]


def _points(writer: _RowWriter, kernel: Kernel, share: _Share, round: K) -> list[list[Store]]:
    """For each store, the stores of a round's neighbouring points."""
    tables = writer.tables(writer.inner, share, round)
    return [[replaced(s, table) for table in tables] for s in kernel.stores]


def _values(writer: _RowWriter, kernel: Kernel, share: _Share) -> tuple[list[K], list[Store]]:
    """What is read and stored, as far as it decides which buffers are accessed four elements at a time."""
    folds = [n for n in walk([s.value for s in kernel.stores]) if n.op == "reduce" and n.free <= frozenset(writer.rows)]
    values = [x for n in folds for x in writer.step(n, writer.shared_out(n.value[1]), writer.round)]
    points = [s for same in _points(writer, kernel, share, writer.round) for s in same] if writer.inner else []
    return [*values, *(s.value for s in points)], points


def _store(writer: _RowWriter, kernel: Kernel, share: _Share, rows: int) -> list[str]:
    """The statements, after all folds, that store a thread's points."""
    top, valid = writer.top, f"row < {rows}"
    if not writer.inner:
        if kernel.arguments[kernel.stores[0].argument].itemsize < 4:
            return _store_words(writer, kernel, rows)
        lines = [x for s in kernel.stores for x in stores(top, [s])]
        return [f"if (t == 0 && {valid}) {{", *("  " + x for x in lines), "}"]
    if writer.is_kept(share):
        out = []
        for n in range(share.rounds):
            round = k.const(n, "index")
            lines = [x for same in _points(writer, kernel, share, round) for x in stores(top, same)]
            inside = share.inside(round, writer.t)
            condition = valid if inside.op == "const" else f"{valid} && {top.value(inside)}"
            out += [f"if ({condition}) {{", *("  " + x for x in lines), "}"]
        return out
    points = _points(writer, kernel, share, writer.round)
    for s in kernel.stores:  # folds of the row come before the loop
        for node in walk([s.value]):
            if node.op == "reduce" and node.free <= top.bound:
                top.value(node)
    block = writer.block()
    lines = [x for same in points for x in stores(block, same)]
    condition = f"{valid} && {block.value(share.inside(writer.round, writer.t))}"
    block.lines += [f"if ({condition}) {{", *("  " + x for x in lines), "}"]
    return writer.loop(block, share.rounds)


def _store_words(writer: _RowWriter, kernel: Kernel, rows: int) -> list[str]:
    """The statements that store one small element for each row, four rows at a time."""
    (s,), across = kernel.stores, writer.across
    value, type = writer.top.value(s.value), TYPES[s.value.type]
    writer.arrays.append(f"var<workgroup> results: array<{type}, {across}>;")
    word = f"i32(group.y * groups.x + group.x) * {across // VECTOR} + lid"
    stored = whole(writer, s.argument, word, [f"results[lid * {VECTOR} + {n}]" for n in range(VECTOR)])
    return [
        f"if (t == 0) {{ results[lid / {writer.threads}] = {value}; }}",
        "workgroupBarrier();",
        f"if (lid < {across // VECTOR} && ({word}) * {VECTOR} < {rows}) {{ {stored} }}",
    ]


def _in_order(kernel: Kernel) -> bool:
    """Whether one result is stored, at the number of the row."""
    return len(kernel.stores) == 1 and kernel.axes == (kernel.stores[0].index,)


def spell_rows(kernel: Kernel) -> tuple[str, tuple[int, int, int]] | None:
    """The module for a kernel that folds rows, and its workgroups; else None."""
    kernel = collapsed(kernel)
    count = _row_axes(kernel)
    if count is None:
        return None
    writer = _RowWriter(kernel, count)
    share = writer.shared_out(writer.inner)
    values, points = _values(writer, kernel, share)
    writer.wide = widths(values, points, kernel.arguments)
    small = [s for s in kernel.stores if kernel.arguments[s.argument].itemsize < 4]
    if small and not writer.inner and _in_order(kernel):
        writer.wide[small[0].argument] = VECTOR
    elif any(s.argument not in writer.wide for s in small):
        return None
    rows, across = prod(kernel.extents[:count]), writer.across
    unpack(writer.top, writer.rows, f"min(row, {rows - 1})")
    body = _store(writer, kernel, share, rows)
    if 4 * writer.threads * across * len(writer.arrays) > ROOM:
        return None  # many folds one after the other, each with an array of its own
    lines = [
        *writer.head(),
        f"@compute @workgroup_size({writer.threads * across})",
        "fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,",
        "        @builtin(local_invocation_index) index: u32) {",
        "  let lid = i32(index);",
        f"  let t = lid % {writer.threads};",
        f"  let row = i32(group.y * groups.x + group.x) * {across} + lid / {writer.threads};",
        *("  " + x for x in [*writer.top.lines, *body]),
        "}",
    ]
    return "\n".join(lines) + "\n", grid(-(-rows // across))
