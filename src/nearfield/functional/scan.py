"""Running sums and products, and differences: along an axis, in blocks, so that each element is a short sum.

source  Blelloch 1990, "Prefix sums and their applications"
"""

from typing import Any

from ..errors import AxisError, ShapeError
from ..ops.arithmetic import less_equal, where
from ..shape import axis_of
from ..tensor import Tensor, apply
from .conversion import asarray
from .creation import full
from .joining import concat, pad
from .manipulation import broadcast_to, expand_dims, moveaxis, reshape, slice_axis
from .statistics import summable

__all__ = ["cumulative_prod", "cumulative_sum", "diff"]

BLOCK = 64


def cumulative_sum(x: Any, /, *, axis: int | None = None, dtype: Any = None, include_initial: bool = False) -> Tensor:
    """The sums of the first 1, 2, … elements along an axis, which may be left out for rank 1.

    include_initial  start with 0, the sum of none
    """
    return _cumulative("cumulative_sum", x, axis, dtype, include_initial, "sum")


def cumulative_prod(x: Any, /, *, axis: int | None = None, dtype: Any = None, include_initial: bool = False) -> Tensor:
    """The products of the first 1, 2, … elements along an axis, which may be left out for rank 1.

    include_initial  start with 1, the product of none
    """
    return _cumulative("cumulative_prod", x, axis, dtype, include_initial, "prod")


def _cumulative(who: str, x: Any, axis: int | None, dtype: Any, initial: bool, fold: str) -> Tensor:
    x = summable(x, dtype)
    if axis is None and x.ndim != 1:
        raise AxisError(
            f"{who}: axis is not given for an array of rank {x.ndim}; accepted is to leave it out for rank 1. Give "
            "axis=."
        )
    at = axis_of(who, 0 if axis is None else axis, x.ndim)
    y = moveaxis(_scan(moveaxis(x, at, -1), fold), -1, at)
    if not initial:
        return y
    shape = (*x.shape[:at], 1, *x.shape[at + 1 :])
    return concat([full(shape, _neutral(fold), dtype=y.dtype), y], axis=at)


def _neutral(fold: str) -> int:
    return 0 if fold == "sum" else 1


def _scan(x: Tensor, fold: str) -> Tensor:
    """Along the last axis: within blocks, then over the blocks' totals, then both together."""
    n = x.shape[-1]
    if n <= BLOCK:
        return _scan_block(x, fold)
    count = -(-n // BLOCK)
    blocks = reshape(_extended(x, count * BLOCK, _neutral(fold)), (*x.shape[:-1], count, BLOCK))
    inner = _scan_block(blocks, fold)
    totals = slice_axis(inner, x.ndim, BLOCK - 1, BLOCK)
    before = _scan(reshape(totals, (*x.shape[:-1], count)), fold)
    offset = expand_dims(_extended(slice_axis(before, x.ndim - 1, 0, count - 1), count, _neutral(fold), front=True), -1)
    joined = inner + offset if fold == "sum" else inner * offset
    return slice_axis(reshape(joined, (*x.shape[:-1], count * BLOCK)), x.ndim - 1, 0, n)


def _extended(x: Tensor, n: int, value: int, *, front: bool = False) -> Tensor:
    more = n - x.shape[-1]
    return pad(x, [*((0, 0) for _ in x.shape[1:]), (more, 0) if front else (0, more)], value=value)


def _scan_block(x: Tensor, fold: str) -> Tensor:
    """Every element folds all of the block, those after it masked."""
    n = x.shape[-1]
    if n <= 1:
        return x
    places = apply("iota", n=n)
    seen = less_equal(reshape(places, (1, n)), reshape(places, (n, 1)))
    spread = broadcast_to(expand_dims(x, -2), (*x.shape, n))
    return reshape(apply(fold, where(seen, spread, _neutral(fold)), axes=(x.ndim,)), x.shape)


def diff(x: Any, /, *, axis: int = -1, n: int = 1, prepend: Any = None, append: Any = None) -> Tensor:
    """The differences of neighbours along an axis, n times.

    prepend, append  values put before and after x first
    """
    x = asarray(x)
    at = axis_of("diff", axis, x.ndim)
    if n < 0:
        raise ShapeError(f"diff: n is {n}; accepted are 0 and more.")
    x = concat([asarray(v) for v in (prepend, x, append) if v is not None], axis=at)
    for _ in range(n):
        size = x.shape[at]
        high, low = slice_axis(x, at, 1, max(size, 1)), slice_axis(x, at, 0, max(size - 1, 0))
        x = high ^ low if x.dtype.kind == "b" else high - low
    return x
