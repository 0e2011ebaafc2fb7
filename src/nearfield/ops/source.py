"""Operations without inputs: constants, counters; and the counter-based random bits."""

import struct
from typing import Any

from .. import scalar as k
from ..dtype import DTYPES, DType
from ..op import np
from ..scalar import K
from .define import elementwise, record

__all__ = ["bits_of_number", "threefry"]


def bits_of_number(value: Any, dtype: DType) -> bytes:
    """The little-endian bytes of a number in a dtype; integers wrap, reals round, too large ones become infinite."""
    if dtype.kind == "f":
        try:
            return struct.pack("<" + dtype.code, value)
        except OverflowError:
            return struct.pack("<" + dtype.code, float("inf") if value > 0 else float("-inf"))
    if dtype.kind == "b":
        return bytes([bool(value)])
    width = 8 * dtype.itemsize
    whole = int(value) % (1 << width)
    if dtype.kind == "i" and whole >= 1 << (width - 1):
        whole -= 1 << width
    return struct.pack("<" + dtype.code, whole)


def _const_infer(shapes: Any, dtypes: Any, attrs: dict[str, Any]) -> Any:
    if not isinstance(attrs["value"], bytes):
        attrs["value"] = bits_of_number(attrs["value"], attrs["dtype"])
    return (), attrs["dtype"]


def _const_element(index: Any, sources: Any, shape: Any, dtype: DType, attrs: Any) -> K:
    return k.const(struct.unpack("<" + dtype.code, attrs["value"])[0], dtype.compute)


record(
    "const", "source", 0, _const_infer, _const_element,
    lambda dtype, value: np.frombuffer(value, dtype.name).reshape(()), None, "A number, part of the Program.",
)  # fmt: skip

record(
    "iota", "source", 0, lambda shapes, dtypes, attrs: ((attrs["n"],), DTYPES["int32"]),
    lambda index, sources, shape, dtype, attrs: k.cast(index[0], "int32"),
    lambda dtype, n: np.arange(n, dtype="int32"), None, "0, 1, … n - 1.",
)  # fmt: skip


_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))


def _rounds(x0: Any, x1: Any, key: Any, rotate: Any) -> Any:
    """The 20 rounds, on anything with + ^ and a rotation."""
    k0, k1 = key
    keys = (k0, k1, k0 ^ k1 ^ 0x1BD11BDA)
    x0, x1 = x0 + k0, x1 + k1
    for i in range(5):
        for r in _ROTATIONS[i % 2]:
            x0 = x0 + x1
            x1 = rotate(x1, r) ^ x0
        x0, x1 = x0 + keys[(i + 1) % 3], x1 + keys[(i + 2) % 3] + (i + 1)
    return x0 ^ x1


def _threefry_ref(k0: Any, k1: Any, counter: Any) -> Any:
    wide = [np.asarray(a).astype("uint64") for a in (k0, k1, counter)]
    mask = np.uint64(0xFFFFFFFF)

    class Word:  # 32-bit arithmetic written in 64 bits, so that it shares nothing with K
        def __init__(self, v: Any) -> None:
            self.v = v & mask

        def __add__(self, o: Any) -> Any:
            return Word(self.v + (o.v if isinstance(o, Word) else np.uint64(o)))

        def __xor__(self, o: Any) -> Any:
            return Word(self.v ^ (o.v if isinstance(o, Word) else np.uint64(o)))

    def rotate(w: Any, r: int) -> Any:
        return Word((w.v << np.uint64(r)) | (w.v >> np.uint64(32 - r)))

    words = [Word(a) for a in wide]
    return _rounds(words[2], Word(np.zeros_like(wide[2])), (words[0], words[1]), rotate).v.astype("uint32")


@elementwise(ref=_threefry_ref, kinds="u")
def threefry(k0: K, k1: K, counter: K) -> K:
    """32 random bits for each counter, the same on every device, for the key (k0, k1).

    source  Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3": Threefry-2x32 of 20 rounds, words xored
    """
    return _rounds(counter, k.const(0, "uint32"), (k0, k1), lambda x, r: (x << r) | (x >> (32 - r)))
