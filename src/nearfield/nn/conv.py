"""Convolutions as layers; channels last."""

from typing import Any

from ..argument import whole, wholes
from ..errors import ArgumentError
from ..functional.conv import Padding, Sizes, conv1d, conv2d, conv_transpose2d
from ..random import Generator
from ..shape import check
from ..tensor import Tensor, call
from .init import lecun_uniform
from .module import Module

__all__ = ["Conv1d", "Conv2d", "ConvTranspose2d"]


def _check(who: str, rank: int, ci: int, co: int, groups: int, **sizes: Any) -> None:
    """Sizes from 1, and groups that divide the channels."""
    whole(who, ci=ci, co=co, groups=groups)
    wholes(who, rank, **sizes)
    if ci % groups or co % groups:
        raise ArgumentError(
            f"{who}: {groups} groups do not divide {ci} and {co} channels; accepted are common divisors."
        )


def _pair(size: int | tuple[int, int]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else size


class Conv1d(Module):
    """y[n, t] = Σ over the window of x[n, stride · t + dilation · k] @ weight[k], + bias

    weight  [k, ci / groups, co]  uniform in ±1/√n_in, n_in = k ci / groups
    bias    [co]                  zeros; None without
    """

    def __init__(
        self, ci: int, co: int, size: int, *, stride: int = 1, padding: Padding = "valid", dilation: int = 1,
        groups: int = 1, bias: bool = True, generator: Generator | None = None,
    ) -> None:  # fmt: skip
        _check("Conv1d", 1, ci, co, groups, size=size, stride=stride, dilation=dilation)
        self.weight = lecun_uniform((size, ci // groups, co), generator=generator)
        self.bias = call("full", (co,), 0.0) if bias else None
        self.stride, self.padding, self.dilation, self.groups = stride, padding, dilation, groups

    def __call__(self, x: Tensor) -> Tensor:
        """x[n, t, ci] -> [n, to, co]"""
        check("x: n t ci", "Conv1d", x=x.shape)
        y = conv1d(x, self.weight, stride=self.stride, padding=self.padding, dilation=self.dilation, groups=self.groups)
        return y if self.bias is None else y + self.bias


class Conv2d(Module):
    """y = windows of x times weight, summed, + bias; `groups=ci` makes it depthwise

    weight  [kh, kw, ci / groups, co]  uniform in ±1/√n_in, n_in = kh kw ci / groups
    bias    [co]                       zeros; None without
    """

    def __init__(
        self, ci: int, co: int, size: int | tuple[int, int], *, stride: Sizes = 1, padding: Padding = "valid",
        dilation: Sizes = 1, groups: int = 1, bias: bool = True, generator: Generator | None = None,
    ) -> None:  # fmt: skip
        _check("Conv2d", 2, ci, co, groups, size=size, stride=stride, dilation=dilation)
        self.weight = lecun_uniform((*_pair(size), ci // groups, co), generator=generator)
        self.bias = call("full", (co,), 0.0) if bias else None
        self.stride, self.padding, self.dilation, self.groups = stride, padding, dilation, groups

    def __call__(self, x: Tensor) -> Tensor:
        """x[n, h, w, ci] -> [n, ho, wo, co]"""
        check("x: n h w ci", "Conv2d", x=x.shape)
        y = conv2d(x, self.weight, stride=self.stride, padding=self.padding, dilation=self.dilation, groups=self.groups)
        return y if self.bias is None else y + self.bias


class ConvTranspose2d(Module):
    """y = weight stamped at every pixel of x, `stride` apart, + bias: enlarges images

    weight  [kh, kw, ci, co]  uniform in ±1/√n_in, n_in = kh kw ci
    bias    [co]              zeros; None without
    """

    def __init__(
        self, ci: int, co: int, size: int | tuple[int, int], *, stride: Sizes = 1, padding: Padding = "valid",
        output_padding: Sizes = 0, bias: bool = True, generator: Generator | None = None,
    ) -> None:  # fmt: skip
        _check("ConvTranspose2d", 2, ci, co, 1, size=size, stride=stride)
        self.weight = lecun_uniform((*_pair(size), ci, co), generator=generator)
        self.bias = call("full", (co,), 0.0) if bias else None
        self.stride, self.padding, self.output_padding = stride, padding, output_padding

    def __call__(self, x: Tensor) -> Tensor:
        """x[n, h, w, ci] -> [n, ho, wo, co]"""
        check("x: n h w ci", "ConvTranspose2d", x=x.shape)
        y = conv_transpose2d(
            x, self.weight, stride=self.stride, padding=self.padding, output_padding=self.output_padding
        )
        return y if self.bias is None else y + self.bias
