"""Contraction -> WGSL: one workgroup makes one tile of the result, from strips of both factors in workgroup memory.

source  CUDA C++ Programming Guide, "Shared Memory", matrix product; tile shapes measured on the device
"""

from ..scalar import K
from .contraction import Contraction, contraction_of, runs_along
from .kernel import Kernel
from .wgsl import TYPES, Scope, Writer

__all__ = ["spell_tile"]

DEEP = 16  # steps of the sum in workgroup memory at a time


class _Tile:
    def __init__(self, kernel: Kernel, c: Contraction) -> None:
        self.kernel, self.c = kernel, c
        self.writer = Writer(kernel.arguments)
        _, rows, columns, _ = c.sizes
        self.side = 4  # results per thread, each way
        self.threads = 16 if rows >= 64 and columns >= 64 else 8  # each way
        self.span = self.side * self.threads
        self.type = TYPES[c.total.type]

    def unpack(self, scope: Scope, variables: tuple[K, ...], position: str) -> None:
        """Names for the variables at a row-major position."""
        for n in range(len(variables) - 1, -1, -1):
            extent = variables[n].value[1]
            if n == 0:
                scope.names[variables[n]] = position
                return
            name, rest = self.writer.name(), self.writer.name()
            scope.lines += [f"let {name} = {position} % {extent};", f"let {rest} = {position} / {extent};"]
            scope.names[variables[n]] = name
            position = rest

    def factor(self, name: str, x: K, outer: tuple[K, ...], size: int) -> list[str]:
        """The function that reads one element of a factor, 0 outside."""
        c = self.c
        scope = Scope(self.writer, frozenset((*c.batch, *outer, *c.summed)))
        self.unpack(scope, c.batch, "batch")
        self.unpack(scope, outer, "place")
        self.unpack(scope, c.summed, "step")
        value = scope.value(x)
        zero = {"f32": "0.0", "i32": "0", "u32": "0u"}[self.type]
        return [
            f"fn {name}(batch: i32, place: i32, step: i32) -> {self.type} {{",
            f"  if (place >= {size} || step >= {c.sizes[3]}) {{ return {zero}; }}",
            *("  " + x for x in scope.lines),
            f"  return {value};",
            "}",
        ]

    def fill(self, shared: str, name: str, x: K, first: str) -> list[str]:
        """Each thread brings its share of a strip; neighbours read along the factor's contiguous direction."""
        count = self.span * DEEP // (self.threads * self.threads)
        along = runs_along(x, self.c.summed[-1])
        lines = []
        for n in range(count):
            flat = f"(lid + {n * self.threads * self.threads})"
            place, step = (
                (f"{flat} / {DEEP}", f"{flat} % {DEEP}")
                if along
                else (f"{flat} % {self.span}", f"{flat} / {self.span}")
            )
            lines.append(f"{shared}[({step}) * {self.span} + {place}] = {name}(batch, {first} + {place}, k + {step});")
        return lines

    def multiply(self) -> list[str]:
        """The products of one step: `side` values of each factor, all pairs."""
        each = range(self.side)
        lines = [f"let a{i} = left[s * {self.span} + y * {self.side} + {i}];" for i in each]
        lines += [f"let b{j} = right[s * {self.span} + x * {self.side} + {j}];" for j in each]
        return lines + [f"t{i}{j} = t{i}{j} + a{i} * b{j};" for i in each for j in each]

    def store(self) -> list[str]:
        """The epilogue for each of the thread's results."""
        c = self.c
        _, rows, columns, _ = c.sizes
        lines: list[str] = []
        for i in range(self.side):
            for j in range(self.side):
                scope = Scope(self.writer, frozenset(self.kernel.axes))
                row, column = self.writer.name(), self.writer.name()
                scope.lines += [
                    f"let {row} = row + y * {self.side} + {i};",
                    f"let {column} = column + x * {self.side} + {j};",
                ]
                head = list(scope.lines)
                scope.lines.clear()
                self.unpack(scope, c.batch, "batch")
                self.unpack(scope, c.rows, row)
                self.unpack(scope, c.columns, column)
                scope.names[c.total] = f"t{i}{j}"
                index, value = scope.value(c.store.index), scope.value(c.store.value)
                lines += [*head, f"if ({row} < {rows} && {column} < {columns}) {{", *("  " + x for x in scope.lines)]
                lines += [f"  b{c.store.argument}[{index}] = {value};", "}"]
        return lines

    def text(self) -> tuple[str, tuple[int, int, int]]:
        """The module and the workgroups to run."""
        c, span = self.c, self.span
        batch, rows, columns, length = c.sizes
        across, down = -(-columns // span), -(-rows // span)
        factors = self.factor("nf_a", c.a, c.rows, rows) + self.factor("nf_b", c.b, c.columns, columns)
        zero = {"f32": "0.0", "i32": "0", "u32": "0u"}[self.type]
        store = self.store()
        body = [
            "let lid = i32(index);",
            f"let x = lid % {self.threads}; let y = lid / {self.threads};",
            f"let column = i32(group.x) * {span}; let row = i32(group.y) * {span}; let batch = i32(group.z);",
            *(f"var t{i}{j} = {zero};" for i in range(self.side) for j in range(self.side)),
            f"for (var k = 0; k < {length}; k += {DEEP}) {{",
            *("  " + x for x in self.fill("left", "nf_a", c.a, "row")),
            *("  " + x for x in self.fill("right", "nf_b", c.b, "column")),
            "  workgroupBarrier();",
            f"  for (var s = 0; s < {DEEP}; s++) {{",
            *("    " + x for x in self.multiply()),
            "  }",
            "  workgroupBarrier();",
            "}",
            *store,
        ]
        lines = [
            *self.writer.head(),
            f"var<workgroup> left: array<{self.type}, {span * DEEP}>;",
            f"var<workgroup> right: array<{self.type}, {span * DEEP}>;",
            *factors,
            f"@compute @workgroup_size({self.threads * self.threads})",
            "fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) index: u32) {",
            *("  " + x for x in body),
            "}",
        ]
        return "\n".join(lines) + "\n", (across, down, batch)


def spell_tile(kernel: Kernel) -> tuple[str, tuple[int, int, int]] | None:
    """The tiled module for a kernel that is one large enough contraction, else None."""
    c = contraction_of(kernel)
    if c is None or kernel.arguments[c.store.argument].itemsize < 4 or not c.summed:
        return None
    batch, rows, columns, length = c.sizes
    if rows < 8 or columns < 8 or length < 8 or batch > 65535 or max(rows, columns) > 65535 * 32:
        return None
    return _Tile(kernel, c).text()
