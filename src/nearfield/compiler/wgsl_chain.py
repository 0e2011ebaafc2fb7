"""Chain -> WGSL: one workgroup makes the results of 64 rows, from tiles of weights that are never in memory.

For 64 steps at a time it makes the sums of products of its rows, in registers, from them the weights, and folds these
or multiplies them with a strip of the other factor. Of a softmax the largest score and the sum so far are kept for each
row, and what was summed is scaled when the largest score changes.

source  Dao et al. 2022, arXiv:2205.14135, algorithms 1 and 4; Milakov & Gimelshein 2018, arXiv:1805.02867
"""

from functools import lru_cache
from math import prod

from .. import scalar as k
from ..ops.approximation import exp_below
from ..scalar import K, identity, substitute, walk
from .chain import Chain, Inner, chain_of, named
from .kernel import Kernel, Store
from .wgsl import LANES, TYPES, Scope, Writer
from .wgsl_axes import unpacked
from .wgsl_stores import stores
from .wgsl_tile import Factor
from .wgsl_tiling import Tiling
from .wgsl_wide import widths

__all__ = ["spell_chain"]

ROWS = 64  # of a tile of weights
SPAN, MOST = 64, 2  # steps of a tile, if a weight is made of at most so many sums: all are in registers at once
PART = 32  # steps that are multiplied at a time, since more weights do not fit into workgroup memory
DOWN, BESIDE = ROWS // 4, 8  # threads of a workgroup: each has four rows, and of these every eighth four steps
THREADS = DOWN * BESIDE  # with 64 threads of eight rows too few fit on a multiprocessor: a third slower
DEEP = 16  # steps of an inner sum in workgroup memory at a time
ROOM = 16384 // 16  # vectors in workgroup memory, which every device has
FOUR = range(4)  # lanes of a vector, and rows of a thread


