"""Every line of docs/spec/k.md, on the interpreter and every target: NaN, -0, overflow, divisions by zero, shifts."""

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nearfield as nf
from devices import chosen_devices, need
from k_interpreter import element_of
from nearfield import scalar as k
from nearfield.dtype import DTYPES
from nearfield.op import REGISTRY, Op
from nearfield.runtime import current_device
from nearfield.scalar import K
from nearfield.tensor import apply

PAGE = Path(__file__).resolve().parent.parent / "docs" / "spec" / "k.md"
DEVICES = ("k", "wasm", "webgpu")
INF, NAN = np.inf, np.nan
LEAST, MOST = -(2**31), 2**31 - 1
LEAST64 = -(2**63)
REALS = ("float32", "float64")
ANY_ZERO = "of 0 and -0 either"


@dataclass(frozen=True)
class Line:
    """One fact: the expression of these columns gives these values."""

    make: Callable[..., K]
    columns: tuple[Any, ...]
    want: Any
    note: str = ""


def line(make: Callable[..., K], of: str | tuple[str, ...], to: str, *rows: tuple[Any, ...], note: str = "") -> Line:
    """Rows of arguments and result; `of` is the type of the arguments, or of each."""
    columns = list(zip(*rows, strict=True))
    types = (of,) * (len(columns) - 1) if isinstance(of, str) else of
    made = tuple(np.array(c, t) for c, t in zip(columns, types, strict=False))
    return Line(make, made, np.array(columns[-1], to), note)


def reals(make: Callable[..., K], *rows: tuple[Any, ...], to: str = "", note: str = "") -> list[Line]:
    return [line(make, t, to or t, *rows, note=note) for t in REALS]


def wholes(make: Callable[..., K], *rows: tuple[Any, ...], to: str = "", types: Any = ("int32", "int64")) -> list[Line]:
    return [line(make, t, to or t, *rows) for t in types]


def rounding(make: Callable[[K], K], *rows: tuple[Any, ...]) -> list[Line]:
    return reals(make, *rows, (-0.0, -0.0), (INF, INF), (-INF, -INF), (NAN, NAN), (1e30, 1e30))


def comparison(make: Callable[..., K], below: bool, same: bool, above: bool, unordered: bool) -> list[Line]:
    rows = [(1, 2, below), (2, 2, same), (2, 1, above)]
    nan = [(NAN, 1, unordered), (1, NAN, unordered), (NAN, NAN, unordered)]
    edges = [(0.0, -0.0, same), (-INF, INF, below), (INF, INF, same), (INF, 1, above)]
    whole = [(LEAST, MOST, below), (-1, 0, below)]
    unsigned = line(make, "uint32", "bool", *rows, (1, 2**32 - 1, below), (2**31, 1, above))
    return [*reals(make, *rows, *nan, *edges, to="bool"), *wholes(make, *rows, *whole, to="bool"), unsigned]


def casts(of: str, to: str, *rows: tuple[Any, ...]) -> Line:
    return line(lambda a: k.cast(a, to), of, to, *rows)


def bit_by_bit(make: Callable[..., K], whole: tuple[int, int, int], truth: tuple[bool, bool, bool, bool]) -> list[Line]:
    pairs = [(False, False), (False, True), (True, False), (True, True)]
    unsigned = line(make, "uint32", "uint32", (2**32 - 1, 5, int(np.uint32(make_int(make, 2**32 - 1, 5)))))
    return [
        *wholes(make, (12, 10, whole[0]), (-1, 5, whole[1]), (-2, -3, whole[2])),
        unsigned,
        line(make, "bool", "bool", *((a, b, t) for (a, b), t in zip(pairs, truth, strict=True))),
    ]


def make_int(make: Callable[..., Any], a: int, b: int) -> int:
    """What the operator gives for Python integers."""
    return int(make(a, b))


