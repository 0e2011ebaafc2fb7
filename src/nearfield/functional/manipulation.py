"""The same elements in other places: shapes, axes, joining, repeating."""

from math import prod
from typing import Any

from ..errors import ShapeError
from ..shape import axis_of, broadcast
from ..tensor import Tensor, apply, method

__all__ = ["broadcast_to", "expand_dims", "matrix_transpose", "permute_dims", "reshape", "squeeze"]


@method
def reshape(x: Tensor, shape: Any, *, copy: bool | None = None) -> Tensor:
    """The elements in row-major order in another shape; one size may be -1 and is worked out.

    errors   ShapeError if the number of elements differs
    """
    sizes = (shape,) if isinstance(shape, int) else tuple(int(n) for n in shape)
    if -1 in sizes:
        known = prod(n for n in sizes if n != -1)
        if sizes.count(-1) > 1 or known == 0 or x.size % known:
            raise ShapeError(f"reshape: {x.shape} with {x.size} elements cannot take shape {sizes}; one -1 must work out whole.")
        sizes = tuple(x.size // known if n == -1 else n for n in sizes)
    if prod(sizes) != x.size or min(sizes, default=0) < 0:
        raise ShapeError(f"reshape: {x.shape} has {x.size} elements but {sizes} has {prod(sizes)}; the numbers must be equal.")
    return x if sizes == x.shape else apply("reshape", x, shape=sizes)


@method
def broadcast_to(x: Tensor, shape: Any) -> Tensor:
    """x repeated along new axes in front and along axes of size 1."""
    wanted = tuple(shape)
    if len(wanted) < x.ndim or broadcast("broadcast_to", x.shape, wanted) != wanted:
        raise ShapeError(f"broadcast_to: shape {x.shape} does not broadcast to {wanted}; sizes must be equal or 1.")
    x = reshape(x, (1,) * (len(wanted) - x.ndim) + x.shape)
    return x if x.shape == wanted else apply("expand", x, shape=wanted)


@method
def permute_dims(x: Tensor, axes: Any) -> Tensor:
    """Axes in another order: axis n of the result is axis axes[n] of x."""
    order = tuple(axis_of("permute_dims", a, x.ndim) for a in axes)
    if sorted(order) != list(range(x.ndim)):
        raise ShapeError(f"permute_dims: axes {tuple(axes)} do not name each of the {x.ndim} axes of {x.shape} once.")
    return x if order == tuple(range(x.ndim)) else apply("permute", x, axes=order)


@method
def matrix_transpose(x: Tensor) -> Tensor:
    """The last two axes exchanged."""
    if x.ndim < 2:
        raise ShapeError(f"matrix_transpose: shape {x.shape} has rank {x.ndim}; accepted is rank 2 and more.")
    return permute_dims(x, (*range(x.ndim - 2), x.ndim - 1, x.ndim - 2))


def expand_dims(x: Tensor, axis: int = 0) -> Tensor:
    """x with a new axis of size 1."""
    at = axis_of("expand_dims", axis, x.ndim + 1)
    return reshape(x, (*x.shape[:at], 1, *x.shape[at:]))


@method
def squeeze(x: Tensor, axis: Any) -> Tensor:
    """x without the named axes, which must have size 1."""
    axes = {axis_of("squeeze", a, x.ndim) for a in ((axis,) if isinstance(axis, int) else axis)}
    for a in axes:
        if x.shape[a] != 1:
            raise ShapeError(f"squeeze: axis {a} of {x.shape} has size {x.shape[a]}; accepted is 1.")
    return reshape(x, tuple(n for i, n in enumerate(x.shape) if i not in axes))
