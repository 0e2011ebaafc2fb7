"""The same elements under other shapes and axes."""

import operator
from collections.abc import Sequence
from math import prod
from typing import Any

from ..errors import AxisError, ShapeError
from ..ops import movement
from ..shape import Shape, axes_of, axis_of, broadcast, is_shape, sizes_of
from ..tensor import Tensor, apply, made, method
from .conversion import asarray

__all__ = [
    "broadcast_arrays", "broadcast_to", "expand_dims", "flatten", "flip", "matrix_transpose", "moveaxis",
    "permute_dims",
    "reshape", "squeeze",
]  # fmt: skip


@method
def reshape(x: Any, /, shape: Any, *more: int, copy: bool | None = None) -> Tensor:
    """The elements in row-major order in another shape; one size may be -1 and is worked out.

    shape    sizes in a tuple, or one by one
    errors   ShapeError if the number of elements differs
    """
    x = x if type(x) is Tensor else asarray(x)
    before = x.node.shape
    count = prod(before)
    sizes = shape if not more and is_shape(shape) else _given_sizes(before, count, shape, more)
    if prod(sizes) != count or (sizes is not shape and min(sizes, default=0) < 0):
        raise ShapeError(
            f"reshape: {before} has {count} elements but {sizes} has {prod(sizes)}; the numbers must be equal."
        )
    return reshaped(x, sizes)


def reshaped(x: Tensor, sizes: Shape) -> Tensor:
    """`reshape` to sizes that are known to fit."""
    node = x.node
    if node.shape == sizes:
        return x
    return made(movement.reshape, (node,), {"shape": sizes}, sizes, node.dtype)


