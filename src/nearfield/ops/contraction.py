"""Contractions: sums of products of two arrays, given by which index goes where. So are their gradients."""

from functools import cache, lru_cache
from typing import Any

from .. import scalar as k
from ..dtype import DType
from ..op import Source, np
from ..scalar import K
from ..shape import Shape
from ..tensor import apply, call
from .define import narrow, record, require

__all__ = ["einsum_shape"]

ZERO = k.const(0, "index")


@cache
def _parts(spec: str) -> tuple[str, str, str]:
    left, out = spec.split("->")
    a, b = left.split(",")
    return a, b, out


def _einsum_infer(shapes: Any, dtypes: Any, attrs: Any) -> Any:
    require("einsum", dtypes[0], "iuf")
    return einsum_shape(attrs["spec"], *shapes), dtypes[0]


@lru_cache(maxsize=4096)
def einsum_shape(spec: str, left: Shape, right: Shape) -> Shape:
    """The shape of a contraction of arrays of these shapes."""
    a, b, out = _parts(spec)
    sizes = dict(zip(a + b, (*left, *right), strict=True))
    return tuple([sizes[c] for c in out])


def _einsum_element(index: list[K], sources: list[Source], shape: Any, dtype: DType, attrs: Any) -> K:
    a, b, out = _parts(attrs["spec"])
    sizes = dict(zip(a + b, (*sources[0].shape, *sources[1].shape), strict=True))
    place = dict(zip(out, index, strict=True))
    summed = [c for c in dict.fromkeys(a + b) if c not in place]
    place |= {c: k.fresh(c, sizes[c]) for c in summed}
    product = sources[0].at([place[c] for c in a]) * sources[1].at([place[c] for c in b])
    if not summed:
        return narrow(product, dtype)
    return narrow(k.reduce("sum", tuple(place[c] for c in summed), product), dtype)


def _einsum_ref(a: Any, b: Any, *, dtype: DType, spec: str) -> Any:
    wide = [x.astype("float32") if x.dtype.name == "float16" else x for x in (a, b)]
    with np.errstate(all="ignore"):
        return np.einsum(spec, *wide, optimize=True).astype(dtype.name)


def _einsum_grad(g: Any, a: Any, b: Any, y: Any, spec: str) -> Any:
    """Exchange letters: d(a) = g · b over what a lacks; a letter that only a has is repeated."""
    la, lb, out = _parts(spec)
    return _side(g, b, a, out, lb, la), _side(g, a, b, out, la, lb)


def _side(g: Any, other: Any, x: Any, out: str, lo: str, lx: str) -> Any:
    present = "".join(c for c in lx if c in out + lo)
    part = apply("einsum", g, other, spec=f"{out},{lo}->{present}")
    if present == lx:
        return part
    sizes = dict(zip(lx, x.shape, strict=True))
    part = call("reshape", part, tuple(sizes[c] if c in present else 1 for c in lx))
    return call("broadcast_to", part, x.shape)


record(
    "einsum", "contraction", 2, _einsum_infer, _einsum_element, _einsum_ref, _einsum_grad,
    "Sum of products of two arrays of one dtype; each letter once per array.", tol=2e-5, kinds="iuf",
)  # fmt: skip


# x[n, *space, group, ci] and w[*window, group, ci, co] give y[n, *out, group, co].
def _conv_size(n: int, m: int, stride: int, pad: tuple[int, int], dilation: int, spread: int) -> int:
    return (pad[0] + pad[1] + (n - 1) * spread + 1 - (m - 1) * dilation - 1) // stride + 1


def _conv_infer(shapes: Any, dtypes: Any, a: Any) -> Any:
    x, w = shapes
    require("conv", dtypes[0], "iuf")
    r = len(x) - 3
    out = tuple(
        _conv_size(x[1 + d], w[d], a["stride"][d], a["pad"][d], a["dilation"][d], a["spread"][d]) for d in range(r)
    )
    return (x[0], *out, x[-2], w[-1]), dtypes[0]


