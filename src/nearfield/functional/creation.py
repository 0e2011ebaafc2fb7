"""Arrays from patterns: one value, counters, diagonals, grids."""

from math import ceil
from typing import Any

from ..dtype import DTYPES, canonical, result_type
from ..errors import ShapeError
from ..ops.arithmetic import equal, greater_equal, less_equal, where
from ..shape import sizes_of
from ..tensor import Tensor, apply, call, method
from .conversion import asarray, astype

__all__ = [
    "arange", "empty", "empty_like", "eye", "full", "full_like", "linspace", "meshgrid", "ones", "ones_like", "tril",
    "triu", "zeros", "zeros_like",
]  # fmt: skip


def _on(x: Tensor, device: str | None) -> Tensor:
    return x if device is None else call("to_device", x, device)


def _filled(who: str, shape: Any, value: Any, dtype: Any, device: str | None) -> Tensor:
    return _on(call("broadcast_to", asarray(value, dtype), sizes_of(who, shape)), device)


@method
def full(shape: Any, fill_value: Any, *, dtype: Any = None, device: str | None = None) -> Tensor:
    """An array of one value everywhere.

    dtype    default: of a Python number bool, int32 or float32
    """
    return _filled("full", shape, fill_value, dtype, device)


def zeros(shape: Any, *, dtype: Any = None, device: str | None = None) -> Tensor:
    """An array of zeros, float32 unless dtype says otherwise."""
    return _filled("zeros", shape, 0, dtype or "float32", device)


def ones(shape: Any, *, dtype: Any = None, device: str | None = None) -> Tensor:
    """An array of ones, float32 unless dtype says otherwise."""
    return _filled("ones", shape, 1, dtype or "float32", device)


def empty(shape: Any, *, dtype: Any = None, device: str | None = None) -> Tensor:
    """An array whose values do not matter: zeros."""
    return _filled("empty", shape, 0, dtype or "float32", device)


@method
def zeros_like(x: Any, /, *, dtype: Any = None, device: str | None = None) -> Tensor:
    """Zeros in the shape (and dtype) of x."""
    return full_like(x, 0, dtype=dtype, device=device)


@method
def ones_like(x: Any, /, *, dtype: Any = None, device: str | None = None) -> Tensor:
    """Ones in the shape (and dtype) of x."""
    return full_like(x, 1, dtype=dtype, device=device)


def empty_like(x: Any, /, *, dtype: Any = None, device: str | None = None) -> Tensor:
    """An array in the shape (and dtype) of x whose values do not matter: zeros."""
    return full_like(x, 0, dtype=dtype, device=device)


def full_like(x: Any, /, fill_value: Any, *, dtype: Any = None, device: str | None = None) -> Tensor:
    """One value everywhere, in the shape (and dtype) of x."""
    x = asarray(x)
    return _filled("full_like", x.shape, fill_value, dtype or x.dtype, device)


def arange(start: Any, /, stop: Any = None, step: Any = 1, *, dtype: Any = None, device: str | None = None) -> Tensor:
    """start, start + step, … up to but without stop; with one argument, 0 … start - 1.

    errors   ShapeError if step is 0
    """
    if stop is None:
        start, stop = 0, start
    if step == 0:
        raise ShapeError("arange: step is 0; accepted are positive and negative numbers.")
    whole = all(hasattr(v, "__index__") for v in (start, stop, step))
    count = len(range(start, stop, step)) if whole else max(0, ceil((stop - start) / step))
    wanted = canonical(dtype) if dtype is not None else DTYPES["int32" if whole else "float32"]
    return _on(_progression(count, start, step, wanted, whole), device)


def _progression(count: int, start: Any, step: Any, wanted: Any, whole: bool) -> Tensor:
    """start + n step for n = 0 … count - 1."""
    steps = apply("iota", n=count)
    if whole and wanted.kind != "f":
        steps = astype(steps, wanted) if wanted.itemsize == 8 else steps
        steps = steps * step if step != 1 else steps
        return astype(steps + start if start else steps, wanted)
    wide = astype(steps, "float64" if wanted.name == "float64" else "float32") * step + start
    return astype(wide, wanted)


def linspace(
    start: Any, stop: Any, /, num: int, *, dtype: Any = None, device: str | None = None, endpoint: bool = True
) -> Tensor:
    """`num` evenly spaced values from start to stop, which is the last or, without `endpoint`, the next after it."""
    wanted = canonical(dtype or "float32")
    (count,) = sizes_of("linspace", num)
    gaps = max(count - 1 if endpoint else count, 1)
    number = apply("iota", n=count)
    compute = "float64" if wanted.name == "float64" else "float32"
    part = astype(number, compute)
    near = part * ((stop - start) / gaps) + start
    if endpoint and count > 1:  # the end itself, whatever the rounding
        near = where(equal(number, count - 1), asarray(stop, compute), near)
    return _on(astype(near, wanted), device)


def eye(
    n_rows: int, n_cols: int | None = None, /, *, k: int = 0, dtype: Any = None, device: str | None = None
) -> Tensor:
    """A matrix of ones on the k-th diagonal above the main one (below for negative k), zeros elsewhere."""
    rows, cols = sizes_of("eye", (n_rows, n_rows if n_cols is None else n_cols))
    return _on(astype(equal(*_places(rows, cols, k)), dtype or "float32"), device)


def _places(rows: int, cols: int, k: int) -> tuple[Tensor, Tensor]:
    """Row number + k as a column, column number as a row."""
    row = call("reshape", apply("iota", n=rows), (rows, 1))
    return row + k if k else row, call("reshape", apply("iota", n=cols), (1, cols))


def _triangle(who: str, x: Any, k: int, keep: Any) -> Tensor:
    x = asarray(x)
    if x.ndim < 2:
        raise ShapeError(f"{who}: shape {x.shape} has rank {x.ndim}; accepted is rank 2 and more.")
    rows, cols = x.shape[-2:]
    return where(keep(*_places(rows, cols, k)), x, False if x.dtype.kind == "b" else 0)


def tril(x: Any, /, *, k: int = 0) -> Tensor:
    """The lower triangle of each matrix: what is above the k-th diagonal becomes 0."""
    return _triangle("tril", x, k, greater_equal)


def triu(x: Any, /, *, k: int = 0) -> Tensor:
    """The upper triangle of each matrix: what is below the k-th diagonal becomes 0."""
    return _triangle("triu", x, k, less_equal)


def meshgrid(*arrays: Any, indexing: str = "xy") -> tuple[Tensor, ...]:
    """Coordinates of a grid from those along its axes, one array per axis.

    indexing  "xy": the first array runs along axis 1; "ij": along axis 0
    """
    vectors = [asarray(a) for a in arrays]
    if indexing not in ("xy", "ij"):
        raise ShapeError(f"meshgrid: indexing is {indexing!r}; accepted are 'xy' and 'ij'.")
    if any(v.ndim != 1 for v in vectors):
        raise ShapeError(f"meshgrid: shapes {', '.join(str(v.shape) for v in vectors)}; accepted are arrays of rank 1.")
    dtype = result_type(*(v.dtype for v in vectors)) if vectors else None
    order = list(range(len(vectors)))
    if indexing == "xy" and len(vectors) > 1:
        order[:2] = [1, 0]
    shape = [0] * len(vectors)
    for v, axis in zip(vectors, order, strict=True):
        shape[axis] = v.size
    lines = [tuple(n if a == axis else 1 for a, n in enumerate(shape)) for axis in order]
    return tuple(
        call("broadcast_to", astype(v, dtype).reshape(line), shape) for v, line in zip(vectors, lines, strict=True)
    )
