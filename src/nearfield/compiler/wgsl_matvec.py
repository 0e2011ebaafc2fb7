"""Kernel -> WGSL: few rows times a large factor that lies along the sum, quantised or not, each element read once.

What counts is how many bytes are on their way at a time. The 32 threads of a team share out the sums of a few
neighbouring columns, and ask for all their pieces of these columns before they compute with the first.

There are two kinds of sums. A plain one may have a quantised factor: numbers of 4 or 8 bits are widened where they are
used, and what a piece has in common, such as the scale of its group, is taken out of it. The other is made of groups,
each made of sums of products of bytes, one sum for each digit (digits.py), which are then scaled: four products and
their sum are one instruction.
"""

from dataclasses import dataclass
from itertools import product
from math import prod

from .. import scalar as k
from ..index import unflatten
from ..scalar import K, const_value, substitute, walk
from .choice import Choices
from .kernel import Kernel, Store, vary
from .wgsl import Scope, Writer
from .wgsl_axes import bound, collapsed
from .wgsl_points import grid, unpack
from .wgsl_stores import stores
from .wgsl_wide import widths

__all__ = ["spell_matvec"]

TEAM = 32  # threads that share out a sum
FEW = 8  # rows
LEAST = 256  # terms of a sum that are worth a team
COLUMNS = 64  # columns that are worth it
WRITTEN_OUT = 16  # pieces of a thread that are written one after the other, and asked for before the first is used
TEXT = 128  # sums of these for one column: more text takes long to compile
LONGEST = 128  # terms of a group
MANY = 1 << 15  # columns from which on workgroups of one small team are too many
CUTS = ((2, 1), (4, 1), (1, 4))  # columns of a team, and teams of a workgroup
FOUR = range(4)


@dataclass(frozen=True, slots=True)
class _Product:
    """The sum of a · b over the variables of `total`; or of a body with `groups` in it, sums of a · b over their own.

    factors  a, of few rows, and b, that of the columns, of the sum or of each group's; both depend on the variables
             of `batch`
    """

    store: Store
    total: K
    groups: tuple[K, ...]
    factors: tuple[tuple[K, K], ...]
    rows: tuple[K, ...]
    column: K
    batch: tuple[K, ...]

    @property
    def inner(self) -> tuple[K, ...]:
        """The variables of the groups."""
        return self.groups[0].value[1] if self.groups else ()


@dataclass(frozen=True, slots=True)
class _Field:
    """A number in some bits of an element of int8, as two's complement."""

    load: K
    low: int
    bits: int


@dataclass(frozen=True, slots=True)
class _Word:
    """Four numbers, in the same bits of each byte of one word of a wide access."""

    node: K
    low: int
    bits: int


@dataclass(frozen=True, slots=True)
class _Term:
    """One piece of one sum.

    pairs   the factors of its products, for each sum
    groups  the sums that these make, and `body`, what is added of them; none: the products themselves are added
    inside  whether there is such a piece
    """

    pairs: list[list[tuple[K, K]]]
    groups: list[K]
    body: K | None
    inside: K

    def read(self) -> list[K]:
        """The expressions that say what is loaded."""
        values = [x for pairs in self.pairs for pair in pairs for x in pair]
        if self.body is None:
            return values
        return [*values, substitute(self.body, {group: k.const(1, group.type) for group in self.groups})]


def _size(variables: tuple[K, ...]) -> int:
    return prod(v.value[1] for v in variables)


def _product_of(kernel: Kernel) -> _Product | None:
    """The kernel as a product of few rows, or None."""
    if len(kernel.stores) != 1:
        return None
    (store,) = kernel.stores
    folds = [n for n in walk([store.value]) if n.op == "reduce"]
    if not folds or any(n.value[0] != "sum" for n in folds) or folds[-1].type != "float32":
        return None
    *groups, total = folds
    sizes = {tuple(v.value[1] for v in n.value[1]) for n in groups}
    if any(n.type != "int32" for n in groups) or len(sizes) > 1 or not total.free <= set(kernel.axes):
        return None
    bodies = [n.args[0] for n in groups or [total]]
    if not set(groups) <= set(walk([total.args[0]])) or any(body.op != "mul" for body in bodies):
        return None
    factors = tuple([_few_rows_first(body, kernel) for body in bodies])
    free = {tuple(x.free & set(kernel.axes) for x in pair) for pair in factors}
    if len(free) != 1:
        return None
    ((few, many),) = free
    batch = tuple(v for v in kernel.axes if v in few & many)
    rows = tuple(v for v in kernel.axes if v in few - many)
    columns = tuple(v for v in kernel.axes if v in many - few)
    if len(columns) != 1 or len(batch) + len(rows) + 1 < len(kernel.axes):
        return None
    found = _Product(store, total, tuple(groups), factors, rows, columns[0], batch)
    return found if _is_worth_it(found, kernel) else None


