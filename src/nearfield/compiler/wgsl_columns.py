"""Kernel -> WGSL: folds of columns: neighbouring threads read neighbouring columns, and some share out the rows.

For few columns of many rows, such as a bias's gradient: with a thread for each column most of the device would idle.
"""

from math import prod

from .. import scalar as k
from ..index import unflatten
from ..scalar import K, identity, walk
from .kernel import Kernel, vary
from .wgsl import TYPES, Scope, Writer
from .wgsl_axes import bound, collapsed, lanes
from .wgsl_points import grid, unpack
from .wgsl_stores import stores
from .wgsl_wide import VECTOR, widths

__all__ = ["spell_columns"]

GROUP = 256  # threads of a workgroup
MOST = 16  # threads for four columns: the others read as many neighbours at a time as memory likes
MOST_SMALL, SMALL = 64, 1 << 20  # and of an array of so few elements, which the card's own cache holds
STEP = 16  # values that a thread folds in workgroup memory, at most; of more, first some fold their share
BUSY = 1 << 17  # threads that keep a large device busy
SHORTEST = 16  # rows that are worth sharing out
EACH = 4  # rows that a thread asks for before it waits


class _ColumnWriter(Writer):
    """Folds of columns are shared out among the threads that have the same columns."""

    def __init__(self, kernel: Kernel, axes: tuple[K, ...], threads: int) -> None:
        super().__init__(kernel.arguments)
        self.threads = threads
        self.t, self.round = k.var("t", threads), k.var("turn", 1 << 20)
        self.top = Scope(self, frozenset((*axes, self.t)))
        self.top.names[self.t] = "t"
        self.arrays: list[str] = []

    def step(self, node: K, round: K) -> K:
        """What a thread folds in a round."""
        kind, variables = node.value
        extents = tuple(v.value[1] for v in variables)
        size = prod(extents)
        place = round * self.threads + self.t
        inside = k.less(place, k.const(size, "index")) if size % self.threads else k.const(True, "bool")
        if size % self.threads:
            place = k.minimum(place, k.const(size - 1, "index"))
        table = dict(zip(variables, unflatten(place, extents), strict=True))
        return k.select(inside, bound(node.args[0], table), identity(kind, node.type))

    def reduction(self, scope: Scope, node: K) -> str:
        if scope is not self.top:
            return super().reduction(scope, node)
        kind, variables = node.value
        rounds = -(-prod(v.value[1] for v in variables) // self.threads)
        each = next(n for n in (EACH, EACH // 2, 1) if rounds % n == 0)
        group = self.together.get(node, [node])
        inner = Scope(self, frozenset((self.round,)), scope)
        inner.names[self.round] = "turn"
        totals = {n: self.name() for n in group}
        scope.lines += [f"var {total} = {self.identity(kind, n.type)};" for n, total in totals.items()]
        for n, total in totals.items():
            for at in range(each):
                value = inner.value(self.step(n, self.round * each + at))
                inner.lines.append(f"{total} = {self.fold(kind, n.type, total, value)};")
        scope.lines += [
            f"for (var turn = 0; turn < {rounds // each}; turn++) {{",
            *("  " + x for x in inner.lines),
            "}",
        ]
        for first in range(0, len(group), VECTOR):
            self.gather(scope, kind, {n: totals[n] for n in group[first : first + VECTOR]})
        return scope.names[node]

    def gather(self, scope: Scope, kind: str, totals: dict[K, str]) -> None:
        """The folds of what all threads of the same columns have."""
        (type,) = {n.type for n in totals}
        shared, columns = f"shared_{len(self.arrays)}", GROUP // self.threads
        self.arrays.append(f"var<workgroup> {shared}: array<vec4<{TYPES[type]}>, {GROUP}>;")
        parts = [*totals.values(), *[next(iter(totals.values()))] * (VECTOR - len(totals))]
        scope.lines += [f"{shared}[lid] = vec4<{TYPES[type]}>({', '.join(parts)});", "workgroupBarrier();"]
        left = self.threads
        if left > STEP:
            left //= STEP // 2
            scope.lines += [
                f"if (t < {left}) {{",
                *self.share_of(shared, kind, totals, left),
                "}",
                "workgroupBarrier();",
            ]
        names = [self.name() for _ in range(left)]
        scope.lines += [f"let {name} = {shared}[lid % {columns} + {n * columns}];" for n, name in enumerate(names)]
        for lane, node in zip("xyzw", totals, strict=False):
            total = scope.names[node] = self.name()
            scope.lines.append(f"var {total} = {names[0]}.{lane};")
            scope.lines += [f"{total} = {self.fold(kind, node.type, total, f'{n}.{lane}')};" for n in names[1:]]

    def share_of(self, shared: str, kind: str, totals: dict[K, str], left: int) -> list[str]:
        """What the first threads fold, each into its own place."""
        near, far = self.name(), self.name()
        places = [n * left * (GROUP // self.threads) for n in range(1, self.threads // left)]
        lines = [f"var {near} = {shared}[lid];"]
        lines += [f"let {far}_{n} = {shared}[lid + {place}];" for n, place in enumerate(places, 1)]
        for lane, node in zip("xyzw", totals, strict=False):
            values = [f"{far}_{n}.{lane}" for n in range(1, self.threads // left)]
            lines += [f"{near}.{lane} = {self.fold(kind, node.type, f'{near}.{lane}', v)};" for v in values]
        return [*("  " + x for x in lines), f"  {shared}[lid] = {near};"]

    def head(self) -> list[str]:
        return [*super().head(), *self.arrays]


def _threads(kernel: Kernel) -> int:
    """How many threads share out the rows of four columns; 1 for a kernel that is none of this kind."""
    folds = [n for n in walk([s.value for s in kernel.stores]) if n.op == "reduce"]
    if not folds or not kernel.axes or kernel.extents[-1] % VECTOR:
        return 1
    axes = frozenset(kernel.axes)
    sizes = {prod(v.value[1] for v in n.value[1]) for n in folds}
    if (
        any(not n.free <= axes or kernel.axes[-1] not in n.free or _runs(n, kernel.axes[-1]) for n in folds)
        or len(sizes) > 1
        or min(sizes) < SHORTEST
    ):
        return 1
    most = MOST_SMALL if prod(kernel.extents) * min(sizes) <= SMALL else MOST
    wanted = min(most, BUSY * VECTOR // prod(kernel.extents), min(sizes) // 4)
    return 1 << max(0, wanted.bit_length() - 1)


def _runs(fold: K, column: K) -> bool:
    """Whether what is folded for a column are neighbours in memory."""
    last = fold.value[1][-1]
    return any(n.op == "load" and column in n.free and vary(n.args[0], last) == 1 for n in walk([fold.args[0]]))


def spell_columns(kernel: Kernel) -> tuple[str, tuple[int, int, int]] | None:
    """The module for a kernel that folds few columns, and its workgroups; else None."""
    kernel = collapsed(kernel)
    threads = _threads(kernel)
    if threads == 1:
        return None
    last, points = lanes(kernel.stores, kernel.axes[-1], VECTOR)
    axes = (*kernel.axes[:-1], last)
    every = [s for point in points for s in point]
    writer = _ColumnWriter(kernel, axes, threads)
    folds = [n for n in walk([s.value for s in every]) if n.op == "reduce"]
    writer.wide = widths(
        [*(s.value for s in every), *(writer.step(n, writer.round) for n in folds)], every, kernel.arguments
    )
    if any(kernel.arguments[s.argument].itemsize < 4 and s.argument not in writer.wide for s in kernel.stores):
        return None
    writer.share([s.value for s in every])
    total, columns = prod(v.value[1] for v in axes), GROUP // threads
    unpack(writer.top, axes, f"min(column, {total - 1})")
    statements = [x for same in zip(*points, strict=True) for x in stores(writer.top, same)]
    lines = [
        *writer.head(),
        f"@compute @workgroup_size({GROUP})",
        "fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,",
        "        @builtin(local_invocation_index) index: u32) {",
        f"  let lid = i32(index); let t = lid / {columns};",
        f"  let column = i32(group.y * groups.x + group.x) * {columns} + lid % {columns};",
        *("  " + x for x in writer.top.lines),
        f"  if (t == 0 && column < {total}) {{",
        *("    " + x for x in statements),
        "  }",
        "}",
    ]
    return "\n".join(lines) + "\n", grid(-(-total // columns))
