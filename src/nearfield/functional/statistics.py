"""Reductions with the standard's arguments: axis, keepdims, dtype."""

from typing import Any

from ..dtype import DTYPES, canonical
from ..errors import ShapeError
from ..shape import axes_of
from ..tensor import Tensor, apply, call, method
from .creation import asarray, astype

__all__ = ["max", "mean", "min", "prod", "sum"]


def _fold(name: str, x: Any, axis: Any, keepdims: bool) -> Tensor:
    x = asarray(x)
    axes = axes_of(name, axis, x.ndim)
    y = apply(name, x, axes=axes) if axes else x
    return y if keepdims else call("reshape", y, tuple(n for i, n in enumerate(x.shape) if i not in axes))  # type: ignore[no-any-return]


def _summed(x: Any, dtype: Any) -> Tensor:
    x = asarray(x)
    if dtype is not None:
        return astype(x, canonical(dtype))
    small = {"bool": "int32", "int8": "int32", "uint8": "uint32"}.get(x.dtype.name)
    return astype(x, DTYPES[small]) if small else x


@method
def sum(x: Any, /, *, axis: Any = None, dtype: Any = None, keepdims: bool = False) -> Tensor:  # noqa: A001
    """The sum along axes (None: all); small integers and bools are summed in 32 bits."""
    return _fold("sum", _summed(x, dtype), axis, keepdims)


@method
def prod(x: Any, /, *, axis: Any = None, dtype: Any = None, keepdims: bool = False) -> Tensor:
    """The product along axes (None: all); small integers and bools are multiplied in 32 bits."""
    return _fold("prod", _summed(x, dtype), axis, keepdims)


def _extreme(name: str, x: Any, axis: Any, keepdims: bool) -> Tensor:
    x = asarray(x)
    if any(x.shape[a] == 0 for a in axes_of(name, axis, x.ndim)):
        raise ShapeError(f"{name}: shape {x.shape} has no elements along axis {axis}; accepted are axes with at least one.")
    return _fold(name, x, axis, keepdims)


@method
def max(x: Any, /, *, axis: Any = None, keepdims: bool = False) -> Tensor:  # noqa: A001
    """The largest element along axes (None: all); NaN if there is one."""
    return _extreme("max", x, axis, keepdims)


@method
def min(x: Any, /, *, axis: Any = None, keepdims: bool = False) -> Tensor:  # noqa: A001
    """The smallest element along axes (None: all); NaN if there is one."""
    return _extreme("min", x, axis, keepdims)


@method
def mean(x: Any, /, *, axis: Any = None, keepdims: bool = False) -> Tensor:
    """The average along axes (None: all); integers are converted to float32."""
    x = asarray(x)
    x = x if x.dtype.kind == "f" else astype(x, "float32")
    count = 1
    for a in axes_of("mean", axis, x.ndim):
        count *= x.shape[a]
    return _fold("sum", x, axis, keepdims) * (1.0 / count if count else float("nan"))
