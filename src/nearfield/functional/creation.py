"""Arrays from Python numbers, buffers and patterns."""

import struct
from typing import Any

from ..dtype import DTYPES, DType, canonical, result_type
from ..errors import DTypeError, ShapeError
from ..ops.arithmetic import where
from ..tensor import Tensor, apply, call, leaf, method, scalar

__all__ = ["alias", "arange", "asarray", "astype", "full", "full_like", "ones", "ones_like", "zeros", "zeros_like"]

_FORMATS = {t.code: t for t in DTYPES.values()} | {"l": DTYPES["int64"], "L": DTYPES["uint32"]}


@method
def asarray(x: Any, dtype: Any = None, *, device: str | None = None, copy: bool | None = None) -> Tensor:
    """The values of a number, nested lists, a buffer (NumPy array, bytes, array.array), a DLPack array or a Tensor.

    dtype    default: the buffer's own; of Python numbers bool, int32 or float32
    errors   ShapeError if nested lists are ragged; DTypeError if the elements are not numbers
    """
    wanted = None if dtype is None else canonical(dtype)
    if isinstance(x, Tensor):
        return x if wanted is None or wanted is x.dtype else astype(x, wanted)
    if isinstance(x, (bool, int, float)):
        kind = DTYPES["bool" if isinstance(x, bool) else "int32" if isinstance(x, int) else "float32"]
        return scalar(x, wanted or kind)
    if hasattr(x, "__array_interface__"):
        return _from_numpy(x, wanted)
    try:
        view = memoryview(x)
    except TypeError:
        view = None
    if view is not None:
        return _from_buffer(view, wanted)
    if hasattr(x, "__dlpack__"):
        import numpy

        return _from_numpy(numpy.from_dlpack(x), wanted)
    return _from_lists(x, wanted)


def _from_numpy(x: Any, wanted: DType | None) -> Tensor:
    import numpy

    x = numpy.asarray(x)
    if wanted is None and x.dtype.name not in DTYPES:
        canonical(x.dtype)
    found = numpy.ascontiguousarray(x, wanted.name if wanted else None)
    return leaf(found.tobytes(), x.shape, wanted or canonical(x.dtype))


def _from_buffer(view: memoryview, wanted: DType | None) -> Tensor:
    code = view.format.lstrip("@=<")
    dtype = _FORMATS.get(code)
    if dtype is not None and dtype.itemsize != view.itemsize:  # "l" and "L" are 4 or 8 bytes, by platform
        dtype = {("i", 4): DTYPES["int32"], ("i", 8): DTYPES["int64"], ("u", 4): DTYPES["uint32"]}.get((dtype.kind, view.itemsize))
    if dtype is None:
        raise DTypeError(f"asarray: a buffer of format {view.format!r} is not accepted; accepted are {', '.join(DTYPES)}.")
    made = leaf(view.tobytes(), tuple(view.shape or ()), dtype)
    return made if wanted is None or wanted is dtype else astype(made, wanted)


def _from_lists(x: Any, wanted: DType | None) -> Tensor:
    leaves: list[Any] = []
    shape = _shape_of(x, leaves)
    if any(isinstance(v, Tensor) for v in leaves):
        return call("reshape", call("stack", [call("asarray", v) for v in leaves]), shape)  # type: ignore[no-any-return]
    kinds = {type(v) for v in leaves}
    if not kinds <= {bool, int, float}:
        try:
            leaves = [v.item() for v in leaves]
        except AttributeError:
            wrong = next(t.__name__ for t in kinds if t not in (bool, int, float))
            raise DTypeError(f"asarray: an element is a {wrong}; accepted are bool, int and float, or lists of them.") from None
        kinds = {type(v) for v in leaves}
    guess = "float32" if float in kinds or not kinds else "int32" if int in kinds else "bool"
    dtype = wanted or DTYPES[guess]
    convert = {"f": float, "b": bool}.get(dtype.kind, int)
    try:
        data = struct.pack(f"<{len(leaves)}{dtype.code}", *map(convert, leaves))
    except (struct.error, OverflowError) as error:
        raise DTypeError(f"asarray: a value does not fit dtype {dtype.name}: {error}; give dtype= a larger type.") from None
    return leaf(data, shape, dtype)


