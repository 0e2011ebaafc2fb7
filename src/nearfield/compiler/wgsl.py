"""K -> WGSL text: one spelling per instruction, and scopes that put each value in the outermost loop that can make it.

source  W3C WebGPU Shading Language, 2025
"""

import math
import struct

from .. import scalar as k
from ..dtype import DType
from ..index import from_linear
from ..scalar import K, const_value, identity, walk
from .wgsl_wide import lanes_of

__all__ = ["FUNCTIONS", "TYPES", "WGSL", "Scope", "element_type", "literal"]

TYPES = {"float32": "f32", "int32": "i32", "uint32": "u32", "bool": "bool", "index": "i32"}

# One spelling per K instruction; {t} is the WGSL type of the first argument, {r} of the result.
WGSL = {
    "add": "({0} + {1})", "sub": "({0} - {1})", "mul": "({0} * {1})", "neg": "(-{0})", "abs": "abs({0})",
    "div": "nf_div_{t}({0}, {1})", "rem": "nf_rem_{t}({0}, {1})",
    "min": "nf_min_{t}({0}, {1})", "max": "nf_max_{t}({0}, {1})",
    "floor": "floor({0})", "ceil": "ceil({0})", "trunc": "trunc({0})", "nearest": "round({0})", "sqrt": "sqrt({0})",
    "half": "nf_rounded({0})", "whole": "round({0})",
    "power2": "bitcast<f32>((bitcast<u32>({0} + 12582912.0) + 127u) << 23u)",  # the sum's last bits are those of {0}
    "lt": "({0} < {1})", "le": "({0} <= {1})", "eq": "({0} == {1})", "ne": "(!({0} == {1}))", "isnan": "nf_isnan({0})",
    "and": "({0} & {1})", "or": "({0} | {1})", "xor": "({0} ^ {1})", "not": "(~{0})",
    "shl": "({0} << ({u1} & 31u))", "shr": "({0} >> ({u1} & 31u))",
    "select": "select({2}, {1}, {0})", "cast": "nf_{t}_{r}({0})", "bits": "bitcast<{r}>({0})",
}  # fmt: skip

ARITHMETIC = {"add", "sub", "mul", "div", "rem"}

