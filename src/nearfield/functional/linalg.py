"""Products of vectors and matrices, norms, diagonals."""

from functools import lru_cache
from string import ascii_letters
from typing import Any

from ..errors import ShapeError
from ..ops.arithmetic import abs as magnitude
from ..ops.arithmetic import multiply, sqrt, square
from ..ops.mathematics import pow as power
from ..shape import Shape, axis_of, broadcast
from ..tensor import Tensor, method
from .conversion import asarray, astype
from .einsum import contract, diagonal_of, numeric
from .joining import roll
from .manipulation import expand_dims, moveaxis, slice_axis, squeeze
from .statistics import count_nonzero, summable
from .statistics import max as largest
from .statistics import min as smallest
from .statistics import sum as total

__all__ = [
    "cross", "diagonal", "matmul", "matrix_norm", "outer", "tensordot", "trace", "vecdot", "vector_norm",
]  # fmt: skip


@method
def matmul(x1: Any, x2: Any, /) -> Tensor:
    """The matrix product of the last two axes; axes in front broadcast.

    x1       [..., n, k] or [k]
    x2       [..., k, m] or [k]
    returns  [..., n, m], without n or m where an argument is a vector
    errors   ShapeError if k differs
    """
    a, b = numeric("matmul", x1, x2)
    left, right, out = _matmul_letters(a.node.shape, b.node.shape)
    return contract((a, left), (b, right), out)


@lru_cache(maxsize=4096)
def _matmul_letters(a: Shape, b: Shape) -> tuple[str, str, str]:
    """Letters for the axes of x1, x2 and the result, if the shapes fit."""
    rank_a, rank_b = len(a), len(b)
    if not rank_a or not rank_b:
        raise ShapeError(
            f"matmul: shapes {a} and {b}: a scalar has no axis to sum over; accepted is rank 1 and more. Use x1 * x2."
        )
    at = -2 if rank_b > 1 else -1
    if a[-1] != b[at]:
        raise ShapeError(
            f"matmul: axis -1 of x1{list(a)} is {a[-1]} but axis {at} of x2{list(b)} is {b[at]}; they must be equal. "
            "Transpose or reshape one of them."
        )
    broadcast("matmul", a[:-2], b[:-2])
    letters = ascii_letters[3 : 3 + max(rank_a, rank_b)]
    lead_a, lead_b = letters[len(letters) - max(rank_a - 2, 0) :], letters[len(letters) - max(rank_b - 2, 0) :]
    lead = max(lead_a, lead_b, key=len)
    rows, cols = "a" if rank_a > 1 else "", "c" if rank_b > 1 else ""
    return f"{lead_a}{rows}b", f"{lead_b}b{cols}", f"{lead}{rows}{cols}"


def tensordot(x1: Any, x2: Any, /, *, axes: Any = 2) -> Tensor:
    """The sum of products over pairs of axes; the other axes of x1 come first, then those of x2.

    axes     how many: the last of x1 with the first of x2; or two lists that pair up
    """
    a, b = numeric("tensordot", x1, x2)
    if isinstance(axes, int):
        if not 0 <= axes <= min(a.ndim, b.ndim):
            raise ShapeError(
                f"tensordot: axes is {axes} for shapes {a.shape} and {b.shape}; accepted are 0 … {min(a.ndim, b.ndim)}."
            )
        mine, yours = list(range(a.ndim - axes, a.ndim)), list(range(axes))
    else:
        mine = [axis_of("tensordot", i, a.ndim) for i in axes[0]]
        yours = [axis_of("tensordot", i, b.ndim) for i in axes[1]]
    if [a.shape[i] for i in mine] != [b.shape[i] for i in yours]:
        raise ShapeError(
            f"tensordot: axes {mine} of {a.shape} and {yours} of {b.shape} pair up different sizes; they must be equal."
        )
    la, lb = ascii_letters[: a.ndim], list(ascii_letters[a.ndim : a.ndim + b.ndim])
    for i, j in zip(mine, yours, strict=True):
        lb[j] = la[i]
    out = "".join(c for i, c in enumerate(la) if i not in mine) + "".join(c for j, c in enumerate(lb) if j not in yours)
    return contract((a, la), (b, "".join(lb)), out)


def vecdot(x1: Any, x2: Any, /, *, axis: int = -1) -> Tensor:
    """The sum of products along one axis; the other axes broadcast.

    axis     counted from the end: -1 … -(the smaller rank)
    """
    a, b = numeric("vecdot", x1, x2)
    rank = min(a.ndim, b.ndim)
    at = axis_of("vecdot", axis, rank) - rank
    if a.shape[at] != b.shape[at]:
        raise ShapeError(
            f"vecdot: axis {at} is {a.shape[at]} in x1{list(a.shape)} but {b.shape[at]} in x2{list(b.shape)}; they "
            "must be equal."
        )
    row, column = expand_dims(moveaxis(a, at, -1), -2), expand_dims(moveaxis(b, at, -1), -1)
    return squeeze(matmul(row, column), (-2, -1))


