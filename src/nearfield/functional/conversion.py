"""Tensors from what Python has: numbers, nested lists, buffers, other libraries' arrays. And one dtype from another."""

import struct
from collections.abc import Iterator
from typing import Any

from ..dtype import DTYPES, DType, canonical, result_type
from ..errors import DTypeError, ShapeError
from ..ops.source import bits_of_number
from ..tensor import Tensor, apply, call, leaf, method, scalar

__all__ = ["asarray", "astype", "from_dlpack"]

_FORMATS = {(t.kind, t.itemsize): t for t in DTYPES.values()}
_KINDS = dict.fromkeys("bhilqn", "i") | dict.fromkeys("BHILQNc", "u") | dict.fromkeys("efd", "f") | {"?": "b"}
_NUMBERS = (bool, int, float)


@method
def asarray(x: Any, /, dtype: Any = None, *, device: str | None = None, copy: bool | None = None) -> Tensor:
    """The values of a number, nested lists, a buffer (NumPy array, bytes, array.array), a DLPack array or a Tensor.

    dtype    default: the buffer's own; of Python numbers bool, int32 or float32
    copy     buffers are always copied, Tensors never: nothing can change in either case
    errors   ShapeError if nested lists are ragged; DTypeError if elements are not numbers, or too large for the dtype
    """
    if type(x) is Tensor and dtype is None and device is None:
        return x
    wanted = None if dtype is None else canonical(dtype)
    made = _converted(x, wanted)
    made = made if wanted is None or made.dtype is wanted else astype(made, wanted)
    return made if device is None else call("to_device", made, device)


def _converted(x: Any, wanted: DType | None) -> Tensor:
    if isinstance(x, Tensor):
        return x
    if isinstance(x, _NUMBERS):
        return _from_number(x, wanted)
    if hasattr(x, "__array_interface__") or hasattr(x, "__array__"):
        return _from_numpy(x, wanted)
    if hasattr(x, "__dlpack__"):
        return from_dlpack(x)
    if hasattr(x, "to_py"):  # a typed array of JavaScript
        x = x.to_py()
    try:
        view = memoryview(x)
    except TypeError:
        return _from_lists(x, wanted)
    return _from_buffer(view)


def _from_number(x: Any, wanted: DType | None) -> Tensor:
    guess = DTYPES["bool" if isinstance(x, bool) else "int32" if isinstance(x, int) else "float32"]
    dtype = wanted or guess
    if dtype.kind in "iu":
        _check_whole(x, dtype)
    return scalar(x, dtype)


