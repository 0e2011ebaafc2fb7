"""How factors of bytes are laid out for WebAssembly: depthwise windows, few channels, and bytes without a sign."""

from typing import Any, Protocol

from ..dtype import DTYPES, DType
from ..graph.graph import Line

__all__ = ["FOUR", "depthwise", "filled", "of_few_channels", "offset_of", "without_sign"]

FOUR = 4  # bytes that one instruction multiplies in each column
OFFSET = 128  # what makes an int8 a uint8


class Packer(Protocol):
    """What is asked of the packer (pack.py)."""

    lines: list[Line]
    kept: set[int]

    def add(self, line: Line) -> int:
        """A line, once."""

    def op(self, name: str, *args: int, **attrs: Any) -> int:
        """The line of an operation."""

    def stored(self, i: int) -> int:
        """The narrow elements that line i is made of."""

    def widened(self, i: int, dtype: DType) -> int:
        """Line i in this dtype."""

    def padded(self, x: int, attrs: dict[str, Any]) -> int:
        """The image with its zeros, stored."""

    def windowed(self, x: int, w: int, attrs: dict[str, Any], dtype: DType) -> int:
        """Windows of x, all of them inside, times w."""


def depthwise(packer: Packer, line: Line) -> int:
    """A depthwise convolution of bytes, its window stored as [column, channel, 4 rows]; 0 if it is another."""
    x, w = line.args
    *window, channels, ci, co = packer.lines[w].shape
    small = packer.stored(w)
    if (len(window), ci, co) != (2, 1, 1) or window[0] > FOUR or channels < 4 * FOUR:
        return 0
    if line.dtype.kind == "f" or packer.lines[small].dtype.name != "int8":
        return 0
    y = packer.op("reshape", small, shape=(*window, channels))
    y = packer.op("pad", y, low=(0, 0, 0), high=(FOUR - window[0], 0, 0), step=(1, 1, 1), value=0.0)
    y = packer.op("permute", y, axes=(1, 2, 0))
    packer.kept.add(y)
    y = packer.op("permute", y, axes=(2, 0, 1))
    y = packer.op("slice", y, start=(0, 0, 0), stop=(*window, channels), step=(1, 1, 1))
    y = packer.widened(packer.op("reshape", y, shape=packer.lines[w].shape), line.dtype)
    return packer.add(Line("conv", (x, y), line.attrs, line.shape, line.dtype))


def of_few_channels(packer: Packer, x: int, w: int, attrs: dict[str, Any], line: Line) -> int:
    """A convolution of images of bytes whose channels are no multiple of four: a row of a window is one sum.

    Pixels and channels are one axis. What is read beyond a window's row, up to a multiple of four, counts nothing.
    """
    kh, kw, _, ci, co = packer.lines[w].shape
    w = filled(packer, packer.op("reshape", w, shape=(kh, kw * ci, 1, 1, co)), 1)
    (down, along), (rows, (low, high)) = attrs["stride"], attrs["pad"]
    reach = (line.shape[2] - 1) * along * ci + packer.lines[w].shape[1]
    more = max(0, -(-reach // ci) - (low + packer.lines[x].shape[2] + high))
    x = packer.padded(x, attrs | {"pad": (rows, (low, high + more))})
    n, height, width = packer.lines[x].shape[:3]
    x = packer.op("reshape", x, shape=(n, height, width * ci, 1, 1))
    x = packer.op("slice", x, start=(0,) * 5, stop=(n, height, reach, 1, 1), step=(1,) * 5)
    hops = {"stride": (down, along * ci), "dilation": (attrs["dilation"][0], 1)}
    return packer.windowed(x, packer.widened(w, line.dtype), hops, line.dtype)


def filled(packer: Packer, i: int, axis: int) -> int:
    """Line i with zeros at the end of an axis, so that it has a multiple of four elements."""
    shape = packer.lines[i].shape
    more = [0] * len(shape)
    more[axis] = -shape[axis] % FOUR
    if not any(more):
        return i
    return packer.op("pad", i, low=(0,) * len(shape), high=tuple(more), step=(1,) * len(shape), value=0.0)


def without_sign(packer: Packer, i: int) -> int:
    """int8 line i plus 128, stored as uint8: what the instruction multiplies at full speed on x86."""
    wide = packer.op("cast", i, dtype=DTYPES["int32"])
    x = packer.op("cast", packer.op("add", wide, _number(packer, packer.lines[i].shape)), dtype=DTYPES["uint8"])
    packer.kept.add(x)
    return x


def offset_of(packer: Packer, w: int, right: str, out: str, shape: tuple[int, ...]) -> int:
    """What the 128 adds to sums of products with int32 line w: 128 times the sums of w, in the result's shape.

    right, out  the letters of w's axes and of the result's
    """
    sizes = dict(zip(right, packer.lines[w].shape, strict=True))
    y = packer.op("sum", w, axes=tuple(n for n, c in enumerate(right) if c not in out))
    left = [c for c in right if c in out]
    y = packer.op("reshape", y, shape=tuple(sizes[c] for c in left))
    y = packer.op("permute", y, axes=tuple(left.index(c) for c in out if c in left))
    y = packer.op("multiply", y, _number(packer, packer.lines[y].shape))
    packer.kept.add(y)
    y = packer.op("reshape", y, shape=tuple(sizes.get(c, 1) for c in out))
    return packer.op("expand", y, shape=shape)


def _number(packer: Packer, shape: tuple[int, ...]) -> int:
    x = packer.op("const", value=OFFSET, dtype=DTYPES["int32"])
    return packer.op("expand", packer.op("reshape", x, shape=(1,) * len(shape)), shape=shape)