# Where K says more than WGSL does: NaN (`!=` is ordered on some drivers), division by zero and by huge numbers (whose
# reciprocal is flushed to 0), remainders of negative integers (undefined in SPIR-V), overflow, the rounding of large
# unsigned integers (WGSL allows either neighbour).
FUNCTIONS = {
    "nf_zero": "fn nf_zero() -> u32 { return select(0u, 1u, arrayLength(&b0) == 0u); }",
    "nf_isnan": "fn nf_isnan(x: f32) -> bool { return (bitcast<u32>(x) & 0x7fffffffu) > 0x7f800000u; }",
    "nf_min_f32": (
        "fn nf_min_f32(a: f32, b: f32) -> f32 { return select(select(min(a, b), b, nf_isnan(b)), a, nf_isnan(a)); }"
    ),
    "nf_max_f32": (
        "fn nf_max_f32(a: f32, b: f32) -> f32 { return select(select(max(a, b), b, nf_isnan(b)), a, nf_isnan(a)); }"
    ),
    "nf_div_f32": (
        "fn nf_div_f32(a: f32, b: f32) -> f32 { let s = select(1.0, 0.25, abs(b) > 4.0e37); return a * s / (b * s); }"
    ),
    "nf_rem_f32": "fn nf_rem_f32(a: f32, b: f32) -> f32 { return a - b * trunc(nf_div_f32(a, b)); }",
    "nf_div_i32": (
        "fn nf_div_i32(a: i32, b: i32) -> i32 { if (b == 0) { return 0; } if (b == -1) { return -a; } return a / b; }"
    ),
    "nf_rem_i32": "fn nf_rem_i32(a: i32, b: i32) -> i32 { if (b == 0 || b == -1) { return 0; } return a - a / b * b; }",
    "nf_div_u32": "fn nf_div_u32(a: u32, b: u32) -> u32 { if (b == 0u) { return 0u; } return a / b; }",
    "nf_rem_u32": "fn nf_rem_u32(a: u32, b: u32) -> u32 { if (b == 0u) { return 0u; } return a % b; }",
    "nf_u32_f32": "fn nf_u32_f32(x: u32) -> f32 { return f32(x >> 16u) * 65536.0 + f32(x & 0xffffu); }",
    "nf_f32_i32": (
        "fn nf_f32_i32(x: f32) -> i32 { if (nf_isnan(x)) { return 0; } if (x >= 2147483648.0) { return 2147483647; } "
        "if (x <= -2147483648.0) { return -2147483647 - 1; } return i32(x); }"
    ),
    "nf_f32_u32": (
        "fn nf_f32_u32(x: f32) -> u32 { if (!(x > 0.0)) { return 0u; } "
        "if (x >= 4294967296.0) { return 4294967295u; } return u32(x); }"
    ),
    "nf_half": (
        "fn nf_half(x: f32) -> u32 {\n"
        "  let b = bitcast<u32>(x); let m = b & 0x7fffffffu;\n"
        "  let normal = (m + 0xc8000fffu + ((m >> 13u) & 1u)) >> 13u;\n"
        "  let small = bitcast<u32>(bitcast<f32>(m) + 0.5) - 0x3f000000u;\n"  # the sum is rounded where a half would be
        "  let large = select(0x7c00u, 0x7e00u, m > 0x7f800000u);\n"
        "  return ((b >> 16u) & 0x8000u) | select(select(normal, small, m < 0x38800000u), large, m >= 0x477ff000u);\n}"
    ),
    "nf_rounded": "fn nf_rounded(x: f32) -> f32 { return unpack2x16float(nf_half(x)).x; }",
}
NEEDS = {
    "nf_rem_f32": "nf_div_f32", "nf_min_f32": "nf_isnan", "nf_max_f32": "nf_isnan", "nf_f32_i32": "nf_isnan",
    "nf_rounded": "nf_half",
}  # fmt: skip
PLAIN_CASTS = {
    "nf_i32_f32": "f32({0})", "nf_bool_f32": "select(0.0, 1.0, {0})",
    "nf_i32_i32": "{0}", "nf_u32_i32": "bitcast<i32>({0})", "nf_bool_i32": "select(0, 1, {0})",
    "nf_i32_u32": "bitcast<u32>({0})", "nf_bool_u32": "select(0u, 1u, {0})",
    "nf_f32_bool": "(!({0} == 0.0))", "nf_i32_bool": "({0} != 0)", "nf_u32_bool": "({0} != 0u)",
    "nf_min_i32": "min({0}, {1})", "nf_max_i32": "max({0}, {1})",
    "nf_min_u32": "min({0}, {1})", "nf_max_u32": "max({0}, {1})",
}  # fmt: skip
LOADS = {  # an element of a word {w} with the index {i} among all elements
    "float16": "unpack2x16float({w})[({i}) & 1]",
    "int8": "((bitcast<i32>({w}) << (24u - 8u * u32(({i}) & 3))) >> 24u)",
    "uint8": "(({w} >> (8u * u32(({i}) & 3))) & 255u)",
    "bool": "((({w} >> (8u * u32(({i}) & 3))) & 255u) != 0u)",
}
LANES = "xyzw"
ZERO = {"f32": "0.0", "i32": "0", "u32": "0u", "bool": "false"}


def element_type(dtype: DType, lanes: int = 1) -> str:
    """The element type of the array that a buffer of this dtype is declared as; `lanes` elements are read at a time."""
    word = TYPES.get(dtype.name, "u32") if dtype.itemsize == 4 else "u32"
    words = lanes * dtype.itemsize // 4
    return word if words <= 1 else f"vec{words}<{word}>"


