"""Kernel -> a whole WGSL module: who computes which point of the grid.

point  one invocation makes one point (four neighbouring ones where elements are smaller than a word)
row    one workgroup makes one row: its reductions are shared out among the threads, then its points are
"""

from math import prod

from ..scalar import K, walk
from .kernel import Kernel, vary
from .wgsl import TYPES, Scope, Writer
from .wgsl_tile import spell_tile

__all__ = ["spell_kernel"]

GROUP = 64
ROW_GROUP = 128
MOST = 65535  # workgroups in one direction


def spell_kernel(kernel: Kernel) -> tuple[str, tuple[int, int, int]]:
    """The WGSL text, and the workgroups to run."""
    tile = spell_tile(kernel)
    if tile is not None:
        return tile
    rows = _row_axes(kernel)
    return _rows(kernel, rows) if rows is not None else _points(kernel)


def _grid(groups: int) -> tuple[int, int, int]:
    if groups <= MOST:
        return groups, 1, 1
    return MOST, -(-groups // MOST), 1


def _reductions(kernel: Kernel) -> list[K]:
    return [n for n in walk([s.value for s in kernel.stores]) if n.op == "reduce"]


def _row_axes(kernel: Kernel) -> int | None:
    """How many leading axes number the rows, if all reductions are long, contiguous and the same along the rest."""
    folds = _reductions(kernel)
    if not folds or any(kernel.arguments[s.argument].itemsize < 4 for s in kernel.stores):
        return None
    free = frozenset().union(*(n.free for n in folds if n.free <= frozenset(kernel.axes)))
    count = max((kernel.axes.index(v) + 1 for v in free), default=0)
    longest = max(prod(v.value[1] for v in n.value[1]) for n in folds)
    inner = prod(kernel.extents[count:])
    points = prod(kernel.extents)
    if inner > 1 and inner < 64 and count == len(kernel.axes) - 1 and longest < 64:
        return None
    if longest < 64 and not (inner >= 64):
        return None
    if inner > 1:
        return count
    contiguous = any(_along(n) for n in folds)
    return count if points < 64 or (contiguous and longest >= 256) else None


def _along(fold: K) -> bool:
    """Whether neighbouring values of the last variable read neighbouring elements."""
    v = fold.value[1][-1]
    return any(n.op == "load" and vary(n.args[0], v) == 1 for n in walk([fold.args[0]]))


def _unpack(writer: Writer, scope: Scope, axes: tuple[K, ...], position: str) -> None:
    """Names for the axes at a row-major position."""
    for n in range(len(axes) - 1, -1, -1):
        name, extent = writer.name(), axes[n].value[1]
        if n == 0:
            scope.lines.append(f"let {name} = {position};")
        else:
            rest = writer.name()
            scope.lines += [f"let {name} = {position} % {extent};", f"let {rest} = {position} / {extent};"]
            position = rest
        scope.names[axes[n]] = name


def _points(kernel: Kernel) -> tuple[str, tuple[int, int, int]]:
    writer = Writer(kernel.arguments)
    small = [s for s in kernel.stores if kernel.arguments[s.argument].itemsize < 4]
    total = prod(kernel.extents)
    each = 4 if small else 1
    body: list[str] = []
    words: dict[int, list[str]] = {}
    for lane in range(each):
        scope = Scope(writer, frozenset(kernel.axes))
        where = "p" if each == 1 else f"min(p + {lane}, {total - 1})"
        body.append(f"let p{lane} = {where};")
        _unpack(writer, scope, kernel.axes, f"p{lane}")
        results = [(s, scope.value(s.value)) for s in kernel.stores]
        for store, value in results:
            if kernel.arguments[store.argument].itemsize < 4:
                words.setdefault(store.argument, []).append(value)
            else:
                scope.lines.append(f"b{store.argument}[{scope.value(store.index)}] = {value};")
        body += scope.lines
    for argument, values in words.items():
        body += _packed(writer, argument, kernel.arguments[argument].name, values)
    threads = -(-total // each)
    lines = [
        *writer.head(),
        f"@compute @workgroup_size({GROUP})",
        "fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {",
        f"  let p = i32(id.y * groups.x * {GROUP}u + id.x){' * 4' if each == 4 else ''};",
        f"  if (p >= {total}) {{ return; }}",
        *("  " + x for x in body),
        "}",
    ]
    return "\n".join(lines) + "\n", _grid(-(-threads // GROUP))


def _packed(writer: Writer, argument: int, dtype: str, values: list[str]) -> list[str]:
    """Stores of four small elements as whole words, at the position p of the first."""
    if dtype == "float16":
        writer.need("nf_half")
        pair = "b{a}[u32(p) / 2u + {w}u] = nf_half({x}) | (nf_half({y}) << 16u);"
        return [pair.format(a=argument, w=w, x=values[2 * w], y=values[2 * w + 1]) for w in range(2)]
    as_byte = {"bool": "select(0u, 1u, {0})", "int8": "(bitcast<u32>({0}) & 255u)", "uint8": "({0} & 255u)"}[dtype]
    parts = [f"({as_byte.format(v)} << {8 * n}u)" for n, v in enumerate(values)]
    return [f"b{argument}[u32(p) / 4u] = {' | '.join(parts)};"]


class _RowWriter(Writer):
    """Folds in the row's scope are shared out among the threads of the workgroup."""

    def __init__(self, kernel: Kernel) -> None:
        super().__init__(kernel.arguments)
        self.top: Scope | None = None

    def reduction(self, scope: Scope, node: K) -> str:
        if scope is not self.top:
            return super().reduction(scope, node)
        kind, variables = node.value
        total, position, shared = self.name(), self.name(), f"shared_{TYPES[node.type]}"
        extent = prod(v.value[1] for v in variables)
        inner = Scope(self, frozenset(variables), scope)
        _unpack(self, inner, variables, position)
        inner.lines.append(f"{total} = {self.fold(kind, node.type, total, inner.value(node.args[0]))};")
        folded = self.fold(kind, node.type, f"{shared}[lid]", f"{shared}[lid + step]")
        scope.lines += [
            f"var {total} = {self.identity(kind, node.type)};",
            f"for (var {position} = lid; {position} < {extent}; {position} += {ROW_GROUP}) {{",
            *("  " + x for x in inner.lines),
            "}",
            "workgroupBarrier();",
            f"{shared}[lid] = {total};",
            f"for (var step = {ROW_GROUP // 2}; step > 0; step = step / 2) {{",
            "  workgroupBarrier();",
            f"  if (lid < step) {{ {shared}[lid] = {folded}; }}",
            "}",
            "workgroupBarrier();",
            f"{total} = {shared}[0];",
        ]
        self.functions[shared] = f"var<workgroup> {shared}: array<{TYPES[node.type]}, {ROW_GROUP}>;"
        return total

    def head(self) -> list[str]:
        return [*super().head(), *(text for name, text in self.functions.items() if name.startswith("shared_"))]


def _rows(kernel: Kernel, count: int) -> tuple[str, tuple[int, int, int]]:
    row, inner_axes = kernel.axes[:count], kernel.axes[count:]
    writer = _RowWriter(kernel)
    top = Scope(writer, frozenset(row))
    writer.top = top
    rows, inner = prod(kernel.extents[:count]), prod(kernel.extents[count:])
    _unpack(writer, top, row, "row")
    block = Scope(writer, frozenset(inner_axes), top)
    _unpack(writer, block, inner_axes, "at")
    results = [(block.value(s.index), s, block.value(s.value)) for s in kernel.stores]
    block.lines += [f"b{s.argument}[{index}] = {value};" for index, s, value in results]
    loop = f"for (var at = lid; at < {inner}; at += {ROW_GROUP}) {{" if inner > 1 else "if (lid == 0) {"
    lines = [
        *writer.head(),
        f"@compute @workgroup_size({ROW_GROUP})",
        "fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,",
        "        @builtin(local_invocation_index) index: u32) {",
        "  let lid = i32(index);",
        "  let row = i32(group.y * groups.x + group.x);",
        f"  if (row >= {rows}) {{ return; }}",
        *("  " + x for x in top.lines),
        f"  {loop}",
        *("    " + x for x in block.lines),
        "  }",
        "}",
    ]
    return "\n".join(lines) + "\n", _grid(rows)
