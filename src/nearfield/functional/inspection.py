"""Questions about element types: what they hold, and what becomes of them together."""

import math
from dataclasses import dataclass
from typing import Any

from ..dtype import DTYPES, DType, canonical, promote
from ..dtype import result_type as promoted
from ..errors import DTypeError
from ..tensor import Tensor, dtype_of_number

__all__ = ["can_cast", "finfo", "iinfo", "isdtype", "result_type"]


@dataclass(frozen=True)
class FloatInfo:
    """What a real dtype can hold.

    bits             of one element
    eps              1 + eps is the next number after 1
    max, min         the largest and the most negative finite number
    smallest_normal  the smallest positive number of full precision
    """

    bits: int
    eps: float
    max: float
    min: float
    smallest_normal: float
    dtype: DType


@dataclass(frozen=True)
class IntegerInfo:
    """What an integer dtype can hold: bits of one element, the largest and the smallest number."""

    bits: int
    max: int
    min: int
    dtype: DType


def _dtype_of(x: Any) -> DType:
    return x.dtype if isinstance(x, Tensor) else canonical(x.dtype if hasattr(x, "__array_interface__") else x)


def finfo(dtype: Any, /) -> FloatInfo:
    """The limits of a real dtype, or of an array's.

    errors   DTypeError for another kind
    """
    found = _dtype_of(dtype)
    if found.kind != "f":
        raise DTypeError(
            f"finfo: dtype {found.name} is not real; accepted are float16, float32, float64. Use nf.iinfo for integers."
        )
    digits, low, high = {"float16": (10, -14, 15), "float32": (23, -126, 127), "float64": (52, -1022, 1023)}[found.name]
    largest = math.ldexp(2 - math.ldexp(1, -digits), high)
    return FloatInfo(8 * found.itemsize, math.ldexp(1, -digits), largest, -largest, math.ldexp(1, low), found)


def iinfo(dtype: Any, /) -> IntegerInfo:
    """The limits of an integer dtype, or of an array's.

    errors   DTypeError for another kind
    """
    found = _dtype_of(dtype)
    if found.kind not in "iu":
        accepted = ", ".join(t.name for t in DTYPES.values() if t.kind in "iu")
        raise DTypeError(
            f"iinfo: dtype {found.name} is not an integer; accepted are {accepted}. Use nf.finfo for real types."
        )
    bits, signed = 8 * found.itemsize, found.kind == "i"
    return IntegerInfo(bits, (1 << (bits - signed)) - 1, -(1 << (bits - 1)) if signed else 0, found)


KINDS = {
    "bool": "b", "signed integer": "i", "unsigned integer": "u", "integral": "iu", "real floating": "f",
    "complex floating": "", "numeric": "iuf",
}  # fmt: skip


def isdtype(dtype: Any, kind: Any) -> bool:
    """Whether a dtype is of a kind.

    kind     a dtype; "bool", "signed integer", "unsigned integer", "integral", "real floating", "complex floating",
             "numeric"; or a tuple of these, of which one must apply
    """
    if isinstance(kind, tuple):
        return any(isdtype(dtype, k) for k in kind)
    found = _dtype_of(dtype)
    if kind in KINDS:
        return found.kind in KINDS[kind] if KINDS[kind] else False
    if isinstance(kind, str) and kind not in DTYPES:
        raise DTypeError(f"isdtype: kind {kind!r} is not known; accepted are dtypes and {', '.join(map(repr, KINDS))}.")
    return found is canonical(kind)


def can_cast(from_: Any, to: Any, /) -> bool:
    """Whether every value of a dtype (or of an array's) is one of another, by the promotion rules."""
    wanted = canonical(to)
    return promote(_dtype_of(from_), wanted) is wanted


def result_type(*arrays_and_dtypes: Any) -> DType:
    """The dtype that arrays, dtypes and numbers promote to; a number counts only where no other can hold its kind."""
    numbers = [x for x in arrays_and_dtypes if isinstance(x, (bool, int, float))]
    others = [_dtype_of(x) for x in arrays_and_dtypes if not isinstance(x, (bool, int, float))]
    if not arrays_and_dtypes:
        raise DTypeError("result_type: received nothing; accepted is at least one array, dtype or number.")
    found = promoted(*others) if others else None
    for number in sorted(numbers, key=lambda n: (isinstance(n, float), not isinstance(n, bool))):
        found = dtype_of_number(number, found)
    assert found is not None
    return found
