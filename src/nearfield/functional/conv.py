"""Convolution and pooling; channels last.

source  Dumoulin & Visin 2016, arXiv:1603.07285, "A guide to convolution arithmetic for deep learning"
"""

from collections.abc import Sequence
from functools import lru_cache
from math import prod
from typing import Any

from ..errors import ShapeError
from ..shape import Shape, check
from ..tensor import Tensor, apply, call
from .manipulation import flip, permuted, reshaped
from .statistics import max as largest
from .statistics import mean
from .statistics import sum as total

__all__ = [
    "avg_pool", "conv", "conv1d", "conv2d", "conv_transpose", "conv_transpose2d", "global_avg_pool", "global_max_pool",
    "max_pool",
]  # fmt: skip

Sizes = int | Sequence[int]
Padding = int | str | Sequence[int | tuple[int, int]]
Pads = tuple[tuple[int, int], ...]


def _each(who: str, name: str, value: Sizes, rank: int) -> tuple[int, ...]:
    """One number per axis of space, from one for all or one each."""
    if rank < 1:
        raise ShapeError(f"{who}: x has rank {rank + 2}; accepted is [n, *space, c], such as [n, h, w, c]. Reshape x.")
    sizes: tuple[Any, ...] = tuple(value) if isinstance(value, (list, tuple)) else (value,) * rank
    if len(sizes) != rank or not all(isinstance(n, int) and n >= 1 for n in sizes):
        raise ShapeError(
            f"{who}: {name} is {value!r}; accepted are a number from 1, or {rank} of them, one per axis of space."
        )
    return sizes


