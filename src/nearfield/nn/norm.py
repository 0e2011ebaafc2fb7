"""Normalisation as layers."""

from typing import ClassVar

from ..argument import real, whole
from ..errors import ArgumentError
from ..functional.norm import batch_norm, group_norm, layer_norm, rms_norm
from ..functional.statistics import mean
from ..shape import check
from ..tensor import Tensor, apply, call
from .module import Module

__all__ = ["BatchNorm", "GroupNorm", "LayerNorm", "RMSNorm"]


def _ones(n: int) -> Tensor:
    return call("full", (n,), 1.0)


def _zeros(n: int) -> Tensor:
    return call("full", (n,), 0.0)


class LayerNorm(Module):
    """y = (x - mean) / √(variance + eps) · weight + bias, over the features of each position

    weight  [d]  ones
    bias    [d]  zeros; None without
    """

    def __init__(self, d: int, *, eps: float = 1e-5, bias: bool = True) -> None:
        whole("LayerNorm", d=d)
        real("LayerNorm", 0, eps=eps)
        self.weight, self.bias, self.eps = _ones(d), _zeros(d) if bias else None, eps

    def __call__(self, x: Tensor) -> Tensor:
        """x[..., d] -> [..., d]"""
        check("x: ... d, weight: d", "LayerNorm", x=x.shape, weight=self.weight.shape)
        return layer_norm(x, self.weight, self.bias, eps=self.eps)


class RMSNorm(Module):
    """y = x / √(mean of x² + eps) · weight, over the features of each position

    weight  [d]  ones
    """

    def __init__(self, d: int, *, eps: float = 1e-6) -> None:
        whole("RMSNorm", d=d)
        real("RMSNorm", 0, eps=eps)
        self.weight, self.eps = _ones(d), eps

    def __call__(self, x: Tensor) -> Tensor:
        """x[..., d] -> [..., d]"""
        check("x: ... d, weight: d", "RMSNorm", x=x.shape, weight=self.weight.shape)
        return rms_norm(x, self.weight, eps=self.eps)


class GroupNorm(Module):
    """y = (x - mean) / √(variance + eps) · weight + bias, over the space and the channels of one group of one example

    weight  [c]  ones
    bias    [c]  zeros
    """

    def __init__(self, groups: int, c: int, *, eps: float = 1e-5) -> None:
        whole("GroupNorm", groups=groups, c=c)
        real("GroupNorm", 0, eps=eps)
        if c % groups:
            raise ArgumentError(f"GroupNorm: {groups} groups do not divide {c} channels; accepted are divisors.")
        self.weight, self.bias, self.groups, self.eps = _ones(c), _zeros(c), groups, eps

    def __call__(self, x: Tensor) -> Tensor:
        """x[n, *space, c] -> [n, *space, c]"""
        check("x: ... c, weight: c", "GroupNorm", x=x.shape, weight=self.weight.shape)
        return group_norm(x, self.groups, self.weight, self.bias, eps=self.eps)


class BatchNorm(Module):
    """y = (x - mean) / √(variance + eps) · weight + bias, per channel

    In training, mean and variance are those of the batch, and the running ones move towards them by `momentum`
    (running += momentum · (batch - running), with the variance of n - 1); otherwise, and when frozen, they are the
    running ones.

    weight            [c]  ones
    bias              [c]  zeros
    running_mean      [c]  zeros; a buffer
    running_variance  [c]  ones; a buffer
    """

    buffers: ClassVar[tuple[str, ...]] = ("running_mean", "running_variance")

    def __init__(self, c: int, *, momentum: float = 0.1, eps: float = 1e-5) -> None:
        whole("BatchNorm", c=c)
        real("BatchNorm", 0, eps=eps)
        real("BatchNorm", 0, 1, momentum=momentum)
        self.weight, self.bias = _ones(c), _zeros(c)
        self.running_mean, self.running_variance = _zeros(c), _ones(c)
        self.momentum, self.eps = momentum, eps

    def __call__(self, x: Tensor) -> Tensor:
        """x[n, *space, c] -> [n, *space, c]"""
        check("x: ... c, weight: c", "BatchNorm", x=x.shape, weight=self.weight.shape)
        if not self.training or self.is_frozen:
            return batch_norm(x, self.running_mean, self.running_variance, self.weight, self.bias, eps=self.eps)
        axes = tuple(range(x.ndim - 1))
        wide = call("astype", x, self.running_mean.dtype)
        average = mean(wide, axis=axes)
        centred = wide - average
        variance = mean(centred * centred, axis=axes)
        count = x.size // x.shape[-1]
        self.running_mean = self._moved(self.running_mean, average)
        self.running_variance = self._moved(self.running_variance, variance * (count / max(count - 1, 1)))
        return batch_norm(x, average, variance, self.weight, self.bias, eps=self.eps)

    def _moved(self, running: Tensor, batch: Tensor) -> Tensor:
        return running + (apply("stop_gradient", batch) - running) * self.momentum
