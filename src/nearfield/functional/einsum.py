"""Sums of products of any number of arrays, told by letters: lowered to contractions of two arrays at a time.

source  NumPy reference, `numpy.einsum`
"""

from functools import lru_cache
from itertools import combinations
from math import prod
from string import ascii_letters
from typing import Any

from ..errors import ShapeError
from ..op import REGISTRY
from ..ops.contraction import einsum_shape
from ..ops.define import require
from ..shape import Shape
from ..tensor import Tensor, apply, made, method
from .conversion import promoted
from .manipulation import moveaxis, permute_dims, reshape, slice_axis

__all__ = ["einsum"]

Term = tuple[Tensor, str]  # an array and one letter for each axis


def numeric(who: str, *arrays: Any) -> list[Tensor]:
    """The arrays in one numeric dtype."""
    tensors = promoted(who, arrays)
    require(who, tensors[0].node.dtype, "iuf")
    return tensors


def contract(a: Term, b: Term, out: str) -> Tensor:
    """The sum of products of two arrays over the letters that `out` lacks; an axis of size 1 goes with any size."""
    (x, lx), (y, ly) = a, b
    left, right = x.node, y.node
    plain = _plain_product(lx, left.shape, ly, right.shape, out)
    if plain is None:
        (x, lx), (y, ly) = _narrowed(a, b, out), _narrowed(b, a, out)
        return apply("einsum", x, y, spec=f"{lx},{ly}->{out}")
    spec, shape = plain
    return made(REGISTRY["einsum"], (left, right), {"spec": spec}, shape, left.dtype)


@lru_cache(maxsize=4096)
def _plain_product(la: str, a: Shape, lb: str, b: Shape, out: str) -> tuple[str, Shape] | None:
    """Its letters and shape, unless an axis has to be dropped: each is in the result or in both arrays, in one size."""
    sizes = dict(zip(lb, b, strict=True))
    if not set(la + lb) <= set(out) | (set(la) & set(lb)):
        return None
    if any(sizes.get(c, n) != n for c, n in zip(la, a, strict=True)):
        return None
    spec = f"{la},{lb}->{out}"
    return spec, einsum_shape(spec, a, b)


def _narrowed(a: Term, b: Term, out: str) -> Term:
    """Without the axes of size 1 that meet larger ones, and without those that only this array has and are summed."""
    x, letters = a
    other = dict(zip(b[1], b[0].shape, strict=True))
    here = dict(zip(letters, x.shape, strict=True))
    x, letters = _summed(a, [c for c in letters if c not in other and c not in out])
    dropped = [c for c in letters if here[c] == 1 and other.get(c, 1) != 1]
    kept = "".join(c for c in letters if c not in dropped)
    return reshape(x, tuple(here[c] for c in kept)), kept


def _summed(a: Term, over: list[str]) -> Term:
    x, letters = a
    if not over:
        return a
    axes = tuple(i for i, c in enumerate(letters) if c in over)
    kept = "".join(c for c in letters if c not in over)
    y = apply("sum", x, axes=axes)
    return reshape(y, tuple(n for i, n in enumerate(x.shape) if i not in axes)), kept


def diagonal_of(x: Tensor, first: int, second: int) -> Tensor:
    """The elements whose indices along two axes of one size are equal, in place of the first axis."""
    n = x.shape[first]
    pair = moveaxis(x, (first, second), (-2, -1))
    flat = reshape(pair, (*pair.shape[:-2], n * n))
    return moveaxis(slice_axis(flat, flat.ndim - 1, 0, n * n, n + 1), -1, first)


def _unrepeated(x: Tensor, letters: str) -> Term:
    """With each letter once: "ii" becomes "i", the diagonal."""
    for c in dict.fromkeys(letters):
        while letters.count(c) > 1:
            first, second = letters.index(c), letters.rindex(c)
            if x.shape[first] != x.shape[second]:
                raise ShapeError(
                    f"einsum: letter {c!r} names axes of sizes {x.shape[first]} and {x.shape[second]} of one operand; "
                    "they must be equal."
                )
            x, letters = diagonal_of(x, first, second), letters[:second] + letters[second + 1 :]
    return x, letters