def _pads(who: str, padding: Padding, space: Sequence[int], size: Sizes, stride: Sizes, dilation: Sizes) -> Pads:
    """(before, after) for each axis of space. "same": ceil(n / stride) windows; an odd pixel goes after."""
    rank = len(space)
    if padding == "valid":
        return ((0, 0),) * rank
    if padding == "same":
        hops, reach = _each(who, "stride", stride, rank), _reach(who, size, dilation, rank)
        totals = [max((-(-n // h) - 1) * h + m - n, 0) for n, h, m in zip(space, hops, reach, strict=True)]
        return tuple((t // 2, t - t // 2) for t in totals)
    return _pairs(who, padding, rank)


def _pairs(who: str, padding: Padding, rank: int) -> Pads:
    """(before, after) for each axis of space, from a number for all, or numbers or pairs for each."""
    each = (padding,) * rank if isinstance(padding, int) else padding if isinstance(padding, (list, tuple)) else ()
    pairs = tuple([(p, p) if isinstance(p, int) else tuple(p) if isinstance(p, (list, tuple)) else () for p in each])
    if len(pairs) != rank or any(len(p) != 2 or not all(isinstance(n, int) for n in p) for p in pairs):
        raise ShapeError(
            f"{who}: padding is {padding!r}; accepted are 'same', 'valid', a number, or {rank} numbers or (before, "
            "after) pairs."
        )
    return pairs


def _reach(who: str, size: Sizes, dilation: Sizes, rank: int) -> tuple[int, ...]:
    gaps = _each(who, "dilation", dilation, rank)
    return tuple((m - 1) * d + 1 for m, d in zip(_each(who, "size", size, rank), gaps, strict=True))


def _check_fits(who: str, space: Sequence[int], pads: Pads, reach: Sequence[int]) -> None:
    for axis, (n, (low, high), m) in enumerate(zip(space, pads, reach, strict=True)):
        if n + low + high < m:
            raise ShapeError(
                f"{who}: the window spans {m} along axis {axis + 1} but x has {n}, with padding {n + low + high}; "
                f"accepted is {m} and more."
            )


def _check_channels(who: str, x: Shape, w: Shape, groups: int) -> None:
    ci, co = w[-2:]
    if groups < 1 or x[-1] != ci * groups or co % groups:
        raise ShapeError(
            f"{who}: x{list(x)} has {x[-1]} channels but w{list(w)} takes {ci} in each of {groups} groups, and makes "
            f"{co}; accepted are x channels = groups × {ci}, and a multiple of groups."
        )


def _grouped(x: Tensor, w: Tensor, groups: int) -> tuple[Tensor, Tensor]:
    """x as [n, *space, group, ci] and w as [*window, group, ci, co]; output channels are numbered group by group."""
    before, window, (ci, co) = x.node.shape[:-1], w.node.shape[:-2], w.node.shape[-2:]
    split = reshaped(x, (*before, groups, ci))
    if groups == 1:
        return split, reshaped(w, (*window, 1, ci, co))
    rank = len(window)
    parts = reshaped(w, (*window, ci, groups, co // groups))
    return split, permuted(parts, (*range(rank), rank + 1, rank, rank + 2))


def conv(
    x: Tensor, w: Tensor, *, stride: Sizes = 1, padding: Padding = "valid", dilation: Sizes = 1, groups: int = 1
) -> Tensor:
    """Slide `w` over the space and sum the products; any number of axes of space.

    x         [n, *space, ci]
    w         [*window, ci / groups, co]
    stride    places from one window to the next, one number or one per axis
    padding   zeros around: "valid" none, "same" for ceil(n / stride) windows, a number, or (before, after) per axis
    dilation  places from one element of the window to the next
    groups    channels are split into so many groups, each with windows of its own; ci groups make it depthwise
    returns   [n, *out, co]    out = (space + pads - (window - 1) dilation - 1) // stride + 1
    errors    ShapeError if channels do not fit
    """
    return _conv("conv", x, w, stride, padding, dilation, groups)


def _conv(who: str, x: Tensor, w: Tensor, stride: Sizes, padding: Padding, dilation: Sizes, groups: int) -> Tensor:
    rank = x.ndim - 2
    hops = stride if type(stride) is int else _each(who, "stride", stride, rank)
    gaps = dilation if type(dilation) is int else _each(who, "dilation", dilation, rank)
    pads = padding if type(padding) in (int, str) else _pairs(who, padding, rank)
    attrs = _geometry(who, x.node.shape, w.node.shape, hops, pads, gaps, groups)
    split, parts = _grouped(x, w, groups)
    y = apply("conv", split, call("astype", parts, x.dtype), **attrs)
    return reshaped(y, (*y.node.shape[:-2], w.node.shape[-1]))


@lru_cache(maxsize=4096, typed=True)  # typed: 1.0 and True equal 1
def _geometry(
    who: str, x: Shape, w: Shape, stride: Sizes, padding: Padding, dilation: Sizes, groups: int
) -> dict[str, Any]:
    """The attributes of the operation, if all fits: the same for all layers of a shape, and asked for at each call."""
    rank = len(x) - 2
    if len(w) != rank + 2:
        raise ShapeError(
            f"{who}: w has shape {w}; accepted is rank {len(x)} beside x of shape {x}: window, channels in, channels "
            "out."
        )
    space, size = x[1:-1], w[:-2]
    hops, gaps = _each(who, "stride", stride, rank), _each(who, "dilation", dilation, rank)
    pads = _pads(who, padding, space, size, hops, gaps)
    _check_fits(who, space, pads, _reach(who, size, gaps, rank))
    _check_channels(who, x, w, groups)
    return {"stride": hops, "pad": pads, "dilation": gaps, "spread": (1,) * rank}


def conv1d(
    x: Tensor, w: Tensor, *, stride: Sizes = 1, padding: Padding = "valid", dilation: Sizes = 1, groups: int = 1
) -> Tensor:
    """Slide `w` along the time and sum the products: `conv` with one axis of space.

    x        [n, t, ci]
    w        [k, ci / groups, co]
    returns  [n, to, co]
    errors   ShapeError if channels do not fit
    """
    check("x: n t ci, w: k cg co", "conv1d", x=x.shape, w=w.shape)
    return _conv("conv1d", x, w, stride, padding, dilation, groups)


def conv2d(
    x: Tensor, w: Tensor, *, stride: Sizes = 1, padding: Padding = "valid", dilation: Sizes = 1, groups: int = 1
) -> Tensor:
    """Slide `w` over the image and sum the products: `conv` with two axes of space.

    x        [n, h, w, ci]
    w        [kh, kw, ci / groups, co]
    returns  [n, ho, wo, co]
    errors   ShapeError if channels do not fit
    """
    check("x: n h w ci, w: kh kw cg co", "conv2d", x=x.shape, w=w.shape)
    return _conv("conv2d", x, w, stride, padding, dilation, groups)


def conv_transpose(
    x: Tensor,
    w: Tensor,
    *,
    stride: Sizes = 1,
    padding: Padding = "valid",
    dilation: Sizes = 1,
    groups: int = 1,
    output_padding: Sizes = 0,
) -> Tensor:
    """Stamp `w`, times each element of x, `stride` apart: the adjoint of `conv` in its input.

    x               [n, *space, ci]
    w               [*window, ci / groups, co]
    padding         places cut off around: "valid" none, "same" so that space · stride remain, a number, or pairs
    output_padding  places added at the end
    returns         [n, *out, co]    out = (space - 1) stride + (window - 1) dilation + 1 - pads + output_padding
    errors          ShapeError if channels do not fit
    """
    who, rank = "conv_transpose", x.ndim - 2
    hops, gaps = _each(who, "stride", stride, rank), _each(who, "dilation", dilation, rank)
    reach = _reach(who, w.shape[:rank], gaps, rank)
    extra = (output_padding,) * rank if isinstance(output_padding, int) else tuple(output_padding)
    if padding == "same":
        cut: Pads = tuple((max(m - h, 0) // 2, m - h - max(m - h, 0) // 2) for m, h in zip(reach, hops, strict=True))
    else:
        cut = _pads(who, padding, x.shape[1:-1], w.shape[:rank], hops, gaps)
    pads = tuple((m - 1 - low, m - 1 - high + e) for m, (low, high), e in zip(reach, cut, extra, strict=True))
    _check_channels(who, x.shape, w.shape, groups)
    split, parts = _grouped(x, flip(w, axis=tuple(range(rank))), groups)
    y = apply("conv", split, call("astype", parts, x.dtype), stride=(1,) * rank, pad=pads, dilation=gaps, spread=hops)
    return reshaped(y, (*y.shape[:-2], w.shape[-1]))


def conv_transpose2d(
    x: Tensor,
    w: Tensor,
    *,
    stride: Sizes = 1,
    padding: Padding = "valid",
    dilation: Sizes = 1,
    groups: int = 1,
    output_padding: Sizes = 0,
) -> Tensor:
    """`conv_transpose` of images.

    x        [n, h, w, ci]
    w        [kh, kw, ci / groups, co]
    returns  [n, ho, wo, co]
    """
    check("x: n h w ci, w: kh kw cg co", "conv_transpose2d", x=x.shape, w=w.shape)
    return conv_transpose(
        x, w, stride=stride, padding=padding, dilation=dilation, groups=groups, output_padding=output_padding
    )


def _windows(
    who: str, x: Tensor, size: Sizes, stride: Sizes | None, padding: Padding, dilation: Sizes, value: float
) -> tuple[Tensor, tuple[int, ...]]:
    """Windows of each channel, and the axes of the places in them: the last, or where they lie side by side others."""
    rank = x.ndim - 2
    sizes, gaps = _each(who, "size", size, rank), _each(who, "dilation", dilation, rank)
    hops = sizes if stride is None else _each(who, "stride", stride, rank)
    pads = _pads(who, padding, x.shape[1:-1], sizes, hops, gaps)
    _check_fits(who, x.shape[1:-1], pads, _reach(who, sizes, gaps, rank))
    if any(low or high for low, high in pads):
        low, high = zip((0, 0), *pads, (0, 0), strict=True)
        x = apply("pad", x, low=low, high=high, step=(1,) * x.ndim, value=value)
    if hops == sizes and gaps == (1,) * rank:
        return _blocks(x, sizes)
    channels_first = call("permute_dims", x, (0, rank + 1, *range(1, rank + 1)))
    views = apply("windows", channels_first, size=sizes, stride=hops, dilation=gaps)
    last = range(x.ndim, views.ndim)
    return call("permute_dims", views, (0, *range(2, rank + 2), 1, *last)), tuple(last)


def _blocks(x: Tensor, sizes: tuple[int, ...]) -> tuple[Tensor, tuple[int, ...]]:
    """Windows side by side: each axis of space as an axis of windows and one of places; what is over is cut off."""
    counts = [n // m for n, m in zip(x.shape[1:-1], sizes, strict=True)]
    stop = (x.shape[0], *(n * m for n, m in zip(counts, sizes, strict=True)), x.shape[-1])
    if stop != x.shape:
        x = apply("slice", x, start=(0,) * x.ndim, stop=stop, step=(1,) * x.ndim)
    pairs = [size for pair in zip(counts, sizes, strict=True) for size in pair]
    return call("reshape", x, (x.shape[0], *pairs, x.shape[-1])), tuple(range(2, 2 * len(sizes) + 1, 2))


def max_pool(
    x: Tensor, size: Sizes, *, stride: Sizes | None = None, padding: Padding = "valid", dilation: Sizes = 1
) -> Tensor:
    """The largest element of each window.

    x        [n, *space, c]
    size     of the window, one number or one per axis
    stride   places from one window to the next; `size` unless given
    padding  as for `conv`; what is added is smaller than everything
    returns  [n, *out, c]
    """
    lowest = float("-inf") if x.dtype.kind == "f" else -(1 << (8 * x.dtype.itemsize - 1)) if x.dtype.kind == "i" else 0
    views, axes = _windows("max_pool", x, size, stride, padding, dilation, lowest)
    return largest(views, axis=axes)


def avg_pool(
    x: Tensor, size: Sizes, *, stride: Sizes | None = None, padding: Padding = "valid", count_padding: bool = False
) -> Tensor:
    """The average of each window.

    x              [n, *space, c]
    size           of the window, one number or one per axis
    stride         places from one window to the next; `size` unless given
    count_padding  whether the zeros of the padding count
    returns        [n, *out, c]
    """
    views, axes = _windows("avg_pool", x, size, stride, padding, 1, 0.0)
    sums = total(views, axis=axes)
    if count_padding or padding in ("valid", 0):
        return sums * (1 / prod(views.shape[a] for a in axes))
    there = call("full", (1, *x.shape[1:-1], 1), 1.0, dtype=x.dtype)
    return sums / total(_windows("avg_pool", there, size, stride, padding, 1, 0.0)[0], axis=axes)


def global_avg_pool(x: Tensor, *, keepdims: bool = False) -> Tensor:
    """x[n, *space, c] -> [n, c], the average of each channel."""
    return mean(x, axis=tuple(range(1, x.ndim - 1)), keepdims=keepdims)


def global_max_pool(x: Tensor, *, keepdims: bool = False) -> Tensor:
    """x[n, *space, c] -> [n, c], the largest element of each channel."""
    return largest(x, axis=tuple(range(1, x.ndim - 1)), keepdims=keepdims)
