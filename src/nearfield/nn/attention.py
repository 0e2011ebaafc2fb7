"""Attention as layers: MultiHeadAttention and TransformerBlock."""

from ..argument import whole
from ..errors import ArgumentError
from ..functional.activation import gelu
from ..functional.attention import scaled_dot_product_attention
from ..random import Generator
from ..shape import check
from ..tensor import Tensor, call
from .dropout import Dropout
from .linear import Linear
from .module import Module
from .norm import LayerNorm

__all__ = ["MultiHeadAttention", "TransformerBlock"]


class MultiHeadAttention(Module):
    """y = output(heads side by side), head = softmax(q kᵀ / √d_head) v, with q, k, v linear in the inputs

    query   Linear  [d, d]
    key     Linear  [d_memory, d]
    value   Linear  [d_memory, d]
    output  Linear  [d, d]

    source  Vaswani et al. 2017, arXiv:1706.03762, section 3.2.2
    """

    def __init__(
        self, d: int, heads: int, *, d_memory: int | None = None, bias: bool = True, generator: Generator | None = None
    ) -> None:
        whole("MultiHeadAttention", d=d, heads=heads)
        if d_memory is not None:
            whole("MultiHeadAttention", d_memory=d_memory)
        if d % heads:
            raise ArgumentError(f"MultiHeadAttention: {heads} heads do not divide {d} features; accepted are divisors.")
        other = d_memory or d
        self.query = Linear(d, d, bias=bias, generator=generator)
        self.key, self.value = (Linear(other, d, bias=bias, generator=generator) for _ in range(2))
        self.output = Linear(d, d, bias=bias, generator=generator)
        self.heads = heads

    def __call__(
        self, x: Tensor, memory: Tensor | None = None, *, mask: Tensor | None = None, causal: bool = False
    ) -> Tensor:
        """x[n, t, d] -> [n, t, d]

        memory  [n, s, d_memory]  what is attended to; x unless given
        mask    broadcasts to [n, heads, t, s]; true where attention may go, or reals to add to the scores
        causal  each position sees itself and earlier ones
        """
        check("x: n t d, weight: d e", "MultiHeadAttention", x=x.shape, weight=self.query.weight.shape)
        source = x if memory is None else memory
        check(
            "memory: n s d_memory, weight: d_memory e",
            "MultiHeadAttention",
            memory=source.shape,
            weight=self.key.weight.shape,
        )
        q, k, v = (self._split(part) for part in (self.query(x), self.key(source), self.value(source)))
        y = scaled_dot_product_attention(q, k, v, mask=mask, causal=causal)
        return self.output(call("reshape", call("permute_dims", y, (0, 2, 1, 3)), x.shape))

    def _split(self, x: Tensor) -> Tensor:
        """[n, t, d] -> [n, heads, t, d_head]"""
        n, t, d = x.shape
        return call("permute_dims", call("reshape", x, (n, t, self.heads, d // self.heads)), (0, 2, 1, 3))


class TransformerBlock(Module):
    """h = x + attention(norm1(x)); y = h + shrink(gelu(grow(norm2(h))))

    norm1, norm2  LayerNorm  [d]
    attention     MultiHeadAttention
    grow          Linear  [d, d_hidden]    d_hidden is 4 d unless given
    shrink        Linear  [d_hidden, d]

    source  Xiong et al. 2020, arXiv:2002.04745 (normalisation first)
    """

    def __init__(
        self,
        d: int,
        heads: int,
        *,
        d_hidden: int | None = None,
        dropout: float = 0.0,
        causal: bool = False,
        generator: Generator | None = None,
    ) -> None:
        whole("TransformerBlock", d=d, heads=heads)
        self.norm1, self.norm2 = LayerNorm(d), LayerNorm(d)
        self.attention = MultiHeadAttention(d, heads, generator=generator)
        self.grow = Linear(d, d_hidden or 4 * d, generator=generator)
        self.shrink = Linear(d_hidden or 4 * d, d, generator=generator)
        self.dropout, self.causal = Dropout(dropout, generator=generator), causal

    def __call__(self, x: Tensor, *, mask: Tensor | None = None) -> Tensor:
        """x[n, t, d] -> [n, t, d]"""
        h = x + self.dropout(self.attention(self.norm1(x), mask=mask, causal=self.causal))
        return h + self.dropout(self.shrink(gelu(self.grow(self.norm2(h)))))
