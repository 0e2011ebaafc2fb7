"""The surface of the Python array API standard 2024.12: names, signatures, promotion, special cases.

source  https://data-apis.org/array-api/2024.12
"""

import inspect
import itertools
import math
from typing import Any

import numpy as np
import pytest

import nearfield as nf
from array_cases import on_devices

# Names by chapter, each with its parameters; "/" and "*" as in Python.
STANDARD = {
    "creation": """
        arange(start, /, stop, step, *, dtype, device)  asarray(obj, /, *, dtype, device, copy)
        empty(shape, *, dtype, device)
        empty_like(x, /, *, dtype, device)  eye(n_rows, n_cols, /, *, k, dtype, device)
        from_dlpack(x, /, *, device, copy)
        full(shape, fill_value, *, dtype, device)  full_like(x, /, fill_value, *, dtype, device)
        linspace(start, stop, /, num, *, dtype, device, endpoint)  meshgrid(*arrays, *, indexing)
        ones(shape, *, dtype, device)
        ones_like(x, /, *, dtype, device)  tril(x, /, *, k)  triu(x, /, *, k)  zeros(shape, *, dtype, device)
        zeros_like(x, /, *, dtype, device)
    """,
    "data types": """
        astype(x, dtype, /, *, copy, device)  can_cast(from_, to, /)  finfo(type, /)  iinfo(type, /)
        isdtype(dtype, kind)
        result_type(*arrays_and_dtypes)
    """,
    "elementwise": """
        abs(x, /)  acos(x, /)  acosh(x, /)  add(x1, x2, /)  asin(x, /)  asinh(x, /)  atan(x, /)  atan2(x1, x2, /)
        atanh(x, /)
        bitwise_and(x1, x2, /)  bitwise_invert(x, /)  bitwise_left_shift(x1, x2, /)  bitwise_or(x1, x2, /)
        bitwise_right_shift(x1, x2, /)  bitwise_xor(x1, x2, /)  ceil(x, /)  clip(x, /, min, max)  copysign(x1, x2, /)
        cos(x, /)
        cosh(x, /)  divide(x1, x2, /)  equal(x1, x2, /)  exp(x, /)  expm1(x, /)  floor(x, /)  floor_divide(x1, x2, /)
        greater(x1, x2, /)  greater_equal(x1, x2, /)  hypot(x1, x2, /)  isfinite(x, /)  isinf(x, /)  isnan(x, /)
        less(x1, x2, /)
        less_equal(x1, x2, /)  log(x, /)  log1p(x, /)  log2(x, /)  log10(x, /)  logaddexp(x1, x2, /)
        logical_and(x1, x2, /)
        logical_not(x, /)  logical_or(x1, x2, /)  logical_xor(x1, x2, /)  maximum(x1, x2, /)  minimum(x1, x2, /)
        multiply(x1, x2, /)  negative(x, /)  not_equal(x1, x2, /)  positive(x, /)  pow(x1, x2, /)  reciprocal(x, /)
        remainder(x1, x2, /)  round(x, /)  sign(x, /)  signbit(x, /)  sin(x, /)  sinh(x, /)  square(x, /)  sqrt(x, /)
        subtract(x1, x2, /)  tan(x, /)  tanh(x, /)  trunc(x, /)
    """,
    "indexing": "take(x, indices, /, *, axis)  take_along_axis(x, indices, /, *, axis)",
    "linear algebra": """
        matmul(x1, x2, /)  matrix_transpose(x, /)  tensordot(x1, x2, /, *, axes)  vecdot(x1, x2, /, *, axis)
    """,
    "manipulation": """
        broadcast_arrays(*arrays)  broadcast_to(x, /, shape)  concat(arrays, /, *, axis)  expand_dims(x, /, *, axis)
        flip(x, /, *, axis)  moveaxis(x, source, destination, /)  permute_dims(x, /, axes)
        repeat(x, repeats, /, *, axis)
        reshape(x, /, shape, *, copy)  roll(x, /, shift, *, axis)  squeeze(x, /, axis)  stack(arrays, /, *, axis)
        tile(x, repetitions, /)  unstack(x, /, *, axis)
    """,
    "searching": """
        argmax(x, /, *, axis, keepdims)  argmin(x, /, *, axis, keepdims)  count_nonzero(x, /, *, axis, keepdims)
        nonzero(x, /)
        searchsorted(x1, x2, /, *, side, sorter)  where(condition, x1, x2, /)
    """,
    "sets": "unique_all(x, /)  unique_counts(x, /)  unique_inverse(x, /)  unique_values(x, /)",
    "sorting": "argsort(x, /, *, axis, descending, stable)  sort(x, /, *, axis, descending, stable)",
    "statistics": """
        cumulative_prod(x, /, *, axis, dtype, include_initial)  cumulative_sum(x, /, *, axis, dtype, include_initial)
        max(x, /, *, axis, keepdims)  mean(x, /, *, axis, keepdims)  min(x, /, *, axis, keepdims)
        prod(x, /, *, axis, dtype, keepdims)  std(x, /, *, axis, correction, keepdims)
        sum(x, /, *, axis, dtype, keepdims)
        var(x, /, *, axis, correction, keepdims)
    """,
    "utilities": "all(x, /, *, axis, keepdims)  any(x, /, *, axis, keepdims)  diff(x, /, *, axis, n, prepend, append)",
}
CONSTANTS = ["e", "inf", "nan", "newaxis", "pi"]
DTYPES = ["bool", "float16", "float32", "float64", "int8", "int32", "int64", "uint8", "uint32"]

