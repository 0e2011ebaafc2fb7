"""The WebAssembly target: the encoder, every instruction of K at its edges, and every storage type."""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from nearfield import scalar as k
from nearfield.compiler.kernel import Kernel, Store
from nearfield.compiler.wasm import LANES, SCALAR
from nearfield.compiler.wasm_bytes import sleb, uleb
from nearfield.dtype import DTYPES
from nearfield.scalar import K
from wasm_machine import INT, Array, edges, executed

# The encoder


@pytest.mark.parametrize("n", [0, 1, 63, 64, 127, 128, 300, 2**31, 2**32 - 1])
def test_leb(n: int) -> None:
    """Numbers decode to themselves."""
    assert sum((b & 127) << 7 * i for i, b in enumerate(uleb(n))) == n
    for signed in (n, -n):
        code = sleb(signed)
        value = sum((b & 127) << 7 * i for i, b in enumerate(code))
        assert (value - (1 << 7 * len(code)) if code[-1] & 64 else value) == signed


# Instructions


def python_int(op: str, dtype: str) -> Callable[[int, int], int]:
    """Integer instructions by Python's unbounded integers."""
    width, signed = INT[dtype], dtype != "uint32"

    def wrap(n: int) -> int:
        n %= 1 << width
        return n - (1 << width) if signed and n >> (width - 1) else n

    def divided(x: int, y: int) -> int:
        return (abs(x) // abs(y)) * (1 if (x < 0) == (y < 0) else -1) if y else 0

    table: dict[str, Callable[[int, int], int]] = {
        "add": lambda x, y: x + y, "sub": lambda x, y: x - y, "mul": lambda x, y: x * y, "div": divided,
        "rem": lambda x, y: x - y * divided(x, y) if y else 0, "min": min, "max": max,
        "and": lambda x, y: x & y, "or": lambda x, y: x | y, "xor": lambda x, y: x ^ y,
        "shl": lambda x, y: x << y % width, "shr": lambda x, y: x >> y % width,
        "lt": lambda x, y: x < y, "le": lambda x, y: x <= y, "eq": lambda x, y: x == y, "ne": lambda x, y: x != y,
        "neg": lambda x, y: -x, "abs": lambda x, y: abs(x), "not": lambda x, y: ~x,
    }  # fmt: skip
    if op in ("lt", "le", "eq", "ne"):
        return table[op]
    return lambda x, y: wrap(table[op](x, y))


REAL: dict[str, Callable[..., Any]] = {
    "add": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.divide,
    "rem": lambda x, y: x - y * np.trunc(x / y),
    "min": np.minimum, "max": np.maximum, "lt": np.less, "le": np.less_equal, "eq": np.equal, "ne": np.not_equal,
    "neg": np.negative, "abs": np.abs, "floor": np.floor, "ceil": np.ceil, "trunc": np.trunc, "nearest": np.rint,
    "sqrt": np.sqrt, "half": lambda x: x.astype("float16").astype("float32"),
    "isnan": np.isnan,
}  # fmt: skip
TRUTH: dict[str, Callable[..., Any]] = {
    "and": np.logical_and, "or": np.logical_or, "xor": np.logical_xor, "not": np.logical_not,
    "eq": np.equal, "ne": np.not_equal,
    "lt": np.less, "le": np.less_equal, "min": np.logical_and, "max": np.logical_or,
}  # fmt: skip
BOOLEAN = ("lt", "le", "eq", "ne", "isnan")
CASES = [(op, t) for op, n in k.INSTRUCTIONS.items() if op not in ("cast", "bits", "select", "power2", "whole")
         for t in SCALAR[op] if t != "index"]  # fmt: skip


def pairs(dtype: str, n: int) -> list[Array]:
    values = edges(dtype)
    return [np.array(a, dtype) for a in zip(*itertools.product(values, repeat=n), strict=True)]


def instruction(op: str, args: list[K]) -> K:
    return k.make(op, "bool" if op in BOOLEAN else args[0].type, tuple(args))


def in_both_codes(make: Callable[[list[K]], K], inputs: Sequence[Array], result: str) -> list[Array]:
    """Each element through SIMD code and through scalar code (which a store to every second element asks for)."""
    n = inputs[0].size
    found = []
    for stride in (1, 2):
        i = k.var("i", n)
        loads = [k.load(m, i, DTYPES[a.dtype.name].compute) for m, a in enumerate(inputs)]
        arguments = (*(DTYPES[a.dtype.name] for a in inputs), DTYPES[result])
        kernel = Kernel("one", (i,), (Store(len(inputs), i * stride, make(loads)),), arguments)
        (got,) = executed(kernel, inputs, np.zeros(n * stride, result))
        found.append(got[::stride])
    return found


def same(got: Array, want: Array, signs: bool = True) -> None:
    if got.dtype.kind != "f":
        np.testing.assert_array_equal(got, want)
        return
    np.testing.assert_array_equal(got, want.astype(got.dtype))
    number = ~np.isnan(want)
    if signs:
        np.testing.assert_array_equal(np.signbit(got[number]), np.signbit(want[number]))


def test_every_instruction_is_spelled() -> None:
    """Both tables have exactly the instructions of K."""
    assert set(SCALAR) == set(LANES) == set(k.INSTRUCTIONS)


@pytest.mark.parametrize(("op", "dtype"), CASES)
def test_instruction(op: str, dtype: str) -> None:
    """One instruction on all pairs of edge values, as scalar code and as SIMD."""
    inputs = pairs(dtype, k.INSTRUCTIONS[op])
    result = "bool" if op in BOOLEAN else dtype
    if dtype in INT:
        meaning = python_int(op, dtype)
        both = [inputs[0], inputs[-1]]
        want = np.array([meaning(int(x), int(y)) for x, y in zip(*both, strict=True)], result)
    else:
        with np.errstate(all="ignore"):
            want = (REAL if dtype.startswith("float") else TRUTH)[op](*inputs).astype(result)
    for got in in_both_codes(lambda args: instruction(op, args), inputs, result):
        same(got, want, signs=op not in ("min", "max"))


@pytest.mark.parametrize(("dtype", "least", "most"), [("float32", -126, 127), ("float64", -1022, 1023)])
def test_power2_of_every_exponent(dtype: str, least: int, most: int) -> None:
    """2^n is exact for every normal result, and for -0."""
    x = np.array([*range(least, most + 1), -0.0, 0.0], dtype)
    for got in in_both_codes(lambda args: k.power2(args[0]), [x], dtype):
        same(got, np.ldexp(np.ones_like(x), x.astype("int32")))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shift", [0.0, 1.0, 2.0, 25.0, -2.0, -3.0])
def test_power_of_what_is_rounded(dtype: str, shift: float) -> None:
    """A power of two and the rounding it belongs to agree at halves too, whatever is added in between."""
    x = np.arange(-90, 90.25, 0.25).astype(dtype)
    whole = np.rint(x)
    for got in in_both_codes(lambda args: k.whole(args[0]), [x], dtype):
        np.testing.assert_array_equal(got, whole)

    def both(args: list[K]) -> K:
        n = k.whole(args[0])
        return k.power2(n + shift) * (n + 200.0)

    for got in in_both_codes(both, [x], dtype):
        np.testing.assert_array_equal(got, np.ldexp(whole + 200, (whole + shift).astype("int32")).astype(dtype))


@pytest.mark.parametrize("bound", [0.0, -0.0, 1.5, np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("op", ["min", "max"])
@pytest.mark.parametrize("first", [False, True])
def test_bound_by_constant(op: str, bound: float, first: bool) -> None:
    """A constant bound has a shorter form, which keeps NaN on either side."""
    x = edges("float32")
    number = k.const(bound, "float32")
    for got in in_both_codes(lambda a: k.binary(op, *((number, a[0]) if first else (a[0], number))), [x], "float32"):
        same(got, REAL[op](x, np.float32(bound)), signs=False)


@pytest.mark.parametrize("amount", [0, 1, 24, 31, 33])
@pytest.mark.parametrize("op", ["shl", "shr"])
@pytest.mark.parametrize("dtype", list(INT))
def test_shift_by_constant(op: str, dtype: str, amount: int) -> None:
    """One amount for all lanes has an instruction of its own."""
    x = edges(dtype)
    want = np.array([python_int(op, dtype)(int(v), amount) for v in x], dtype)
    for got in in_both_codes(lambda args: k.make(op, dtype, (args[0], k.const(amount, dtype))), [x], dtype):
        np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("dtype", [t for t in SCALAR["select"] if t != "index"])
def test_select(dtype: str) -> None:
    """The second argument where the first is true, else the third."""
    values = edges(dtype)
    x, y = np.tile(values, 3), np.tile(values[::-1], 3)
    c = np.arange(x.size) % 3 == 0
    for got in in_both_codes(lambda a: k.make("select", dtype, tuple(a)), [c, x, y], dtype):
        same(got, np.where(c, x, y))


@pytest.mark.parametrize("pair", [p for p in SCALAR["cast"] if p != "int32>int32"])
def test_cast(pair: str) -> None:
    """Reals truncate and saturate to integers, NaN becomes 0; integers wrap; numbers are true unless 0."""
    a, b = pair.split(">")
    x = edges(a)
    if a.startswith("float") and b in INT:
        low, high = np.iinfo(b).min, np.iinfo(b).max
        want = np.array(
            [
                0 if math.isnan(v) else min(max(int(v), low), high) if abs(v) < 1e30 else (low, high)[int(v > 0)]
                for v in x.tolist()
            ],
            b,
        )
    else:
        with np.errstate(all="ignore"):
            want = x.astype(b)
    for got in in_both_codes(lambda args: k.cast(args[0], b), [x], b):
        same(got, want)


@pytest.mark.parametrize("pair", list(SCALAR["bits"]))
def test_bits(pair: str) -> None:
    """The same bits as another type."""
    a, b = pair.split(">")
    x = edges(a)
    for got in in_both_codes(lambda args: k.bits(args[0], b), [x], b):
        assert got.tobytes() == x.tobytes()


def test_index_arithmetic() -> None:
    """Quotients, remainders, extremes, comparisons and choices of index expressions, and as numbers."""
    n = 61

    def make(args: list[K], i: K) -> K:
        low = k.minimum(i // 3, k.const(11, "index"))
        high = k.maximum(i % 7, k.const(2, "index"))
        product = k.binary("mul", low, high)
        mixed = k.select(k.less(i, 17), product + i * 2 + 5, low - high)
        return k.cast(k.select(k.equal(i % 5, k.const(2, "index")), mixed, i), "float32")

    i = np.arange(n)
    low, high = np.minimum(i // 3, 11), np.maximum(i % 7, 2)
    want = np.where(i % 5 == 2, np.where(i < 17, low * high + 2 * i + 5, low - high), i)
    v = k.var("i", n)
    for stride in (1, 2):
        kernel = Kernel("index", (v,), (Store(0, v * stride, make([], v)),), (DTYPES["float32"],))
        np.testing.assert_array_equal(executed(kernel, [], np.zeros(n * stride, "float32"))[0][::stride], want)


# Storage


@pytest.mark.parametrize("dtype", list(DTYPES))
@pytest.mark.parametrize("stride", [1, 2, -1])
def test_copy(dtype: str, stride: int) -> None:
    """Every value of every type survives a load and a store: neighbours, every second, backwards."""
    x = (
        np.arange(65536, dtype="uint16").view("float16")
        if dtype == "float16"
        else np.tile(edges(dtype), 3)
        if DTYPES[dtype].itemsize > 2
        else np.arange(256).astype(dtype)
    )
    n = x.size // abs(stride)
    i = k.var("i", n)
    place = i * stride + (n - 1 if stride < 0 else 0)
    want = x[::stride][:n]
    for spread in (1, 2):
        kernel = Kernel(
            "copy", (i,), (Store(1, i * spread, k.load(0, place, DTYPES[dtype].compute)),), (DTYPES[dtype],) * 2
        )
        (got,) = executed(kernel, [x], np.zeros(n * spread, dtype))
        same(got[::spread], want)


def test_half_is_exact() -> None:
    """float16 widens exactly, and float32 rounds to it to nearest even: all halves, midpoints and their neighbours."""
    halves = np.arange(65536, dtype="uint16").view("float16")
    wide = halves.astype("float32")
    finite = np.unique(wide[np.isfinite(wide)])
    middle = (finite[1:].astype("float64") + finite[:-1]) / 2
    edge = np.array(
        [
            65519.996,
            65520,
            65536,
            1e30,
            np.inf,
            np.nan,
            1e-40,
            2.0**-25,
            np.nextafter(np.float32(2.0**-25), np.float32(1)),
        ]
    )
    near = [np.concatenate([middle, edge]).astype("float32")]
    near += [np.nextafter(near[0], np.float32(d)) for d in (np.inf, -np.inf)]
    x = np.concatenate([wide, *near, *(-n for n in near)])
    with np.errstate(all="ignore"):
        want = x.astype("float16")
    for got in in_both_codes(lambda a: a[0], [x], "float16"):
        same(got, want)
    for got in in_both_codes(lambda a: a[0], [halves], "float32"):
        same(got, wide)


@pytest.mark.parametrize("dtype", ["int8", "uint8"])
def test_small_integers_wrap(dtype: str) -> None:
    """A store keeps the low eight bits."""
    x = np.array([0, 1, 127, 128, 255, 256, 257, -1, -128, -129, 2**31 - 1, -(2**31), 65535], "int32")
    for got in in_both_codes(lambda a: k.cast(a[0], DTYPES[dtype].compute), [x], dtype):
        np.testing.assert_array_equal(got, x.astype(dtype))
