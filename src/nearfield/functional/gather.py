"""Elements taken from positions, and put there."""

from typing import Any

from ..errors import ShapeError
from ..ops.arithmetic import equal, isnan, less, less_equal, logical_not, maximum, where
from ..shape import axis_of, broadcast
from ..tensor import Tensor, apply, method
from .conversion import asarray, astype
from .indexing import positions
from .manipulation import broadcast_to, expand_dims, reshape

__all__ = ["one_hot", "scatter", "scatter_add", "searchsorted", "take", "take_along_axis"]


@method
def take(x: Any, indices: Any, /, *, axis: int | None = None) -> Tensor:
    """Whole slices of x along an axis, by position; negative positions count from the end.

    x        [..., n, ...]
    indices  integers in -n … n - 1, of any shape; outside, where only running shows it, the nearest end is taken
    axis     may be left out for rank 1
    returns  [..., *indices.shape, ...]
    """
    x = asarray(x)
    if axis is None and x.ndim != 1:
        raise ShapeError(
            f"take: axis is not given for an array of rank {x.ndim}; accepted is to leave it out for rank 1. Give "
            "axis=."
        )
    at = axis_of("take", 0 if axis is None else axis, x.ndim)
    i = positions("take", indices, x.shape[at])
    return apply("take", x, i, axis=at)


def take_along_axis(x: Any, indices: Any, /, *, axis: int = -1) -> Tensor:
    """For each index the element of x at that position along an axis, all other axes in step.

    indices  integers, of x's rank; the other axes broadcast against x's
    """
    x = asarray(x)
    at = axis_of("take_along_axis", axis, x.ndim)
    i = positions("take_along_axis", indices, x.shape[at])
    if i.ndim != x.ndim:
        raise ShapeError(
            f"take_along_axis: indices have shape {i.shape}, of rank {i.ndim}; accepted is x's rank, {x.ndim}."
        )
    others = broadcast("take_along_axis", _with(x.shape, at, 1), _with(i.shape, at, 1))
    x, i = broadcast_to(x, _with(others, at, x.shape[at])), broadcast_to(i, _with(others, at, i.shape[at]))
    return apply("take_along", x, i, axis=at)


def _with(shape: tuple[int, ...], axis: int, n: int) -> tuple[int, ...]:
    return (*shape[:axis], n, *shape[axis + 1 :])


def _updates(who: str, x: Tensor, indices: Any, updates: Any, at: int) -> tuple[Tensor, Tensor]:
    """Positions as a vector, and updates [*lead, number of positions, *rest]."""
    i = positions(who, indices, x.shape[at])
    lead, rest = x.shape[:at], x.shape[at + 1 :]
    wanted, new = (*lead, *i.shape, *rest), asarray(updates)
    if broadcast(who, new.shape, wanted) != wanted:
        raise ShapeError(f"{who}: updates have shape {new.shape}; accepted is {wanted}, or what broadcasts to it.")
    new = broadcast_to(astype(new, x.dtype), wanted)
    return reshape(i, (i.size,)), reshape(new, (*lead, i.size, *rest))


def scatter(x: Any, indices: Any, updates: Any, /, *, axis: int = 0) -> Tensor:
    """x with the slices at positions along an axis replaced; of several updates of one position the last counts.

    x        [..., n, ...]
    indices  integers in -n … n - 1, of any shape
    updates  [..., *indices.shape, ...], or what broadcasts to it
    """
    x = asarray(x)
    at = axis_of("scatter", axis, x.ndim)
    i, new = _updates("scatter", x, indices, updates, at)
    if not i.size:
        return x
    n = x.shape[at]
    here = equal(reshape(_inside(i, n), (1, i.size)), reshape(apply("iota", n=n), (n, 1)))
    last = reshape(apply("max", where(here, apply("iota", n=i.size), -1), axes=(1,)), (n,))
    line = tuple(n if a == at else 1 for a in range(x.ndim))
    return where(reshape(less(last, 0), line), x, apply("take", new, maximum(last, 0), axis=at))


def _inside(i: Tensor, n: int) -> Tensor:
    """Positions outside moved to the nearest end, as the record `take` does."""
    return where(less(i, 0), 0, where(less(i, n), i, n - 1))


def scatter_add(x: Any, indices: Any, updates: Any, /, *, axis: int = 0) -> Tensor:
    """x with updates added to the slices at positions along an axis; several updates of one position all count.

    x        [..., n, ...]
    indices  integers in -n … n - 1, of any shape
    updates  [..., *indices.shape, ...], or what broadcasts to it
    """
    x = asarray(x)
    at = axis_of("scatter_add", axis, x.ndim)
    i, new = _updates("scatter_add", x, indices, updates, at)
    return x + apply("put_add", new, i, axis=at, n=x.shape[at]) if i.size else x


def searchsorted(x1: Any, x2: Any, /, *, side: str = "left", sorter: Any = None) -> Tensor:
    """Where each element of x2 would go in x1 to keep it sorted, int32.

    x1       [n]  sorted; or sorted by x1[sorter]
    side     "left": before elements equal to it; "right": after them
    cost     n comparisons for each element of x2, in one pass
    """
    x1, x2 = asarray(x1), asarray(x2)
    if x1.ndim != 1:
        raise ShapeError(f"searchsorted: x1 has shape {x1.shape}, of rank {x1.ndim}; accepted is rank 1.")
    if side not in ("left", "right"):
        raise ShapeError(f"searchsorted: side is {side!r}; accepted are 'left' and 'right'.")
    if sorter is not None:
        x1 = take(x1, sorter)
    before = (less if side == "left" else less_equal)(x1, expand_dims(x2, -1))
    if x2.dtype.kind == "f":  # NaN comes last
        nan = isnan(x2)
        before = where(expand_dims(nan, -1), logical_not(isnan(x1)) if side == "left" else True, before)
    return reshape(apply("sum", astype(before, "int32"), axes=(before.ndim - 1,)), x2.shape)


def one_hot(x: Any, n: int, /, *, axis: int = -1, dtype: Any = "float32") -> Tensor:
    """For each whole number in x n zeros with a 1 at that place, along a new axis; all zeros if it is outside."""
    x = asarray(x)
    at = axis_of("one_hot", axis, x.ndim + 1)
    line = tuple(n if a == at else 1 for a in range(x.ndim + 1))
    return astype(equal(expand_dims(x, at), reshape(apply("iota", n=n), line)), dtype)
