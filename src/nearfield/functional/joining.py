"""Arrays joined, taken apart, repeated and padded."""

import operator
from collections.abc import Sequence
from math import prod
from typing import Any

from ..errors import ShapeError
from ..op import REGISTRY
from ..shape import axis_of
from ..tensor import Tensor, apply, call, made, method
from .conversion import asarray, promoted
from .manipulation import broadcast_to, expand_dims, flatten, reshape, several, slice_axis

__all__ = ["concat", "pad", "repeat", "roll", "split", "stack", "tile", "unstack"]


@method
def concat(arrays: Any, /, *, axis: int | None = 0) -> Tensor:
    """The arrays one after the other along an axis; None: each flattened first. dtypes promote.

    errors   ShapeError if another axis differs
    """
    tensors = promoted("concat", arrays)
    if axis is None:
        tensors, axis = [flatten(t) for t in tensors], 0
    first = tensors[0].node.shape
    at = axis_of("concat", axis, len(first))
    others = first[:at] + first[at + 1 :]
    for t in tensors[1:]:
        shape = t.node.shape
        if len(shape) != len(first) or shape[:at] + shape[at + 1 :] != others:
            raise ShapeError(
                f"concat: shapes {first} and {shape} do not join along axis {at}; all other axes must be equal."
            )
    filled = [t for t in tensors if t.node.shape[at]] or tensors[:1]
    if len(filled) == 1:
        return filled[0]
    nodes = tuple([t.node for t in filled])
    shape = (*first[:at], sum([node.shape[at] for node in nodes]), *first[at + 1 :])
    return made(REGISTRY["concat"], nodes, {"axis": at}, shape, nodes[0].dtype)


@method
def stack(arrays: Any, /, *, axis: int = 0) -> Tensor:
    """The arrays, of one shape, side by side along a new axis."""
    tensors = promoted("stack", arrays)
    for t in tensors[1:]:
        if t.shape != tensors[0].shape:
            raise ShapeError(
                f"stack: shapes {tensors[0].shape} and {t.shape} differ; all must be equal. Use nf.concat, or pad."
            )
    at = axis_of("stack", axis, tensors[0].ndim + 1)
    return concat([expand_dims(t, at) for t in tensors], axis=at)


def unstack(x: Any, /, *, axis: int = 0) -> tuple[Tensor, ...]:
    """The slices of x along an axis, without that axis."""
    x = asarray(x)
    at = axis_of("unstack", axis, x.ndim)
    shape = (*x.shape[:at], *x.shape[at + 1 :])
    return tuple(reshape(slice_axis(x, at, i, i + 1), shape) for i in range(x.shape[at]))


def split(x: Any, parts: int | Sequence[int], /, *, axis: int = 0) -> tuple[Tensor, ...]:
    """x cut along an axis.

    parts    how many parts of equal size, or the size of each
    errors   ShapeError if they do not add up to the axis
    """
    x = asarray(x)
    at = axis_of("split", axis, x.ndim)
    n = x.shape[at]
    if isinstance(parts, int):
        sizes = (n // parts,) * parts if parts > 0 else ()
    else:
        sizes = tuple(parts)
    if sum(sizes) != n or min(sizes, default=0) < 0:
        raise ShapeError(
            f"split: axis {at} of {x.shape} has size {n}, which {parts} does not divide; sizes must add up to {n}."
        )
    ends = [sum(sizes[: i + 1]) for i in range(len(sizes))]
    return tuple(slice_axis(x, at, end - size, end) for size, end in zip(sizes, ends, strict=True))


def repeat(x: Any, repeats: Any, /, *, axis: int | None = None) -> Tensor:
    """Each element along an axis (None: of x flattened) several times.

    repeats  one number, or one per element along the axis (whose values are needed now)
    """
    x = asarray(x)
    x, at = (flatten(x), 0) if axis is None else (x, axis_of("repeat", axis, x.ndim))
    n = x.shape[at]
    if hasattr(repeats, "__index__") and not isinstance(repeats, Tensor):
        times = operator.index(repeats)
        spread = broadcast_to(expand_dims(x, at + 1), (*x.shape[: at + 1], times, *x.shape[at + 1 :]))
        return reshape(spread, (*x.shape[:at], n * times, *x.shape[at + 1 :]))
    counts = flatten(asarray(repeats)).tolist()
    if len(counts) not in (1, n):
        raise ShapeError(f"repeat: received {len(counts)} repeats for axis {at} of {x.shape}; accepted are 1 or {n}.")
    counts = counts * n if len(counts) == 1 else counts
    return call("take", x, [i for i, times in enumerate(counts) for _ in range(times)], axis=at)


def tile(x: Any, repetitions: Sequence[int], /) -> Tensor:
    """x laid side by side: repetitions[n] times along axis n; the shorter of both gets ones in front."""
    x = asarray(x)
    times = several(repetitions)
    rank = max(x.ndim, len(times))
    times = (1,) * (rank - len(times)) + times
    shape = (1,) * (rank - x.ndim) + x.shape
    apart = reshape(x, [m for n in shape for m in (1, n)])
    wide = broadcast_to(apart, [m for n, t in zip(shape, times, strict=True) for m in (t, n)])
    return reshape(wide, tuple(n * t for n, t in zip(shape, times, strict=True)))


def roll(x: Any, /, shift: int | Sequence[int], *, axis: int | Sequence[int] | None = None) -> Tensor:
    """x moved along axes (None: flattened), what leaves at the end coming in at the start."""
    x = asarray(x)
    if axis is None:
        return reshape(roll(reshape(x, (prod(x.shape),)), shift, axis=0), x.shape)
    axes = several(axis)
    shifts = several(shift) * len(axes) if hasattr(shift, "__index__") else several(shift)
    if len(shifts) != len(axes):
        raise ShapeError(f"roll: received {len(shifts)} shifts for {len(axes)} axes; accepted is one for each.")
    for a, by in zip(axes, shifts, strict=True):
        at = axis_of("roll", a, x.ndim)
        n = x.shape[at]
        if n and by % n:
            cut = n - by % n
            x = concat([slice_axis(x, at, cut, n), slice_axis(x, at, 0, cut)], axis=at)
    return x


def pad(x: Any, widths: Any, /, *, value: Any = 0) -> Tensor:
    """x with a border of one value.

    widths   elements added before and after: one number, (before, after), or one such pair for each axis
    """
    x = asarray(x)
    pairs = _widths(widths, x.ndim)
    low, high = tuple(a for a, _ in pairs), tuple(b for _, b in pairs)
    if not any((*low, *high)):
        return x
    return apply("pad", x, low=low, high=high, step=(1,) * x.ndim, value=_fill(value, x))


def _fill(value: Any, x: Tensor) -> Any:
    return bool(value) if x.dtype.kind == "b" else float(value) if x.dtype.kind == "f" else int(value)


def _widths(widths: Any, rank: int) -> list[tuple[int, int]]:
    if isinstance(widths, int):
        found: list[Any] = [(widths, widths)] * rank
    elif all(isinstance(w, int) for w in widths) and len(widths) == 2:
        found = [tuple(widths)] * rank
    else:
        found = [(w, w) if isinstance(w, int) else tuple(w) for w in widths]
    if len(found) != rank or any(len(w) != 2 or min(w) < 0 for w in found):
        raise ShapeError(
            f"pad: widths {widths} for an array of rank {rank}; accepted are a number, a pair, or a pair for each "
            "axis, 0 or more."
        )
    return found
