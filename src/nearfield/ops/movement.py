"""Movement: elements change place, none is computed. A row is an index map: which input element lands at an index."""

from collections.abc import Callable
from math import nan, prod
from typing import Any

from .. import scalar as k
from ..dtype import DType
from ..index import reindex
from ..op import Op, Source, np
from ..scalar import K
from ..tensor import apply, call
from .define import narrow, record

__all__ = ["movement"]

ZERO = k.const(0, "index")


def movement(
    *, shape: Callable[..., Any], ref: Callable[..., Any], grad: Callable[..., Any], samples: Any = ()
) -> Callable[[Callable[..., list[K]]], Op]:
    """From (index, input shape, attributes) -> input index, and `shape`: (input shape, attributes) -> output shape."""

    def decorate(body: Callable[..., list[K]]) -> Op:
        name = body.__name__.rstrip("_")

        def infer(shapes: Any, dtypes: list[DType], attrs: Any) -> Any:
            return shape(shapes[0], **attrs), dtypes[0]

        def element(index: list[K], sources: list[Source], shape: Any, dtype: DType, attrs: Any) -> K:
            return sources[0].at(body(index, sources[0].shape, **attrs))

        def meaning(x: Any, *, dtype: DType, **attrs: Any) -> Any:
            return ref(x, **attrs)

        return record(name, "movement", 1, infer, element, meaning, grad, body.__doc__ or "", samples, 0.0, body=body)

    return decorate


@movement(
    shape=lambda s, shape: shape, ref=lambda x, shape: np.reshape(x, shape),
    grad=lambda g, x, y, shape: (call("reshape", g, x.shape),),
)  # fmt: skip
def reshape(i: list[K], s: Any, shape: Any) -> list[K]:
    """The same elements in row-major order, in another shape."""
    return reindex(i, shape, s)


@movement(
    shape=lambda s, axes: tuple(s[a] for a in axes), ref=lambda x, axes: np.transpose(x, axes),
    grad=lambda g, x, y, axes: (apply("permute", g, axes=tuple(axes.index(a) for a in range(len(axes)))),),
)  # fmt: skip
def permute(i: list[K], s: Any, axes: Any) -> list[K]:
    """Axes in another order: axis n of the result is axis axes[n] of the input."""
    return [i[axes.index(a)] for a in range(len(s))]


@movement(
    shape=lambda s, shape: shape, ref=lambda x, shape: np.broadcast_to(x, shape),
    grad=lambda g, x, y, shape: (apply("sum", g, axes=tuple(a for a, n in enumerate(x.shape) if n != shape[a])),),
)  # fmt: skip
def expand(i: list[K], s: Any, shape: Any) -> list[K]:
    """Axes of size 1 repeated to the sizes of `shape` (of the same rank)."""
    return [ZERO if n == 1 else v for v, n in zip(i, s, strict=True)]


def _slice_size(start: int, stop: int, step: int) -> int:
    return len(range(start, stop, step))


def _slice_grad(g: Any, x: Any, y: Any, start: Any, stop: Any, step: Any) -> Any:
    """Put g back where it was taken from: turn the axes that ran backwards, then pad."""
    if any(s < 0 for s in step):
        turned = tuple(n - 1 if s < 0 else 0 for n, s in zip(g.shape, step, strict=True))
        ends = tuple(-1 if s < 0 else n for n, s in zip(g.shape, step, strict=True))
        g = apply("slice", g, start=turned, stop=ends, step=tuple(-1 if s < 0 else 1 for s in step))
    low, high, hop = [], [], []
    for n, m, b, s in zip(x.shape, g.shape, start, step, strict=True):
        first = b if s > 0 else b + (m - 1) * s
        low.append(first)
        hop.append(abs(s))
        high.append(n - first - ((m - 1) * abs(s) + 1 if m else 0))
    return (apply("pad", g, low=tuple(low), high=tuple(high), step=tuple(hop), value=0.0),)


