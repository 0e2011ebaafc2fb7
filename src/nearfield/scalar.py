"""K: the small language of scalar expressions that every target can spell (docs/spec/k.md).

An expression is an immutable, interned node: equal expressions are the same object. Ops say with it how one element is
made; the compiler hoists, fuses and vectorises it; a target is a table with one spelling per instruction.

Types are those that arithmetic happens in: float32, float64, int32, uint32, int64, bool, and `index`, an int32 whose
range is known and whose sums, quotients and remainders are simplified when they are built (index.py).
"""

import operator
import struct
from collections.abc import Callable
from functools import lru_cache
from math import copysign, inf, nan
from typing import Any
from weakref import ref

__all__ = [
    "INSTRUCTIONS", "K", "absolute", "bits", "cast", "ceil", "const", "equal", "floor", "fresh", "half", "horner",
    "identity", "isnan", "less", "less_equal", "load", "logical_not", "maximum", "minimum", "nearest", "negative",
    "not_equal", "power2", "reduce", "restart", "select", "sqrt", "substitute", "substitute_all", "trunc", "var",
    "walk", "whole",
]  # fmt: skip

# Every instruction a target must spell, with its number of arguments.
INSTRUCTIONS = {
    "add": 2, "sub": 2, "mul": 2, "div": 2, "rem": 2, "min": 2, "max": 2, "neg": 1, "abs": 1,
    "floor": 1, "ceil": 1, "trunc": 1, "nearest": 1, "half": 1, "sqrt": 1, "whole": 1, "power2": 1,
    "lt": 2, "le": 2, "eq": 2, "ne": 2, "isnan": 1,
    "and": 2, "or": 2, "xor": 2, "not": 1, "shl": 2, "shr": 2,
    "select": 3, "cast": 1, "bits": 1,
}  # fmt: skip

_INT32 = (-(2**31), 2**31 - 1)
_RANGES = {
    "bool": (0, 1), "index": _INT32, "int32": _INT32, "uint32": (0, 2**32 - 1), "int64": (-(2**63), 2**63 - 1),
}  # fmt: skip
INDEX_RULES: "dict[str, Callable[..., K]]" = {}  # filled by index.py: how sums of index expressions simplify
_PACK = {"float32": "<f", "float64": "<d", "int32": "<i", "uint32": "<I", "int64": "<q"}


class K:
    """One expression.

    op      an instruction, or "const", "var", "load", "reduce", "linear"
    args    the expressions it is made of
    type    the type of its value
    value   what is not an expression: a constant, a variable's (name, extent), a buffer, ("sum", variables) …
    low, high   for `index`: the bounds of its value, both reachable or wider
    """

    __slots__ = ("__weakref__", "args", "free", "high", "low", "op", "type", "value")

    op: str
    args: "tuple[K, ...]"
    type: str
    value: Any
    low: int
    high: int
    free: "frozenset[K]"

    def __repr__(self) -> str:
        return text(self)

    def __add__(self, other: object) -> "K":
        return binary("add", self, other)

    def __radd__(self, other: object) -> "K":
        return binary("add", self, other)

    def __sub__(self, other: object) -> "K":
        return binary("sub", self, other)

    def __rsub__(self, other: object) -> "K":
        return binary("sub", _like(other, self), self)

    def __mul__(self, other: object) -> "K":
        return binary("mul", self, other)

    def __rmul__(self, other: object) -> "K":
        return binary("mul", self, other)

    def __truediv__(self, other: object) -> "K":
        return binary("div", self, other)

    def __rtruediv__(self, other: object) -> "K":
        return binary("div", _like(other, self), self)

    def __floordiv__(self, other: object) -> "K":
        return binary("div", self, other)

    def __mod__(self, other: object) -> "K":
        return binary("rem", self, other)

    def __and__(self, other: object) -> "K":
        return binary("and", self, other)

    def __or__(self, other: object) -> "K":
        return binary("or", self, other)

    def __xor__(self, other: object) -> "K":
        return binary("xor", self, other)

    def __lshift__(self, other: object) -> "K":
        return binary("shl", self, other)

    def __rshift__(self, other: object) -> "K":
        return binary("shr", self, other)

    def __neg__(self) -> "K":
        return negative(self)


class _Entry(ref[K]):
    """What the table of all expressions holds of one, which it does not keep alive."""

    __slots__ = ("key",)
    key: tuple[object, ...]