def _shape_of(x: Any, leaves: list[Any]) -> tuple[int, ...]:
    if isinstance(x, (list, tuple, range)):
        shapes = [_shape_of(v, leaves) for v in x]
        if any(s != shapes[0] for s in shapes):
            raise ShapeError(f"asarray: nested lists are ragged: found shapes {shapes[0]} and {next(s for s in shapes if s != shapes[0])}.")
        return (len(x), *(shapes[0] if shapes else ()))
    leaves.append(x)
    return x.shape if isinstance(x, Tensor) and x.shape == () else ()


@method
def astype(x: Tensor, dtype: Any, *, copy: bool = True) -> Tensor:
    """The values as another dtype; reals lose their fraction on the way to integers, small integers wrap."""
    wanted = canonical(dtype)
    return x if x.dtype is wanted else apply("cast", x, dtype=wanted)


@method
def alias(x: Tensor) -> Tensor:
    """The same values as a variable of their own, for differentiation."""
    return apply("identity", x)


@method
def stopped(x: Tensor) -> Tensor:
    """x as a constant: see `stop_gradient`."""
    return apply("stop_gradient", x)


def _shape(shape: Any) -> tuple[int, ...]:
    return (int(shape),) if isinstance(shape, int) else tuple(int(n) for n in shape)


@method
def full(shape: Any, fill_value: float | Tensor, *, dtype: Any = None, device: str | None = None) -> Tensor:
    """An array of one value everywhere."""
    value = asarray(fill_value, dtype)
    return call("broadcast_to", value, _shape(shape))  # type: ignore[no-any-return]


def zeros(shape: Any, *, dtype: Any = "float32", device: str | None = None) -> Tensor:
    """An array of zeros."""
    return full(shape, 0, dtype=dtype or "float32")


def ones(shape: Any, *, dtype: Any = "float32", device: str | None = None) -> Tensor:
    """An array of ones."""
    return full(shape, 1, dtype=dtype or "float32")


@method
def zeros_like(x: Tensor, *, dtype: Any = None, device: str | None = None) -> Tensor:
    """Zeros in the shape (and dtype) of x."""
    return full(x.shape, 0, dtype=dtype or x.dtype)


@method
def ones_like(x: Tensor, *, dtype: Any = None, device: str | None = None) -> Tensor:
    """Ones in the shape (and dtype) of x."""
    return full(x.shape, 1, dtype=dtype or x.dtype)


def full_like(x: Tensor, fill_value: float, *, dtype: Any = None, device: str | None = None) -> Tensor:
    """One value everywhere, in the shape (and dtype) of x."""
    return full(x.shape, fill_value, dtype=dtype or x.dtype)


def arange(start: float, stop: float | None = None, step: float = 1, *, dtype: Any = None, device: str | None = None) -> Tensor:
    """start, start + step, … up to but without stop; with one argument, 0 … start - 1."""
    if stop is None:
        start, stop = 0, start
    if step == 0:
        raise ShapeError("arange: step is 0; accepted are positive and negative numbers.")
    count = max(0, -int((stop - start) // -step)) if isinstance(step, int) and isinstance(start, int) and isinstance(stop, int) else max(0, _ceil((stop - start) / step))
    whole = all(isinstance(v, int) for v in (start, stop, step))
    wanted = canonical(dtype) if dtype is not None else DTYPES["int32" if whole else "float32"]
    steps = apply("iota", n=count)
    if whole and wanted.kind != "f":
        return astype(steps * step + start, wanted) if (start, step) != (0, 1) else astype(steps, wanted)
    return astype(steps, wanted if wanted.kind == "f" else "float32") * step + start


def _ceil(x: float) -> int:
    return -int(-x // 1)


_ = (where, result_type)
