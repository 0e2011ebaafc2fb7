"""Contraction -> WGSL: one workgroup makes one tile of the result, from strips of both factors in workgroup memory.

Each thread reads its share of the next strip into registers while it multiplies the present one. A factor that runs
along the sum is turned, four by four elements, on its way into workgroup memory, so that both strips hold vectors of
neighbouring rows or columns for each step of the sum. How many of a strip's steps are written out, wgsl_tiling.py says.

source  CUDA C++ Programming Guide, "Shared Memory", matrix product
"""

from typing import Any

from .. import scalar as k
from ..scalar import K, substitute, substitute_all, walk
from .choice import Choices
from .contraction import Contraction, contraction_of, runs_along
from .kernel import Kernel, Store
from .wgsl import TYPES, Scope, Writer
from .wgsl_axes import unpacked
from .wgsl_stores import stores
from .wgsl_tiling import Tiling, candidates, tiling
from .wgsl_wide import widths

__all__ = ["Factor", "spell_tile"]

FOUR = range(4)
LANE, STEP = k.var("lane", 4), k.var("later", 4)  # of four neighbouring rows or columns; of four steps of the sum

NUMBERS = {(i, j): {LANE: k.const(i, "index"), STEP: k.const(j, "index")} for i in FOUR for j in FOUR}


def _within(position: K, size: int) -> K:
    """The position, or the last one if it lies beyond."""
    return k.minimum(position, k.const(size - 1, "index"))


def _at(x: K, lane: int, step: int) -> K:
    """The expression for one of four neighbours, at one of four steps: cheaper than to derive each on its own."""
    return substitute_all([x], NUMBERS[lane, step])[0]