_TABLE: dict[tuple[object, ...], _Entry] = {}


def _drop(entry: Any) -> None:
    key = entry.key
    if _TABLE.get(key) is entry:
        del _TABLE[key]


def make(op: str, type: str, args: tuple[K, ...] = (), value: object = None, low: int = 0, high: int = 0) -> K:
    """The one node with these parts."""
    key = (op, type, value, args)
    entry = _TABLE.get(key)
    node: K | None = None if entry is None else entry()
    if node is None:
        node = K.__new__(K)
        node.op, node.type, node.args, node.value, node.low, node.high = op, type, args, value, low, high
        free = frozenset((node,)) if op == "var" else _free(args)
        node.free = free.difference(value[1]) if op == "reduce" else free  # type: ignore[index]
        entry = _TABLE[key] = _Entry(node, _drop)
        entry.key = key
    return node


def _free(args: tuple[K, ...]) -> "frozenset[K]":
    free: frozenset[K] = frozenset()
    for a in args:
        free = free if a.free <= free else a.free if free <= a.free else free | a.free
    return free


def const(value: float | bool, type: str) -> K:
    """A constant; told apart by its bits, so 0.0 and -0.0 differ and NaN equals itself."""
    if type == "bool":
        return make("const", type, value=bool(value))
    if type == "index":
        return _position(int(value))
    if type == "uint32":
        value = int(value) & 0xFFFFFFFF
    elif type == "int32":
        value = (int(value) + 2**31) % 2**32 - 2**31
    elif type == "int64":
        value = (int(value) + 2**63) % 2**64 - 2**63
    elif type == "float32" and abs(value) > 3.4028235677973366e38:
        value = inf if value > 0 else -inf
    return make("const", type, value=struct.pack(_PACK[type], value))


@lru_cache(maxsize=8192)
def _position(value: int) -> K:
    return make("const", "index", value=value, low=value, high=value)


def const_value(node: K) -> float | bool | int:
    """The Python number of a constant node."""
    if isinstance(node.value, bytes):
        return struct.unpack(_PACK[node.type], node.value)[0]
    return node.value


def var(name: str, extent: int) -> K:
    """A loop variable that runs from 0 to extent - 1; two of the same name and extent are the same."""
    return make("var", "index", value=(name, extent), low=0, high=max(extent - 1, 0))


_FRESH = [0]


def restart() -> None:
    """Number fresh variables from 0 again: a kernel's text depends on nothing but the kernel."""
    _FRESH[0] = 0


def fresh(letter: str, extent: int) -> K:
    """A loop variable that no other expression has (since `restart`)."""
    _FRESH[0] += 1
    return var(f"{letter}_{_FRESH[0]}", extent)  # the underscore tells it from an axis


def load(buffer: object, index: K, type: str, mask: K | None = None) -> K:
    """Element `index` of a buffer, widened to `type`; 0, and no access at all, where `mask` is false."""
    if mask is not None and mask.op == "const":
        if not mask.value:
            return const(0, type)
        mask = None
    return make("load", type, (index,) if mask is None else (index, mask), buffer)


def reduce(kind: str, variables: tuple[K, ...], body: K) -> K:
    """`body` folded over all values of the variables; kind is "sum", "prod", "min" or "max"."""
    if any(v.value[1] == 0 for v in variables):
        return identity(kind, body.type)
    return make("reduce", body.type, (body,), (kind, variables)) if variables else body


def identity(kind: str, type: str) -> K:
    """What folding nothing gives: 0, 1, or the largest or smallest value of the type."""
    if kind in ("sum", "prod"):
        return const(0 if kind == "sum" else 1, type)
    low, high = _RANGES.get(type, (-inf, inf))
    return const(high if kind == "min" else low, type)


def _like(x: object, other: K) -> K:
    return x if isinstance(x, K) else const(x, other.type)  # type: ignore[arg-type]


def binary(op: str, a: K, b: object) -> K:
    """An instruction of two arguments of one type; numbers become constants of the other's type."""
    b = _like(b, a)
    if a.type != b.type and op not in ("shl", "shr"):
        raise TypeError(f"K {op}: types {a.type} and {b.type} differ")
    if a.type == "index":
        return INDEX_RULES[op](a, b)
    if op in ("and", "or") and a.type == "bool":
        return _logical(op, a, b)
    if a.op == "const" or b.op == "const":
        simpler = _folded(op, a, b) or _neutral(op, a, b)
        if simpler is not None:
            return simpler
    return make(op, a.type, (a, b))


