"""What K means (docs/spec/k.md), in NumPy: slow, obvious, and independent of every target.

An expression is evaluated for all values of its variables at once: each variable is an axis of the result.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from nearfield import scalar as k
from nearfield.dtype import DTYPES, DType
from nearfield.op import Op, Source
from nearfield.scalar import K

WORDS = {"index": "int64"}  # the NumPy type of a K type, where the name differs
BITS = {"float32": 32, "int32": 32, "uint32": 32, "float64": 64, "int64": 64}


def numpy_type(name: str) -> str:
    return WORDS.get(name, name)


def whole(kind: str) -> bool:
    return kind in ("int32", "uint32", "int64", "index")


def divide(kind: str, a: Any, b: Any) -> Any:
    """Reals as IEEE 754 has it; integers truncate, and by 0 give 0; indices round down."""
    if not whole(kind):
        return a / b
    if kind == "index":
        return a // b
    safe = np.where(b == 0, 1, b)
    quotient = np.asarray(np.abs(a.astype(object)) // np.abs(safe.astype(object)))  # Python integers do not overflow
    signed = np.where((a < 0) ^ (b < 0), -quotient, quotient)
    return wrapped(np.where(b == 0, 0, signed), kind)


def remainder(kind: str, a: Any, b: Any) -> Any:
    """With the sign of the dividend; integers by 0 give 0; indices are not negative."""
    if kind == "index":
        return a % b
    return np.fmod(a, b) if not whole(kind) else np.where(b == 0, 0, np.fmod(a, np.where((b == 0) | (b == -1), 1, b)))


def wrapped(values: Any, kind: str) -> Any:
    """Python integers modulo the word."""
    size = BITS[kind]
    low = 0 if kind == "uint32" else -(1 << (size - 1))
    flat = [(int(v) - low) % (1 << size) + low for v in np.asarray(values, object).reshape(-1)]
    return np.array(flat, kind).reshape(np.shape(values))


def shift(op: str, kind: str, a: Any, b: Any) -> Any:
    """By the amount modulo the number of bits; to the right with the sign of signed integers."""
    by = (b.astype("int64") % BITS[kind]).astype(a.dtype)
    return a << by if op == "shl" else a >> by


def cast(a: Any, kind: str, to: str) -> Any:
    """Reals lose their fraction, saturate, and NaN gives 0; integers wrap; bools are 0 and 1."""
    if to == "bool":
        return a != 0
    if not kind.startswith("float") or not whole(to):
        return a.astype(numpy_type(to))
    limits = np.iinfo("int32" if to == "index" else to)
    flat = [
        0
        if np.isnan(v)
        else min(max(int(v), limits.min), limits.max)
        if np.isfinite(v)
        else limits.max
        if v > 0
        else limits.min
        for v in a.reshape(-1).tolist()
    ]
    return np.array(flat, numpy_type(to)).reshape(a.shape)


FOLDS = {"sum": np.add, "prod": np.multiply, "min": np.minimum, "max": np.maximum}


def identity(kind: str, dtype: Any) -> Any:
    """What a fold over nothing gives."""
    if kind in ("sum", "prod"):
        return {"sum": 0, "prod": 1}[kind]
    limits = (-np.inf, np.inf) if dtype.kind == "f" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    return limits[kind == "min"]


PLAIN = {
    "add": np.add, "sub": np.subtract, "mul": np.multiply, "min": np.minimum, "max": np.maximum, "neg": np.negative,
    "abs": np.abs, "floor": np.floor, "ceil": np.ceil, "trunc": np.trunc, "nearest": np.rint, "sqrt": np.sqrt,
    "whole": np.rint, "half": lambda a: a.astype("float16").astype("float32"),
    "power2": lambda a: np.ldexp(np.ones_like(a), a.astype("int32")),
    "lt": np.less, "le": np.less_equal, "eq": np.equal, "ne": np.not_equal, "isnan": np.isnan,
    "and": np.bitwise_and, "or": np.bitwise_or, "xor": np.bitwise_xor, "not": np.invert,
}  # fmt: skip


class Interpreter:
    """Evaluates expressions; every variable has an axis, along which an array is long if its value depends on it."""

    def __init__(self, variables: Sequence[K], buffers: Mapping[Any, Any]) -> None:
        self.axis = {v: n for n, v in enumerate(variables)}
        self.extent = [int(v.value[1]) for v in variables]
        self.buffers = buffers
        self.made: dict[K, Any] = {}

    def value(self, root: K) -> Any:
        with np.errstate(all="ignore"):
            for node in k.walk([root]):
                if node not in self.made:
                    result = np.asarray(self.make(node, [self.made[a] for a in node.args]))
                    assert result.dtype.name == numpy_type(node.type), (node.op, node.type, result.dtype)
                    self.made[node] = result
        return self.made[root]

    def make(self, node: K, args: list[Any]) -> Any:
        op, rank = node.op, len(self.extent)
        if op == "const":
            bits = node.value if isinstance(node.value, bytes) else None
            value = np.frombuffer(bits, node.type)[0] if bits else node.value
            return np.full((1,) * rank, value, numpy_type(node.type))
        if op == "var":
            axis = self.axis[node]
            return np.arange(self.extent[axis]).reshape([-1 if n == axis else 1 for n in range(rank)])
        if op == "linear":
            constant, *factors = node.value
            return sum((c * a for c, a in zip(factors, args, strict=True)), np.full((1,) * rank, constant))
        if op == "load":
            return self.load(node, *args)
        if op == "reduce":
            return self.reduce(node, args[0])
        if op in PLAIN:
            return PLAIN[op](*args)
        kind = node.args[0].type
        special = {
            "div": lambda a, b: divide(kind, a, b),
            "rem": lambda a, b: remainder(kind, a, b),
            "shl": lambda a, b: shift("shl", kind, a, b),
            "shr": lambda a, b: shift("shr", kind, a, b),
            "select": np.where,
            "cast": lambda a: cast(a, kind, node.type),
            "bits": lambda a: np.ascontiguousarray(a).view(node.type),
        }
        return special[op](*args)

    def load(self, node: K, index: Any, mask: Any = True) -> Any:
        data = self.buffers[node.value]
        index, mask = np.broadcast_arrays(index, mask)
        inside = (index >= 0) & (index < data.size)
        assert inside[mask].all(), f"{node} reads outside the buffer of {data.size} elements"
        found = data[np.where(inside, index, 0)] if data.size else np.zeros(index.shape, data.dtype)
        return np.where(mask, found, 0).astype(numpy_type(node.type))

    def reduce(self, node: K, body: Any) -> Any:
        kind, variables = node.value
        axes = tuple(self.axis[v] for v in variables)
        shape = tuple(self.extent[n] if n in axes else size for n, size in enumerate(body.shape))
        body = np.broadcast_to(body, shape)
        return FOLDS[kind].reduce(body, axis=axes, keepdims=True, dtype=body.dtype, initial=identity(kind, body.dtype))


def evaluate(root: K, axes: Sequence[K] = (), buffers: Mapping[Any, Any] | None = None) -> Any:
    """The array of the expression's values over the axes."""
    inner = [v for n in k.walk([root]) if n.op == "reduce" for v in n.value[1]]
    variables = [*axes, *dict.fromkeys(v for v in inner if v not in axes)]
    value = Interpreter(variables, buffers or {}).value(root)
    shape = tuple(v.value[1] for v in axes)
    return np.broadcast_to(value.reshape(value.shape[: len(axes)]), shape)