class _Strips:
    """One sum of products as its factors see it: how long it is, and which strip is in workgroup memory."""

    def __init__(self, tile: "_Chain", summed: tuple[K, ...], deep: int, columns: int) -> None:
        self.tile, self.summed, self.type = tile, summed, tile.type
        self.length = prod(v.value[1] for v in summed)
        deep = min(deep, max(4, 1 << (self.length - 1).bit_length()))
        self.cut = Tiling(ROWS, columns, 4, columns // BESIDE, deep, deep)
        self.count = -(-self.length // deep)
        self.strip = k.var("strip", self.count)
        self.threads, self.batch_at = THREADS, tile.batch_at

    @property
    def c(self) -> "_Strips":
        """What is contracted."""
        return self

    def strip_scope(self, top: Scope, strip: str) -> Scope:
        """A block in which the strip has a number."""
        scope = Scope(self.tile.writer, frozenset((self.strip,)), top)
        scope.names[self.strip] = strip
        return scope


def _products(left: int, right: int, steps: int, across: int, total: str) -> list[str]:
    """For each step the thread's vectors of both factors, all pairs; left and right are vectors for each step."""
    lines = []
    for s in range(steps):
        lines.append("{")
        lines.append(f"  let p = shared_a[y + {s * left}];")
        lines += [f"  let q{j} = shared_b[x + {s * right + j * BESIDE}];" for j in range(across)]
        for i, c in enumerate(LANES):
            lines += [f"  {total}{i}_{j} = fma(vec4(p.{c}), q{j}, {total}{i}_{j});" for j in range(across)]
        lines.append("}")
    return lines


class _Chain:
    def __init__(self, kernel: Kernel, chain: Chain) -> None:
        self.kernel, self.chain = kernel, chain
        self.type = TYPES[chain.total.type]
        batch, rows, columns, self.steps = chain.sizes
        self.batch, self.row = k.var("batch", batch), k.var("row", rows)
        self.span = SPAN if len(chain.inner) <= MOST else PART
        self.quads = self.span // PART  # fours of weights of a thread's row
        self.four = k.var("four", -(-self.steps // self.span) * (self.span // 4))  # there may be fewer steps
        self.quad = k.var("quad", -(-columns // 4))
        self.batch_at = unpacked(chain.batch, self.batch)
        self.inner = [_Strips(self, inner.summed, DEEP, self.span) for inner in chain.inner]
        self.pairs = [self._pair(strips, inner) for strips, inner in zip(self.inner, chain.inner, strict=True)]
        self.across = next((n for n in (32, 64) if columns <= n), 64) if chain.columns else 0
        self.outer = _Strips(self, (chain.step,), PART, self.across) if chain.other is not None else None
        self.other = self._other()
        self.sums = [k.make("var", chain.total.type, value=("sum", lane)) for lane in FOUR]
        self.known = self._known()
        self.weights = [self._weight(lane) for lane in FOUR]
        self.results = [self._result(lane) for lane in (FOUR if chain.columns else range(1))]
        factors = [f for pair in self.pairs for f in pair] + ([self.other] if self.other else [])
        values = [v for f in factors for v in f.values()] + self.weights + [self.of_row(x) for x in self.known]
        values += [s.value for s in self.results]
        self.writer = Writer(kernel.arguments, widths(values, self.results, kernel.arguments))
        self.room = (
            max([PART * ROWS // 4 if self.outer else 0, *(a.stride * a.deep for a, _ in self.pairs)]),
            max([f.stride * f.deep for f in factors if f.name != "a"] + [THREADS]),
        )

    def _pair(self, strips: _Strips, inner: Inner) -> tuple[Factor, Factor]:
        rows, steps = self.chain.rows, (self.chain.step,)
        left = Factor("a", inner.a, rows, self.chain.sizes[1], ROWS, strips)
        return left, Factor("b", inner.b, steps, self.steps, self.span, strips)

    def _other(self) -> Factor | None:
        chain = self.chain
        if self.outer is None or chain.other is None:
            return None
        return Factor("c", chain.other, chain.columns, chain.sizes[2], self.across, self.outer)

    def stand_in(self, inner: int, lane: int) -> K:
        """What a sum of products is called in a function that makes weights."""
        return k.make("var", self.chain.total.type, value=("inner", inner, lane))

    def _weight(self, lane: int) -> K:
        """The weight at one of four steps, or of a softmax the score; what adds nothing where there is no such step."""
        chain, place = self.chain, self.four * 4 + lane
        table = {**unpacked(chain.rows, self.row), **self.batch_at}
        table[chain.step] = k.minimum(place, k.const(self.steps - 1, "index"))
        value, kind = (chain.online.score, "max") if chain.online else (chain.weight, chain.kind)
        table |= self.known
        table |= {inner.total: self.stand_in(n, lane) for n, inner in enumerate(chain.inner)}
        if chain.online:
            table[chain.online.inner] = self.stand_in(0, lane)
        inside = k.less(place, k.const(self.steps, "index"))
        value = substitute(value, table)
        return value if inside.op == "const" else k.select(inside, value, identity(kind, value.type))

    def _known(self) -> dict[K, K]:
        """What of a weight depends on the row alone and is read from memory: it is made once for each row."""
        chain = self.chain
        fixed, totals = frozenset((*chain.batch, *chain.rows)), {inner.total for inner in chain.inner}
        found: dict[K, K] = {}
        stack = [chain.online.score if chain.online else chain.weight]
        while stack:
            node = stack.pop()
            if node.type == "float32" and node.free <= fixed and any(n.op == "load" for n in walk([node])):
                found.setdefault(node, k.make("var", node.type, value=("known", len(found))))
            elif node not in totals:
                stack += node.args
        return found

    def of_row(self, value: K) -> K:
        """The value at the function's row."""
        return substitute(value, {**unpacked(self.chain.rows, self.row), **self.batch_at})

    def _result(self, lane: int) -> Store:
        chain = self.chain
        table = {**unpacked(chain.rows, self.row), **self.batch_at}
        if chain.columns:
            table |= unpacked(chain.columns, self.quad * 4 + lane)
        total = self.sums[lane]
        if chain.online:
            every = k.make("var", total.type, value=("every",))
            total = substitute(chain.online.result, {chain.online.sum: total, chain.online.all: every})
        value = substitute(chain.store.value, {**table, chain.total: total})
        return Store(chain.store.argument, substitute(chain.store.index, table), value)

    # -- functions -----------------------------------------------------------------------------------------------------

    def function(self, head: str, scope: Scope, before: list[str], after: list[str]) -> list[str]:
        """A function's text; hidden zeros are asked for once, in `main`."""
        lines = [*before, *scope.lines, *after]
        return [head + " {", *("  " + x.replace("nf_zero()", "zero") for x in lines), "}"]

    def weigh(self) -> list[str]:
        """The function that makes the weights (or scores) of a row at four steps from its sums of products."""
        stand_ins = {self.stand_in(n, lane): f"s{n}.{LANES[lane]}" for n in range(len(self.inner)) for lane in FOUR}
        stand_ins |= {x: f"known{n}" for n, x in enumerate(self.known.values())}
        scope = Scope(self.writer, frozenset((self.batch, self.row, self.four, *stand_ins)))
        scope.names |= {self.batch: "batch", self.row: "row", self.four: "four", **stand_ins}
        values = [scope.value(w) for w in self.weights]
        sums = [f"s{n}: vec4<f32>" for n in range(len(self.inner))] + [f"known{n}: f32" for n in range(len(self.known))]
        row = f"let row = min(place, {self.chain.sizes[1] - 1});"
        head = f"fn weigh(batch: i32, place: i32, four: i32, {', '.join(sums)}) -> vec4<f32>"
        return self.function(head, scope, [row], [f"return vec4<f32>({', '.join(values)});"])

    def row_values(self) -> list[str]:
        """The functions that make what of a weight depends on the row alone."""
        lines = []
        for n, value in enumerate(self.known):
            scope = Scope(self.writer, frozenset((self.batch, self.row)))
            scope.names |= {self.batch: "batch", self.row: "row"}
            row, made = f"let row = min(place, {self.chain.sizes[1] - 1});", scope.value(self.of_row(value))
            lines += self.function(f"fn row{n}(batch: i32, place: i32) -> f32", scope, [row], [f"return {made};"])
        return lines

    def finish(self) -> list[str]:
        """The function that makes results from sums and stores them."""
        _, rows, columns, _ = self.chain.sizes
        online, vector = self.chain.online, bool(self.chain.columns)
        names = {s: f"sum.{LANES[lane]}" if vector else "sum" for lane, s in enumerate(self.sums)}
        if online:
            names[k.make("var", self.chain.total.type, value=("every",))] = "every"
        scope = Scope(self.writer, frozenset((self.batch, self.row, self.quad, *names)))
        scope.names |= {self.batch: "batch", self.row: "row", self.quad: "quad", **names}
        lasts = [f"quad * 4 + {lane} < {columns}" if vector and columns % 4 else "" for lane in FOUR]
        kept = stores(scope, self.results, lasts)
        head = f"fn finish(batch: i32, row: i32, quad: i32, sum: {'vec4<f32>' if vector else 'f32'}, every: f32)"
        guard = f"if (row >= {rows} || quad >= {max(1, -(-columns // 4))}) {{ return; }}"
        return self.function(head, scope, [guard], kept)

    def power(self) -> list[str]:
        """The functions e^(score - shift), and the shift for a largest score."""
        online = self.chain.online
        if online is None:
            return []
        score, shift = named("score", online.top.type), named("shift", online.top.type)
        scope = Scope(self.writer, frozenset((score, shift)))
        scope.names |= {score: "score", shift: "shift"}
        power = scope.value(exp_below(score - shift))
        lines = self.function("fn power(score: f32, shift: f32) -> f32", scope, [], [f"return {power};"])
        scope = Scope(self.writer, frozenset((online.top,)))
        scope.names |= {online.top: "top"}
        made = scope.value(online.shift)
        return lines + self.function("fn shift_of(top: f32) -> f32", scope, [], [f"return {made};"])

    # -- the body ------------------------------------------------------------------------------------------------------

    def place(self, i: int) -> str:
        """The row of a thread's i-th results."""
        return f"row + y * 4 + {i}"

    def sums_of_products(self, n: int, main: Scope) -> list[str]:
        """The n-th sums of this tile, four rows at some fours of steps, in registers."""
        pair, strips = self.pairs[n], self.inner[n]
        scope = Scope(self.writer, frozenset(v for f in pair for v in (f.place, f.step)), main)
        for f in pair:
            scope.names |= {f.place: f"{f.name}_place", f.step: f"{f.name}_step"}
        registers = [f.registers(self.writer) for f in pair]
        both = list(zip(pair, registers, strict=True))
        brought = [x for f, r in both for x in [*f.fetch(scope, r, "strip"), *f.put(scope, r)]]
        loop = [
            *["workgroupBarrier();", *brought, "workgroupBarrier();"],
            *_products(pair[0].stride, pair[1].stride, pair[0].deep, self.quads, f"s{n}_"),
        ]
        return [
            *(f"var s{n}_{i}_{j} = vec4<f32>();" for i in FOUR for j in range(self.quads)),
            "{",
            *("  " + x for x in [*pair[0].thread("i32(group.y)"), *pair[1].thread("tile"), *scope.lines]),
            *(f"  var {name}: {self.register(node)};" for r in registers for node, name in r.items()),
            f"  for (var strip = 0; strip < {strips.count}; strip++) {{",
            *("    " + x for x in loop),
            "  }",
            "}",
        ]

    def register(self, node: K) -> str:
        """The type of what a thread reads."""
        return self.writer.stored(node.value) if node.op == "wide" else TYPES[node.type]

    def weighed(self) -> list[str]:
        """The weights of this tile."""
        lines = []
        for i in FOUR:
            for j in range(self.quads):
                given = [f"s{n}_{i}_{j}" for n in range(len(self.inner))]
                given += [f"known{n}_{i}" for n in range(len(self.known))]
                four = f"tile * {self.span // 4} + x + {j * BESIDE}"
                lines.append(f"var f{i}_{j} = weigh(batch, {self.place(i)}, {four}, {', '.join(given)});")
        return lines

    def rescaled(self) -> list[str]:
        """Scores become weights; the largest of each row is sought by all threads that have some of it."""
        pairs = [f"f{i}_0" if self.quads == 1 else f"max(f{i}_0, f{i}_1)" for i in FOUR]
        lines = ["workgroupBarrier();", *(f"let most{i} = {pair};" for i, pair in enumerate(pairs))]
        largest = [f"max(max(most{i}.x, most{i}.y), max(most{i}.z, most{i}.w))" for i in FOUR]
        lines += [
            f"shared_b[x * {DOWN} + y] = vec4<f32>({', '.join(largest)});",
            "workgroupBarrier();",
            "var top = best;",
            *(f"top = max(top, shared_b[y + {n * DOWN}]);" for n in range(BESIDE)),
        ]
        for i, lane in enumerate(LANES):
            lines += [  # where there was no score yet, all sums are 0
                f"let shift{i} = shift_of(top.{lane});",
                f"let less{i} = power(min(best.{lane}, shift{i}), shift{i});",
                f"all{i} *= less{i};",
                *(f"t{i}_{j} *= less{i};" for j in range(self.across // PART)),
            ]
            for j in range(self.quads):
                powers = ", ".join(f"power(f{i}_{j}.{c}, shift{i})" for c in LANES)
                lines += [f"f{i}_{j} = vec4<f32>({powers});", f"all{i} += dot(f{i}_{j}, vec4<f32>(1.0));"]
        return [*lines, "best = top;"]

    def multiplied(self, main: Scope) -> tuple[list[str], list[str]]:
        """What is read of the other factor while the weights are made, and how both are multiplied."""
        other = self.other
        if other is None:
            return [], self.folded()
        scope = Scope(self.writer, frozenset((other.place, other.step)), main)
        scope.names |= {other.place: "c_place", other.step: "c_step"}
        registers = other.registers(self.writer)
        brought = [*other.fetch(scope, registers, "strip"), *other.put(scope, registers)]
        before = [
            f"let begin = tile * {self.quads};",
            *other.thread("i32(group.x)"),
            *scope.lines,
            *(f"var {name}: {self.register(node)};" for node, name in registers.items()),
        ]
        loop = [
            *["workgroupBarrier();", *self.turned(), *(x.replace("shared_c", "shared_b") for x in brought)],
            "workgroupBarrier();",
            *_products(DOWN, other.stride, other.deep, self.across // PART, "t"),
        ]
        last = -(-self.steps // PART) - 1
        return before, [
            f"let last = {last};",
            f"for (var strip = begin; strip <= min(begin + {self.quads - 1}, last); strip++) {{",
            *("  " + x for x in loop),
            "}",
        ]

    def turned(self) -> list[str]:
        """A part's weights into workgroup memory, four rows for each step."""
        lines = []
        for n, c in enumerate(LANES):
            rows = [f"f{i}_0.{c}" for i in FOUR]
            if self.quads > 1:
                rows = [f"select(f{i}_0.{c}, f{i}_1.{c}, strip > begin)" for i in FOUR]
            lines.append(f"shared_a[(x * 4 + {n}) * {DOWN} + y] = vec4<f32>({', '.join(rows)});")
        return lines

    def folded(self) -> list[str]:
        """The weights of this tile added to each thread's share."""
        kind, type = self.chain.kind, self.chain.total.type
        return [
            f"t{i}_0 = {self.writer.fold(kind, type, f't{i}_0', f'f{i}_{j}.{c}')};"
            for i in FOUR
            for j in range(self.quads)
            for c in LANES
        ]

    def gathered(self, names: list[str], kind: str) -> list[str]:
        """Each row's fold of what its threads have, in all of them."""
        lines = [
            "workgroupBarrier();",
            f"shared_b[x * {DOWN} + y] = vec4<f32>({', '.join(names)});",
            "workgroupBarrier();",
        ]
        for name, c in zip(names, LANES, strict=True):
            parts = [f"shared_b[y + {n * DOWN}].{c}" for n in range(BESIDE)]
            lines.append(f"{name} = {parts[0]};")
            lines += [f"{name} = {self.writer.fold(kind, self.chain.total.type, name, part)};" for part in parts[1:]]
        return lines

    def begun(self) -> list[str]:
        """The variables that a thread keeps from tile to tile."""
        if self.other is None:
            start = self.once(identity(self.chain.kind, self.chain.total.type))
            return [f"var t{i}_0 = {start};" for i in FOUR]
        lines = [f"var t{i}_{j} = vec4<f32>();" for i in FOUR for j in range(self.across // PART)]
        if self.chain.online:
            least = self.once(identity("max", self.chain.total.type))
            lines += [f"var best = vec4<f32>({least});", *(f"var all{i} = 0.0;" for i in FOUR)]
        return lines

    def once(self, value: K) -> str:
        return self.writer.literal(value).replace("nf_zero()", "zero")

    def ended(self) -> list[str]:
        """Results are made and stored."""
        if self.other is None:
            totals = [f"t{i}_0" for i in FOUR]
            ends = [f"finish(batch, {self.place(i)}, 0, {t}, 0.0);" for i, t in enumerate(totals)]
            return [*self.gathered(totals, self.chain.kind), "if (x == 0) {", *("  " + e for e in ends), "}"]
        every = [f"all{i}" if self.chain.online else "0.0" for i in FOUR]
        return [
            *(self.gathered(every, "sum") if self.chain.online else []),
            *(
                f"finish(batch, {self.place(i)}, quad + x + {j * BESIDE}, t{i}_{j}, {every[i]});"
                for i in FOUR
                for j in range(self.across // PART)
            ),
        ]

    def text(self) -> tuple[str, tuple[int, int, int]]:
        """The module and the workgroups to run."""
        batch, rows, columns, _ = self.chain.sizes
        main = Scope(self.writer, frozenset((self.batch,)))
        main.names[self.batch] = "batch"
        functions = [*self.row_values(), *self.weigh(), *self.finish(), *self.power()]
        tile = [line for n in range(len(self.inner)) for line in self.sums_of_products(n, main)]
        before, multiplied = self.multiplied(main)
        tile += [*before, *self.weighed(), *(self.rescaled() if self.chain.online else []), *multiplied]
        known = [f"let known{n}_{i} = row{n}(batch, {self.place(i)});" for n in range(len(self.known)) for i in FOUR]
        begun, ended = [*known, *self.begun()], self.ended()
        self.writer.need("nf_zero")
        lines = [
            *self.writer.head(),
            *(f"var<workgroup> shared_{name}: array<vec4<f32>, {n}>;" for name, n in zip("ab", self.room, strict=True)),
            "var<private> zero: u32;",
            *functions,
            f"@compute @workgroup_size({THREADS})",
            "fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) index: u32) {",
            "  zero = nf_zero();",
            "  let lid = i32(index); let batch = i32(group.z);",
            f"  let x = lid % {BESIDE}; let y = lid / {BESIDE};",
            f"  let row = i32(group.y) * {ROWS}; let quad = i32(group.x) * {self.across // 4};",
            *("  " + x for x in [*main.lines, *begun]),
            f"  for (var tile = 0; tile < {-(-self.steps // self.span)}; tile++) {{",
            *("    " + x for x in tile),
            "  }",
            *("  " + x for x in ended),
            "}",
        ]
        return "\n".join(lines) + "\n", (-(-columns // self.across) if columns else 1, -(-rows // ROWS), batch)


@lru_cache(maxsize=64)
def spell_chain(kernel: Kernel) -> tuple[str, tuple[int, int, int]] | None:
    """The module for a kernel that folds what it makes of sums of products, and its workgroups; else None."""
    chain = chain_of(kernel)
    if chain is None or chain.total.type != "float32" or chain.sizes[0] > 65535 or chain.sizes[1] > 65535 * ROWS:
        return None
    made = _Chain(kernel, chain)
    small = kernel.arguments[chain.store.argument].itemsize < 4
    if sum(made.room) > ROOM or (small and chain.store.argument not in made.writer.wide):
        return None
    return made.text()