def _parse(subscripts: str, operands: list[Tensor]) -> tuple[list[str], str]:
    """The letters of each operand and of the result, "..." replaced by unused letters."""
    text = subscripts.replace(" ", "")
    left, arrow, right = text.partition("->")
    parts = left.split(",")
    if len(parts) != len(operands):
        raise ShapeError(
            f"einsum: {subscripts!r} names {len(parts)} operands; received are {len(operands)}. They must be equal."
        )
    unused = [c for c in ascii_letters if c not in text]
    ranks = [t.ndim - len(p.replace("...", "")) for p, t in zip(parts, operands, strict=True) if "..." in p]
    dots = "".join(unused[: max(ranks, default=0)])
    terms = [_expand(subscripts, p, t, dots) for p, t in zip(parts, operands, strict=True)]
    if arrow:
        return terms, right.replace("...", dots)
    seen = "".join(p.replace("...", "") for p in parts)
    return terms, dots + "".join(sorted(c for c in set(seen) if seen.count(c) == 1))


def _expand(subscripts: str, part: str, x: Tensor, dots: str) -> str:
    named = part.replace("...", "", 1)
    more = x.ndim - len(named)
    if not all(c in ascii_letters for c in named):
        raise ShapeError(f"einsum: {subscripts!r} is not understood; accepted are letters, ',', '...' and '->'.")
    if more < 0 or (more and "..." not in part):
        raise ShapeError(
            f"einsum: {part!r} has {len(named)} letters for an array of shape {x.shape}; accepted is one letter for "
            "each axis."
        )
    return part.replace("...", dots[len(dots) - more :])


def _sizes(terms: list[Term]) -> dict[str, int]:
    sizes: dict[str, int] = {}
    for x, letters in terms:
        for c, n in zip(letters, x.shape, strict=True):
            if sizes.setdefault(c, n) != n and 1 not in (n, sizes[c]):
                raise ShapeError(
                    f"einsum: letter {c!r} names axes of sizes {sizes[c]} and {n}; they must be equal, or 1."
                )
            sizes[c] = n if sizes[c] == 1 else sizes[c]
    return sizes


def _after(terms: list[Term], i: int, j: int, out: str) -> str:
    """The letters that the contraction of two terms must keep."""
    needed = set(out).union(*(letters for n, (_, letters) in enumerate(terms) if n not in (i, j)))
    return "".join(c for c in dict.fromkeys(terms[i][1] + terms[j][1]) if c in needed)


@method
def einsum(subscripts: str, /, *operands: Any) -> Tensor:
    """The sum of products of the operands that the letters tell: "ij,jk->ik" is the product of two matrices.

    subscripts  a letter for each axis of each operand; "..." for any axes in front, which broadcast; letters that
                "->" leaves out are summed over; without "->" those that occur twice are. A letter twice in one operand
                is its diagonal
    operands    of any number; dtypes promote. Two at a time are contracted, those with the smallest result first
    errors      ShapeError if a letter names axes of different sizes
    """
    if not operands:
        raise ShapeError("einsum: received no operands; accepted is at least one.")
    tensors = numeric("einsum", *operands)
    parts, out = _parse(subscripts, tensors)
    terms = [_unrepeated(t, letters) for t, letters in zip(tensors, parts, strict=True)]
    sizes = _sizes(terms)
    if len(set(out)) != len(out) or any(c not in sizes for c in out):
        raise ShapeError(
            f"einsum: the result {out!r} of {subscripts!r} has a letter twice or one that no operand has; accepted is "
            "each once."
        )
    while len(terms) > 1:
        pairs = combinations(range(len(terms)), 2)
        i, j = min(pairs, key=lambda p: prod(sizes[c] for c in _after(terms, p[0], p[1], out)))
        kept = out if len(terms) == 2 else _after(terms, i, j, out)
        product = (contract(terms[i], terms[j], kept), kept)
        terms = [*(t for n, t in enumerate(terms) if n not in (i, j)), product]
    return _finished(terms[0], out)


def _finished(term: Term, out: str) -> Tensor:
    x, letters = _summed(term, [c for c in term[1] if c not in out])
    return permute_dims(x, [letters.index(c) for c in out])
