"""Normalisation: subtract a mean, divide by a deviation, scale and shift. float16 is normalised in float32."""

from ..ops.mathematics import rsqrt
from ..tensor import Tensor, call
from .statistics import mean

__all__ = ["batch_norm", "group_norm", "instance_norm", "layer_norm", "local_response_norm", "rms_norm"]

Axes = int | tuple[int, ...]


def _wide(x: Tensor) -> Tensor:
    return call("astype", x, "float32") if x.dtype.itemsize == 2 else x


def _affine(y: Tensor, weight: Tensor | None, bias: Tensor | None, like: Tensor) -> Tensor:
    y = y if weight is None else y * weight
    y = y if bias is None else y + bias
    return call("astype", y, like.dtype)


def _standard(x: Tensor, axis: Axes, eps: float) -> Tensor:
    centred = x - mean(x, axis=axis, keepdims=True)
    return centred * rsqrt(mean(centred * centred, axis=axis, keepdims=True) + eps)


def layer_norm(
    x: Tensor, weight: Tensor | None = None, bias: Tensor | None = None, *, axis: Axes = -1, eps: float = 1e-5
) -> Tensor:
    """(x - mean) / √(variance + eps) · weight + bias, with mean and variance along the axes.

    weight  broadcasts with x; None for 1
    bias    broadcasts with x; None for 0
    source  Ba et al. 2016, arXiv:1607.06450
    """
    return _affine(_standard(_wide(x), axis, eps), weight, bias, x)


def rms_norm(x: Tensor, weight: Tensor | None = None, *, axis: Axes = -1, eps: float = 1e-6) -> Tensor:
    """x / √(mean of x² + eps) · weight

    source  Zhang & Sennrich 2019, arXiv:1910.07467
    """
    wide = _wide(x)
    return _affine(wide * rsqrt(mean(wide * wide, axis=axis, keepdims=True) + eps), weight, None, x)


def group_norm(
    x: Tensor, groups: int, weight: Tensor | None = None, bias: Tensor | None = None, *, eps: float = 1e-5
) -> Tensor:
    """(x - mean) / √(variance + eps) · weight + bias, with one mean and variance per example and group of channels.

    x       [n, *space, c]
    groups  divides c
    weight  [c]; None for 1
    bias    [c]; None for 0
    source  Wu & He 2018, arXiv:1803.08494
    """
    split = call("reshape", _wide(x), (*x.shape[:-1], groups, x.shape[-1] // groups))
    axes = (*range(1, x.ndim - 1), x.ndim)
    return _affine(call("reshape", _standard(split, axes, eps), x.shape), weight, bias, x)


def instance_norm(x: Tensor, weight: Tensor | None = None, bias: Tensor | None = None, *, eps: float = 1e-5) -> Tensor:
    """group_norm with one channel in each group.

    source  Ulyanov et al. 2016, arXiv:1607.08022
    """
    return group_norm(x, x.shape[-1], weight, bias, eps=eps)


def batch_norm(
    x: Tensor, average: Tensor, variance: Tensor, weight: Tensor | None = None, bias: Tensor | None = None, *,
    eps: float = 1e-5,
) -> Tensor:  # fmt: skip
    """(x - average) / √(variance + eps) · weight + bias, with statistics that are given.

    x         [n, *space, c]
    average   [c], as are variance, weight and bias
    source    Ioffe & Szegedy 2015, arXiv:1502.03167
    """
    scale = rsqrt(_wide(variance) + eps)
    scale = scale if weight is None else scale * weight
    shift = -average * scale if bias is None else bias - average * scale
    return call("astype", _wide(x) * scale + shift, x.dtype)


def local_response_norm(x: Tensor, size: int, *, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> Tensor:
    """x / (k + alpha / size · sum of x² over `size` neighbouring channels)^beta

    x       [..., c]
    source  Krizhevsky et al. 2012, section 3.3
    """
    from ..tensor import apply

    low = (size - 1) // 2
    around = (0,) * (x.ndim - 1)
    squares = apply(
        "pad", x * x, low=(*around, low), high=(*around, size - 1 - low), step=(1,) * x.ndim, value=0.0,
    )  # fmt: skip
    near = apply("windows", squares, size=(size,), stride=(1,), dilation=(1,))
    return x / (call("sum", near, axis=-1) * (alpha / size) + k) ** beta
