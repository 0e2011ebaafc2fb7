"""Reductions with the standard's arguments: axis, keepdims, dtype."""

from math import prod as product
from typing import Any

from ..dtype import DTYPES, DType, canonical
from ..errors import DTypeError, ShapeError
from ..ops.arithmetic import not_equal, sqrt, square
from ..shape import axes_of, axis_of
from ..tensor import Tensor, apply, call, method
from .conversion import asarray, astype
from .manipulation import reshaped

__all__ = [
    "all", "any", "argmax", "argmin", "average", "count_nonzero", "max", "mean", "min", "prod", "std", "sum", "var",
]  # fmt: skip


def _fold(name: str, x: Tensor, axis: Any, keepdims: bool) -> Tensor:
    axes = axes_of(name, axis, x.ndim)
    y = apply(name, x, axes=axes) if axes else x
    return y if keepdims else reshaped(y, tuple([n for i, n in enumerate(x.node.shape) if i not in axes]))


def summable(x: Any, dtype: Any) -> Tensor:
    """x in the dtype that sums and products have: 32 bits at least for integers."""
    x = asarray(x)
    if dtype is not None:
        return astype(x, canonical(dtype))
    small = x.node.dtype.itemsize == 1
    return astype(x, DTYPES["uint32" if x.dtype.kind == "u" else "int32"]) if small else x


@method
def sum(x: Any, /, *, axis: Any = None, dtype: Any = None, keepdims: bool = False) -> Tensor:
    """The sum along axes (None: all); small integers and bools are summed in 32 bits."""
    return _fold("sum", summable(x, dtype), axis, keepdims)


@method
def prod(x: Any, /, *, axis: Any = None, dtype: Any = None, keepdims: bool = False) -> Tensor:
    """The product along axes (None: all); small integers and bools are multiplied in 32 bits."""
    return _fold("prod", summable(x, dtype), axis, keepdims)


def _nonempty(name: str, x: Tensor, axes: tuple[int, ...]) -> None:
    if not product(x.shape[a] for a in axes):
        raise ShapeError(
            f"{name}: shape {x.shape} has no elements along axes {axes}; accepted are axes with at least one."
        )


def _extreme(name: str, x: Any, axis: Any, keepdims: bool) -> Tensor:
    x = asarray(x)
    _nonempty(name, x, axes_of(name, axis, x.ndim))
    return _fold(name, x, axis, keepdims)


@method
def max(x: Any, /, *, axis: Any = None, keepdims: bool = False) -> Tensor:
    """The largest element along axes (None: all); NaN if there is one. Ties each get the gradient."""
    return _extreme("max", x, axis, keepdims)


@method
def min(x: Any, /, *, axis: Any = None, keepdims: bool = False) -> Tensor:
    """The smallest element along axes (None: all); NaN if there is one. Ties each get the gradient."""
    return _extreme("min", x, axis, keepdims)


def _truth(x: Any) -> Tensor:
    x = asarray(x)
    return x if x.dtype.kind == "b" else not_equal(x, 0)


@method
def any(x: Any, /, *, axis: Any = None, keepdims: bool = False) -> Tensor:
    """Whether an element along axes (None: all) is true, that is, not 0."""
    return _fold("any", _truth(x), axis, keepdims)


@method
def all(x: Any, /, *, axis: Any = None, keepdims: bool = False) -> Tensor:
    """Whether all elements along axes (None: all) are true, that is, not 0."""
    return _fold("all", _truth(x), axis, keepdims)


def count_nonzero(x: Any, /, *, axis: Any = None, keepdims: bool = False) -> Tensor:
    """How many elements along axes (None: all) are not 0, int32."""
    return _fold("sum", astype(_truth(x), "int32"), axis, keepdims)


def _position(name: str, x: Any, axis: int | None, keepdims: bool) -> Tensor:
    x = asarray(x)
    x = astype(x, "int32") if x.dtype.kind == "b" else x
    rank = x.ndim
    if axis is None:
        x = call("reshape", x, (x.size,))
    at = 0 if axis is None else axis_of(name, axis, rank)
    _nonempty(name, x, (at,))
    y = apply(name, x, axis=at)
    if axis is None:
        return call("reshape", y, (1,) * rank if keepdims else ())
    return y if keepdims else call("squeeze", y, at)


@method
def argmax(x: Any, /, *, axis: int | None = None, keepdims: bool = False) -> Tensor:
    """Where the first largest element along an axis (None: of x flattened) is, int32; the first NaN if there is one."""
    return _position("argmax", x, axis, keepdims)


@method
def argmin(x: Any, /, *, axis: int | None = None, keepdims: bool = False) -> Tensor:
    """Where the first smallest element along an axis (None: of x flattened) is, int32; the first NaN if there is."""
    return _position("argmin", x, axis, keepdims)


def _real(x: Any) -> tuple[Tensor, DType]:
    """x in the dtype to average in, and the dtype of the result: float16 is averaged in float32."""
    x = asarray(x)
    wanted = x.dtype if x.dtype.kind == "f" else DTYPES["float32"]
    return astype(x, "float32" if wanted.name == "float16" else wanted), wanted


def _mean(name: str, x: Tensor, axis: Any, keepdims: bool, correction: float = 0.0) -> Tensor:
    count = product(x.shape[a] for a in axes_of(name, axis, x.ndim)) - correction
    return _fold("sum", x, axis, keepdims) / float(count if count > 0 else 0.0)


@method
def mean(x: Any, /, *, axis: Any = None, keepdims: bool = False) -> Tensor:
    """The average along axes (None: all); integers give float32. NaN over no elements."""
    wide, wanted = _real(x)
    return astype(_mean("mean", wide, axis, keepdims), wanted)


@method
def var(x: Any, /, *, axis: Any = None, correction: float = 0.0, keepdims: bool = False) -> Tensor:
    """The mean squared distance from the mean along axes (None: all).

    correction  taken from the number of elements: 1 for the unbiased estimate from a sample
    """
    wide, wanted = _real(x)
    apart = wide - _mean("var", wide, axis, True)
    return astype(_mean("var", square(apart), axis, keepdims, correction), wanted)


@method
def std(x: Any, /, *, axis: Any = None, correction: float = 0.0, keepdims: bool = False) -> Tensor:
    """The root of the mean squared distance from the mean along axes (None: all); see `var`."""
    wide, wanted = _real(x)
    return astype(sqrt(var(wide, axis=axis, correction=correction, keepdims=keepdims)), wanted)


def average(x: Any, /, *, axis: Any = None, weights: Any = None, keepdims: bool = False) -> Tensor:
    """The mean along axes (None: all) with weights, which broadcast against x.

    errors   DTypeError if the weights are not real
    """
    if weights is None:
        return mean(x, axis=axis, keepdims=keepdims)
    wide, wanted = _real(x)
    weights = asarray(weights)
    if weights.dtype.kind == "b":
        raise DTypeError("average: weights have dtype bool; accepted are numbers. Convert with nf.astype.")
    weights = call("broadcast_to", astype(weights, wide.dtype), wide.shape)
    total = _fold("sum", weights, axis, keepdims)
    return astype(_fold("sum", wide * weights, axis, keepdims) / total, wanted)
