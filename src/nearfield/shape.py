"""Shapes: broadcasting, axes, and shape signatures such as "x: n n_in, weight: n_in n_out -> n n_out".

source  Python array API standard 2024.12, "Broadcasting"
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from operator import index
from typing import Any

from .errors import AxisError, ShapeError

__all__ = ["Shape", "axes_of", "axis_of", "broadcast", "check", "is_shape", "sizes_of"]

Shape = tuple[int, ...]


@lru_cache(maxsize=4096)
def broadcast(who: str, *shapes: Shape) -> Shape:
    """The shape that all the shapes broadcast to.

    errors   ShapeError naming the first axis (from the right) that does not fit
    """
    rank = max(map(len, shapes))
    result = []
    for axis in range(-rank, 0):
        sizes = [s[axis] for s in shapes if len(s) >= -axis]
        size = next((n for n in sizes if n != 1), 1)
        if any(n not in (1, size) for n in sizes):
            listed = " and ".join(map(str, shapes))
            raise ShapeError(
                f"{who}: shapes {listed} do not broadcast: axis {axis} has sizes {' and '.join(map(str, sizes))}; "
                f"sizes must be equal or 1. Reshape one of them."
            )
        result.append(size)
    return tuple(result)


def is_shape(x: Any) -> bool:
    """Whether it is a tuple of sizes, as most shapes are that are given."""
    return type(x) is tuple and not [n for n in x if type(n) is not int or n < 0]


def sizes_of(who: str, shape: Any) -> Shape:
    """A shape from one size or several.

    errors   ShapeError for what is no shape, or has a negative size
    """
    if is_shape(shape):
        checked: Shape = shape
        return checked
    many = isinstance(shape, Iterable) and not isinstance(shape, str) and getattr(shape, "ndim", 1) != 0
    sizes = tuple(shape) if many else (shape,)
    if not all(hasattr(n, "__index__") for n in sizes):
        raise ShapeError(f"{who}: shape is {shape!r}; accepted are an integer, or a list or tuple of integers.")
    if any(index(n) < 0 for n in sizes):
        raise ShapeError(f"{who}: shape {sizes} has a negative size; accepted are 0 and more.")
    return tuple(index(n) for n in sizes)


def axis_of(who: str, axis: int, rank: int) -> int:
    """`axis` counted from 0.

    errors   AxisError if it is not in -rank … rank - 1
    """
    if type(axis) is int and 0 <= axis < rank:
        return axis
    if not hasattr(axis, "__index__"):
        raise AxisError(f"{who}: axis is {axis!r}; accepted are integers.")
    if not -rank <= axis < rank:
        raise AxisError(
            f"{who}: axis {axis} is out of range for an array of rank {rank}; accepted are {-rank} … {rank - 1}."
        )
    return axis % rank


def axes_of(who: str, axis: int | Sequence[int] | None, rank: int) -> Shape:
    """The axes meant by one axis, several, or None for all; counted from 0, sorted.

    errors   AxisError for one that is out of range or named twice
    """
    if axis is None:
        return tuple(range(rank))
    if type(axis) is int:
        return (axis_of(who, axis, rank),)
    axes = tuple(axis_of(who, a, rank) for a in (axis if isinstance(axis, (list, tuple)) else (axis,)))
    if len(set(axes)) != len(axes):
        raise AxisError(f"{who}: axis {axis} names an axis twice; each axis may be named once.")
    return tuple(sorted(axes))


@lru_cache(maxsize=256)
def _parse(signature: str) -> tuple[tuple[str, tuple[str, ...]], ...]:
    left = signature.split("->", maxsplit=1)[0]
    parts = (part.split(":") for part in left.split(","))
    return tuple((name.strip(), tuple(axes.split())) for name, axes in parts)


def check(signature: str, who: str, **shapes: Shape) -> Mapping[str, int]:
    """The size of each named axis, when the shapes agree with the signature; "..." is any number of axes in front.

    errors   ShapeError naming the axis, in the words of the function `who`
    """
    return _checked(signature, who, tuple(shapes.items()))


@lru_cache(maxsize=4096)
def _checked(signature: str, who: str, shapes: tuple[tuple[str, Shape], ...]) -> Mapping[str, int]:
    sizes: dict[str, int] = {}
    origin: dict[str, str] = {}
    given = dict(shapes)
    for name, axes in _parse(signature):
        shape = given[name]
        named = axes[1:] if axes and axes[0] == "..." else axes
        if len(shape) < len(named) or (named is axes and len(shape) != len(axes)):
            raise ShapeError(
                f"{who}: {name} has shape {shape}, of rank {len(shape)}; accepted is [{', '.join(axes)}]. "
                f"Reshape {name}."
            )
        for axis, size in zip(named, shape[len(shape) - len(named) :], strict=True):
            here = f"{name}{list(shape)}"
            if axis.isdigit():
                sizes.setdefault(axis, int(axis))
                origin.setdefault(axis, "the signature")
            if sizes.setdefault(axis, size) != size:
                raise ShapeError(
                    f"{who}: axis '{axis}' is {size} in {here} but {sizes[axis]} in {origin[axis]}; they must be equal."
                )
            origin.setdefault(axis, here)
    return sizes
