"""Recurrent layers, unrolled over the time."""

from ..argument import whole
from ..ops.mathematics import sigmoid, tanh
from ..random import Generator
from ..shape import check
from ..tensor import Tensor, apply, call
from .init import uniform
from .module import Module

__all__ = ["GRU", "LSTM"]


def _part(x: Tensor, axis: int, start: int, stop: int) -> Tensor:
    low = tuple(start if a == axis else 0 for a in range(x.ndim))
    high = tuple(stop if a == axis else n for a, n in enumerate(x.shape))
    return apply("slice", x, start=low, stop=high, step=(1,) * x.ndim)


def _gates(x: Tensor, count: int) -> list[Tensor]:
    """Equal parts of the last axis."""
    n = x.shape[-1] // count
    return [_part(x, x.ndim - 1, i * n, (i + 1) * n) for i in range(count)]


def _at(x: Tensor, t: int) -> Tensor:
    """x[n, t, d] at one time."""
    return call("reshape", _part(x, 1, t, t + 1), (x.shape[0], x.shape[2]))


def _joined(steps: list[Tensor]) -> Tensor:
    """Steps [n, d] as [n, t, d]."""
    return apply("concat", *[call("reshape", y, (y.shape[0], 1, y.shape[1])) for y in steps], axis=1)


class GRU(Module):
    """r, z = σ(x W_r + b_r + h U_r + c_r), σ(x W_z + …); c = tanh(x W_c + b_c + r (h U_c + c_c)); h' = (1 - z) c + z h

    weight_x  [d, 3 h]  uniform in ±1/√h; gates in the order r, z, c
    weight_h  [h, 3 h]  uniform in ±1/√h
    bias_x    [3 h]     zeros
    bias_h    [3 h]     zeros

    source  Cho et al. 2014, arXiv:1406.1078; the reset after the product, as in cuDNN
    """

    def __init__(self, d: int, h: int, *, generator: Generator | None = None) -> None:
        whole("GRU", d=d, h=h)
        self.weight_x = uniform((d, 3 * h), h**-0.5, generator=generator)
        self.weight_h = uniform((h, 3 * h), h**-0.5, generator=generator)
        self.bias_x, self.bias_h = (call("full", (3 * h,), 0.0) for _ in range(2))

    def __call__(self, x: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """x[n, t, d], state[n, h] (zeros unless given) -> all states [n, t, h], the last state [n, h]"""
        sizes = check(
            "x: n t d, weight_x: d g, weight_h: h g",
            "GRU",
            x=x.shape,
            weight_x=self.weight_x.shape,
            weight_h=self.weight_h.shape,
        )
        h = call("full", (sizes["n"], sizes["h"]), 0.0, dtype=x.dtype) if state is None else state
        inputs, steps = x @ self.weight_x + self.bias_x, []
        for t in range(sizes["t"]):
            xr, xz, xc = _gates(_at(inputs, t), 3)
            hr, hz, hc = _gates(h @ self.weight_h + self.bias_h, 3)
            r, z = sigmoid(xr + hr), sigmoid(xz + hz)
            c = tanh(xc + r * hc)
            h = c + z * (h - c)
            steps.append(h)
        return _joined(steps), h


class LSTM(Module):
    """i, f, g, o = σ, σ, tanh, σ of (x W + h U + b); c' = f c + i g; h' = o tanh(c')

    weight_x  [d, 4 h]  uniform in ±1/√h; gates in the order i, f, g, o
    weight_h  [h, 4 h]  uniform in ±1/√h
    bias      [4 h]     ones for f, zeros for the others

    source  Hochreiter & Schmidhuber 1997; forget gate and its bias: Gers et al. 2000, Jozefowicz et al. 2015
    """

    def __init__(self, d: int, h: int, *, generator: Generator | None = None) -> None:
        whole("LSTM", d=d, h=h)
        self.weight_x = uniform((d, 4 * h), h**-0.5, generator=generator)
        self.weight_h = uniform((h, 4 * h), h**-0.5, generator=generator)
        zeros, ones = (call("full", (h,), value) for value in (0.0, 1.0))
        self.bias = apply("concat", zeros, ones, zeros, zeros, axis=0)

    def __call__(self, x: Tensor, state: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """x[n, t, d], state (h[n, h], c[n, h]) (zeros unless given) -> all h [n, t, h], the last (h, c)"""
        sizes = check(
            "x: n t d, weight_x: d g, weight_h: h g",
            "LSTM",
            x=x.shape,
            weight_x=self.weight_x.shape,
            weight_h=self.weight_h.shape,
        )
        zeros = call("full", (sizes["n"], sizes["h"]), 0.0, dtype=x.dtype)
        h, c = (zeros, zeros) if state is None else state
        inputs, steps = x @ self.weight_x + self.bias, []
        for t in range(sizes["t"]):
            i, f, g, o = _gates(_at(inputs, t) + h @ self.weight_h, 4)
            c = sigmoid(f) * c + sigmoid(i) * tanh(g)
            h = sigmoid(o) * tanh(c)
            steps.append(h)
        return _joined(steps), (h, c)
