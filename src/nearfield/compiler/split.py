"""Graph -> Graph: sums of products with few results and many terms cut in parts, so that a graphics card is kept busy.

Each part's sums are stored, in float32, and summed afterwards, by the kernel that works on the result.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from string import ascii_letters
from typing import Any

from ..dtype import DTYPES
from ..graph.graph import Line

__all__ = ["split_contraction"]

Make = Callable[..., int]  # (operation, lines, **attributes) -> line
SIDE = 32  # of the smallest tile of results that a workgroup makes
TILES = 1536  # workgroups that keep a large device busy, some of them waiting for memory
TERMS = 96  # of a sum that are worth a workgroup's start
# Where a workgroup makes a tile of 128 x 64 with four warps, a multiprocessor needs two or three workgroups to have
# something to do while one waits. These tiles are one and three for each of 132 multiprocessors.
LARGE, ONE_EACH, THREE_EACH = 64, 132, 396
LARGE_TERMS, ALONE = 192, 640  # terms of a part; of a sum that is worth cutting where no multiprocessor has two tiles
FEWEST = 8  # rows and columns that make a tile
FEW = 16  # parts that are added up where they are used
RESULTS, STEPS = 1 << 15, 256  # where there are no tiles: parts of results wanted, and terms for each


def _parts(rows: int, columns: int, batch: int, length: int, axis: int) -> int:
    """Into how many parts the sum is cut along an axis of so many of its terms; 1 for not at all."""
    if min(rows, columns) < FEWEST:
        most = min(RESULTS // (batch * rows * columns), length // STEPS)
    else:
        tiles = batch * -(-rows // SIDE) * -(-columns // SIDE)
        most = min(TILES // tiles, length // TERMS)
        large = batch * -(-rows // 128) * -(-columns // 64) if rows > 64 and columns > 32 else 0
        if large > ONE_EACH or (large >= LARGE and length >= ALONE):
            most = max(most, min(THREE_EACH // large, length // LARGE_TERMS))
    found = [d for d in range(2, min(most, axis) + 1) if axis % d == 0]
    even = [d for d in found if axis // d % 4 == 0]  # parts that may be read four elements at a time
    most = max(found, default=1)
    return max((d for d in even if 2 * d >= most), default=most)


def split_contraction(lines: list[Line], line: Line, make: Make) -> int | None:
    """The line that equals a contraction `line` and sums in parts; None if it is better left whole."""
    if line.dtype.name not in ("float32", "float16") or 0 in line.shape:
        return None
    found = _einsum(lines, line) if line.op == "einsum" else _conv(lines, line)
    if found is None:
        return None
    wide = [make("cast", (a,), dtype=DTYPES["float32"]) if line.dtype.name == "float16" else a for a in line.args]
    cut = [make("reshape", (a,), shape=shape) for a, shape in zip(wide, found.shapes, strict=True)]
    parts = make("reshape", (make(line.op, tuple(cut), **found.attributes),), shape=found.result)
    total = _added(make, parts, found.result, found.axis)
    if line.dtype.name == "float16":
        total = make("cast", (total,), dtype=line.dtype)
    return make("reshape", (total,), shape=line.shape)


def _added(make: Make, parts: int, shape: tuple[int, ...], axis: int) -> int:
    """The sum of the parts; of few, in pairs, so that a kernel that reads the sum adds them up itself."""
    count = shape[axis]
    if count > FEW:
        return make("sum", (parts,), axes=(axis,))
    sums = [_part(make, parts, shape, axis, n) for n in range(count)]
    while len(sums) > 1:
        pairs = [make("add", tuple(sums[n : n + 2])) for n in range(0, len(sums) - 1, 2)]
        sums = [*pairs, *sums[2 * len(pairs) :]]
    return sums[0]


def _part(make: Make, parts: int, shape: tuple[int, ...], axis: int, n: int) -> int:
    start = tuple(n if a == axis else 0 for a in range(len(shape)))
    stop = (*shape[:axis], n + 1, *shape[axis + 1 :])
    return make("slice", (parts,), start=start, stop=stop, step=(1,) * len(shape))


@dataclass(frozen=True, slots=True)
class _Cut:
    """New shapes for the arguments, the attributes, and the shape of the result that is then summed over `axis`."""

    shapes: list[tuple[int, ...]]
    attributes: dict[str, Any]
    result: tuple[int, ...]
    axis: int


def _einsum(lines: list[Line], line: Line) -> _Cut | None:
    """With a letter more, for the part."""
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
    new = next(c for c in ascii_letters if c not in sizes)
    pair = new + along
    shapes = [
        tuple(n for c in letters for n in ((parts, sizes[c] // parts) if c == along else (sizes[c],)))
        for letters in (a, b)
    ]
    spec = f"{a.replace(along, pair)},{b.replace(along, pair)}->{new}{out}"
    return _Cut(shapes, {"spec": spec}, (parts, *line.shape), 0)


def _conv(lines: list[Line], line: Line) -> _Cut | None:
    """With more groups of channels, which are then summed."""
    x, w = (lines[n].shape for n in line.args)
    (groups, channels), columns = x[-2:], line.shape[-1]
    rows, length = prod(line.shape[:-2]), prod(w[:-3]) * channels
    parts = _parts(rows, columns, groups, length, channels)
    if parts == 1:
        return None
    cut = (groups * parts, channels // parts)
    shapes = [(*x[:-2], *cut), (*w[:-3], *cut, columns)]
    return _Cut(shapes, dict(line.attrs), (*line.shape[:-1], parts, columns), len(line.shape) - 1)
