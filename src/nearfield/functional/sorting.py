"""Order: sort, argsort, topk. Equal elements keep their order, and NaN comes last, in both directions.

Short axes count, for each element, how many come before it. Longer ones sort blocks that way and merge them in a
bitonic network: stages that compare each element with one partner, the same for any values.

source  Batcher 1968, "Sorting networks and their applications"
"""

from typing import Any

from ..errors import ShapeError
from ..ops.arithmetic import equal, isnan, less, logical_and, logical_not, logical_or, where
from ..shape import axis_of
from ..tensor import Tensor, apply, method
from .conversion import asarray, astype
from .joining import pad
from .manipulation import broadcast_to, expand_dims, flip, moveaxis, reshape, slice_axis

__all__ = ["argsort", "median", "sort", "topk"]

COUNTED = 4096  # the longest axis that is sorted by counting
BLOCK = 1024  # what is sorted by counting before merging


def _precedes(a: Tensor, b: Tensor, descending: bool) -> Tensor:
    """Whether the value a comes before the value b, NaN last."""
    first = less(b, a) if descending else less(a, b)
    return logical_or(first, logical_and(isnan(b), logical_not(isnan(a)))) if a.dtype.kind == "f" else first


def _count_sorted(key: Tensor, descending: bool) -> Tensor:
    """The sorting positions along the last axis, by counting what comes before each element."""
    n = key.shape[-1]
    mine, other = expand_dims(key, -1), expand_dims(key, -2)  # [..., i, 1] and [..., 1, j]
    places = apply("iota", n=n)
    earlier = less(reshape(places, (1, n)), reshape(places, (n, 1)))
    before = logical_or(
        _precedes(other, mine, descending), logical_and(earlier, logical_not(_precedes(mine, other, descending)))
    )
    rank = reshape(apply("sum", astype(before, "int32"), axes=(key.ndim,)), key.shape)
    return apply("put_along", broadcast_to(places, key.shape), rank, axis=key.ndim - 1, n=n)


def _merge_sorted(key: Tensor, descending: bool) -> Tensor:
    """The sorting positions along the last axis: sorted blocks, merged two by two."""
    n, lead = key.shape[-1], key.shape[:-1]
    size = 1 << (n - 1).bit_length()
    key = pad(key, [*((0, 0) for _ in lead), (0, size - n)], value=_last(key, descending))
    blocks = reshape(key, (*lead, size // BLOCK, BLOCK))
    order = _count_sorted(blocks, descending)
    key = reshape(apply("take_along", blocks, order, axis=blocks.ndim - 1), (*lead, size))
    starts = reshape(apply("iota", n=size // BLOCK) * BLOCK, (size // BLOCK, 1))
    index = reshape(order + starts, (*lead, size))
    width = 2 * BLOCK
    while width <= size:
        key, index = _compare(key, index, width, (-2, -1), descending)
        part = width // 2
        while part > 1:
            key, index = _compare(key, index, part, (-2,), descending)
            part //= 2
        width *= 2
    return slice_axis(index, len(lead), 0, n)


def _last(key: Tensor, descending: bool) -> float:
    """A value that none comes after."""
    if key.dtype.kind == "f":
        return float("nan")
    bits, signed = 8 * key.dtype.itemsize, key.dtype.kind == "i"
    if descending:
        return -(1 << (bits - 1)) if signed else 0
    return (1 << (bits - 1 if signed else bits)) - 1


def _compare(key: Tensor, index: Tensor, width: int, axes: tuple[int, ...], descending: bool) -> tuple[Tensor, Tensor]:
    """One stage: in each block of `width`, elements of the first half are put in order with partners in the second.

    axes     (-2,): the partner is half a block away; (-2, -1): it is the mirror image in the block
    """
    shape = key.shape
    split = (*shape[:-1], shape[-1] // width, 2, width // 2)
    k, i = reshape(key, split), reshape(index, split)
    partner_k, partner_i = flip(k, axis=axes), flip(i, axis=axes)
    mine_first = logical_or(
        _precedes(k, partner_k, descending),
        logical_and(less(i, partner_i), logical_not(_precedes(partner_k, k, descending))),
    )
    low = reshape(equal(apply("iota", n=2), 0), (2, 1))
    keep = equal(mine_first, low)
    return reshape(where(keep, k, partner_k), shape), reshape(where(keep, i, partner_i), shape)


def _positions(x: Tensor, descending: bool) -> Tensor:
    """The sorting positions along the last axis."""
    key = apply("stop_gradient", astype(x, "int32") if x.dtype.kind == "b" else x)
    if key.shape[-1] < 2:
        return broadcast_to(apply("iota", n=key.shape[-1]), key.shape)
    return (_count_sorted if key.shape[-1] <= COUNTED else _merge_sorted)(key, descending)


def argsort(x: Any, /, *, axis: int = -1, descending: bool = False, stable: bool = True) -> Tensor:
    """The positions (int32) that sort x along an axis; equal elements keep their order, NaN comes last.

    stable   accepted for the standard's sake: the order is always stable
    """
    x = asarray(x)
    at = axis_of("argsort", axis, x.ndim)
    return moveaxis(_positions(moveaxis(x, at, -1), descending), -1, at)


def sort(x: Any, /, *, axis: int = -1, descending: bool = False, stable: bool = True) -> Tensor:
    """x in order along an axis; NaN comes last. The gradient goes back to where each element came from.

    stable   accepted for the standard's sake: the order is always stable
    """
    x = asarray(x)
    at = axis_of("sort", axis, x.ndim)
    return apply("take_along", x, argsort(x, axis=at, descending=descending), axis=at) if x.shape[at] > 1 else x


@method
def topk(x: Any, k: int, /, *, axis: int = -1, largest: bool = True) -> tuple[Tensor, Tensor]:
    """The k largest (or smallest) elements along an axis, in order, and their positions (int32).

    errors   ShapeError if there are fewer than k
    """
    x = asarray(x)
    at = axis_of("topk", axis, x.ndim)
    if not 0 <= k <= x.shape[at]:
        raise ShapeError(
            f"topk: k is {k} but axis {at} of {x.shape} has size {x.shape[at]}; accepted are 0 … {x.shape[at]}."
        )
    i = slice_axis(argsort(x, axis=at, descending=largest), at, 0, k)
    return apply("take_along", x, i, axis=at), i


def median(x: Any, /, *, axis: int | None = None, keepdims: bool = False) -> Tensor:
    """The middle element in order along an axis (None: of all), the mean of the middle two; integers give float32.

    errors   ShapeError if there are no elements
    """
    x = asarray(x)
    x = x if x.dtype.kind == "f" else astype(x, "float32")
    rank = x.ndim
    x, at = (reshape(x, (x.size,)), 0) if axis is None else (x, axis_of("median", axis, rank))
    n = x.shape[at]
    if not n:
        raise ShapeError(
            f"median: shape {x.shape} has no elements along axis {at}; accepted are axes with at least one."
        )
    ordered = sort(x, axis=at)
    high = slice_axis(ordered, at, n // 2, n // 2 + 1)
    middle = high if n % 2 else (slice_axis(ordered, at, n // 2 - 1, n // 2) + high) * 0.5
    last = slice_axis(ordered, at, n - 1, n)
    middle = where(isnan(last), last, middle)  # NaN if there is one
    if keepdims:
        return reshape(middle, (1,) * rank) if axis is None else middle
    return reshape(middle, tuple(m for a, m in enumerate(middle.shape) if a != at))