def literal(node: K) -> str:
    """A constant; what WGSL cannot write (infinity, NaN, the least integer) is read from a variable's bits."""
    if node.type == "bool":
        return "true" if node.value else "false"
    value = const_value(node)
    if node.type in ("index", "int32"):
        return f"({value})" if value > -(2**31) else "(-2147483647 - 1)"
    if node.type == "uint32":
        return f"{value}u"
    if not math.isfinite(value) or (value != 0 and abs(value) < 1.1754944e-38) or str(value) == "-0.0":
        bits = struct.unpack("<I", struct.pack("<f", value))[0]
        return f"bitcast<f32>(nf_zero() | {bits:#x}u)"
    text = repr(float(value))
    return f"{text}f" if "." in text or "e" in text else f"{text}.0f"


class Scope:
    """A block of statements; nested scopes are loops that bind more variables.

    A value is made in the outermost scope that binds all its free variables, once.
    """

    def __init__(self, writer: "Writer", bound: "frozenset[K]", parent: "Scope | None" = None) -> None:
        self.writer, self.parent = writer, parent
        self.bound: frozenset[K] = bound | (parent.bound if parent else frozenset())
        self.lines: list[str] = []
        self.names: dict[K, str] = {}
        self.constants: dict[str, str] = {}

    def home(self, node: K) -> "Scope":
        """The outermost scope that binds all free variables of the node."""
        scope = self
        while scope.parent is not None and node.free <= scope.parent.bound:
            scope = scope.parent
        return scope

    def value(self, node: K) -> str:
        """A WGSL expression for the node: a literal, or the name of a `let`."""
        if node.op == "const":
            return self.once(self.writer.literal(node))
        scope = self.home(node)
        name = scope.names.get(node)
        if name is None:
            name = scope.make(node)
            scope.names[node] = name
        return name

    def once(self, text: str) -> str:
        """The constant, or where asking for it takes time, the name of what was asked for at the start."""
        if "nf_zero" not in text:
            return text
        scope = self
        while scope.parent is not None:
            scope = scope.parent
        name = scope.constants.get(text)
        if name is None:
            name = scope.constants[text] = self.writer.name()
            scope.lines.append(f"let {name} = {text};")
        return name

    def make(self, node: K) -> str:
        if node.op == "reduce":
            return self.writer.reduction(self, node)
        text = self.spell(node)
        if text.rpartition(".")[0].replace("_", "").isalnum():
            return text  # a lane of a vector needs no name
        name = self.writer.name()
        self.lines.append(f"let {name} = {text};")
        return name

    def spell(self, node: K) -> str:
        if node.op == "load":
            return self.load(node)
        if node.op == "wide":
            return self.access(node)
        if node.op == "linear":
            return self.linear(node)
        args = [self.operand(node, a) for a in node.args]
        first, result = TYPES[node.args[0].type], TYPES[node.type]
        op = node.op
        if op == "not" and node.type == "bool":
            return f"(!{args[0]})"
        if op == "xor" and node.type == "bool":
            return f"({args[0]} != {args[1]})"
        if op in ("div", "rem") and node.type == "index":
            return f"({args[0]} {'/' if op == 'div' else '%'} {args[1]})"
        if op in ("min", "max") and node.type == "float32" and any(a.op == "const" for a in node.args):
            return self.limited(node, args)
        shift = f"bitcast<u32>({args[1]})" if op in ("shl", "shr") else ""
        return self.writer.function(WGSL[op].format(*args, t=first, r=result, u1=shift), args)

    def limited(self, node: K, args: list[str]) -> str:
        """The smaller or larger of a value and a constant: only the value may be NaN."""
        constant, value = sorted(zip(node.args, args, strict=True), key=lambda pair: pair[0].op != "const")
        if constant[0].op == value[0].op or math.isnan(const_value(constant[0])):
            return self.writer.function(WGSL[node.op].format(*args, t="f32"), args)
        self.writer.need("nf_isnan")
        return f"select({node.op}({value[1]}, {constant[1]}), {value[1]}, nf_isnan({value[1]}))"

    def linear(self, node: K) -> str:
        """The sum; what it takes from outer scopes is summed there, once."""
        constant, *factors = node.value
        terms = dict(zip(node.args, factors, strict=True))
        outer = {a: c for a, c in terms.items() if self.home(a) is not self}
        spelled = []
        if 1 < len(outer) < len(terms):
            spelled.append(self.value(from_linear(0, outer)))
            terms = {a: c for a, c in terms.items() if a not in outer}
        spelled += [self.value(a) if c == 1 else f"{self.value(a)} * {c}" for a, c in terms.items()]
        return " + ".join([*spelled, str(constant)] if constant else spelled).replace("+ -", "- ")

    def operand(self, node: K, a: K) -> str:
        """An argument; constants are hidden where WGSL would compute at once, or a driver might drop x * 0 or x + 0."""
        if a.op == "const" and a.type != "index":
            alone = all(x.op == "const" for x in node.args)
            if alone or (a.type == "float32" and node.op in ARITHMETIC and const_value(a) == 0):
                return self.once(self.writer.hidden(a))
        return self.value(a)

    def load(self, node: K) -> str:
        dtype, lanes = self.writer.dtypes[node.value], self.writer.wide.get(node.value, 1)
        found = self.writer.access(node)
        if found is not None:
            return self.lane(self.value(found[0]), found[1], dtype, lanes)
        index = self.value(node.args[0])
        mask = self.value(node.args[1]) if len(node.args) == 2 else ""
        if mask:
            index = f"select(0, {index}, {mask})"
        text = LOADS.get(dtype.name, "{w}").format(w=self.writer.element(node.value, index), i=index)
        return f"select({ZERO[TYPES[node.type]]}, {text}, {mask})" if mask else text

    def access(self, node: K) -> str:
        """All lanes of a wide access, as they are stored."""
        index = self.value(node.args[0])
        if len(node.args) == 1:
            return f"b{node.value}[{index}]"
        type, mask = self.writer.stored(node.value), self.value(node.args[1])
        return f"select({type}(), b{node.value}[select(0, {index}, {mask})], {mask})"

    def lane(self, whole: str, lane: int, dtype: DType, lanes: int) -> str:
        """One element of a wide access."""
        each, words = 4 // dtype.itemsize, lanes * dtype.itemsize // 4
        word = whole if words <= 1 else f"{whole}.{LANES[lane // each]}"
        return LOADS.get(dtype.name, "{w}").format(w=word, i=lane % each)