SATURATED = ((2.9, 2), (-2.9, -2), (NAN, 0), (3e9, MOST), (-3e9, LEAST), (INF, MOST), (-INF, LEAST), (-0.0, 0))
LINES: dict[str, list[Line]] = {
    "add": [
        *reals(
            lambda a, b: a + b, (1.5, 2, 3.5), (INF, -INF, NAN), (-0.0, -0.0, -0.0), (-0.0, 0.0, 0.0), (NAN, 1, NAN)
        ),
        line(lambda a, b: a + b, "int32", "int32", (MOST, 1, LEAST), (-3, 5, 2)),
        line(lambda a, b: a + b, "uint32", "uint32", (2**32 - 1, 2, 1)),
        line(lambda a, b: a + b, "int64", "int64", (-LEAST64 - 1, 1, LEAST64)),
    ],
    "sub": [
        *reals(lambda a, b: a - b, (1.5, 2, -0.5), (INF, INF, NAN), (0.0, 0.0, 0.0), (-0.0, 0.0, -0.0)),
        line(lambda a, b: a - b, "int32", "int32", (LEAST, 1, MOST)),
        line(lambda a, b: a - b, "uint32", "uint32", (1, 2, 2**32 - 1)),
    ],
    "mul": [
        *reals(lambda a, b: a * b, (1.5, -2, -3), (INF, 0.0, NAN), (-0.0, 2, -0.0), (-INF, -1, INF)),
        line(lambda a, b: a * b, "int32", "int32", (2**30, 4, 0), (65537, 65537, 131073), (-7, 3, -21)),
        line(lambda a, b: a * b, "uint32", "uint32", (2**32 - 1, 2**32 - 1, 1)),
        line(lambda a, b: a * b, "int64", "int64", (2**62, 4, 0), (2**33, -3, -3 * 2**33)),
    ],
    "div": [
        *reals(lambda a, b: a / b, (3, 2, 1.5), (1, 0.0, INF), (1, -0.0, -INF), (0.0, 0.0, NAN), (-1, INF, -0.0)),
        *wholes(lambda a, b: a / b, (7, 2, 3), (-7, 2, -3), (7, -2, -3), (-7, -2, 3), (7, 0, 0), (0, 0, 0)),
        line(lambda a, b: a / b, "int32", "int32", (LEAST, -1, LEAST), (LEAST, 2, -(2**30))),
        line(lambda a, b: a / b, "uint32", "uint32", (2**32 - 1, 2, MOST), (5, 0, 0)),
    ],
    "rem": [
        *reals(lambda a, b: a % b, (7, 2, 1), (-7, 2, -1), (7, -2, 1), (5.5, 2, 1.5), (1, 0.0, NAN), (NAN, 1, NAN)),
        *wholes(lambda a, b: a % b, (7, 3, 1), (-7, 3, -1), (7, -3, 1), (-7, -3, -1), (7, 0, 0)),
        line(lambda a, b: a % b, "int32", "int32", (LEAST, -1, 0)),
        line(lambda a, b: a % b, "uint32", "uint32", (2**32 - 1, 10, 5), (5, 0, 0)),
    ],
    "min": [
        *reals(k.minimum, (1, 2, 1), (NAN, 1, NAN), (1, NAN, NAN), (-INF, 1, -INF), (INF, NAN, NAN)),
        *reals(k.minimum, (0.0, -0.0, 0.0), (-0.0, 0.0, 0.0), note=ANY_ZERO),
        *wholes(k.minimum, (-1, 1, -1), (MOST, LEAST, LEAST)),
        line(k.minimum, "uint32", "uint32", (2**31, 1, 1)),
    ],
    "max": [
        *reals(k.maximum, (1, 2, 2), (NAN, 1, NAN), (1, NAN, NAN), (-INF, 1, 1), (INF, NAN, NAN)),
        *reals(k.maximum, (0.0, -0.0, 0.0), (-0.0, 0.0, 0.0), note=ANY_ZERO),
        *wholes(k.maximum, (-1, 1, 1), (MOST, LEAST, MOST)),
        line(k.maximum, "uint32", "uint32", (2**31, 1, 2**31)),
    ],
    "neg": [
        *reals(k.negative, (1.5, -1.5), (0.0, -0.0), (-0.0, 0.0), (INF, -INF), (NAN, NAN)),
        *wholes(k.negative, (5, -5), (0, 0)),
        line(k.negative, "int32", "int32", (LEAST, LEAST)),
    ],
    "abs": [
        *reals(k.absolute, (-1.5, 1.5), (-0.0, 0.0), (-INF, INF), (NAN, NAN)),
        *wholes(k.absolute, (-5, 5), (5, 5)),
        line(k.absolute, "int32", "int32", (LEAST, LEAST)),
    ],
    "floor": rounding(k.floor, (1.5, 1), (-1.5, -2), (0.5, 0.0), (-0.5, -1), (2, 2)),
    "ceil": rounding(k.ceil, (1.5, 2), (-1.5, -1), (0.5, 1), (-0.5, -0.0), (2, 2)),
    "trunc": rounding(k.trunc, (1.5, 1), (-1.5, -1), (0.5, 0.0), (-0.5, -0.0), (2, 2)),
    "nearest": rounding(
        k.nearest, (0.5, 0.0), (1.5, 2), (2.5, 2), (-0.5, -0.0), (-1.5, -2), (-2.5, -2), (1.4, 1), (1.6, 2)
    ),
    "half": [
        line(
            k.half,
            "float32",
            "float32",
            *((x, float(np.float16(x))) for x in (0.1, -0.1, 2049, 2051, 65519, 3e-8, -1e-5, 6.1e-5, 0.0, -0.0, NAN)),
            *((65520, INF), (-1e38, -INF), (INF, INF)),
        )
    ],
    "sqrt": reals(k.sqrt, (4, 2), (0.0, 0.0), (-0.0, -0.0), (-1, NAN), (INF, INF), (NAN, NAN), (0.25, 0.5)),
    "whole": [
        *reals(
            k.whole,
            (0.5, 0.0),
            (1.5, 2),
            (2.5, 2),
            (-0.5, 0.0),
            (-1.5, -2),
            (1.4, 1),
            (-1e6, -1e6),
            (NAN, NAN),
            note=ANY_ZERO,
        )
    ],
    "power2": [
        *reals(k.power2, (0, 1), (-0.0, 1), (3, 8), (-2, 0.25), (-126, 2.0**-126), (127, 2.0**127)),
        line(k.power2, "float64", "float64", (-1022, 2.0**-1022), (1023, 2.0**1023)),
    ],
    "lt": comparison(k.less, True, False, False, False),
    "le": comparison(k.less_equal, True, True, False, False),
    "eq": comparison(k.equal, False, True, False, False),
    "ne": comparison(k.not_equal, True, False, True, True),
    "isnan": reals(
        k.isnan, (NAN, True), (-NAN, True), (INF, False), (-INF, False), (0.0, False), (1, False), to="bool"
    ),
    "and": bit_by_bit(lambda a, b: a & b, (8, 5, -4), (False, False, False, True)),
    "or": bit_by_bit(lambda a, b: a | b, (14, -1, -1), (False, True, True, True)),
    "xor": bit_by_bit(lambda a, b: a ^ b, (6, -6, 3), (False, True, True, False)),
    "not": [
        *wholes(k.invert, (0, -1), (5, -6)),
        line(k.invert, "uint32", "uint32", (0, 2**32 - 1)),
        line(k.logical_not, "bool", "bool", (True, False), (False, True)),
    ],
    "shl": [
        line(lambda a, b: a << b, "int32", "int32", (1, 4, 16), (1, 31, LEAST), (1, 32, 1), (1, 33, 2), (3, -1, LEAST)),
        line(lambda a, b: a << b, "uint32", "uint32", (2**31 + 1, 1, 2), (5, 32, 5)),
        line(lambda a, b: a << b, "int64", "int64", (1, 63, LEAST64), (1, 64, 1), (1, 65, 2)),
        line(lambda a, b: a << b, ("uint32", "int32"), "uint32", (3, 30, 3 << 30)),
    ],
    "shr": [
        line(lambda a, b: a >> b, "int32", "int32", (16, 4, 1), (-16, 2, -4), (-1, 31, -1), (5, 32, 5), (8, 33, 4)),
        line(lambda a, b: a >> b, "uint32", "uint32", (2**32 - 1, 31, 1), (8, 34, 2)),
        line(lambda a, b: a >> b, "int64", "int64", (-16, 2, -4), (5, 64, 5), (LEAST64, 63, -1)),
    ],
    "select": [
        line(k.select, ("bool", t, t), t, (True, 1, 2, 1), (False, 1, 2, 2))
        for t in ("float32", "int32", "uint32", "int64")
    ]
    + [
        line(
            k.select,
            ("bool", "float32", "float32"),
            "float32",
            (True, 1, NAN, 1),
            (False, NAN, -0.0, -0.0),
            (True, INF, 0, INF),
        )
    ]
    + [line(k.select, "bool", "bool", (True, False, True, False), (False, False, True, True))],
    "cast": [
        casts("float32", "int32", *SATURATED),
        casts("float64", "int32", *SATURATED),
        casts(
            "float32", "uint32", (2.9, 2), (-2.9, 0), (NAN, 0), (5e9, 2**32 - 1), (3e9, 3000000000), (INF, 2**32 - 1)
        ),
        casts("float64", "int64", (-2.9, -2), (NAN, 0), (1e30, -LEAST64 - 1), (-1e30, LEAST64), (2.0**40, 2**40)),
        casts("int32", "uint32", (-1, 2**32 - 1), (LEAST, 2**31)),
        casts("uint32", "int32", (2**32 - 1, -1), (2**31, LEAST)),
        casts("int64", "int32", (2**32 + 5, 5), (2**31, LEAST), (-1, -1)),
        casts("int32", "int64", (-1, -1), (LEAST, LEAST)),
        casts("uint32", "int64", (2**32 - 1, 2**32 - 1)),
        casts("float32", "bool", (0.0, False), (-0.0, False), (0.5, True), (NAN, True), (INF, True)),
        casts("int32", "bool", (0, False), (-1, True), (256, True)),
        casts("bool", "float32", (True, 1), (False, 0.0)),
        casts("bool", "int32", (True, 1), (False, 0)),
        casts("int32", "float32", (16777217, 16777216), (16777219, 16777220), (LEAST, -(2.0**31)), (-5, -5)),
        casts("uint32", "float32", (2**32 - 1, 2.0**32), (2**31, 2.0**31)),
        casts("int64", "float64", (2**53 + 1, 2.0**53), (LEAST64, -(2.0**63))),
        casts("float64", "float32", (1 + 2**-24, 1), (1e300, INF), (-1e300, -INF), (NAN, NAN), (-0.0, -0.0)),
        casts("float32", "float64", (0.5, 0.5), (-INF, -INF), (NAN, NAN), (-0.0, -0.0)),
    ],
    "bits": [
        line(lambda a: k.bits(a, "int32"), "float32", "int32", (1, 0x3F800000), (-0.0, LEAST), (INF, 0x7F800000)),
        line(lambda a: k.bits(a, "uint32"), "float32", "uint32", (-0.0, 2**31), (-2, 0xC0000000)),
        line(lambda a: k.bits(a, "float32"), "int32", "float32", (0x3F800000, 1), (LEAST, -0.0), (0x7FC00000, NAN)),
        line(lambda a: k.bits(a, "int32"), "uint32", "int32", (2**32 - 1, -1)),
        line(lambda a: k.bits(a, "int64"), "float64", "int64", (1, 0x3FF0000000000000), (-0.0, LEAST64)),
        line(lambda a: k.bits(a, "float64"), "int64", "float64", (LEAST64, -0.0), (0x7FF0000000000000, INF)),
    ],
    "const": [
        line(lambda a, v=v, t=t: k.select(k.equal(a, 0), k.const(v, t), a), t, t, (0, v), (1, 1))
        for t, values in (
            ("float32", (-0.0, INF, -INF, NAN, 1e-45, 3.4028235e38, 0.1)),
            ("float64", (-0.0, INF, NAN, 5e-324, 0.1)),
            ("int32", (LEAST, MOST, -1)),
            ("uint32", (2**32 - 1,)),
            ("int64", (LEAST64, -LEAST64 - 1)),
        )
        for v in values
    ],
}