class Factor:
    """One factor's way from memory into `shared`: 4 x 4 elements, or 4, for each thread and round.

    turned  reads along the sum: four rows (or columns) by four steps; else along the rows: one step
    vectors what each thread puts: (place in `shared` relative to the thread's first, four elements)
    """

    def __init__(self, name: str, x: K, outer: tuple[K, ...], size: int, span: int, tile: Any) -> None:
        c = tile.c
        self.name, self.tile, self.span = name, tile, span
        self.turned = not any(runs_along(x, v) for v in outer[-1:]) or runs_along(x, c.summed[-1])
        self.stride = span // 4 + (1 if self.turned else 0)  # vectors for each step, padded against bank conflicts
        across = span // 4
        self.deep = tile.cut.deep
        self.work = across * (self.deep // 4 if self.turned else self.deep)
        self.rounds = max(1, self.work // tile.threads)
        self.place = k.var(f"{name}_place", -(-size // 4))
        self.step = k.var(
            f"{name}_step", self.deep // 4 if self.turned else min(self.deep, max(1, tile.threads // across))
        )
        self.elements = [self._elements(x, outer, size, n) for n in range(self.rounds)]

    def _elements(self, x: K, outer: tuple[K, ...], size: int, round: int) -> list[list[K]]:
        """Vectors of four neighbouring rows (or columns), one for each step that a thread brings in a round."""
        c, length = self.tile.c, self.tile.length
        threads, across, strip = self.tile.threads, self.span // 4, self.tile.strip
        if self.turned:
            places = self.place + round * (threads // (self.deep // 4))
            first, later = strip * self.deep + self.step * 4, STEP
        else:
            places = self.place
            first, later = strip * self.deep + self.step + round * (threads // across), k.const(0, "index")
        step = first + later
        whole = length % (4 if self.turned else 1) == 0
        inside = k.less(first if whole else step, k.const(length, "index"))
        if length % self.deep == 0:
            inside = k.const(True, "bool")
        elif whole:
            step = k.minimum(first, k.const(length - (4 if self.turned else 1), "index")) + later
        else:
            step = _within(step, length)
        row = unpacked(outer, self._row(places, LANE, size))
        found = substitute(x, {**row, **unpacked(c.summed, step), **self.tile.batch_at})
        value = k.select(inside, found, k.const(0, x.type))
        return [[_at(value, lane, n) for lane in FOUR] for n in (FOUR if self.turned else (0,))]

    def _row(self, places: K, lane: K, size: int) -> K:
        if size % 4 == 0:
            return _within(places, size // 4) * 4 + lane
        return _within(places * 4 + lane, size)

    def values(self) -> list[K]:
        return [x for round in self.elements for vector in round for x in vector]

    def registers(self, writer: Writer) -> dict[K, str]:
        """What each thread reads for a strip, and the variable that holds it."""
        loads = [n for n in walk(self.values()) if n.op == "load" and self.tile.strip in n.free]
        wide = (writer.access(n) for n in loads)
        found = dict.fromkeys(n if w is None else w[0] for n, w in zip(loads, wide, strict=True))
        return {n: f"{self.name}_{i}" for i, n in enumerate(found)}

    def thread(self, first: str) -> list[str]:
        """Which elements are this thread's."""
        per = self.deep // 4 if self.turned else self.span // 4
        mine, other = ("lid / {0}", "lid % {0}") if self.turned else ("lid % {0}", "lid / {0}")
        return [
            f"let {self.name}_near = {mine.format(per)}; let {self.name}_step = {other.format(per)};",
            f"let {self.name}_place = {first} * {self.span // 4} + {self.name}_near;",
        ]

    def guard(self, lines: list[str]) -> list[str]:
        """Only as many threads as there is work for."""
        if self.work >= self.tile.threads:
            return lines
        return [f"if (lid < {self.work}) {{", *("  " + x for x in lines), "}"]

    def fetch(self, top: Scope, registers: dict[K, str], strip: str) -> list[str]:
        """Read a strip's share into registers."""
        scope = self.tile.strip_scope(top, strip)
        lines = [(name, scope.spell(node)) for node, name in registers.items()]
        return self.guard([*scope.lines, *(f"{name} = {text};" for name, text in lines)])

    def put(self, top: Scope, registers: dict[K, str]) -> list[str]:
        """Write the share from registers into workgroup memory."""
        scope = self.tile.strip_scope(top, "strip")
        scope.names.update(registers)
        type, out = self.tile.type, []
        for n, vectors in enumerate(self.elements):
            for i, vector in enumerate(vectors):
                if self.turned:
                    far = n * (self.tile.threads // (self.deep // 4))
                    at = f"({self.name}_step * 4 + {i}) * {self.stride} + {self.name}_near + {far}"
                else:
                    far = n * (self.tile.threads // (self.span // 4))
                    at = f"({self.name}_step + {far}) * {self.stride} + {self.name}_near"
                parts = ", ".join(scope.value(x) for x in vector)
                out.append(f"shared_{self.name}[{at}] = vec4<{type}>({parts});")
        return self.guard([*scope.lines, *out])


class _Tile:
    def __init__(self, kernel: Kernel, c: Contraction, cut: Tiling) -> None:
        self.kernel, self.c, self.cut = kernel, c, cut
        self.threads = cut.threads
        self.type = TYPES[c.total.type]
        batch, rows, columns, self.length = c.sizes
        self.batch, self.strip = k.var("batch", batch), k.var("strip", -(-self.length // self.cut.deep))
        self.batch_at = unpacked(c.batch, self.batch)
        self.left = Factor("a", c.a, c.rows, rows, cut.rows, self)
        self.right = Factor("b", c.b, c.columns, columns, cut.columns, self)
        self.row, self.quad = k.var("row", rows), k.var("quad", -(-columns // 4))
        self.sums = [k.make("var", c.total.type, value=("sum", lane)) for lane in FOUR]
        self.results = self._results()
        values = [*self.left.values(), *self.right.values(), *(s.value for s in self.results)]
        self.writer = Writer(kernel.arguments, widths(values, self.results, kernel.arguments))

    def _results(self) -> list[Store]:
        """The stores of a row's four neighbouring results, each made from its sum."""
        c, total = self.c, k.make("var", self.c.total.type, value=("sum", 4))
        table = {**unpacked(c.rows, self.row), **unpacked(c.columns, self.quad * 4 + LANE), **self.batch_at}
        parts = substitute_all([c.store.index, c.store.value], {**table, c.total: total})
        each = [substitute_all(parts, {LANE: k.const(lane, "index"), total: self.sums[lane]}) for lane in FOUR]
        return [Store(c.store.argument, index, value) for index, value in each]

    def strip_scope(self, top: Scope, strip: str) -> Scope:
        scope = Scope(self.writer, frozenset((self.strip,)), top)
        scope.names[self.strip] = strip
        return scope

    def multiply(self) -> list[str]:
        """The products of one strip: for each step the thread's vectors of both factors, all pairs."""
        across, down = self.cut.columns // self.cut.across, self.cut.rows // self.cut.down
        looped = self.cut.written < self.cut.deep
        y, x = ("near", "far") if looped else ("y", "x")
        lines = []
        for s in range(self.cut.written):
            lines.append("{")
            at = [s * self.left.stride + i * down for i in range(self.cut.down // 4)]
            lines += [f"  let p{i} = shared_a[{y} + {n}];" for i, n in enumerate(at)]
            at = [s * self.right.stride + j * across for j in range(self.cut.across // 4)]
            lines += [f"  let q{j} = shared_b[{x} + {n}];" for j, n in enumerate(at)]
            lines += [f"  {self.product(i, j)}" for i in range(self.cut.down) for j in range(self.cut.across // 4)]
            lines.append("}")
        if not looped:
            return lines
        return [
            f"for (var s = 0; s < {self.cut.deep}; s += {self.cut.written}) {{",
            f"  let near = y + s * {self.left.stride}; let far = x + s * {self.right.stride};",
            *("  " + line for line in lines),
            "}",
        ]

    def product(self, i: int, j: int) -> str:
        left = f"vec4(p{i // 4}.{'xyzw'[i % 4]})"
        if self.type == "f32":
            return f"t{i}_{j} = fma({left}, q{j}, t{i}_{j});"
        return f"t{i}_{j} = t{i}_{j} + {left} * q{j};"

    def finish(self) -> list[str]:
        """The function that makes four neighbouring results from their sums and stores them."""
        _, rows, columns, _ = self.c.sizes
        scope = Scope(self.writer, frozenset((self.batch, self.row, self.quad, *self.sums)))
        scope.names.update({self.batch: "batch", self.row: "row", self.quad: "quad"})
        scope.names.update({s: f"sum.{'xyzw'[lane]}" for lane, s in enumerate(self.sums)})
        lasts = [f"quad * 4 + {lane} < {columns}" if columns % 4 else "" for lane in FOUR]
        lines = stores(scope, self.results, lasts)
        return [
            f"fn finish(batch: i32, row: i32, quad: i32, sum: vec4<{self.type}>) {{",
            f"  if (row >= {rows} || quad >= {-(-columns // 4)}) {{ return; }}",
            *("  " + x for x in [*scope.lines, *lines]),
            "}",
        ]

    def finishes(self) -> list[str]:
        across, down = self.cut.columns // self.cut.across, self.cut.rows // self.cut.down
        lines = []
        for i in range(self.cut.down):
            row = f"row + (y + {i // 4 * down}) * 4 + {i % 4}"
            lines += [f"finish(batch, {row}, quad + x + {j * across}, t{i}_{j});" for j in range(self.cut.across // 4)]
        return lines

    def body(self) -> list[str]:
        cut, across = self.cut, self.cut.columns // self.cut.across
        top = Scope(self.writer, frozenset((self.batch, *(v for f in self.factors for v in (f.place, f.step)))))
        top.names[self.batch] = "batch"
        for f in self.factors:
            top.names.update({f.place: f"{f.name}_place", f.step: f"{f.name}_step"})
        registers = [f.registers(self.writer) for f in self.factors]
        pairs = list(zip(self.factors, registers, strict=True))
        first = [x for f, r in pairs for x in f.fetch(top, r, "0")]
        following = [x for f, r in pairs for x in f.fetch(top, r, "next")]
        put = [x for f, r in pairs for x in f.put(top, r)]
        strips = -(-self.length // self.cut.deep)
        return [
            "let lid = i32(index); let batch = i32(group.z);",
            f"let x = lid % {across}; let y = lid / {across};",
            f"let row = i32(group.y) * {cut.rows}; let quad = i32(group.x) * {cut.columns // 4};",
            *self.left.thread("i32(group.y)"),
            *self.right.thread("i32(group.x)"),
            *top.lines,
            *(f"var t{i}_{j} = vec4<{self.type}>();" for i in range(cut.down) for j in range(cut.across // 4)),
            *(f"var {name}: {self.register(n)};" for r in registers for n, name in r.items()),
            *first,
            f"for (var strip = 0; strip < {strips}; strip++) {{",
            *("  " + x for x in ["workgroupBarrier();", *put, "workgroupBarrier();"]),
            *([f"  let next = min(strip + 1, {strips - 1});"] if following else []),
            *("  " + x for x in following),
            *("  " + x for x in self.multiply()),
            "}",
            *self.finishes(),
        ]

    @property
    def factors(self) -> tuple[Factor, Factor]:
        return self.left, self.right

    def register(self, node: K) -> str:
        """The type of what a thread reads."""
        return self.writer.stored(node.value) if node.op == "wide" else TYPES[node.type]

    def text(self) -> tuple[str, tuple[int, int, int]]:
        """The module and the workgroups to run."""
        batch, rows, columns, _ = self.c.sizes
        body, finish = self.body(), self.finish()
        lines = [
            *self.writer.head(),
            *(f"var<workgroup> shared_{f.name}: array<vec4<{self.type}>, {f.stride * f.deep}>;" for f in self.factors),
            *finish,
            f"@compute @workgroup_size({self.threads})",
            "fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) index: u32) {",
            *("  " + x for x in body),
            "}",
        ]
        return "\n".join(lines) + "\n", (-(-columns // self.cut.columns), -(-rows // self.cut.rows), batch)


def spell_tile(kernel: Kernel, choices: Choices) -> tuple[str, tuple[int, int, int]] | None:
    """The tiled module for a kernel that is one large enough contraction, else None."""
    c = contraction_of(kernel)
    if c is None or not c.summed:
        return None
    batch, rows, columns, length = c.sizes
    if rows < 8 or columns < 8 or length < 8 or batch > 65535 or max(rows, columns) > 65535 * 32:
        return None
    key = c.sizes, [t.name for t in kernel.arguments]
    tile = _Tile(kernel, c, choices.choose("wgsl tile", key, candidates(*c.sizes), tiling(*c.sizes)))
    small = kernel.arguments[c.store.argument].itemsize < 4
    if small and c.store.argument not in tile.writer.wide:
        return None
    return tile.text()
