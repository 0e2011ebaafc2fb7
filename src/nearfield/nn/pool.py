"""Pooling as layers, and Flatten; channels last."""

from math import prod

from ..argument import wholes
from ..functional.conv import Padding, Sizes, avg_pool, global_avg_pool, global_max_pool, max_pool
from ..tensor import Tensor, call
from .module import Module

__all__ = ["AvgPool", "Flatten", "GlobalAvgPool", "GlobalMaxPool", "MaxPool"]


def _check(who: str, size: Sizes, stride: Sizes | None) -> None:
    wholes(who, 0, size=size)
    if stride is not None:
        wholes(who, 0, stride=stride)


class MaxPool(Module):
    """The largest element of each window; `stride` is `size` unless given."""

    def __init__(self, size: Sizes = 2, *, stride: Sizes | None = None, padding: Padding = "valid") -> None:
        _check("MaxPool", size, stride)
        self.size, self.stride, self.padding = size, stride, padding

    def __call__(self, x: Tensor) -> Tensor:
        """x[n, *space, c] -> [n, *out, c]"""
        return max_pool(x, self.size, stride=self.stride, padding=self.padding)


class AvgPool(Module):
    """The average of each window; `stride` is `size` unless given."""

    def __init__(self, size: Sizes = 2, *, stride: Sizes | None = None, padding: Padding = "valid") -> None:
        _check("AvgPool", size, stride)
        self.size, self.stride, self.padding = size, stride, padding

    def __call__(self, x: Tensor) -> Tensor:
        """x[n, *space, c] -> [n, *out, c]"""
        return avg_pool(x, self.size, stride=self.stride, padding=self.padding)


class GlobalAvgPool(Module):
    """The average of each channel."""

    def __call__(self, x: Tensor) -> Tensor:
        """x[n, *space, c] -> [n, c]"""
        return global_avg_pool(x)


class GlobalMaxPool(Module):
    """The largest element of each channel."""

    def __call__(self, x: Tensor) -> Tensor:
        """x[n, *space, c] -> [n, c]"""
        return global_max_pool(x)


class Flatten(Module):
    """All axes but the first as one."""

    def __call__(self, x: Tensor) -> Tensor:
        """x[n, ...] -> [n, product of the rest]"""
        return call("reshape", x, (x.shape[0], prod(x.shape[1:])))