class Writer:
    """The text of one kernel: names, the functions it needs, and how its loops are written.

    wide  buffer -> how many of its elements are read at a time
    """

    def __init__(self, dtypes: tuple[DType, ...], wide: dict[int, int] | None = None) -> None:
        self.dtypes = dtypes
        self.wide = wide or {}
        self.together: dict[K, list[K]] = {}
        self.count = 0
        self.functions: dict[str, str] = {}

    def name(self) -> str:
        self.count += 1
        return f"v{self.count}"

    def stored(self, buffer: int) -> str:
        """The type of what one access to the buffer brings."""
        return element_type(self.dtypes[buffer], self.wide.get(buffer, 1))

    def element(self, buffer: int, index: str) -> str:
        """The place in memory of the word that holds an element."""
        dtype = self.dtypes[buffer]
        each, words = 4 // dtype.itemsize, self.wide.get(buffer, 1) * dtype.itemsize // 4
        word = index if each == 1 else f"({index}) >> {each // 2}u"
        return f"b{buffer}[{word}]" if words <= 1 else f"b{buffer}[({word}) >> {words // 2}u][({word}) & {words - 1}]"

    def access(self, load: K) -> tuple[K, int] | None:
        """The wide access that brings a loaded element, and which lane it is; None if it is read alone."""
        lanes = self.wide.get(load.value)
        wide = lanes_of(load.args[0], lanes) if lanes else None
        if wide is None:
            return None
        return k.make("wide", "wide", (wide.place, *load.args[1:]), load.value), wide.lane

    def literal(self, node: K) -> str:
        text = literal(node)
        if "nf_zero" in text:
            self.need("nf_zero")
        return text

    def hidden(self, node: K) -> str:
        """A constant that the driver's compiler cannot see: it may neither refuse nor simplify what is done with it."""
        self.need("nf_zero")
        if node.type == "bool":
            return f"(nf_zero() {'==' if node.value else '!='} 0u)"
        value = const_value(node)
        bits = struct.unpack("<I", struct.pack("<f", value))[0] if node.type == "float32" else int(value) & 0xFFFFFFFF
        text = f"(nf_zero() | {bits:#x}u)"
        return text if node.type == "uint32" else f"bitcast<{TYPES[node.type]}>{text}"

    def function(self, text: str, args: list[str]) -> str:
        """The text, with the functions that it calls noted, or replaced where WGSL's own will do."""
        if not text.startswith("nf_"):
            return text
        name = text[: text.index("(")]
        if name in PLAIN_CASTS:
            return PLAIN_CASTS[name].format(*args)
        self.need(name)
        return text

    def need(self, name: str) -> None:
        """Note that the text calls one of FUNCTIONS."""
        if name in NEEDS:
            self.need(NEEDS[name])
        self.functions[name] = FUNCTIONS[name]

    def share(self, values: list[K]) -> None:
        """Let folds over the same variables, at neighbouring points, have one loop."""
        groups: dict[tuple[object, ...], list[K]] = {}
        for node in walk(values):
            if node.op == "reduce":
                groups.setdefault((node.value, node.type, node.free), []).append(node)
        for group in groups.values():
            inside = {n for node in group for n in walk(list(node.args))}
            if inside.isdisjoint(group):
                self.together.update(dict.fromkeys(group, group))

    def reduction(self, scope: Scope, node: K) -> str:
        """A loop in this scope that folds the body, and those that share its loop; one thread does all of it."""
        kind, variables = node.value
        group = [n for n in self.together.get(node, [node]) if n is node or n not in scope.names]
        totals = {n: self.name() for n in group}
        scope.names.update(totals)
        scope.lines += [f"var {total} = {self.identity(kind, n.type)};" for n, total in totals.items()]
        inner = scope
        opened: list[tuple[Scope, K]] = []
        for v in variables:
            inner = Scope(self, frozenset((v,)), inner)
            inner.names[v] = self.name()  # not the letter of an einsum: b1 may be a buffer's name
            opened.append((inner, v))
        folds = [self.fold(kind, n.type, total, inner.value(n.args[0])) for n, total in totals.items()]
        inner.lines += [f"{total} = {text};" for total, text in zip(totals.values(), folds, strict=True)]
        for block, v in reversed(opened):
            name, extent = block.names[v], v.value[1]
            outer = block.parent
            assert outer is not None
            outer.lines += [
                f"for (var {name} = 0; {name} < {extent}; {name}++) {{",
                *("  " + x for x in block.lines),
                "}",
            ]
        return totals[node]

    def identity(self, kind: str, type: str) -> str:
        """What folding nothing gives."""
        return self.literal(identity(kind, type))

    def fold(self, kind: str, type: str, total: str, value: str) -> str:
        """One step of a fold."""
        if kind in ("sum", "prod"):
            return f"{total} {'+' if kind == 'sum' else '*'} {value}"
        t = TYPES[type]
        return self.function(f"nf_{kind}_{t}({total}, {value})", [total, value])

    def head(self) -> list[str]:
        """Declarations before `main`."""
        lines = [self.functions[name] for name in FUNCTIONS if name in self.functions]
        return lines + [
            f"@group(0) @binding({n}) var<storage, read_write> b{n}: array<{self.stored(n)}>;"
            for n in range(len(self.dtypes))
        ]
