"""x[key]: numbers, slices, new axes, masks and arrays of positions, by NumPy's rules.

source  NumPy user guide, "Indexing on ndarrays"; Python array API standard 2024.12, "Indexing"
"""

import operator
from array import array
from itertools import compress
from math import prod
from typing import Any

from ..errors import AxisError, DTypeError, ShapeError
from ..ops import movement
from ..ops.arithmetic import less, where
from ..shape import broadcast
from ..tensor import Tensor, apply, made, method
from .conversion import asarray, astype
from .manipulation import broadcast_to, permute_dims, reshape, reshaped

__all__ = ["nonzero"]

Extent = tuple[int, int, int, int]  # start, stop and step along an axis, and how many elements that takes


def read(x: Tensor) -> memoryview:
    """The values now, as bytes."""
    return x._bytes()


def int32(values: Any) -> Tensor:
    """A vector of whole numbers from Python."""
    return asarray(list(values), "int32")


def true_positions(mask: Tensor) -> list[int]:
    """Where a mask is true, counted in row-major order; its values are needed now."""
    return list(compress(range(mask.size), read(mask)))


def nonzero(x: Any, /) -> tuple[Tensor, ...]:
    """Where x is not 0: for each axis, the positions (int32). Their number depends on the values, which are needed now.

    errors   ShapeError for a scalar; TraceError inside `nf.jit`
    """
    x = asarray(x)
    if x.ndim == 0:
        raise ShapeError("nonzero: received a scalar; accepted is rank 1 and more. Reshape it to (1,).")
    flat = int32(true_positions(x if x.dtype.kind == "b" else x != 0))
    found = []
    for n in reversed(x.shape):
        found.append(flat % n if n else flat)
        flat = flat // n if n else flat
    return tuple(reversed(found))


def positions(who: str, index: Any, n: int) -> Tensor:
    """Positions along an axis of size n as int32 from 0, negative ones counted from the end.

    errors   DTypeError if they are not whole; AxisError if values known now are out of range
    """
    i = asarray(index)
    if i.size == 0 and not isinstance(index, Tensor):
        i = reshape(asarray(array("i")), i.shape)
    if i.dtype.kind not in "iu":
        raise DTypeError(f"{who}: positions have dtype {i.dtype.name}; accepted are integers. Convert with nf.astype.")
    if i.size and not n:
        raise AxisError(f"{who}: {i.size} positions along an axis of size 0; accepted are none.")
    value = i.node.value
    if isinstance(value, (bytes, bytearray, memoryview)) and i.size:  # known now
        numbers = memoryview(value).cast("B").cast(i.dtype.code)
        low, high = min(numbers), max(numbers)
        _check_range(who, low if low < -n else high, n)
        if low < 0 or i.dtype.name != "int32":
            return reshape(asarray(array("i", [k + n if k < 0 else k for k in numbers])), i.shape)
        return i
    i = astype(i, "int32")
    return i if asarray(index).dtype.kind == "u" else where(less(i, 0), i + n, i)


def _check_range(who: str, i: int, n: int) -> None:
    if not -n <= i < n:
        accepted = f"accepted are {-n} … {n - 1}" if n else "accepted are none"
        raise AxisError(f"{who}: position {i} is out of range for an axis of size {n}; {accepted}.")


class _Plan:
    """A key, item by item: what is cut (`slice`), how the result is shaped, and which axes positions choose from.

    extents   the cut along each axis of x
    shape     after the cut: numbers taken out, new axes put in
    chosen    (axis in `shape`, positions) for each array in the key
    advanced  the places of arrays and numbers in the key: if they are neighbours, the chosen axes stay there
    """

    def __init__(self) -> None:
        self.extents: list[Extent] = []
        self.shape: list[int] = []
        self.chosen: list[tuple[int, Any]] = []
        self.advanced: list[int] = []
        self.first: int | None = None

    def at(self, place: int) -> None:
        self.advanced.append(place)
        self.first = len(self.shape) if self.first is None else self.first


def _items(key: Any) -> list[Any]:
    items = list(key) if isinstance(key, tuple) else [key]
    return [asarray(i) if _is_array(i) else i for i in items]


def _is_array(item: Any) -> bool:
    if isinstance(item, (list, tuple, range)):
        return True
    return (
        hasattr(item, "shape")
        and hasattr(item, "dtype")
        and not (item.shape == () and hasattr(item, "__index__") and not isinstance(item, Tensor))
    )


def _consumes(item: Any) -> int:
    if item is None or isinstance(item, bool):
        return 0
    return item.ndim if isinstance(item, Tensor) and item.dtype.kind == "b" else 1


def _complete(items: list[Any], x: Tensor) -> list[Any]:
    """The items with "..." written out, or added at the end."""
    dots = [i for i, item in enumerate(items) if item is Ellipsis]
    if len(dots) > 1:
        raise AxisError("getitem: '...' stands twice in the key; accepted is once.")
    used = sum(_consumes(item) for item in items if item is not Ellipsis)
    if used > x.ndim:
        raise AxisError(
            f"getitem: the key has {used} indices for an array of rank {x.ndim}; accepted are at most {x.ndim}."
        )
    at = dots[0] if dots else len(items)
    return [*items[:at], *[slice(None)] * (x.ndim - used), *items[at + 1 :]]