def number(x: K) -> K:
    return k.cast(x, "int32")


Made = Callable[[list[K], Callable[..., K]], K]
# Expressions of the element's own index i (0 … 6) and of a buffer x of 7 elements: float32 1, 2 … 7 or as named.
PLACES: dict[str, list[tuple[Made, Any, Any]]] = {
    "var": [(lambda i, x: number(i[0]), None, np.arange(7, dtype="int32"))],
    "linear": [
        (lambda i, x: number(i[0] * 3 - 5), None, np.arange(7, dtype="int32") * 3 - 5),
        (lambda i, x: number((i[0] - 3) // 2), None, np.array([-2, -1, -1, 0, 0, 1, 1], "int32")),
        (lambda i, x: number((i[0] - 3) % 4), None, np.array([1, 2, 3, 0, 1, 2, 3], "int32")),
        (lambda i, x: number(k.minimum(i[0] * 2, k.const(5, "index"))), None, np.array([0, 2, 4, 5, 5, 5, 5], "int32")),
    ],
    "load": [
        (lambda i, x: x(i[0] * -1 + 6), None, np.arange(7, 0, -1).astype("float32")),
        (
            lambda i, x: x(i[0] - 2, k.less_equal(k.const(0, "index"), i[0] - 2)),
            None,
            np.array([0, 0, 1, 2, 3, 4, 5], "float32"),
        ),
        (
            lambda i, x: x(i[0] * 2, k.less(i[0] * 2, k.const(7, "index"))),
            None,
            np.array([1, 3, 5, 7, 0, 0, 0], "float32"),
        ),
        (
            lambda i, x: x(i[0]),
            np.array([-128, 127, -1, 0, 1, 5, 7], "int8"),
            np.array([-128, 127, -1, 0, 1, 5, 7], "int32"),
        ),
        (
            lambda i, x: x(i[0]),
            np.array([255, 128, 127, 0, 1, 5, 7], "uint8"),
            np.array([255, 128, 127, 0, 1, 5, 7], "uint32"),
        ),
        (lambda i, x: x(i[0]), np.array([1, 0, 1, 1, 0, 0, 1], "bool"), np.array([1, 0, 1, 1, 0, 0, 1], "bool")),
        (
            lambda i, x: x(i[0]),
            np.array([1, -0.0, INF, NAN, 65504, 2**-14, 0.1], "float16"),
            np.array([1, -0.0, INF, NAN, 65504, 2**-14, np.float16(0.1)], "float32"),
        ),
    ],
    "reduce": [
        (lambda i, x: k.reduce("sum", (r := k.fresh("r", 7),), x(r)), None, np.full(7, 28, "float32")),
        (lambda i, x: k.reduce("prod", (r := k.fresh("r", 7),), x(r)), None, np.full(7, 5040, "float32")),
        (lambda i, x: k.reduce("min", (r := k.fresh("r", 7),), -x(r)), None, np.full(7, -7, "float32")),
        (lambda i, x: k.reduce("max", (r := k.fresh("r", 7),), -x(r)), None, np.full(7, -1, "float32")),
        (
            lambda i, x: k.reduce("max", (r := k.fresh("r", 7),), x(r)),
            np.array([1, NAN, 3, 2, 1, 0, 1], "float32"),
            np.full(7, NAN, "float32"),
        ),
        (
            lambda i, x: k.reduce("min", (r := k.fresh("r", 7),), x(r)),
            np.array([1, 2, 3, 2, 1, 0, NAN], "float32"),
            np.full(7, NAN, "float32"),
        ),
        (lambda i, x: k.reduce("sum", (k.fresh("r", 0),), x(i[0])), None, np.zeros(7, "float32")),
        (lambda i, x: k.reduce("prod", (k.fresh("r", 0),), x(i[0])), None, np.ones(7, "float32")),
        (lambda i, x: k.reduce("min", (k.fresh("r", 0),), x(i[0])), None, np.full(7, INF, "float32")),
        (lambda i, x: k.reduce("max", (k.fresh("r", 0),), x(i[0])), None, np.full(7, -INF, "float32")),
        (
            lambda i, x: k.reduce(
                "sum", (r := k.fresh("r", 7),), x(r) / k.reduce("max", (s := k.fresh("s", 7),), x(s))
            ),
            None,
            np.full(7, 4, "float32"),
        ),
        (
            lambda i, x: k.reduce("sum", (r := k.fresh("r", 7),), x(r, k.less(r, i[0] + 1))),
            None,
            np.cumsum(np.arange(1, 8)).astype("float32"),
        ),
        (
            lambda i, x: k.reduce("sum", (r := k.fresh("r", 3), s := k.fresh("s", 2)), number(r * 2 + s)),
            None,
            np.full(7, 15, "int32"),
        ),
    ],
}
NAMES = [*LINES, *PLACES]


def column_op(fact: Line) -> tuple[Op, tuple[Any, ...]]:
    """An operation of which the expression is the element."""

    def element(index: list[K], sources: Any, shape: Any, dtype: Any, attrs: Any) -> K:
        return fact.make(*(s.at(index) for s in sources))

    return op_of(element, fact.columns, fact.want), fact.columns


def place_op(made: Made, data: Any, want: Any) -> tuple[Op, tuple[Any, ...]]:
    x = np.arange(1, 8, dtype="float32") if data is None else data

    def element(index: list[K], sources: Any, shape: Any, dtype: Any, attrs: Any) -> K:
        return made(index, lambda at, *mask: sources[0].at([at], *mask))

    return op_of(element, (x,), want), (x,)


def op_of(element: Any, arrays: Any, want: Any) -> Op:
    dtype = DTYPES[want.dtype.name]
    notes = {"mixed": len(arrays)}  # a line of K may have arguments of several types
    return Op(
        "k_line", "elementwise", len(arrays), lambda *_: (want.shape, dtype), element, None, None, "", notes=notes
    )


def values(device: str, op: Op, arrays: tuple[Any, ...], monkeypatch: pytest.MonkeyPatch) -> Any:
    if device == "k":
        return element_of(op, arrays, {})
    monkeypatch.setitem(REGISTRY, op.name, op)
    nf.forget_programs()
    with nf.use(device):
        return apply(op, *map(nf.asarray, arrays)).numpy()


def agrees(got: Any, want: Any, note: str, device: str) -> bool:
    if want.dtype.kind != "f":
        return bool((got == want).all())
    if device == "webgpu":  # a subnormal number may be a zero there
        want = np.where((np.abs(want) < np.finfo(want.dtype).tiny) & (got == 0), np.copysign(0, want), want)
    same = (got == want) | (np.isnan(got) & np.isnan(want))
    if device == "webgpu":  # WGSL allows a quotient to be 2.5 units in the last place off
        with np.errstate(all="ignore"):
            same |= np.isfinite(want) & (np.abs(got - want) <= 2.5 * np.spacing(np.abs(want)))
    signs = np.isnan(want) | (np.signbit(got) == np.signbit(want)) | (note == ANY_ZERO)
    return bool((same & signs).all())


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", NAMES)
def test_line_of_the_page_holds(name: str, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the page says of the instruction is so."""
    here = set(DTYPES)
    if device != "k":
        if device not in chosen_devices():
            pytest.skip(f"NEARFIELD_DEVICE={os.environ['NEARFIELD_DEVICE']}")
        need(device)
        with nf.use(device):
            here = set(current_device().dtypes)
    facts = [(*column_op(f), f.want, f.note) for f in LINES.get(name, [])]
    facts += [(*place_op(made, data, want), want, "") for made, data, want in PLACES.get(name, [])]
    wrong = []
    for op, arrays, want, note in facts:
        if {want.dtype.name, *(x.dtype.name for x in arrays)} <= here:
            got = values(device, op, arrays, monkeypatch)
            if not agrees(got, want, note, device):
                wrong.append(
                    f"{name} of {[f'{x.dtype} {x.tolist()}' for x in arrays]} is {got.tolist()}, not {want.tolist()}"
                )
    assert not wrong, "\n".join(wrong)


def test_page_and_tests_name_the_same_instructions() -> None:
    """A line on the page for each instruction and each other expression, and a test for each line."""
    named = re.findall(r"^\| `(\w+)` \|", PAGE.read_text(), re.MULTILINE)
    assert sorted(named) == sorted([*k.INSTRUCTIONS, "const", "var", "linear", "load", "reduce"])
    assert sorted(named) == sorted(NAMES)
