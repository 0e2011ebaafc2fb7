"""Dropout: noise against overfitting."""

from .. import random
from ..argument import real
from ..ops.arithmetic import where
from ..tensor import Tensor
from .module import Module

__all__ = ["Dropout"]


class Dropout(Module):
    """In training, y = x / (1 - rate) where a random number is not below `rate`, else 0; otherwise y = x

    generator  what the random numbers come from; the default one of nf.random unless given

    source  Srivastava et al. 2014, "Dropout: a simple way to prevent neural networks from overfitting"
    """

    def __init__(self, rate: float = 0.5, *, generator: random.Generator | None = None) -> None:
        real("Dropout", 0, 1, below=True, rate=rate)
        self.rate, self.generator = rate, generator

    def __call__(self, x: Tensor) -> Tensor:
        """x[...] -> [...]"""
        if not self.training or self.rate == 0:
            return x
        kept = (self.generator or random.default_generator()).uniform(x.shape) >= self.rate
        return where(kept, x * (1 / (1 - self.rate)), 0)
