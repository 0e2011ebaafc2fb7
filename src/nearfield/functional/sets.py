"""Distinct values. How many there are depends on the values, which are therefore needed now."""

from math import isnan
from typing import Any, NamedTuple

from ..tensor import Tensor
from .conversion import asarray
from .gather import take
from .indexing import int32
from .manipulation import reshape

__all__ = ["unique_all", "unique_counts", "unique_inverse", "unique_values"]


class UniqueAll(NamedTuple):
    """Distinct values; where each stands first; where each element of x stands among them; how often each occurs."""

    values: Tensor
    indices: Tensor
    inverse_indices: Tensor
    counts: Tensor


class UniqueCounts(NamedTuple):
    """Distinct values, and how often each occurs."""

    values: Tensor
    counts: Tensor


class UniqueInverse(NamedTuple):
    """Distinct values, and where each element of x stands among them."""

    values: Tensor
    inverse_indices: Tensor


def _key(value: Any) -> tuple[bool, Any]:
    return (isnan(value), 0 if isnan(value) else value)


def unique_all(x: Any, /) -> UniqueAll:
    """The distinct values of x in order, each NaN by itself, as (values, indices, inverse_indices, counts).

    indices          where each value stands first in x flattened
    inverse_indices  [x.shape] values[inverse_indices] is x
    errors           TraceError inside `nf.jit`
    """
    x = asarray(x)
    flat = reshape(x, (x.size,))
    values = flat.tolist()
    order = sorted(range(len(values)), key=[_key(v) for v in values].__getitem__)
    first: list[int] = []
    counts: list[int] = []
    inverse = [0] * len(values)
    for i in order:
        if not first or values[i] != values[first[-1]]:
            first.append(i)
            counts.append(0)
        counts[-1] += 1
        inverse[i] = len(first) - 1
    indices = int32(first)
    return UniqueAll(take(flat, indices), indices, reshape(int32(inverse), x.shape), int32(counts))


def unique_counts(x: Any, /) -> UniqueCounts:
    """The distinct values of x in order, each NaN by itself, as (values, counts)."""
    found = unique_all(x)
    return UniqueCounts(found.values, found.counts)


def unique_inverse(x: Any, /) -> UniqueInverse:
    """The distinct values of x in order, each NaN by itself, as (values, inverse_indices)."""
    found = unique_all(x)
    return UniqueInverse(found.values, found.inverse_indices)


def unique_values(x: Any, /) -> Tensor:
    """The distinct values of x in order, each NaN by itself."""
    return unique_all(x).values
