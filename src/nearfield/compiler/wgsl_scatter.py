"""Rows added at places that data tells (the gradient of `take`) -> WGSL: each workgroup looks for its own rows first.

K says of each element which rows it is the sum of, so its kernel looks at every row for every element. Here a workgroup
makes a few places. It looks at each row's place once, marks its own rows in a bit mask, lists them in order, and adds
these alone. The order of additions depends on nothing but the sizes.
"""

from dataclasses import dataclass
from math import prod

from .. import scalar as k
from ..scalar import K, substitute
from .kernel import Kernel, Store
from .scatter import Scatter, scatter_of
from .wgsl import LANES, TYPES, Scope, Writer
from .wgsl_axes import collapsed, unpacked
from .wgsl_points import grid, unpack
from .wgsl_stores import stores
from .wgsl_wide import VECTOR, widths

__all__ = ["spell_scatter"]

GROUP = 256  # threads of a workgroup
LISTED = 1024  # rows that are looked at before their sums are made: the list takes 8 KiB of workgroup memory
ACROSS = 32  # threads side by side along a row, at most; the others share out the rows of a place
PLACES, SPREAD = 8, 1024  # places of a workgroup at most, and workgroups that keep a large device busy
SHORTEST, FEWEST = 32, 16  # elements of a row, and places, that are worth it


@dataclass(frozen=True, slots=True)
class _Cut:
    """How the result is shared out.

    lanes    neighbouring elements of a row that a thread adds
    vectors  of so many lanes in a row
    across   threads along a row
    blocks   of so many threads that a workgroup makes one after the other
    places   that a workgroup makes
    """

    lanes: int
    vectors: int
    across: int
    blocks: int
    places: int

    @property
    def width(self) -> int:
        """Vectors of a row that a workgroup makes."""
        return self.across * self.blocks