def _conv_element(index: list[K], sources: list[Source], shape: Any, dtype: DType, attrs: Any) -> K:
    x, w = sources
    rank = len(x.shape) - 3
    n, *out = index[: 1 + rank]
    group, co = index[1 + rank :]
    ci = k.fresh("c", x.shape[-1])
    places = [k.fresh("p", w.shape[d]) for d in range(rank)]
    mask = k.const(True, "bool")
    inner = []
    for d in range(rank):
        q = out[d] * attrs["stride"][d] + places[d] * attrs["dilation"][d] - attrs["pad"][d][0]
        spread, size = attrs["spread"][d], x.shape[1 + d]
        mask = mask & k.less_equal(ZERO, q) & k.less(q, k.const((size - 1) * spread + 1, "index"))
        if spread > 1:
            mask = mask & k.equal(q % spread, ZERO)
            q = q // spread
        inner.append(q)
    value = x.at([n, *inner, group, ci], mask)
    value = k.select(mask, value, k.const(0, value.type))
    return narrow(k.reduce("sum", (*places, ci), value * w.at([*places, group, ci, co])), dtype)


def _conv_ref(x: Any, w: Any, *, dtype: DType, stride: Any, pad: Any, dilation: Any, spread: Any) -> Any:
    """Spread and pad the image, take windows, one einsum."""
    rank = x.ndim - 3
    wide = [a.astype("float32") if a.dtype.name == "float16" else a for a in (x, w)]
    space = tuple((n - 1) * s + 1 for n, s in zip(x.shape[1:-2], spread, strict=True))
    image = np.zeros((x.shape[0], *space, *x.shape[-2:]), wide[0].dtype)
    image[(slice(None), *(slice(None, None, s) for s in spread))] = wide[0]
    image = np.pad(image, ((0, 0), *((max(a, 0), max(b, 0)) for a, b in pad), (0, 0), (0, 0)))
    image = image[
        (slice(None), *(slice(max(-a, 0), n - max(-b, 0)) for (a, b), n in zip(pad, image.shape[1:-2], strict=True)))
    ]
    reach = tuple((m - 1) * d + 1 for m, d in zip(w.shape, dilation, strict=False))
    views = np.lib.stride_tricks.sliding_window_view(image, reach, axis=tuple(range(1, 1 + rank)))
    views = views[(slice(None), *(slice(None, None, s) for s in stride))]
    views = views[(..., *(slice(None, None, d) for d in dilation))]
    letters = "xyz"[:rank]
    places_letters = "uvw"[:rank]
    spec = f"n{letters}gc{places_letters},{places_letters}gco->n{letters}go"
    return np.einsum(spec, views, wide[1], optimize=True).astype(dtype.name)


def _conv_grad(g: Any, x: Any, w: Any, y: Any, stride: Any, pad: Any, dilation: Any, spread: Any) -> Any:
    """Both are convolutions: of g spread by the stride with w turned around, and of x with g as the window."""
    rank = x.ndim - 3
    axes = tuple(range(rank))
    turned = apply(
        "slice", w, start=tuple(n - 1 if a in axes else 0 for a, n in enumerate(w.shape)),
        stop=tuple(-1 if a in axes else n for a, n in enumerate(w.shape)),
        step=tuple(-1 if a in axes else 1 for a in range(w.ndim)),
    )  # fmt: skip
    turned = apply("permute", turned, axes=(*axes, rank, rank + 2, rank + 1))
    reach = [(w.shape[d] - 1) * dilation[d] for d in axes]
    low = [reach[d] - pad[d][0] for d in axes]
    high = [
        (x.shape[1 + d] - 1) * spread[d] + 1 + reach[d] - low[d] - ((g.shape[1 + d] - 1) * stride[d] + 1) for d in axes
    ]
    dx = apply(
        "conv", g, turned, stride=spread, pad=tuple(zip(low, high, strict=True)), dilation=dilation, spread=stride
    )
    # x as [ci, *space, group, n], g as [*out, group, n, co]
    flat_x = apply("permute", x, axes=(rank + 2, *range(1, rank + 1), rank + 1, 0))
    flat_g = apply("permute", g, axes=(*range(1, rank + 1), rank + 1, 0, rank + 2))
    right = [
        (w.shape[d] - 1) * dilation[d] + (g.shape[1 + d] - 1) * stride[d] - pad[d][0] - (x.shape[1 + d] - 1) * spread[d]
        for d in axes
    ]
    around = tuple((pad[d][0], right[d]) for d in axes)
    dw = apply("conv", flat_x, flat_g, stride=dilation, pad=around, dilation=stride, spread=spread)
    return dx, apply("permute", dw, axes=(*range(1, rank + 1), rank + 1, 0, rank + 2))


record(
    "conv", "contraction", 2, _conv_infer, _conv_element, _conv_ref, _conv_grad,
    "Convolution of x[n, *space, group, ci] with w[*window, group, ci, co]; `spread` puts zeros between elements of x.",
    tol=2e-5, kinds="iuf",
)  # fmt: skip