def stored(values: Any, dtype: DType) -> Any:
    """As memory keeps them: float16 is rounded here, and nothing else changes."""
    with np.errstate(all="ignore"):
        kept = values.astype(dtype.name)
    assert dtype.kind == "f" or (kept == values).all(), f"an element does not fit {dtype.name}: it was not narrowed"
    return kept


def element_of(op: Op, arrays: Sequence[Any], attrs: Mapping[str, Any]) -> Any:
    """What a record's `element` makes of arrays; a `Number` stands for a constant of the program."""
    from nearfield.index import flatten

    k.restart()
    sources = []
    for n, x in enumerate(arrays):
        dtype = DTYPES[x.dtype.name]

        def at(index: list[K], mask: K | None = None, n: int = n, x: Any = x, dtype: DType = dtype) -> K:
            if isinstance(x, Number):
                return k.const(x.item(), dtype.compute)
            return k.load(n, flatten(index, x.shape), dtype.compute, mask)

        sources.append(Source(x.shape, dtype, at))
    attrs = dict(attrs)
    shape, dtype = op.infer([x.shape for x in arrays], [s.dtype for s in sources], attrs)
    index = [k.var(f"i{n}", size) for n, size in enumerate(shape)]
    root = op.element(index, sources, shape, dtype, attrs)
    buffers = {n: np.ascontiguousarray(x).reshape(-1) for n, x in enumerate(arrays)}
    return stored(evaluate(root, index, buffers), dtype)


class Number(np.ndarray):
    """One number, repeated to a shape, that the compiler sees."""

    @classmethod
    def full(cls, shape: tuple[int, ...], value: Any, dtype: str) -> "Number":
        return np.full(shape, value, dtype).view(cls)

    def item(self, *args: Any) -> Any:
        return np.asarray(self).reshape(-1)[0].item() if self.size else 0
