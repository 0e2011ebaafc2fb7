"""Attention: an average of values, weighted by how well keys answer queries."""

from ..ops.arithmetic import where
from ..ops.mathematics import cos, exp, sin
from ..shape import check
from ..tensor import Tensor, apply, call
from .activation import softmax

__all__ = ["causal_mask", "rope", "scaled_dot_product_attention"]

_LOWEST = {
    "float16": -6e4,
    "float32": -1e30,
    "float64": -1e30,
}  # finite: a row without any key gives an average, not NaN


def causal_mask(n_queries: int, n_keys: int) -> Tensor:
    """[n_queries, n_keys], true where a query may see a key: its own and earlier ones; the last query sees all."""
    rows = call("reshape", apply("iota", n=n_queries), (n_queries, 1))
    return apply("iota", n=n_keys) <= rows + (n_keys - n_queries)


def scaled_dot_product_attention(
    q: Tensor, k: Tensor, v: Tensor, *, mask: Tensor | None = None, causal: bool = False, scale: float | None = None
) -> Tensor:
    """softmax(q kᵀ · scale) v

    q        [..., t, d]    queries
    k        [..., s, d]    keys
    v        [..., s, e]    values
    mask     broadcasts to [..., t, s]; of bools: true where q may see k; of reals: added to the scores
    causal   each query sees its own position and earlier ones; positions are counted from the end
    scale    1/√d unless given
    returns  [..., t, e]
    errors   ShapeError if d or s differ
    source   Vaswani et al. 2017, arXiv:1706.03762, equation 1
    """
    sizes = check("q: ... t d, k: ... s d, v: ... s e", "scaled_dot_product_attention", q=q.shape, k=k.shape, v=v.shape)
    scores = (q * (sizes["d"] ** -0.5 if scale is None else scale)) @ call("matrix_transpose", k)
    lowest = _LOWEST[scores.dtype.name]
    if mask is not None:
        scores = where(mask, scores, lowest) if mask.dtype.kind == "b" else scores + mask
    if causal:
        scores = where(causal_mask(sizes["t"], sizes["s"]), scores, lowest)
    return softmax(scores) @ v


def rope(x: Tensor, *, start: int | Tensor = 0, base: float = 10000.0) -> Tensor:
    """Rotary position embedding: pairs of features, d/2 apart, turned by an angle that grows with the position.

    x       [..., t, d]    d even
    start   the position of the first row
    source  Su et al. 2021, arXiv:2104.09864; halves as in GPT-NeoX and LLaMA
    """
    t, half = x.shape[-2], x.shape[-1] // 2
    positions = call("reshape", call("astype", apply("iota", n=t) + start, "float32"), (t, 1))
    angles = positions * exp(call("astype", apply("iota", n=half), "float32") * (-_log(base) / half))
    c, s = (call("astype", wave(angles), x.dtype) for wave in (cos, sin))
    lead = (0,) * (x.ndim - 1)
    step = (1,) * x.ndim
    a = apply("slice", x, start=(*lead, 0), stop=(*x.shape[:-1], half), step=step)
    b = apply("slice", x, start=(*lead, half), stop=x.shape, step=step)
    return apply("concat", a * c - b * s, b * c + a * s, axis=x.ndim - 1)


def _log(x: float) -> float:
    from math import log

    return log(x)