def _few_rows_first(body: K, kernel: Kernel) -> tuple[K, K]:
    """The factors of a product, that of the columns last."""
    a, b = body.args
    turned = kernel.axes and kernel.axes[-1] in a.free and kernel.axes[-1] not in b.free
    return (b, a) if turned else (a, b)


def _is_worth_it(found: _Product, kernel: Kernel) -> bool:
    """Whether the sizes suit teams. One row of reals is as fast as any sum of rows (wgsl_rows.py)."""
    inner = _size(found.inner)
    large = [b for _, b in found.factors]
    narrow = any(n.op == "load" and kernel.arguments[n.value].name == "int8" for n in walk(large))
    long = _size(found.total.value[1]) * inner >= LEAST and inner <= LONGEST
    return long and (1 if narrow else 2) <= _size(found.rows) <= FEW and found.column.value[1] >= COLUMNS


def _field_of(x: K) -> _Field | None:
    """The bits of an int8 element that x is: the element itself, or moved to the top of a word and down from there."""
    if x.op == "load" and x.type == "int32":
        return _Field(x, 0, 8)
    if x.op != "shr" or x.args[1].op != "const" or x.args[0].op != "mul" or x.args[0].args[1].op != "const":
        return None
    element, factor = x.args[0].args
    up, down = int(const_value(factor)).bit_length() - 1, int(const_value(x.args[1]))
    if element.op != "load" or const_value(factor) != 1 << up or not 24 <= up <= down:
        return None
    return _Field(element, down - up, 32 - down)