def _given_sizes(before: Shape, count: int, shape: Any, more: tuple[int, ...]) -> Shape:
    """The sizes that were given in a list or one by one, with -1 worked out."""
    given = (shape, *more) if hasattr(shape, "__index__") else shape
    if isinstance(given, (str, float)) or [n for n in given if not hasattr(n, "__index__")]:
        raise ShapeError(f"reshape: shape is {shape!r}; accepted are integers, one by one or in a list or tuple.")
    sizes = tuple([operator.index(n) for n in given])
    if -1 not in sizes:
        return sizes
    known = prod([n for n in sizes if n != -1])
    if sizes.count(-1) > 1 or known == 0 or count % known:
        raise ShapeError(
            f"reshape: {before} has {count} elements, which cannot take shape {sizes}; accepted is one -1 that "
            "works out whole."
        )
    return tuple([count // known if n == -1 else n for n in sizes])


@method
def broadcast_to(x: Any, /, shape: Any) -> Tensor:
    """x repeated along new axes in front and along axes of size 1.

    errors   ShapeError if another axis differs
    """
    x = x if type(x) is Tensor else asarray(x)
    wanted = sizes_of("broadcast_to", shape)
    if x.node.shape == wanted:
        return x
    if len(wanted) < x.ndim or any(
        n not in (1, m) for n, m in zip(x.shape, wanted[len(wanted) - x.ndim :], strict=True)
    ):
        raise ShapeError(
            f"broadcast_to: shape {x.shape} does not broadcast to {wanted}; sizes must be equal or 1. Reshape it first."
        )
    x = reshape(x, (1,) * (len(wanted) - x.ndim) + x.shape)
    return x if x.shape == wanted else apply("expand", x, shape=wanted)


def broadcast_arrays(*arrays: Any) -> tuple[Tensor, ...]:
    """The arrays, each repeated to the shape that all of them broadcast to."""
    tensors = [asarray(a) for a in arrays]
    shape = broadcast("broadcast_arrays", *(t.shape for t in tensors)) if tensors else ()
    return tuple(broadcast_to(t, shape) for t in tensors)


@method
def permute_dims(x: Any, /, axes: Any, *more: int) -> Tensor:
    """Axes in another order: axis n of the result is axis axes[n] of x."""
    x = asarray(x)
    given = axes if type(axes) is tuple and not more else (axes, *more) if hasattr(axes, "__index__") else tuple(axes)
    straight = list(range(x.ndim))
    if is_shape(given) and sorted(given) == straight:
        return permuted(x, given)
    order = tuple([axis_of("permute_dims", operator.index(a), x.ndim) for a in given])
    if sorted(order) != straight:
        raise ShapeError(
            f"permute_dims: axes {given} do not name each of the {x.ndim} axes of {x.shape} once; name each once."
        )
    return permuted(x, order)


def permuted(x: Tensor, order: Shape) -> Tensor:
    """`permute_dims` by axes that are known to be all of them."""
    node = x.node
    if order == tuple(range(len(order))):
        return x
    sizes = tuple([node.shape[a] for a in order])
    return made(movement.permute, (node,), {"axes": order}, sizes, node.dtype)


@method
def matrix_transpose(x: Any, /) -> Tensor:
    """The last two axes exchanged."""
    x = asarray(x)
    if x.ndim < 2:
        raise ShapeError(f"matrix_transpose: shape {x.shape} has rank {x.ndim}; accepted is rank 2 and more.")
    return permuted(x, (*range(x.ndim - 2), x.ndim - 1, x.ndim - 2))


def several(axis: Any) -> tuple[int, ...]:
    """One number or several as a tuple."""
    return (operator.index(axis),) if hasattr(axis, "__index__") else tuple(axis)


def moveaxis(x: Any, source: int | Sequence[int], destination: int | Sequence[int], /) -> Tensor:
    """x with the `source` axes at the places `destination`; the others keep their order."""
    x = asarray(x)
    rank = x.ndim
    start = [axis_of("moveaxis", a, rank) for a in several(source)]
    end = [axis_of("moveaxis", a, rank) for a in several(destination)]
    if len(start) != len(end) or len(set(start)) != len(start) or len(set(end)) != len(end):
        raise AxisError(
            f"moveaxis: source {source} and destination {destination} do not pair up; accepted are equally many axes, "
            "each once."
        )
    others = (a for a in range(rank) if a not in start)
    place = dict(zip(end, start, strict=True))
    return permute_dims(x, tuple(place[a] if a in place else next(others) for a in range(rank)))


def expand_dims(x: Any, /, axis: int | Sequence[int] = 0) -> Tensor:
    """x with new axes of size 1, at places counted in the result."""
    x = asarray(x)
    given = several(axis)
    new = axes_of("expand_dims", given, x.ndim + len(given))
    old = iter(x.shape)
    return reshape(x, tuple(1 if a in new else next(old) for a in range(x.ndim + len(given))))


@method
def squeeze(x: Any, /, axis: int | Sequence[int] | None = None) -> Tensor:
    """x without the named axes, which must have size 1; None: without all axes of size 1.

    errors   ShapeError if a named axis has another size
    """
    x = asarray(x)
    axes = (
        tuple(a for a, n in enumerate(x.shape) if n == 1) if axis is None else axes_of("squeeze", several(axis), x.ndim)
    )
    for a in axes:
        if x.shape[a] != 1:
            raise ShapeError(f"squeeze: axis {a} of {x.shape} has size {x.shape[a]}; accepted is 1. Index it instead.")
    return reshape(x, tuple(n for i, n in enumerate(x.shape) if i not in axes))


@method
def flatten(x: Any, /, start_axis: int = 0, end_axis: int = -1) -> Tensor:
    """x with the axes from start_axis to end_axis (inclusive) joined into one."""
    x = asarray(x)
    if x.ndim == 0:
        return reshape(x, (1,))
    first, last = axis_of("flatten", start_axis, x.ndim), axis_of("flatten", end_axis, x.ndim)
    return reshape(x, (*x.shape[:first], prod(x.shape[first : last + 1]), *x.shape[last + 1 :]))


def slice_axis(x: Tensor, axis: int, start: int, stop: int, step: int = 1) -> Tensor:
    """x[start:stop:step] along one axis; the numbers as `slice.indices` gives them."""
    n = x.shape[axis]
    if (start, stop, step) == (0, n, 1):
        return x
    begin, end, hop = [0] * x.ndim, list(x.shape), [1] * x.ndim
    begin[axis], end[axis], hop[axis] = (start, stop, step) if range(start, stop, step) else (0, 0, 1)
    return apply("slice", x, start=tuple(begin), stop=tuple(end), step=tuple(hop))


def flip(x: Any, /, *, axis: int | Sequence[int] | None = None) -> Tensor:
    """x in reverse order along axes (None: all)."""
    x = asarray(x)
    axes = axes_of("flip", axis if axis is None else several(axis), x.ndim)
    for a in axes:
        x = slice_axis(x, a, x.shape[a] - 1, -1, -1)
    return x
