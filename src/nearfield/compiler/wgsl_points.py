"""Kernel -> WGSL: one invocation makes one point of the grid, or four neighbours that it reads and writes at once.

The fallback: every kernel can be written so.
"""

from math import prod

from .. import scalar as k
from ..index import unflatten
from ..scalar import K
from .kernel import Kernel, Store
from .wgsl import Scope, Writer
from .wgsl_axes import all_replaced, collapsed, lanes, unrolled
from .wgsl_stores import stores, whole
from .wgsl_wide import VECTOR, most_lanes, widths

__all__ = ["grid", "module", "spell_points", "unpack"]

GROUP, LARGE_GROUP = 64, 256
LARGE = 1 << 16  # threads from which on large groups are better
TWICE = 1 << 20  # threads of eight elements from which on half as many, of two times eight, are better
MOST = 65535  # workgroups in one direction


def grid(groups: int) -> tuple[int, int, int]:
    """So many workgroups, in directions that each have room: hardly more than asked for, since idle ones take time."""
    deep = max(1, -(-groups // MOST))
    return -(-groups // deep), deep, 1


def unpack(scope: Scope, axes: tuple[K, ...], position: str) -> None:
    """Names for the axes at a row-major position."""
    writer = scope.writer
    for n in range(len(axes) - 1, -1, -1):
        name, extent = writer.name(), axes[n].value[1]
        if n == 0:
            scope.lines.append(f"let {name} = {position};")
        else:
            rest = writer.name()
            scope.lines += [f"let {name} = {position} % {extent};", f"let {rest} = {position} / {extent};"]
            position = rest
        scope.names[axes[n]] = name


def _points(kernel: Kernel) -> tuple[tuple[K, ...], list[tuple[Store, ...]], bool]:
    """The axes of the invocations, the stores of each of an invocation's points, and whether it stores whole words."""
    small = any(kernel.arguments[s.argument].itemsize < 4 for s in kernel.stores)
    count = most_lanes(kernel.arguments, kernel.extents[-1]) if kernel.axes else 1
    if count > 1:
        last, found = lanes(kernel.stores, kernel.axes[-1], count)
        every = [s for lane in found for s in lane]
        wide = widths([s.value for s in every], every, kernel.arguments)
        if all(s.argument in wide for s in kernel.stores) if small else wide:
            if count > VECTOR and len(kernel.axes) == 1:
                return *_twice(last, found), False
            return (*kernel.axes[:-1], last), found, False
    if not small:
        return kernel.axes, [kernel.stores], False
    total = prod(kernel.extents)  # stored in the order of the grid, four at a time
    word = k.var("word", -(-total // VECTOR))
    places = [k.minimum(word * VECTOR + lane, k.const(total - 1, "index")) for lane in range(VECTOR)]
    tables = [dict(zip(kernel.axes, unflatten(place, kernel.extents), strict=True)) for place in places]
    return (word,), [all_replaced(kernel.stores, table) for table in tables], True


def _twice(axis: K, points: list[tuple[Store, ...]]) -> tuple[tuple[K, ...], list[tuple[Store, ...]]]:
    """Of a large array in float16, two vectors for each invocation, a workgroup's width apart.

    What rounds to float16 takes so long that loads of one vector a thread do not keep memory busy.
    """
    threads = axis.value[1]
    if threads < TWICE or threads % (2 * LARGE_GROUP):
        return (axis,), points
    half, group = k.var("half", threads // 2), k.const(LARGE_GROUP, "index")
    first = half // group * (2 * LARGE_GROUP) + half % group
    return (half,), [all_replaced(p, {axis: first + n * LARGE_GROUP}) for n in range(2) for p in points]


def spell_points(kernel: Kernel) -> tuple[str, tuple[int, int, int]]:
    """The WGSL text, and the workgroups to run."""
    axes, points, words = _points(collapsed(kernel))
    points = [tuple(unrolled(s) for s in point) for point in points]
    every = [s for point in points for s in point]
    wide = widths([s.value for s in every], every, kernel.arguments)
    if words:
        wide |= {s.argument: VECTOR for s in every if kernel.arguments[s.argument].itemsize < 4}
    writer = Writer(kernel.arguments, wide)
    writer.share([s.value for s in every])
    scope = Scope(writer, frozenset(axes))
    unpack(scope, axes, "p")
    statements = []  # after all loads
    for same in zip(*points, strict=True):
        argument = same[0].argument
        if words and kernel.arguments[argument].itemsize < 4:
            statements.append(whole(writer, argument, "p", [scope.value(s.value) for s in same]))
        else:
            statements += stores(scope, same)
    return module(axes, writer.head(), [*scope.lines, *statements])


def module(axes: tuple[K, ...], head: list[str], statements: list[str]) -> tuple[str, tuple[int, int, int]]:
    """The module whose invocations each run the statements with a position `p` in the axes, and its workgroups."""
    threads = prod(v.value[1] for v in axes)
    group = LARGE_GROUP if threads >= LARGE else GROUP
    lines = [
        *head,
        f"@compute @workgroup_size({group})",
        "fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {",
        f"  let p = i32(id.y * groups.x * {group}u + id.x);",
        f"  if (p >= {threads}) {{ return; }}",
        *("  " + x for x in statements),
        "}",
    ]
    return "\n".join(lines) + "\n", grid(-(-threads // group))
