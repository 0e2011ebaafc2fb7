"""Embedding: a row of a table for each number."""

from ..argument import whole
from ..errors import DTypeError
from ..random import Generator
from ..shape import check
from ..tensor import Tensor, apply, call
from .init import normal
from .module import Module

__all__ = ["Embedding"]


class Embedding(Module):
    """y = weight[ids]

    weight  [n, d]  normal, standard deviation 1/√d
    """

    def __init__(self, n: int, d: int, *, generator: Generator | None = None) -> None:
        whole("Embedding", n=n, d=d)
        self.weight = normal((n, d), d**-0.5, generator=generator)

    def __call__(self, ids: Tensor) -> Tensor:
        """ids[...] of integers from 0 to n - 1 -> [..., d]; numbers outside are moved to the nearest end"""
        if ids.dtype.kind not in "iu":
            raise DTypeError(
                f"Embedding: ids have dtype {ids.dtype.name}; accepted are integers. Convert with nf.astype(ids, "
                "'int32')."
            )
        return apply("take", self.weight, call("astype", ids, "int32"), axis=0)

    def scores(self, x: Tensor) -> Tensor:
        """x[..., d] -> [..., n], products with all rows: the output layer of a language model that shares the table."""
        check("x: ... d, weight: n d", "Embedding.scores", x=x.shape, weight=self.weight.shape)
        return x @ call("matrix_transpose", self.weight)