def _cut(scatter: Scatter) -> _Cut:
    size, count = (prod(v.value[1] for v in axes) for axes in (scatter.after, scatter.before))
    lanes = VECTOR if scatter.after and scatter.after[-1].value[1] % VECTOR == 0 else 1
    vectors, total = size // lanes, scatter.axis.value[1]
    across = min(ACROSS, 1 << (vectors - 1).bit_length())
    places = max(1, min(PLACES, count * total // SPREAD))
    blocks = -(-vectors // across) if count * total >= SPREAD else 1
    return _Cut(lanes, vectors, across, blocks, places)


def _claimed(kernel: Kernel) -> Scatter | None:
    found = scatter_of(kernel.axes, kernel.stores)
    if found is None or kernel.arguments[found.store.argument].itemsize < 4:
        return None
    long = prod(v.value[1] for v in found.after) >= SHORTEST and prod(v.value[1] for v in found.rows) > 1
    return found if long and found.axis.value[1] >= FEWEST else None


class _Adding:
    """The parts of the kernel's text."""

    def __init__(self, kernel: Kernel, scatter: Scatter, cut: _Cut) -> None:
        self.scatter, self.cut = scatter, cut
        self.rows = prod(v.value[1] for v in scatter.rows)
        self.row, self.place = k.var("row", self.rows), k.var("place", scatter.axis.value[1])
        self.column = k.var("column", cut.vectors)
        columns = [unpacked(scatter.after, self.column * cut.lanes + lane) for lane in range(cut.lanes)]
        rows = unpacked(scatter.rows, self.row)
        store, here = scatter.store, {scatter.axis: self.place}
        self.terms = [substitute(scatter.term, {**table, **rows}) for table in columns]
        self.row_place = substitute(scatter.place, rows)
        self.totals = [substitute(store.value, {**table, **here}) for table in columns]
        self.indices = [substitute(store.index, {**table, **here}) for table in columns]
        self.writer = Writer(kernel.arguments, widths(self.terms, self.stored(self.totals), kernel.arguments))
        self.writer.share(self.terms)
        self.top = Scope(self.writer, frozenset(scatter.before))
        self.type = TYPES[scatter.term.type]

    def stored(self, values: list[K]) -> list[Store]:
        """A vector of the result."""
        argument = self.scatter.store.argument
        return [Store(argument, index, value) for index, value in zip(self.indices, values, strict=True)]

    def scope(self, *variables: K) -> Scope:
        """A block of statements in which variables have values, under their own names."""
        scope = Scope(self.writer, frozenset(variables), self.top)
        scope.names |= {v: v.value[0] for v in variables}
        return scope

    def zeros(self) -> list[str]:
        """This workgroup's part of the result, set to 0."""
        scope, width = self.scope(self.place, self.column), self.cut.width
        zero = k.const(0, self.scatter.term.type)
        kept = stores(scope, self.stored([zero] * self.cut.lanes))
        return [
            f"for (var e = lid; e < {self.cut.places * width}; e += {GROUP}) {{",
            f"  let place = first + e / {width}; let column = left + e % {width};",
            f"  if ({self.inside()}) {{",
            *("    " + x for x in [*scope.lines, *kept]),
            "  }",
            "}",
            "storageBarrier();",
        ]

    def inside(self) -> str:
        """Whether the place and the column are of the result."""
        return f"place < {self.scatter.axis.value[1]} && column < {self.cut.vectors}"

    def marked(self, chunk: int) -> list[str]:
        """Which of the next rows are this workgroup's: a bit for each, and how far its place is from the first."""
        scope = self.scope(self.row)
        place = scope.value(self.row_place)
        return [
            f"if (lid < {chunk // 32}) {{ atomicStore(&mine[lid], 0u); }}",
            "workgroupBarrier();",
            f"for (var near = lid; near < {chunk}; near += {GROUP}) {{",
            f"  let row = min(start + near, {self.rows - 1});",
            *("  " + x for x in scope.lines),
            f"  let apart = {place} - first;",
            f"  if (start + near < {self.rows} && apart >= 0 && apart < {self.cut.places}) {{",
            "    places[near] = apart;",
            "    atomicOr(&mine[near >> 5u], 1u << (u32(near) & 31u));",
            "  }",
            "}",
            "workgroupBarrier();",
        ]

    @staticmethod
    def listed(chunk: int) -> list[str]:
        """The marked rows, in order."""
        return [
            f"if (lid < {chunk // 32}) {{",
            "  var at = 0u;",
            "  for (var n = 0; n < lid; n++) { at += countOneBits(atomicLoad(&mine[n])); }",
            "  var bits = atomicLoad(&mine[lid]);",
            "  while (bits != 0u) {",
            "    listed[at] = lid * 32 + i32(firstTrailingBit(bits));",
            "    bits &= bits - 1u; at++;",
            "  }",
            f"  if (lid == {chunk // 32 - 1}) {{ count = at; }}",
            "}",
            "let total = i32(workgroupUniformLoad(&count));",
        ]

    def added(self) -> list[str]:
        """The listed rows added to one place in one block of columns: shared out, then folded by the first threads."""
        across, scope = self.cut.across, self.scope(self.row, self.column)
        sums = [f"sum.{lane} += {scope.value(term)};" for lane, term in zip(LANES, self.terms, strict=False)]
        store = self.scope(self.place, self.column)
        store.names |= {total: f"sum.{lane}" for total, lane in zip(self.totals, LANES, strict=False)}
        there = [k.load(s.argument, s.index, s.value.type) for s in self.stored(self.totals)]
        kept = stores(store, self.stored([x + total for x, total in zip(there, self.totals, strict=True)]))
        return [
            f"let column = left + block * {across} + lid % {across}; let place = first + apart;",
            f"var sum = vec4<{self.type}>();",
            f"if ({self.inside()}) {{",
            f"  for (var n = lid / {across}; n < total; n += {GROUP // across}) {{",
            "    if (places[listed[n]] != apart) { continue; }",
            "    let row = start + listed[n];",
            *("    " + x for x in [*scope.lines, *sums]),
            "  }",
            "}",
            "parts[lid] = sum;",
            "workgroupBarrier();",
            f"if (lid < {across} && {self.inside()}) {{",
            f"  for (var n = lid + {across}; n < {GROUP}; n += {across}) {{ sum += parts[n]; }}",
            *("  " + x for x in [*store.lines, *kept]),
            "}",
            "workgroupBarrier();",
        ]

    def text(self) -> tuple[str, tuple[int, int, int]]:
        """The module, and its workgroups."""
        cut, scatter, chunk = self.cut, self.scatter, min(LISTED, -(-self.rows // 32) * 32)
        across, along = -(-cut.vectors // cut.width), -(-scatter.axis.value[1] // cut.places)
        unpack(self.top, scatter.before, f"(number / {across * along})")
        zeros, marked, added = self.zeros(), self.marked(chunk), self.added()
        total = across * along * prod(v.value[1] for v in scatter.before)
        lines = [
            *self.writer.head(),
            f"var<workgroup> mine: array<atomic<u32>, {chunk // 32}>;",
            f"var<workgroup> places: array<i32, {chunk}>;",
            f"var<workgroup> listed: array<i32, {chunk}>;",
            f"var<workgroup> parts: array<vec4<{self.type}>, {GROUP}>;",
            "var<workgroup> count: u32;",
            f"@compute @workgroup_size({GROUP})",
            "fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,",
            "        @builtin(local_invocation_index) index: u32) {",
            "  let lid = i32(index); let number = i32(group.y * groups.x + group.x);",
            f"  if (number >= {total}) {{ return; }}",
            f"  let left = number % {across} * {cut.width};",
            f"  let first = number / {across} % {along} * {cut.places};",
            *("  " + x for x in [*self.top.lines, *zeros]),
            f"  for (var start = 0; start < {self.rows}; start += {chunk}) {{",
            *("    " + x for x in [*marked, *self.listed(chunk)]),
            "    if (total == 0) { continue; }",
            f"    for (var apart = 0; apart < {cut.places}; apart++) {{",
            f"      for (var block = 0; block < {cut.blocks}; block++) {{",
            *("        " + x for x in added),
            "      }",
            "    }",
            "  }",
            "}",
        ]
        return "\n".join(lines) + "\n", grid(total)


def spell_scatter(kernel: Kernel) -> tuple[str, tuple[int, int, int]] | None:
    """The module for a kernel that only adds long rows at many places, and its workgroups; else None."""
    kernel = collapsed(kernel)
    scatter = _claimed(kernel)
    return None if scatter is None else _Adding(kernel, scatter, _cut(scatter)).text()
