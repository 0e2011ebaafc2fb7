"""Linear: a product with a matrix."""

from ..argument import whole
from ..random import Generator
from ..shape import check
from ..tensor import Tensor, call
from .init import lecun_uniform
from .module import Module

__all__ = ["Linear"]


class Linear(Module):
    """y = x @ weight + bias

    weight  [n_in, n_out]  uniform in ±1/√n_in
    bias    [n_out]        zeros; None without
    """

    def __init__(self, n_in: int, n_out: int, *, bias: bool = True, generator: Generator | None = None) -> None:
        whole("Linear", n_in=n_in, n_out=n_out)
        self.weight = lecun_uniform((n_in, n_out), generator=generator)
        self.bias = call("full", (n_out,), 0.0) if bias else None

    def __call__(self, x: Tensor) -> Tensor:
        """x[..., n_in] -> [..., n_out]"""
        check("x: ... n_in, weight: n_in n_out", "Linear", x=x.shape, weight=self.weight.shape)
        y = x @ self.weight
        return y if self.bias is None else y + self.bias