def _logical(op: str, a: K, b: K) -> K:
    for x, y in ((a, b), (b, a)):
        if x.op == "const":
            return y if bool(x.value) == (op == "and") else x
    return a if a is b else make(op, "bool", (a, b))


def _folded(op: str, a: K, b: K) -> K | None:
    """The constant that + - × ÷ of two constants give; float64 is wide enough to round float32 results correctly."""
    if a.op != b.op or a.type not in ("float32", "int32", "uint32"):
        return None
    x, y = const_value(a), const_value(b)
    if op == "add":
        return const(x + y, a.type)
    if op == "sub":
        return const(x - y, a.type)
    if op == "mul":
        return const(x * y, a.type)
    if op == "div" and a.type == "float32":
        return const(x / y if y else _over_zero(x, y), a.type)
    return None


def _over_zero(x: float, y: float) -> float:
    """x / y for a zero y."""
    return nan if x == 0 or str(x) == "nan" else copysign(inf, x) * copysign(1.0, y)


def _neutral(op: str, a: K, b: K) -> K | None:
    """x * 1, x / 1, x - 0 and (integers only: -0.0 + 0 is 0) x + 0 are x."""
    whole = a.type in ("int32", "uint32", "int64")
    if b.op == "const" and b.type != "bool":
        value = const_value(b)
        if (op in ("mul", "div") and value == 1) or (op in ("shl", "shr") and value == 0):
            return a
        if value == 0 and ((op == "sub" and str(value) != "-0.0") or (whole and op in ("add", "or", "xor"))):
            return a
    if a.op == "const" and a.type != "bool" and op == "mul" and const_value(a) == 1:
        return b
    return None


def _compare(op: str, a: K, b: object) -> K:
    b = _like(b, a)
    if a.type == "index":
        return INDEX_RULES[op](a, b)
    if a.type != b.type:
        raise TypeError(f"K {op}: types {a.type} and {b.type} differ")
    if a.op == b.op == "const" and a.type in ("int32", "uint32", "int64"):
        return const(getattr(operator, op)(const_value(a), const_value(b)), "bool")
    return make(op, "bool", (a, b))


def less(a: K, b: object) -> K:
    """a < b; false with NaN."""
    return _compare("lt", a, b)


def less_equal(a: K, b: object) -> K:
    """a <= b; false with NaN."""
    return _compare("le", a, b)


def equal(a: K, b: object) -> K:
    """a == b; false with NaN."""
    return _compare("eq", a, b)


def not_equal(a: K, b: object) -> K:
    """a != b; true with NaN."""
    return _compare("ne", a, b)


def logical_not(a: K) -> K:
    """Not a, for bool."""
    if a.op == "const":
        return const(not a.value, "bool")
    return a.args[0] if a.op == "not" else make("not", "bool", (a,))


def invert(a: K) -> K:
    """All bits of an integer turned over."""
    return make("not", a.type, (a,))


def minimum(a: K, b: object) -> K:
    """The smaller; NaN if either is NaN."""
    return binary("min", a, b)


def maximum(a: K, b: object) -> K:
    """The larger; NaN if either is NaN."""
    return binary("max", a, b)


def select(condition: K, a: K | float, b: K | float) -> K:
    """a where the condition is true, else b."""
    if not isinstance(a, K):
        a = const(a, b.type if isinstance(b, K) else "float32")
    b = _like(b, a)
    if condition.op == "const":
        return a if condition.value else b
    if a.type != b.type:
        raise TypeError(f"K select: types {a.type} and {b.type} differ")
    masked = a.op == "load" and len(a.args) == 2 and a.args[1] is condition
    zero = b.op == "const" and (not any(b.value) if isinstance(b.value, bytes) else not b.value)
    if a is b or (masked and zero):
        return a  # a masked load is 0 where its mask is false
    return make("select", a.type, (condition, a, b), low=min(a.low, b.low), high=max(a.high, b.high))


def _unary(op: str) -> Callable[[K], K]:
    def instruction(a: K) -> K:
        return make(op, a.type, (a,))

    instruction.__name__ = op
    instruction.__doc__ = f"{op} of a real number (abs: and of integers)."
    return instruction