class _Matvec(Writer):
    """The text of one product.

    columns  that a team makes
    teams    of a workgroup
    piece    terms of a plain sum that a thread takes at a time; of groups it takes one
    """

    def __init__(self, kernel: Kernel, found: _Product, columns: int, teams: int, piece: int) -> None:
        super().__init__(kernel.arguments)
        self.found, self.columns, self.teams, self.piece = found, columns, teams, piece
        self.pieces = _size(found.total.value[1]) // piece
        self.rounds = -(-self.pieces // TEAM)
        most = min(WRITTEN_OUT, TEXT // (_size(found.rows) * len(found.factors)))
        self.each = max(n for n in range(1, most + 1) if self.rounds % n == 0)  # rounds of a turn of the loop
        self.block = k.var("block", -(-found.column.value[1] // columns))
        self.t, self.turn = k.var("t", TEAM), k.var("turn", 1 << 20)
        self.all_teams = _size(found.batch) * self.block.value[1]
        self.rows = [dict(zip(found.rows, place, strict=True)) for place in _indices(found.rows)]
        self.sums = [[f"s{m}_{c}" for c in range(columns)] for m in range(len(self.rows))]
        terms = [term for n in range(self.each) for row in self.terms(self.turn * self.each + n) for term in row]
        self.wide = widths([x for term in terms for x in term.read()], [], self.dtypes)
        self.suits = all(self.lies_along(term) for term in terms)

    # -- what is added -------------------------------------------------------------------------------------------------

    def terms(self, round: K) -> list[list[_Term]]:
        """What a thread adds to its sums in a round: for each row, for each column of the team."""
        place = round * TEAM + self.t
        inside = k.less(place, k.const(self.pieces, "index")) if self.pieces % TEAM else k.const(True, "bool")
        if self.pieces % TEAM:
            place = k.minimum(place, k.const(self.pieces - 1, "index"))
        *slower, last = self.found.total.value[1]
        sizes = (*(v.value[1] for v in slower), last.value[1] // self.piece)
        at = dict(zip((*slower, last), unflatten(place, sizes), strict=True))
        columns = [self.column(c) for c in range(self.columns)]
        return [[self.term({**rows, **at, self.found.column: c}, inside) for c in columns] for rows in self.rows]

    def column(self, c: int) -> K:
        at, size = self.block * self.columns + c, self.found.column.value[1]
        return at if size % self.columns == 0 else k.minimum(at, k.const(size - 1, "index"))

    def term(self, table: dict[K, K], inside: K) -> _Term:
        found, last = self.found, self.found.total.value[1][-1]
        if not found.groups:
            (factors,) = found.factors
            steps = [table | {last: table[last] * self.piece + n} for n in range(self.piece)]
            return _Term([_pairs(factors, steps)], [], None, inside)
        pairs = []
        for group, factors in zip(found.groups, found.factors, strict=True):
            inner = group.value[1]
            pairs.append(_pairs(factors, [table | dict(zip(inner, n, strict=True)) for n in _indices(inner)]))
        groups = [bound(group, table) for group in found.groups]
        return _Term(pairs, groups, bound(found.total.args[0], table), inside)

    def lies_along(self, term: _Term) -> bool:
        """Whether the elements of a piece that differ from product to product are neighbours in the large factor."""
        if term.groups:
            return all(self.dots(pairs) is not None for pairs in term.pairs)
        loads = [[n for n in walk([b]) if n.op == "load"] for _, b in term.pairs[0]]
        common = set(loads[0]).intersection(*loads)
        return all(self.access(n) is not None for each in loads for n in each if n not in common)

    # -- its text ------------------------------------------------------------------------------------------------------

    def value(self, scope: Scope, term: _Term) -> str:
        """What a piece adds."""
        text = self.grouped(scope, term) if term.groups else self.reals(scope, term.pairs[0])
        return text if term.inside.op == "const" else f"select(0.0, {text}, {scope.value(term.inside)})"

    def reals(self, scope: Scope, pairs: list[tuple[K, K]]) -> str:
        """Σ a b, with the factor that all b have in common taken out."""
        scale = {b.args[1] if b.op == "mul" else None for _, b in pairs}
        common = scale.pop() if len(scale) == 1 else None
        wide = self.widened(scope, [b if common is None else b.args[0] for _, b in pairs])
        totals = self.name(), self.name()  # of the even and the odd ones, so that a product need not wait for the last
        for n, ((a, _), x) in enumerate(zip(pairs, wide, strict=True)):
            total, value = totals[n % 2], scope.value(a)
            scope.lines.append(f"var {total} = {value} * {x};" if n < 2 else f"{total} = fma({value}, {x}, {total});")
        both = f"({totals[0]} + {totals[1]})"
        return both if common is None else f"{both} * {scope.value(common)}"

    def widened(self, scope: Scope, values: list[K]) -> list[str]:
        """The values; whole numbers in the bytes of a word together."""
        found: list[str] = []
        for n in range(0, len(values), 4):
            four = values[n : n + 4]
            word = self.word_of([x.args[0] for x in four if x.op == "cast"])
            found += [scope.value(x) for x in four] if word is None else self.four_reals(scope, word)
        return found

    def four_reals(self, scope: Scope, word: _Word) -> list[str]:
        """The numbers of a word as reals: each is moved to the top, and down from there with its sign."""
        key = k.make("reals", "float32", (word.node,), (word.low, word.bits))
        name = scope.names.get(key)
        if name is None:
            name = scope.names[key] = self.name()
            up = ", ".join(f"{32 - word.bits - word.low - 8 * lane}u" for lane in FOUR)
            top = f"vec4<i32>(bitcast<i32>({self.word(scope, word.node)})) << vec4<u32>({up})"
            scope.lines.append(f"let {name} = vec4<f32>(({top}) >> vec4<u32>({32 - word.bits}u));")
        return [f"{name}.{'xyzw'[lane]}" for lane in FOUR]

    def word_of(self, values: list[K]) -> _Word | None:
        """The word that four numbers are in, one after the other."""
        fields = [field for x in values if (field := _field_of(x)) and self.dtypes[field.load.value].name == "int8"]
        wide = [access for field in fields if (access := self.access(field.load))]
        if len(wide) < 4:
            return None
        node, first = wide[0]
        same = [(node, first + lane, fields[0].low, fields[0].bits) for lane in FOUR]
        if first % 4 or [(*w, f.low, f.bits) for w, f in zip(wide, fields, strict=True)] != same:
            return None
        return _Word(k.make("word", "uint32", (node,), first // 4), fields[0].low, fields[0].bits)

    def word(self, scope: Scope, node: K) -> str:
        """One word of a wide access."""
        (wide,) = node.args
        words = self.wide[wide.value] * self.dtypes[wide.value].itemsize // 4
        return scope.value(wide) if words == 1 else f"{scope.value(wide)}.{'xyzw'[node.value]}"

    def dots(self, pairs: list[tuple[K, K]]) -> list[tuple[_Word, _Word]] | None:
        """A group's products, four and four: both words; None if they do not lie so."""
        found = []
        for n in range(0, len(pairs), 4):
            left, right = (self.word_of(list(side)) for side in zip(*pairs[n : n + 4], strict=True))
            if left is None or right is None or left.bits != 8:
                return None
            found.append((left, right))
        return found if len({right.bits for _, right in found}) == 1 else None

    def grouped(self, scope: Scope, term: _Term) -> str:
        """What is made of the sums of a group."""
        assert term.body is not None
        for group, pairs in zip(term.groups, term.pairs, strict=True):
            dots = self.dots(pairs)
            assert dots is not None
            texts = [f"dot4I8Packed({self.word(scope, a.node)}, {self.high(scope, b)})" for a, b in dots]
            unit = 8 - dots[0][1].bits  # numbers of 4 bits stand in the high halves of bytes, so they count 16 times
            name = scope.names[group] = self.name()
            scope.lines.append(f"let {name} = ({' + '.join(texts)}) >> {unit}u;")
        return scope.value(term.body)

    def high(self, scope: Scope, word: _Word) -> str:
        """A word whose bytes have the numbers in their highest bits, and zeros below."""
        text, up = self.word(scope, word.node), 8 - word.bits - word.low
        if word.bits == 8:
            return text
        mask = 0x01010101 * (256 - (1 << (8 - word.bits)))
        return f"({text} << {up}u) & {mask:#x}u"

    # -- the kernel ----------------------------------------------------------------------------------------------------

    def add(self, scope: Scope, rounds: list[K]) -> None:
        """Add the pieces of some rounds; those of the large factor are asked for first."""
        terms = [self.terms(round) for round in rounds]
        read = [x for rows in terms for row in rows for term in row for x in term.read()]
        for node in walk(read):
            if node.op == "load" and self.block in node.free:
                wide = self.access(node)
                scope.value(node if wide is None else wide[0])
        for rows in terms:
            for names, row in zip(self.sums, rows, strict=True):
                for name, term in zip(names, row, strict=True):
                    scope.lines.append(f"{name} += {self.value(scope, term)};")

    def body(self) -> list[str]:
        """Statements until each thread has its share of the sums."""
        top = Scope(self, frozenset((*self.found.batch, self.block, self.t)))
        top.names[self.t] = "t"
        unpack(top, (*self.found.batch, self.block), f"min(team, {self.all_teams - 1})")
        top.lines += [f"var {name} = 0.0;" for row in self.sums for name in row]
        if self.rounds == self.each:
            self.add(top, [k.const(n, "index") for n in range(self.rounds)])
            return top.lines
        inner = Scope(self, frozenset((self.turn,)), top)
        inner.names[self.turn] = "turn"
        self.add(inner, [self.turn * self.each + n for n in range(self.each)])
        loop = f"for (var turn = 0; turn < {self.rounds // self.each}; turn++) {{"
        return [*top.lines, loop, *("  " + x for x in inner.lines), "}"]

    def finish(self, lanes: int) -> list[str]:
        """Statements that add the shares up and store what is made of the sums: a thread for each `lanes` results."""
        found, count, parts = self.found, len(self.rows), self.columns // lanes
        row, part = k.var("row", count), k.var("part", parts)
        scope = Scope(self, frozenset((*found.batch, self.block, row, part)))
        unpack(scope, (*found.batch, self.block), f"min(mine, {self.all_teams - 1})")
        scope.lines += [f"let part = lid % {parts};", f"let row = lid / {parts} % {count};"]
        scope.names.update({row: "row", part: "part"})
        table = dict(zip(found.rows, unflatten(row, tuple(v.value[1] for v in found.rows)), strict=True))
        points = []
        for lane in range(lanes):
            total = k.make("var", "float32", value=("sum", lane))
            scope.bound |= {total}
            share, name = self.name(), self.name()
            scope.names[total] = name
            values = " + ".join(f"shares[{share} + {n}]" for n in range(TEAM // 4))  # in a loop they would wait
            scope.lines += [
                f"let {share} = (lid / {parts} * {self.columns} + part * {lanes} + {lane}) * {TEAM // 4};",
                f"let {name} = dot({values}, vec4<f32>(1.0));",
            ]
            at = {**table, found.column: self.block * self.columns + part * lanes + lane, found.total: total}
            points.append(
                Store(found.store.argument, *(substitute(x, at) for x in (found.store.index, found.store.value)))
            )
        inside = f"mine < {self.all_teams}"
        if found.column.value[1] % self.columns:
            inside += f" && {scope.value(self.block * self.columns + part)} < {found.column.value[1]}"
        lines = stores(scope, points)
        work = [
            f"let mine = number * {self.teams} + lid / {count * parts};",
            *scope.lines,
            f"if ({inside}) {{",
            *("  " + x for x in lines),
            "}",
        ]
        return [f"if (lid < {count * parts * self.teams}) {{", *("  " + x for x in work), "}"]

    def text(self) -> tuple[str, tuple[int, int, int]] | None:
        """The module and its workgroups; None if the elements do not lie as they should."""
        argument = self.found.store.argument
        lanes = max(1, 4 // self.dtypes[argument].itemsize)  # results in a word
        apart = self.found.column.value[1] % self.columns or vary(self.found.store.index, self.found.column) != 1
        if not self.suits or self.columns % lanes or (lanes > 1 and apart):
            return None
        if lanes > 1:
            self.wide[argument] = lanes
        names = [name for row in self.sums for name in row]
        place = f"(lid / {TEAM} * {len(names)} + {{n}}) * {TEAM // 4} + t / 4"
        shares = [f"shares[{place.format(n=n)}][t % 4] = {name};" for n, name in enumerate(names)]
        body = [*self.body(), *shares, "workgroupBarrier();", *self.finish(lanes)]
        lines = [
            *self.head(),
            f"var<workgroup> shares: array<vec4<f32>, {self.teams * len(names) * TEAM // 4}>;",
            f"@compute @workgroup_size({TEAM * self.teams})",
            "fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,",
            "        @builtin(local_invocation_index) index: u32) {",
            "  let lid = i32(index); let number = i32(group.y * groups.x + group.x);",
            f"  let t = lid % {TEAM}; let team = number * {self.teams} + lid / {TEAM};",
            *("  " + x for x in body),
            "}",
        ]
        return "\n".join(lines) + "\n", grid(-(-self.all_teams // self.teams))


def _indices(variables: tuple[K, ...]) -> list[tuple[K, ...]]:
    """All values of the variables, in row-major order."""
    return [tuple(k.const(n, "index") for n in place) for place in product(*(range(v.value[1]) for v in variables))]


def _pairs(factors: tuple[K, K], steps: list[dict[K, K]]) -> list[tuple[K, K]]:
    """Both factors of the products of a sum."""
    a, b = factors
    return [(substitute(a, step), substitute(b, step)) for step in steps]


def _piece(found: _Product, kernel: Kernel) -> int:
    """Terms that a thread takes at a time: what brings 16 bytes of each factor, or 8 numbers; 0 if there are none."""
    if found.groups:
        return 1
    ((_, large),), last = found.factors, found.total.value[1][-1]
    sizes = [kernel.arguments[n.value].itemsize for n in walk([large]) if n.op == "load" and last in n.free]
    piece = 4 if max(sizes, default=4) >= 4 else 8
    return piece if last.value[1] % piece == 0 else 0


def _cut(found: _Product, kernel: Kernel) -> tuple[int, int]:
    """Columns of a team and teams of a workgroup that are expected to be fastest."""
    if _size(found.batch) * found.column.value[1] < MANY or kernel.arguments[found.store.argument].itemsize < 4:
        return CUTS[0]
    return CUTS[2] if found.groups else CUTS[1]


def spell_matvec(kernel: Kernel, choices: Choices) -> tuple[str, tuple[int, int, int]] | None:
    """The module for a product of few rows, and its workgroups; else None."""
    kernel = collapsed(kernel)
    found = _product_of(kernel)
    piece = _piece(found, kernel) if found is not None else 0
    if found is None or not piece:
        return None
    key = [v.value[1] for v in (*kernel.axes, *found.total.value[1])], [t.name for t in kernel.arguments]
    columns, teams = choices.choose("wgsl matvec", key, CUTS, _cut(found, kernel))
    return _Matvec(kernel, found, columns, teams, piece).text()