@movement(
    shape=lambda s, start, stop, step: tuple(map(_slice_size, start, stop, step)),
    ref=lambda x, start, stop, step: x[
        tuple(slice(b, e if e >= 0 else None, s) for b, e, s in zip(start, stop, step, strict=True))
    ],
    grad=_slice_grad,
)
def slice_(i: list[K], s: Any, start: Any, stop: Any, step: Any) -> list[K]:
    """Every step-th element from start to stop (exclusive; -1 for "before the first" of a negative step)."""
    return [v * h + b for v, h, b in zip(i, step, start, strict=True)]


def _pad_shape(s: Any, low: Any, high: Any, step: Any) -> Any:
    return tuple(b + ((n - 1) * h + 1 if n else 0) + e for n, b, e, h in zip(s, low, high, step, strict=True))


def _pad_element(index: list[K], sources: list[Source], shape: Any, dtype: DType, attrs: Any) -> K:
    low, step, source = attrs["low"], attrs["step"], sources[0]
    mask = k.const(True, "bool")
    inner = []
    for v, n, b, h in zip(index, source.shape, low, step, strict=True):
        q = v - b
        mask = mask & k.less_equal(ZERO, q) & k.less(q, k.const((n - 1) * h + 1 if n else 0, "index"))
        if h > 1:
            mask = mask & k.equal(q % h, ZERO)
            q = q // h
        inner.append(q)
    value = source.at(inner, mask)
    return k.select(mask, value, k.const(attrs["value"], value.type))


def _pad_ref(x: Any, dtype: DType, low: Any, high: Any, step: Any, value: float) -> Any:
    y = np.full(_pad_shape(x.shape, low, high, step), value, x.dtype)
    y[tuple(slice(b, b + (n - 1) * h + 1 if n else b, h) for n, b, h in zip(x.shape, low, step, strict=True))] = x
    return y


def _pad_grad(g: Any, x: Any, y: Any, low: Any, high: Any, step: Any, value: float) -> Any:
    stop = tuple(b + (n - 1) * h + 1 if n else b for n, b, h in zip(x.shape, low, step, strict=True))
    return (apply("slice", g, start=low, stop=stop, step=step),)


def _pad_infer(shapes: Any, dtypes: Any, attrs: dict[str, Any]) -> Any:
    if attrs["value"] != attrs["value"]:
        attrs["value"] = nan  # one object: a NaN equals no other, and Programs are found by equality
    return _pad_shape(shapes[0], attrs["low"], attrs["high"], attrs["step"]), dtypes[0]


record(
    "pad", "movement", 1, _pad_infer, _pad_element,
    _pad_ref, _pad_grad, "Elements `step` apart, with `low` values before and `high` after along each axis.", tol=0.0,
)  # fmt: skip


def _concat_infer(shapes: Any, dtypes: Any, attrs: Any) -> Any:
    axis = attrs["axis"]
    return (*shapes[0][:axis], sum([s[axis] for s in shapes]), *shapes[0][axis + 1 :]), dtypes[0]


def _concat_element(index: list[K], sources: list[Source], shape: Any, dtype: DType, attrs: Any) -> K:
    axis, end = attrs["axis"], shape[attrs["axis"]]
    value: K | None = None
    for source in reversed(sources):
        start = end - source.shape[axis]
        here = index[axis]
        mask = k.less_equal(k.const(start, "index"), here) & k.less(here, k.const(end, "index"))
        part = source.at([*index[:axis], here - start, *index[axis + 1 :]], mask)
        value = part if value is None else k.select(mask, part, value)
        end = start
    assert value is not None
    return value


def _concat_grad(g: Any, *inputs: Any, axis: int) -> Any:
    parts, begin = [], 0
    for x in inputs[:-1]:
        start, stop = [0] * x.ndim, list(g.shape)
        start[axis], stop[axis] = begin, begin + x.shape[axis]
        begin = stop[axis]
        parts.append(apply("slice", g, start=tuple(start), stop=tuple(stop), step=(1,) * x.ndim))
    return tuple(parts)