def _check_whole(x: Any, dtype: DType) -> None:
    bits = 8 * dtype.itemsize
    low, high = (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if dtype.kind == "i" else (0, (1 << bits) - 1)
    if not low <= x <= high:
        raise DTypeError(
            f"asarray: the number {x} does not fit dtype {dtype.name}; accepted are {low} … {high}. Give dtype= a "
            "larger type."
        )


def _from_numpy(x: Any, wanted: DType | None) -> Tensor:
    import numpy

    found = numpy.asarray(x)
    if found.dtype.kind in "OUSMmVc" or (wanted is None and found.dtype.name not in DTYPES):
        accepted = ", ".join(DTYPES)
        raise DTypeError(
            f"asarray: a NumPy array of dtype {found.dtype} is not accepted; accepted are {accepted}. Give dtype=."
        )
    dtype = wanted or canonical(found.dtype)
    return leaf(found.astype(dtype.name, order="C", copy=False).tobytes(), found.shape, dtype)


def _from_buffer(view: memoryview) -> Tensor:
    code = view.format.lstrip("@=<")
    dtype = _FORMATS.get((_KINDS.get(code, ""), view.itemsize))
    if dtype is None:
        accepted = ", ".join(DTYPES)
        raise DTypeError(
            f"asarray: a buffer of format {view.format!r} is not accepted; accepted are {accepted}. Convert it first."
        )
    return leaf(view.tobytes(), tuple(view.shape or ()), dtype)


def from_dlpack(x: Any, /, *, device: str | None = None, copy: bool | None = None) -> Tensor:
    """The values of another library's array, through the DLPack protocol (which needs NumPy)."""
    if isinstance(x, Tensor):
        return x
    import numpy

    return _from_numpy(numpy.from_dlpack(x), None)


def _from_lists(x: Any, wanted: DType | None) -> Tensor:
    if not isinstance(x, (list, tuple, range)):
        raise DTypeError(
            f"asarray: received a {type(x).__name__}; accepted are numbers, nested lists of numbers, buffers and "
            "arrays."
        )
    if _holds_arrays(x):
        return call("stack", [asarray(v, wanted) for v in x])
    shape = _shape_of(x)
    leaves = list(_leaves(x, len(shape)))
    dtype = wanted or _guess({type(v) for v in leaves})
    return leaf(_packed(leaves, dtype), shape, dtype)


def _packed(numbers: list[Any], dtype: DType) -> bytes:
    convert = {"f": float, "b": bool}.get(dtype.kind, int)
    try:
        return struct.pack(f"<{len(numbers)}{dtype.code}", *map(convert, numbers))
    except (struct.error, OverflowError, ValueError):  # too large: infinite as a real number, an error as a whole one
        for number in numbers if dtype.kind in "iu" else ():
            _check_whole(number, dtype)
        return b"".join(bits_of_number(number, dtype) for number in numbers)


def _holds_arrays(x: Any) -> bool:
    if isinstance(x, (list, tuple)):
        return any(_holds_arrays(v) for v in x)
    return hasattr(x, "shape") and hasattr(x, "dtype")


def _guess(types: set[type]) -> DType:
    wrong = [t.__name__ for t in types if t not in _NUMBERS]
    if wrong:
        raise DTypeError(f"asarray: an element is a {wrong[0]}; accepted are bool, int and float, or lists of them.")
    return DTYPES["float32" if float in types or not types else "int32" if int in types else "bool"]


def _shape_of(x: Any) -> tuple[int, ...]:
    if not isinstance(x, (list, tuple, range)):
        return ()
    shapes = {_shape_of(v): None for v in x} if not isinstance(x, range) else {(): None}
    if len(shapes) > 1:
        one, other, *_ = shapes
        raise ShapeError(
            f"asarray: nested lists are ragged: found shapes {one} and {other} side by side; accepted is one shape. "
            "Pad the shorter ones."
        )
    return (len(x), *next(iter(shapes), ()))


def _leaves(x: Any, depth: int) -> Iterator[Any]:
    if depth < 2:
        yield from x
    else:
        for v in x:
            yield from _leaves(v, depth - 1)


@method
def astype(x: Any, dtype: Any, /, *, copy: bool = True, device: str | None = None) -> Tensor:
    """The values as another dtype; reals lose their fraction on the way to integers, small integers wrap."""
    x, wanted = asarray(x), canonical(dtype)
    y = x if x.dtype is wanted else apply("cast", x, dtype=wanted)
    return y if device is None else call("to_device", y, device)


def promoted(who: str, arrays: Any) -> list[Tensor]:
    """The arrays in the dtype that all of theirs promote to.

    errors   ShapeError if there are none
    """
    tensors = [a if type(a) is Tensor else asarray(a) for a in arrays]
    if not tensors:
        raise ShapeError(f"{who}: received no arrays; accepted is at least one.")
    dtypes = [t.node.dtype for t in tensors]
    dtype = result_type(*dtypes)
    return tensors if dtypes.count(dtype) == len(dtypes) else [astype(t, dtype) for t in tensors]


@method
def alias(x: Tensor) -> Tensor:
    """The same values as a variable of their own, for differentiation."""
    return apply("identity", x)


@method
def stopped(x: Tensor) -> Tensor:
    """x as a constant: see `stop_gradient`."""
    return apply("stop_gradient", x)
