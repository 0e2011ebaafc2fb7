"""Windows of 3 x 3 that move one element at a time, in 16 multiplications for four results instead of 36.

Two rows by two columns of results are made of a *tile* d of 4 x 4 elements of the image, and of the window g:

    Aᵀ ((G g Gᵀ) · (Bᵀ d B)) A        · is element by element

The sum over channels can be taken before Aᵀ and A, so that the middle is 16 products of matrices, [tiles, channels] by
[channels, results], one for each place in a tile. (Lavin and Gray 2015, "Fast algorithms for convolutional neural
networks", F(2 x 2, 3 x 3).) What is rounded more often on the way is made up for by sums that are a ninth as long: the
error of a result is no larger than without (tests/test_winograd.py). Larger tiles multiply less still, but lose digits;
they are not used.
"""

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

from .writer import Writer

__all__ = ["SIDE", "image_tiles", "results", "suits", "window_tiles"]

SIDE = 2  # rows and columns of results that a tile gives
REACH = 4  # rows and columns of the image that it takes
CHANNELS = 12  # c d / (c + d): from here on, transforming c channels and d results costs less than it saves
TILES = 12  # of fewer tiles, reading the window, which becomes larger, is what takes the time
ROOM = 2**24  # bytes that the tiles and their products may take: more no longer stay in a cache


def suits(shape: Sequence[int], window: Sequence[int], attrs: dict[str, Any]) -> bool:
    """Whether a convolution's result [n, height, width, group, d] is made faster so; window: [3, 3, group, c, d]."""
    if len(window) != 5 or window[:2] != (3, 3):
        return False
    if {*attrs["stride"], *attrs["dilation"], *attrs["spread"]} != {1}:
        return False
    c, d = window[-2:]
    tiles = shape[0] * prod(-(-n // SIDE) for n in shape[1:3])
    room = 4 * REACH**2 * tiles * window[2] * (c + d)
    return c * d >= CHANNELS * (c + d) and tiles >= TILES and room <= ROOM


def image_tiles(out: Writer, x: int) -> int:
    """[n, rows of tiles, 16, columns of tiles, group, c] of an image [n, height, width, group, c] with its padding.

    With the 16 places outermost, each would be written into the same lines of the first cache as all others.
    """
    n, height, width, *channels = out.lines[x].shape
    rows, columns = (height - SIDE) // SIDE, (width - SIDE) // SIDE

    def part(i: int, j: int) -> int:
        stop = (n, i + SIDE * (rows - 1) + 1, j + SIDE * (columns - 1) + 1, *channels)
        return out.op("slice", x, start=(0, i, j, 0, 0), stop=stop, step=(1, SIDE, SIDE, 1, 1))

    def spread(d: Sequence[int]) -> list[int]:
        return [
            out.op("subtract", d[0], d[2]),
            out.op("add", d[1], d[2]),
            out.op("subtract", d[2], d[1]),
            out.op("subtract", d[1], d[3]),
        ]

    return _stacked(out, _both(spread, [[part(i, j) for j in range(REACH)] for i in range(REACH)]), 2)


def window_tiles(out: Writer, w: int) -> int:
    """[16, group, c, d] of a window [3, 3, group, c, d]."""
    _, _, *rest = out.lines[w].shape
    dtype = out.lines[w].dtype

    def part(i: int, j: int) -> int:
        x = out.op("slice", w, start=(i, j, 0, 0, 0), stop=(i + 1, j + 1, *rest), step=(1,) * 5)
        return out.op("reshape", x, shape=tuple(rest))

    half = out.op(
        "expand", out.op("reshape", out.op("const", value=0.5, dtype=dtype), shape=(1, 1, 1)), shape=tuple(rest)
    )

    def spread(g: Sequence[int]) -> list[int]:
        ends = out.op("add", g[0], g[2])
        more, less = out.op("add", ends, g[1]), out.op("subtract", ends, g[1])
        return [g[0], out.op("multiply", half, more), out.op("multiply", half, less), g[2]]

    return _stacked(out, _both(spread, [[part(i, j) for j in range(3)] for i in range(3)]))


def results(out: Writer, m: int) -> int:
    """[4, n, rows of tiles, columns of tiles, group, d] of the 16 products: what each tile gives, row by row."""
    _, *rest = out.lines[m].shape

    def part(i: int) -> int:
        x = out.op("slice", m, start=(i, 0, 0, 0, 0, 0), stop=(i + 1, *rest), step=(1,) * 6)
        return out.op("reshape", x, shape=tuple(rest))

    def gathered(p: Sequence[int]) -> list[int]:
        both, apart = out.op("add", p[1], p[2]), out.op("subtract", p[1], p[2])
        return [out.op("add", p[0], both), out.op("subtract", apart, p[3])]

    return _stacked(out, _both(gathered, [[part(REACH * i + j) for j in range(REACH)] for i in range(REACH)]))


def _both(f: Callable[[Sequence[int]], list[int]], grid: list[list[int]]) -> list[list[int]]:
    """A linear map of columns, and then of rows."""
    down = [f(column) for column in zip(*grid, strict=True)]
    return [f(row) for row in zip(*down, strict=True)]


def _stacked(out: Writer, grid: list[list[int]], axis: int = 0) -> int:
    """All lines of a grid, one after the other along a new axis."""
    shape = out.lines[grid[0][0]].shape
    parts = [out.op("reshape", x, shape=(*shape[:axis], 1, *shape[axis:])) for row in grid for x in row]
    return out.op("concat", *parts, axis=axis)
