"""Elementwise functions that are made of others."""

from typing import Any

from ..ops.arithmetic import copysign, maximum, minimum
from ..tensor import Tensor, method
from .conversion import asarray, astype

__all__ = ["clip", "copysign", "positive"]


@method
def clip(x: Any, /, min: Any = None, max: Any = None) -> Tensor:
    """x, no smaller than min and no larger than max (None: no limit), which broadcast; in x's dtype. NaN stays."""
    x = asarray(x)
    y = x if min is None else maximum(x, min)
    y = y if max is None else minimum(y, max)
    return astype(y, x.dtype)


@method
def positive(x: Any, /) -> Tensor:
    """x itself."""
    return asarray(x)