def _plan(x: Tensor, items: list[Any]) -> _Plan:
    plan, axis = _Plan(), 0
    for place, item in enumerate(items):
        n = x.shape[axis] if axis < x.ndim else 0
        if item is None:
            plan.shape.append(1)
        elif isinstance(item, bool):
            plan.at(place)
            plan.chosen.append((len(plan.shape), [0] * item))
            plan.shape.append(1)
        elif isinstance(item, slice):
            plan.extents.append(_extent(item, n))
            plan.shape.append(plan.extents[-1][3])
            axis += 1
        elif isinstance(item, Tensor):
            plan.at(place)
            axis = _plan_array(plan, x, axis, item)
        else:
            plan.at(place)
            plan.extents.append(_extent(item, n))
            axis += 1
    return plan


def _extent(item: Any, n: int) -> Extent:
    """What a slice or a number takes from n elements."""
    if type(item) is slice:
        start, stop, step = item.indices(n)
        size = len(range(start, stop, step))
        return (start, stop, step, size) if size else (0, 0, 1, 0)
    if type(item) is int and 0 <= item < n:
        return item, item + 1, 1, 1
    try:
        i = operator.index(item)
    except TypeError:
        raise AxisError(
            f"getitem: a key of type {type(item).__name__} is not accepted; accepted are integers, slices, '...', "
            "None, and arrays of "
            "integers or bools."
        ) from None
    _check_range("getitem", i, n)
    return i % n, i % n + 1, 1, 1


def _plan_array(plan: _Plan, x: Tensor, axis: int, item: Tensor) -> int:
    """Positions choose from one axis; a mask of rank r becomes positions in r axes joined into one."""
    if item.dtype.kind != "b":
        n = x.shape[axis]
        plan.extents.append((0, n, 1, n))
        plan.chosen.append((len(plan.shape), positions("getitem", item, n)))
        plan.shape.append(n)
        return axis + 1
    sizes = x.shape[axis : axis + item.ndim]
    if sizes != item.shape:
        raise AxisError(
            f"getitem: a mask of shape {item.shape} does not fit axes of sizes {sizes} of {x.shape}; they must be "
            "equal."
        )
    plan.extents += [(0, n, 1, n) for n in sizes]
    plan.chosen.append((len(plan.shape), true_positions(item)))
    plan.shape.append(prod(sizes))
    return axis + item.ndim


@method
def getitem(x: Tensor, key: Any) -> Tensor:
    """The part of x that the key names: see the top of this file.

    errors   AxisError if a number is out of range; ShapeError if arrays of positions do not broadcast
    """
    items = key if type(key) is tuple else (key,)
    if len(items) <= x.ndim and not [item for item in items if type(item) is not slice and type(item) is not int]:
        return _cut_out(x, items)
    plan = _plan(x, _complete(_items(key), x))
    x = reshaped(_sliced(x, plan.extents), tuple(plan.shape))
    if not plan.chosen:
        return x
    a = plan.advanced
    together = a == list(range(a[0], a[0] + len(a)))
    return _choose(x, plan.chosen, plan.first if together and plan.first is not None else 0)


def _cut_out(x: Tensor, items: tuple[Any, ...]) -> Tensor:
    """The part that slices and numbers name, as in most keys: no `_Plan` is needed."""
    extents, shape = [], []
    sizes = x.node.shape
    for axis, item in enumerate(items):
        extent = _extent(item, sizes[axis])
        extents.append(extent)
        if type(item) is slice:
            shape.append(extent[3])
    for n in sizes[len(items) :]:
        extents.append((0, n, 1, n))
        shape.append(n)
    return reshaped(_sliced(x, extents), tuple(shape))


def _sliced(x: Tensor, extents: list[Extent]) -> Tensor:
    """x cut along each axis."""
    node = x.node
    start, stop, step, sizes = zip(*extents) if extents else ((),) * 4  # noqa: B905 - all are fours
    if sizes == node.shape and step.count(1) == len(step):
        return x
    return made(movement.slice_, (node,), {"start": start, "stop": stop, "step": step}, sizes, node.dtype)


def _choose(x: Tensor, chosen: list[tuple[int, Any]], target: int) -> Tensor:
    """The chosen axes joined into one in front, positions combined, taken; the result's axes stand at `target`."""
    axes = [axis for axis, _ in chosen]
    arrays = [i if isinstance(i, Tensor) else int32(i) for _, i in chosen]
    shape = broadcast("getitem", *(i.shape for i in arrays))
    rest = [a for a in range(x.ndim) if a not in axes]
    flat, stride = None, 1
    for axis, i in zip(reversed(axes), reversed(arrays), strict=True):
        part = i if stride == 1 else i * stride
        flat = part if flat is None else flat + part
        stride *= x.shape[axis]
    assert flat is not None
    order = [*rest[:target], *axes, *rest[target:]]
    kept = [x.shape[a] for a in rest]
    joined = reshape(permute_dims(x, order), (*kept[:target], stride, *kept[target:]))
    return apply("take", joined, broadcast_to(flat, shape), axis=target)
