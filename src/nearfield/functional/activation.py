"""Activations: the curves between layers. Each is a few elementwise operations, fused into the kernel before them."""

from math import pi, sqrt
from typing import Any

from ..errors import ShapeError
from ..ops.arithmetic import maximum, minimum, where
from ..ops.mathematics import erf, exp, expm1, log, log1p, reciprocal, sigmoid, tanh
from ..shape import axes_of, axis_of
from ..tensor import Tensor, apply, call
from .statistics import max as largest
from .statistics import sum as total

__all__ = [
    "celu", "elu", "gelu", "glu", "hard_sigmoid", "hard_swish", "hard_tanh", "leaky_relu", "log_sigmoid", "log_softmax",
    "logsumexp", "mish", "prelu", "relu", "relu6", "selu", "sigmoid", "silu", "softmax", "softplus", "softsign", "tanh",
]  # fmt: skip


def relu(x: Tensor) -> Tensor:
    """max(x, 0); the gradient at 0 is 0."""
    return maximum(x, 0)


def relu6(x: Tensor) -> Tensor:
    """min(max(x, 0), 6)"""
    return minimum(maximum(x, 0), 6)


def leaky_relu(x: Tensor, *, slope: float = 0.01) -> Tensor:
    """x where it is positive, else slope · x."""
    return where(x > 0, x, x * slope)


def prelu(x: Tensor, slope: Tensor) -> Tensor:
    """x where it is positive, else slope · x with a slope that is learned, one for all or one per channel."""
    return where(x > 0, x, x * slope)


def elu(x: Tensor, *, alpha: float = 1.0) -> Tensor:
    """x where it is positive, else alpha (e^x - 1).

    source  Clevert et al. 2015, arXiv:1511.07289
    """
    return where(x > 0, x, expm1(minimum(x, 0)) * alpha)


def celu(x: Tensor, *, alpha: float = 1.0) -> Tensor:
    """x where it is positive, else alpha (e^(x / alpha) - 1).

    source  Barron 2017, arXiv:1704.07483
    """
    return where(x > 0, x, expm1(minimum(x, 0) / alpha) * alpha)


def selu(x: Tensor) -> Tensor:
    """The scaled elu that keeps mean 0 and variance 1.

    source  Klambauer et al. 2017, arXiv:1706.02515
    """
    return elu(x, alpha=1.6732632423543772) * 1.0507009873554805


def gelu(x: Tensor, *, approximate: str = "none") -> Tensor:
    """x Φ(x), with Φ the distribution function of the normal distribution.

    approximate  "none" (by erf) or "tanh"
    source       Hendrycks & Gimpel 2016, arXiv:1606.08415
    """
    if approximate == "tanh":
        return x * 0.5 * (tanh((x + x * x * x * 0.044715) * sqrt(2 / pi)) + 1)
    if approximate != "none":
        raise ValueError(f"gelu: approximate is {approximate!r}; accepted are 'none' and 'tanh'.")
    return x * 0.5 * (erf(x * sqrt(0.5)) + 1)


def silu(x: Tensor) -> Tensor:
    """x σ(x), also called swish."""
    return x * sigmoid(x)


def softplus(x: Tensor) -> Tensor:
    """log(1 + e^x), a smooth relu; for large x it is x, to the last digit."""
    straight = {2: 10.0, 4: 20.0, 8: 40.0}[x.dtype.itemsize] if x.dtype.kind == "f" else 20.0
    return where(x > straight, x, log1p(exp(minimum(x, straight))))


def log_sigmoid(x: Tensor) -> Tensor:
    """log σ(x)"""
    return -softplus(-x)


def mish(x: Tensor) -> Tensor:
    """x tanh(softplus(x))

    source  Misra 2019, arXiv:1908.08681
    """
    return x * tanh(softplus(x))


def softsign(x: Tensor) -> Tensor:
    """x / (1 + |x|)"""
    return x / (abs(x) + 1)


def hard_sigmoid(x: Tensor) -> Tensor:
    """min(max(x / 6 + 1/2, 0), 1)"""
    return minimum(maximum(x * (1 / 6) + 0.5, 0), 1)


def hard_swish(x: Tensor) -> Tensor:
    """x min(max(x + 3, 0), 6) / 6

    source  Howard et al. 2019, arXiv:1905.02244
    """
    return x * relu6(x + 3) * (1 / 6)


def hard_tanh(x: Tensor) -> Tensor:
    """min(max(x, -1), 1)"""
    return minimum(maximum(x, -1), 1)


def glu(x: Tensor, *, axis: int = -1) -> Tensor:
    """a σ(b), with a and b the halves of x along an axis.

    errors  ShapeError if the axis has an odd size
    source  Dauphin et al. 2016, arXiv:1612.08083
    """
    axis = axis_of("glu", axis, x.ndim)
    half = x.shape[axis] // 2
    if x.shape[axis] % 2:
        raise ShapeError(f"glu: axis {axis} of {x.shape} has size {x.shape[axis]}; accepted are even sizes.")
    pairs = call("reshape", x, (*x.shape[:axis], 2, half, *x.shape[axis + 1 :]))
    a, b = (apply("take", pairs, call("asarray", i), axis=axis) for i in (0, 1))
    return a * sigmoid(b)


def _top(x: Tensor, axis: Any) -> Tensor:
    """The maximum, as a constant."""
    return apply("stop_gradient", largest(x, axis=axis, keepdims=True))


def _shifted(x: Tensor, axis: Any) -> Tensor:
    """x minus its maximum (0 where that is -∞), which no exp of makes too large; NaN if that is ∞."""
    top = _top(x, axis)
    return x - where(top == -float("inf"), 0, top)


def softmax(x: Tensor, *, axis: int | tuple[int, ...] = -1) -> Tensor:
    """e^x over its sum along an axis: positive, with sum 1."""
    axis = axes_of("softmax", axis, x.ndim)
    e = exp(_shifted(x, axis))
    return e * reciprocal(total(e, axis=axis, keepdims=True))


def log_softmax(x: Tensor, *, axis: int | tuple[int, ...] = -1) -> Tensor:
    """log(softmax(x)), exact also where softmax is 0."""
    axis = axes_of("log_softmax", axis, x.ndim)
    shifted = _shifted(x, axis)
    return shifted - log(total(exp(shifted), axis=axis, keepdims=True))


def logsumexp(x: Tensor, *, axis: int | tuple[int, ...] | None = None, keepdims: bool = False) -> Tensor:
    """log of the sum of e^x along axes (None: all)."""
    axis = axes_of("logsumexp", axis, x.ndim)
    top = _top(x, axis)
    top = where(abs(top) < float("inf"), top, 0)
    y = log(total(exp(x - top), axis=axis, keepdims=True)) + top
    return y if keepdims else total(y, axis=axis)