record(
    "concat", "movement", -1, _concat_infer, _concat_element, lambda *xs, dtype, axis: np.concatenate(xs, axis),
    _concat_grad, "Arrays one after the other along an axis.", tol=0.0,
)  # fmt: skip


def _windows_shape(s: Any, size: Any, stride: Any, dilation: Any) -> Any:
    lead = s[: len(s) - len(size)]
    out = tuple(
        (n - (m - 1) * d - 1) // h + 1 for n, m, h, d in zip(s[len(lead) :], size, stride, dilation, strict=True)
    )
    return (*lead, *out, *size)


def _windows_ref(x: Any, size: Any, stride: Any, dilation: Any) -> Any:
    n = len(size)
    reach = tuple((m - 1) * d + 1 for m, d in zip(size, dilation, strict=True))
    y = np.lib.stride_tricks.sliding_window_view(x, reach, axis=tuple(range(x.ndim - n, x.ndim)))
    lead = (slice(None),) * (x.ndim - n)
    return y[(*lead, *(slice(None, None, h) for h in stride), *(slice(None, None, d) for d in dilation))]


@movement(
    shape=_windows_shape, ref=_windows_ref,
    grad=lambda g, x, y, size, stride, dilation: (
        apply("unwindow", g, shape=x.shape, size=size, stride=stride, dilation=dilation),
    ),
)  # fmt: skip
def windows(i: list[K], s: Any, size: Any, stride: Any, dilation: Any) -> list[K]:
    """All windows of the last axes: [..., h, w] becomes [..., window row, window column, row in it, column in it]."""
    n, lead = len(size), len(s) - len(size)
    return [*i[:lead], *(i[lead + a] * stride[a] + i[lead + n + a] * dilation[a] for a in range(n))]


def _unwindow_element(index: list[K], sources: list[Source], shape: Any, dtype: DType, attrs: Any) -> K:
    """Gather from each window that an element is in: position = window × stride + place × dilation."""
    size, stride, dilation = attrs["size"], attrs["stride"], attrs["dilation"]
    n, source = len(size), sources[0]
    lead = len(shape) - n
    mask = k.const(True, "bool")
    places, starts = [], []
    for a in range(n):
        place = k.fresh("w", size[a])
        q = index[lead + a] - place * dilation[a]
        mask = mask & k.less_equal(ZERO, q) & k.less(q, k.const((source.shape[lead + a] - 1) * stride[a] + 1, "index"))
        mask = mask & k.equal(q % stride[a], ZERO)
        places.append(place)
        starts.append(q // stride[a])
    value = source.at([*index[:lead], *starts, *places], mask)
    return narrow(k.reduce("sum", tuple(places), k.select(mask, value, k.const(0, value.type))), dtype)


def _unwindow_ref(g: Any, dtype: DType, shape: Any, size: Any, stride: Any, dilation: Any) -> Any:
    y = np.zeros(shape, "float32" if g.dtype.name == "float16" else g.dtype)
    n = len(size)
    lead = (slice(None),) * (len(shape) - n)
    for flat in range(prod(size)):
        place = np.unravel_index(flat, size)
        target = tuple(
            slice(int(p) * d, int(p) * d + (m - 1) * h + 1, h)
            for p, d, m, h in zip(place, dilation, g.shape[len(lead) : len(lead) + n], stride, strict=True)
        )
        y[(*lead, *target)] += g[(*lead, *(slice(None),) * n, *place)]
    return y.astype(dtype.name)


record(
    "unwindow", "reduction", 1, lambda shapes, dtypes, a: (a["shape"], dtypes[0]), _unwindow_element, _unwindow_ref,
    lambda g, x, y, shape, size, stride, dilation: (apply("windows", g, size=size, stride=stride, dilation=dilation),),
    "The sum of overlapping windows: the adjoint of `windows`.", tol=1e-5,
)  # fmt: skip
