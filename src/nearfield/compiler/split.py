"""Graph -> Graph: sums of products with few results and many terms cut in parts, so that a graphics card is kept busy.

Each part's sums are stored, in float32, and summed afterwards, by the kernel that works on the result.
"""

from collections.abc import Callable
from math import prod
from typing import Any

from ..dtype import DTYPES
from ..graph.graph import Line

__all__ = ["split_contraction"]

Make = Callable[..., int]  # (operation, lines, **attributes) -> line
SIDE = 32  # of the smallest tile of results that a workgroup makes
TILES = 768  # workgroups that keep a large device busy, some of them waiting for memory
TERMS = 96  # of a sum that are worth a workgroup's start
FEWEST = 8  # rows and columns that make a tile
THREADS, STEPS = 1 << 15, 64  # where there are no tiles: invocations wanted, and terms for each
ELEMENTS = 4  # made by each of them


def _parts(rows: int, columns: int, batch: int, length: int, axis: int) -> int:
    """Into how many parts the sum is cut along an axis of so many of its terms; 1 for not at all."""
    if min(rows, columns) < FEWEST:
        most = min(THREADS * ELEMENTS // (batch * rows * columns), length // STEPS)
    else:
        tiles = batch * -(-rows // SIDE) * -(-columns // SIDE)
        most = min(TILES // tiles, length // TERMS)
    found = [d for d in range(2, min(most, axis) + 1) if axis % d == 0]
    even = [d for d in found if axis // d % 4 == 0]  # parts that are read four elements at a time
    return max(even or found, default=1)


def split_contraction(lines: list[Line], line: Line, make: Make) -> int | None:
    """The line that equals a contraction `line` and sums in parts; None if it is better left whole."""
    if line.dtype.name not in ("float32", "float16") or 0 in line.shape:
        return None
    found = _einsum(lines, line) if line.op == "einsum" else _conv(lines, line)
    if found is None:
        return None
    (op, args, attrs), shapes, axis = found
    wide = [make("cast", (a,), dtype=DTYPES["float32"]) if line.dtype.name == "float16" else a for a in args]
    cut = [make("reshape", (a,), shape=shape) for a, shape in zip(wide, shapes, strict=True)]
    total = make("sum", (make(op, tuple(cut), **attrs),), axes=(axis,))
    if line.dtype.name == "float16":
        total = make("cast", (total,), dtype=line.dtype)
    return make("reshape", (total,), shape=line.shape)


Found = tuple[tuple[str, tuple[int, ...], dict[str, Any]], list[tuple[int, ...]], int]


def _einsum(lines: list[Line], line: Line) -> Found | None:
    """The einsum with a letter more, the shapes of its arguments, and the axis of the result to sum."""
    spec = dict(line.attrs)["spec"]
    (a, b), out = spec.split("->")[0].split(","), spec.split("->")[1]
    x, y = (lines[n].shape for n in line.args)
    sizes = dict(zip(a + b, (*x, *y), strict=True))
    summed = [c for c in a if c in b and c not in out]
    if not summed or set(a + b) - set(out) - set(summed):
        return None
    along = max(summed, key=lambda c: sizes[c])
    batch = prod(sizes[c] for c in out if c in a and c in b)
    rows, columns = (prod(sizes[c] for c in out if c not in other) for other in (b, a))
    larger = a if prod(x) > prod(y) else b
    if min(rows, columns) < FEWEST and larger[-1] in summed:
        return None  # threads share out each sum
    parts = _parts(rows, columns, batch, prod(sizes[c] for c in summed), sizes[along])
    if parts == 1:
        return None
    new = next(c for c in "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ" if c not in sizes)
    pair = new + along
    shapes = [
        tuple(n for c in letters for n in ((parts, sizes[c] // parts) if c == along else (sizes[c],)))
        for letters in (a, b)
    ]
    spec = f"{a.replace(along, pair)},{b.replace(along, pair)}->{new}{out}"
    return ("einsum", line.args, {"spec": spec}), shapes, 0


def _conv(lines: list[Line], line: Line) -> Found | None:
    """The convolution in groups of channels, the shapes of its arguments, and the axis of the result to sum."""
    x, w = (lines[n].shape for n in line.args)
    groups, channels = x[-2:]
    if groups > 1:
        return None
    rows, columns, length = prod(line.shape[:-2]), line.shape[-1], prod(w[:-2]) * channels
    parts = _parts(rows, columns, 1, length, channels)
    if parts == 1:
        return None
    cut = (parts, channels // parts)
    shapes = [(*x[:-2], *cut), (*w[:-3], *cut, columns)]
    return ("conv", line.args, dict(line.attrs)), shapes, len(line.shape) - 2