# What the standard has and Nearfield has not, and why.
GAPS = {
    "conj": "complex numbers", "imag": "complex numbers", "real": "complex numbers", "complex64": "complex numbers",
    "complex128": "complex numbers",
    "int16": "an element type of no device", "uint16": "an element type of no device",
    "uint64": "an element type of no device",
    "nextafter": "needs an instruction that reads a number as bits, as a record of its own",
    "__array_namespace_info__": "devices are told by nf.devices()",
    "linalg": "the extension; at the top of the package are cross, diagonal, matrix_norm, outer, trace, vector_norm",
    "fft": "the extension",
}  # fmt: skip
METHODS = ["__array_namespace__", "__dlpack__", "__dlpack_device__", "to_device"]
ATTRIBUTES = ["dtype", "device", "mT", "ndim", "shape", "size", "T"]

FUNCTIONS = [
    (text.partition("(")[0], text.partition("(")[2])
    for chapter in STANDARD.values()
    for text in (part.strip() for part in chapter.replace("\n", "  ").split(")"))
    if text
]


@pytest.mark.parametrize(("name", "parameters"), FUNCTIONS, ids=[name for name, _ in FUNCTIONS])
def test_functions_are_there(name: str, parameters: str) -> None:
    """Every function takes the standard's keyword arguments, and its positional ones in order."""
    function = getattr(nf, name)
    takes = inspect.signature(function).parameters
    wanted = [p.strip() for p in parameters.split(",")]
    star = wanted.index("*") if "*" in wanted else len(wanted)
    keywords = [p for p in wanted[star + 1 :] if p != "/"]
    missing = [p for p in keywords if p not in takes]
    assert not missing, f"{name} does not take {missing}"
    positional = [p for p in wanted[:star] if p not in ("/", "*") and not p.startswith("*")]
    accepted = [p for p in takes.values() if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    assert len(accepted) >= len(positional), (
        f"{name} takes {len(accepted)} positional arguments; should be {len(positional)}"
    )
    named = wanted[wanted.index("/") + 1 : star] if "/" in wanted else positional
    assert all(p in takes for p in named), f"{name} does not take {named} by name"


@pytest.mark.parametrize("name", [*CONSTANTS, *DTYPES, "__array_api_version__"])
def test_names_are_there(name: str) -> None:
    assert hasattr(nf, name)


@pytest.mark.parametrize("name", GAPS)
def test_gaps_are_gaps(name: str) -> None:
    """What has come to be is taken off the list."""
    assert not hasattr(nf, name)


@pytest.mark.parametrize("name", [*METHODS, *ATTRIBUTES])
def test_arrays_have_the_attributes(name: str) -> None:
    assert hasattr(nf.Tensor, name)


def test_constants() -> None:
    assert (nf.e, nf.pi, nf.inf, nf.newaxis) == (math.e, math.pi, math.inf, None)
    assert math.isnan(nf.nan)


OPERATORS = {
    "+": "add", "-": "subtract", "*": "multiply", "/": "divide", "//": "floor_divide", "%": "remainder", "**": "pow",
    "@": "matmul",
    "&": "bitwise_and", "|": "bitwise_or", "^": "bitwise_xor", "<<": "bitwise_left_shift", ">>": "bitwise_right_shift",
    "<": "less", "<=": "less_equal", ">": "greater", ">=": "greater_equal", "==": "equal", "!=": "not_equal",
}  # fmt: skip


@on_devices
@pytest.mark.parametrize("sign", OPERATORS)
def test_operators_are_functions(sign: str, device: str) -> None:
    x, y = nf.asarray([7, 9, 2]), nf.asarray([2, 3, 2])
    names = {"x": x, "y": y}
    assert eval(f"x {sign} y", names).tolist() == getattr(nf, OPERATORS[sign])(x, y).tolist()
    if sign != "@":
        for code, args in ((f"x {sign} 2", (x, 2)), (f"9 {sign} y", (nf.asarray(9), y))):
            got, want = eval(code, names), getattr(nf, OPERATORS[sign])(*args)
            assert (got.tolist(), got.dtype) == (want.tolist(), want.dtype)


# The standard's table of promotion, where it says something and the types exist.
ORDER = {"i": ["int8", "int32", "int64"], "u": ["uint8", "uint32"], "f": ["float16", "float32", "float64"]}
MIXED = {
    ("uint8", "int32"): "int32", ("uint8", "int64"): "int64", ("uint32", "int32"): "int64", ("uint32",
    "int64"): "int64",
    ("uint32", "int8"): "int64", ("bool", "bool"): "bool",
}  # fmt: skip
PROMOTIONS = {
    **MIXED,
    **{
        (a, b): max(a, b, key=row.index)
        for row in ORDER.values()
        for a, b in itertools.combinations_with_replacement(row, 2)
    },
}


@pytest.mark.parametrize(
    ("types", "wanted"), PROMOTIONS.items(), ids=lambda p: "-".join(p) if isinstance(p, tuple) else p
)
def test_types_promote(types: tuple[str, str], wanted: str) -> None:
    a, b = types
    with nf.use("reference"):
        for first, second in ((a, b), (b, a)):
            assert nf.result_type(getattr(nf, first), getattr(nf, second)).name == wanted
            x, y = nf.ones(2, dtype=first), nf.ones(2, dtype=second)
            assert (x == y).dtype is nf.bool
            if wanted != "bool":
                assert (x + y).dtype.name == wanted
            assert nf.concat([x, y]).dtype.name == wanted
            assert nf.where(nf.asarray([True, False]), x, y).dtype.name == wanted
        assert nf.can_cast(a, wanted)
        assert nf.can_cast(b, wanted)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("number", [True, 2, 2.5])
def test_numbers_take_the_type_of_arrays(dtype: str, number: Any) -> None:
    kind = nf.asarray(1, dtype).dtype.kind
    needed = "b" if isinstance(number, bool) else "i" if isinstance(number, int) else "f"
    if needed == "b" or kind == "f" or (needed == "i" and kind in "iu"):
        assert nf.result_type(getattr(nf, dtype), number) is getattr(nf, dtype)
        with nf.use("reference"):
            assert nf.where(nf.asarray([True]), nf.zeros(1, dtype=dtype), number).dtype.name == dtype


@pytest.mark.parametrize("dtype", DTYPES)
def test_limits_of_types(dtype: str) -> None:
    if dtype.startswith("float"):
        got, want = nf.finfo(dtype), np.finfo(dtype)
        assert (got.bits, got.eps, got.max, got.min, got.smallest_normal, got.dtype.name) == (
            want.bits, want.eps, want.max, want.min, want.smallest_normal, dtype,
        )  # fmt: skip
    elif dtype != "bool":
        got, want = nf.iinfo(dtype), np.iinfo(dtype)
        assert (got.bits, got.max, got.min, got.dtype.name) == (want.bits, want.max, want.min, dtype)
    assert nf.isdtype(getattr(nf, dtype), dtype)


KINDS = {
    "bool": ["bool"], "signed integer": ["int8", "int32", "int64"], "unsigned integer": ["uint8", "uint32"],
    "integral": ["int8", "int32", "int64", "uint8", "uint32"], "real floating": ["float16", "float32", "float64"],
    "complex floating": [], "numeric": [d for d in DTYPES if d != "bool"],
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_kinds_of_types(kind: str) -> None:
    assert [d for d in DTYPES if nf.isdtype(getattr(nf, d), kind)] == [d for d in DTYPES if d in KINDS[kind]]
    assert all(nf.isdtype(getattr(nf, d), (kind, "bool")) for d in KINDS[kind])


INF, NAN, PI = math.inf, math.nan, math.pi

# name: rows of (arguments, result), from the "Special cases" of each function in the standard. -0.0 is not 0.0 here.
SPECIAL: dict[str, list[tuple[Any, ...]]] = {
    "abs": [(NAN, NAN), (-0.0, 0.0), (-INF, INF)],
    "acos": [(NAN, NAN), (1.5, NAN), (-1.5, NAN), (1.0, 0.0)],
    "acosh": [(NAN, NAN), (0.5, NAN), (1.0, 0.0), (INF, INF)],
    "add": [(NAN, 1.0, NAN), (INF, -INF, NAN), (INF, INF, INF), (INF, 1.0, INF), (-0.0, -0.0, -0.0), (-0.0, 0.0, 0.0),
        (1.0, -1.0, 0.0)],
    "asin": [(NAN, NAN), (1.5, NAN), (0.0, 0.0), (-0.0, -0.0)],
    "asinh": [(NAN, NAN), (0.0, 0.0), (-0.0, -0.0), (INF, INF), (-INF, -INF)],
    "atan": [(NAN, NAN), (0.0, 0.0), (-0.0, -0.0), (INF, PI / 2), (-INF, -PI / 2)],
    "atan2": [
        (NAN, 1.0, NAN), (1.0, 0.0, PI / 2), (1.0, -0.0, PI / 2), (0.0, 1.0, 0.0), (0.0, 0.0, 0.0), (0.0, -0.0, PI),
        (0.0, -1.0, PI),
        (-0.0, 1.0, -0.0), (-0.0, 0.0, -0.0), (-0.0, -0.0, -PI), (-0.0, -1.0, -PI), (-1.0, 0.0, -PI / 2),
        (1.0, INF, 0.0),
        (1.0, -INF, PI), (-1.0, INF, -0.0), (-1.0, -INF, -PI), (INF, 1.0, PI / 2), (-INF, 1.0, -PI / 2),
        (INF, INF, PI / 4),
        (INF, -INF, 3 * PI / 4), (-INF, INF, -PI / 4), (-INF, -INF, -3 * PI / 4),
    ],
    "atanh": [(NAN, NAN), (-1.5, NAN), (1.5, NAN), (-1.0, -INF), (1.0, INF), (0.0, 0.0), (-0.0, -0.0)],
    "ceil": [(INF, INF), (-0.0, -0.0), (NAN, NAN), (-0.5, -0.0)],
    "copysign": [(3.0, -0.0, -3.0), (3.0, -1.0, -3.0), (-3.0, 0.0, 3.0), (-3.0, 1.0, 3.0), (NAN, 1.0, NAN)],
    "cos": [(NAN, NAN), (0.0, 1.0), (-0.0, 1.0), (INF, NAN), (-INF, NAN)],
    "cosh": [(NAN, NAN), (0.0, 1.0), (INF, INF), (-INF, INF)],
    "divide": [
        (INF, INF, NAN), (0.0, 0.0, NAN), (1.0, 0.0, INF), (1.0, -0.0, -INF), (-1.0, 0.0, -INF), (1.0, INF, 0.0),
        (1.0, -INF, -0.0),
        (INF, 2.0, INF), (-INF, 2.0, -INF), (0.0, -2.0, -0.0),
    ],
    "equal": [(NAN, NAN, False), (0.0, -0.0, True), (INF, INF, True)],
    "exp": [(NAN, NAN), (0.0, 1.0), (-0.0, 1.0), (INF, INF), (-INF, 0.0)],
    "expm1": [(NAN, NAN), (0.0, 0.0), (-0.0, -0.0), (INF, INF), (-INF, -1.0)],
    "floor": [(INF, INF), (-0.0, -0.0), (NAN, NAN)],
    "floor_divide": [(0.0, 0.0, NAN), (INF, INF, NAN), (1.0, 0.0, INF), (-1.0, 0.0, -INF), (7.0, -2.0, -4.0)],
    "greater": [(NAN, 1.0, False), (INF, 1.0, True)],
    "hypot": [(INF, NAN, INF), (NAN, -INF, INF), (NAN, 1.0, NAN), (0.0, 0.0, 0.0)],
    "isfinite": [(NAN, False), (INF, False), (1.0, True)],
    "isinf": [(INF, True), (-INF, True), (NAN, False)],
    "isnan": [(NAN, True), (INF, False)],
    "less": [(NAN, 1.0, False), (-INF, 1.0, True)],
    "log": [(NAN, NAN), (-1.0, NAN), (0.0, -INF), (-0.0, -INF), (1.0, 0.0), (INF, INF)],
    "log1p": [(NAN, NAN), (-2.0, NAN), (-1.0, -INF), (-0.0, -0.0), (0.0, 0.0), (INF, INF)],
    "log2": [(NAN, NAN), (-1.0, NAN), (0.0, -INF), (1.0, 0.0), (INF, INF)],
    "log10": [(NAN, NAN), (-1.0, NAN), (0.0, -INF), (1.0, 0.0), (INF, INF)],
    "logaddexp": [(NAN, INF, NAN), (INF, 1.0, INF), (-INF, 1.0, 1.0)],
    "maximum": [(NAN, 1.0, NAN), (1.0, NAN, NAN)],
    "minimum": [(NAN, 1.0, NAN), (1.0, NAN, NAN)],
    "multiply": [(INF, 0.0, NAN), (-0.0, 1.0, -0.0), (INF, -1.0, -INF), (NAN, 0.0, NAN)],
    "negative": [(0.0, -0.0), (-0.0, 0.0), (INF, -INF)],
    "not_equal": [(NAN, NAN, True)],
    "pow": [
        (NAN, 0.0, 1.0), (2.0, 0.0, 1.0), (2.0, -0.0, 1.0), (NAN, 2.0, NAN), (2.0, NAN, NAN), (2.0, INF, INF),
        (2.0, -INF, 0.0),
        (1.0, INF, 1.0), (-1.0, INF, 1.0), (0.5, INF, 0.0), (0.5, -INF, INF), (INF, 2.0, INF), (INF, -2.0, 0.0),
        (-INF, 3.0, -INF),
        (-INF, 2.0, INF), (-INF, -3.0, -0.0), (-INF, -2.0, 0.0), (0.0, 2.0, 0.0), (0.0, -2.0, INF), (-0.0, 3.0, -0.0),
        (-0.0, 2.0, 0.0), (-0.0, -3.0, -INF), (-0.0, -2.0, INF), (-2.0, 0.5, NAN), (1.0, NAN, 1.0),
    ],
    "reciprocal": [(0.0, INF), (-0.0, -INF), (INF, 0.0), (-INF, -0.0), (NAN, NAN)],
    "remainder": [
        (NAN, 1.0, NAN), (0.0, 0.0, NAN), (INF, 1.0, NAN), (1.0, 0.0, NAN), (0.0, 1.0, 0.0), (-0.0, 1.0, 0.0),
        (0.0, -1.0, -0.0),
        (4.0, 2.0, 0.0), (-4.0, 2.0, 0.0), (4.0, -2.0, -0.0), (-5.0, 3.0, 1.0),
    ],
    "round": [(INF, INF), (-0.0, -0.0), (NAN, NAN), (0.5, 0.0), (1.5, 2.0), (-0.5, -0.0)],
    "sign": [(NAN, NAN), (0.0, 0.0), (-3.0, -1.0), (INF, 1.0)],
    "signbit": [(0.0, False), (-0.0, True), (-INF, True)],
    "sin": [(NAN, NAN), (0.0, 0.0), (-0.0, -0.0), (INF, NAN), (-INF, NAN)],
    "sinh": [(NAN, NAN), (0.0, 0.0), (-0.0, -0.0), (INF, INF), (-INF, -INF)],
    "sqrt": [(NAN, NAN), (-1.0, NAN), (0.0, 0.0), (-0.0, -0.0), (INF, INF)],
    "tan": [(NAN, NAN), (0.0, 0.0), (-0.0, -0.0), (INF, NAN)],
    "tanh": [(NAN, NAN), (0.0, 0.0), (-0.0, -0.0), (INF, 1.0), (-INF, -1.0)],
    "trunc": [(INF, INF), (-0.0, -0.0), (NAN, NAN), (-0.7, -0.0)],
    "max": [([1.0, NAN, 2.0], NAN), ([-INF, -3.0], -3.0)],
    "min": [([1.0, NAN, 2.0], NAN)],
    "sum": [([INF, -INF], NAN), ([1.0, NAN], NAN), ([], 0.0)],
    "prod": [([0.0, INF], NAN), ([], 1.0)],
    "mean": [([], NAN), ([1.0, NAN], NAN)],
    "var": [([1.0], 0.0), ([NAN, 1.0], NAN)],
    "all": [([], True), ([NAN], True), ([0.0, 1.0], False)],
    "any": [([], False), ([NAN], True), ([-0.0], False)],
}  # fmt: skip
ROWS = [(name, row) for name, rows in SPECIAL.items() for row in rows]


@on_devices
@pytest.mark.parametrize(("name", "row"), ROWS, ids=[f"{name}{row[:-1]}" for name, row in ROWS])
def test_special_cases(name: str, row: tuple[Any, ...], device: str) -> None:
    *args, want = row
    got = getattr(nf, name)(*[nf.asarray(a, "float32") for a in args]).item()
    if isinstance(want, bool) or math.isnan(want):
        assert got is want or (math.isnan(got) and math.isnan(want))
    else:
        if device != "webgpu":  # its compilers may lose the sign of a zero
            assert math.copysign(1.0, got) == math.copysign(1.0, want)
        assert got == want or abs(got - want) < 1e-6