absolute, floor, ceil, trunc, nearest, sqrt = map(_unary, ("abs", "floor", "ceil", "trunc", "nearest", "sqrt"))
whole, power2 = map(_unary, ("whole", "power2"))  # which are nearest and 2^a, for small numbers only
half = _unary("half")  # the nearest number of float16


def negative(a: K) -> K:
    """-a."""
    return a * -1 if a.type == "index" else make("neg", a.type, (a,))


def isnan(a: K) -> K:
    """Whether a is NaN, safe from compilers that assume there is none."""
    return make("isnan", "bool", (a,))


def cast(a: K, type: str) -> K:
    """The value as another type: real → integer truncates and saturates (NaN gives 0), → bool is ≠ 0, integers wrap."""
    if a.type == type:
        return a
    if a.op == "const" and a.type in ("index", "bool"):
        return const(const_value(a), type)
    if type == "index" and a.op == "cast" and a.args[0].type == "index":
        return a.args[0]
    if type == "index":
        return make("cast", type, (a,), low=-(2**31), high=2**31 - 1)
    return make("cast", type, (a,))


def bits(a: K, type: str) -> K:
    """The same bits read as another type of the same size."""
    return a if a.type == type else make("bits", type, (a,))


def horner(x: K, *coefficients: float) -> K:
    """c0 + c1 x + c2 x² + … by Horner's rule."""
    result = const(coefficients[-1], x.type)
    for c in reversed(coefficients[:-1]):
        result = result * x + c
    return result


def walk(roots: list[K]) -> list[K]:
    """Every node below the roots, arguments before users, each once."""
    return list(_walked(tuple(roots)))


@lru_cache(maxsize=1024)  # each stage of the compiler goes through the same expressions: four of five are found here
def _walked(roots: tuple[K, ...]) -> list[K]:
    order: list[K] = []
    seen: set[K] = set()
    stack: list[K | None] = list(reversed(roots))
    while stack:
        node = stack.pop()
        if node is None:  # the arguments of the one below are done
            order.append(stack.pop())  # type: ignore[arg-type]
        elif node not in seen:
            seen.add(node)
            if node.args:
                stack += (node, None, *reversed(node.args))
            else:
                order.append(node)
    return order


def rebuild(node: K, args: tuple[K, ...]) -> K:
    """The node with other arguments, simplified again."""
    if args == node.args:
        return node
    op = node.op
    if op == "linear":
        return INDEX_RULES[op](node, args)
    if op == "load":
        return load(node.value, args[0], node.type, *args[1:])
    if op == "reduce":
        kind, axes = node.value
        return reduce(kind, axes, args[0])
    if op == "select":
        return select(*args)
    if op in ("lt", "le", "eq", "ne"):
        return _compare(op, *args)
    if op == "cast":
        return cast(args[0], node.type)
    if len(args) == 2:
        return binary(op, *args)
    return logical_not(args[0]) if op == "not" and node.type == "bool" else make(op, node.type, args, node.value)


def substitute(root: K, table: dict[K, K]) -> K:
    """The expression with some nodes replaced, simplified again on the way."""
    unaffected = root.free.isdisjoint(table) and all(node.op == "var" for node in table)
    return root if unaffected else substitute_all([root], table)[0]


def substitute_all(roots: list[K], table: dict[K, K]) -> list[K]:
    """As `substitute`, of several expressions; what they have in common is gone through once."""
    done = dict(table)
    for node in walk(roots):
        if node not in done:
            args = node.args
            done[node] = rebuild(node, tuple([done[a] for a in args])) if args else node
    return [done[root] for root in roots]


def text(node: K) -> str:
    """A readable form: (x0 + 1.0)."""
    if node.op == "const":
        return repr(const_value(node))
    if node.op == "var":
        return str(node.value[0])
    args = ", ".join(map(text, node.args))
    if node.op == "linear":
        constant, *coefficients = node.value
        terms = [text(a) if c == 1 else f"{text(a)}*{c}" for c, a in zip(coefficients, node.args, strict=True)]
        return f"({' + '.join(terms + ([str(constant)] if constant else []))})"
    if node.op == "load":
        return f"{node.value}[{args}]"
    if node.op == "reduce":
        kind, variables = node.value
        return f"{kind}({args}, {' '.join(f'{v.value[0]}<{v.value[1]}' for v in variables)})"
    if node.op in ("cast", "bits"):
        return f"{node.op}<{node.type}>({args})"
    return f"{node.op}({args})"