def outer(x1: Any, x2: Any, /) -> Tensor:
    """The products of each element of the vector x1 with each of the vector x2: [n], [m] -> [n, m]."""
    a, b = asarray(x1), asarray(x2)
    if a.ndim != 1 or b.ndim != 1:
        raise ShapeError(
            f"outer: shapes {a.shape} and {b.shape}; accepted are two arrays of rank 1. Flatten them first."
        )
    return multiply(expand_dims(a, 1), b)


def cross(x1: Any, x2: Any, /, *, axis: int = -1) -> Tensor:
    """The vector at right angles to both, along an axis of size 3; the other axes broadcast."""
    a, b = numeric("cross", x1, x2)
    rank = min(a.ndim, b.ndim)
    at = axis_of("cross", axis, rank) - rank
    if a.shape[at] != 3 or b.shape[at] != 3:
        raise ShapeError(f"cross: axis {at} has sizes {a.shape[at]} and {b.shape[at]}; accepted is 3.")
    return roll(a * roll(b, -1, axis=at) - roll(a, -1, axis=at) * b, -1, axis=at)


def diagonal(x: Any, /, *, offset: int = 0) -> Tensor:
    """The diagonal of each matrix, `offset` above the main one (below for a negative one), along the last axis."""
    x = asarray(x)
    if x.ndim < 2:
        raise ShapeError(f"diagonal: shape {x.shape} has rank {x.ndim}; accepted is rank 2 and more.")
    down, right = max(-offset, 0), max(offset, 0)
    rows, cols = x.shape[-2:]
    n = max(min(rows - down, cols - right), 0)
    x = slice_axis(x, x.ndim - 2, min(down, rows - n), min(down, rows - n) + n)
    x = slice_axis(x, x.ndim - 1, min(right, cols - n), min(right, cols - n) + n)
    return diagonal_of(x, x.ndim - 2, x.ndim - 1)


def trace(x: Any, /, *, offset: int = 0, dtype: Any = None) -> Tensor:
    """The sum of the diagonal of each matrix; see `diagonal`."""
    return total(diagonal(summable(x, dtype), offset=offset), axis=-1)


def vector_norm(x: Any, /, *, axis: Any = None, keepdims: bool = False, ord: float = 2) -> Tensor:
    """The length of the vectors along axes (None: of all elements).

    ord      2 root of the sum of squares; 1 sum of sizes; inf and -inf largest and smallest size; 0 how many are not 0;
             any other p: (sum of sizes^p)^(1/p)
    """
    x = asarray(x)
    x = x if x.dtype.kind == "f" else astype(x, "float32")
    if ord == 2:
        return sqrt(total(square(x), axis=axis, keepdims=keepdims))
    if ord == 0:
        return astype(count_nonzero(x, axis=axis, keepdims=keepdims), x.dtype)
    if ord == 1:
        return total(magnitude(x), axis=axis, keepdims=keepdims)
    if ord in (float("inf"), float("-inf")):
        return (largest if ord > 0 else smallest)(magnitude(x), axis=axis, keepdims=keepdims)
    return power(total(power(magnitude(x), ord), axis=axis, keepdims=keepdims), 1.0 / ord)


def matrix_norm(x: Any, /, *, keepdims: bool = False, ord: Any = "fro") -> Tensor:
    """A size of each matrix in the last two axes.

    ord      "fro" root of the sum of squares; 1 and -1 largest and smallest column sum of sizes; inf and -inf row sum
    errors   ShapeError for the norms that need singular values ("nuc", 2, -2)
    """
    x = asarray(x)
    if x.ndim < 2:
        raise ShapeError(
            f"matrix_norm: shape {x.shape} has rank {x.ndim}; accepted is rank 2 and more. Use nf.vector_norm."
        )
    if ord == "fro":
        return vector_norm(x, axis=(-2, -1), keepdims=keepdims)
    if ord not in (1, -1, float("inf"), float("-inf")):
        raise ShapeError(f"matrix_norm: ord is {ord!r}; accepted are 'fro', 1, -1, inf and -inf.")
    sums = vector_norm(x, axis=-2 if ord in (1, -1) else -1, keepdims=True, ord=1)
    y = (largest if ord > 0 else smallest)(sums, axis=(-2, -1), keepdims=True)
    return y if keepdims else squeeze(y, (-2, -1))
