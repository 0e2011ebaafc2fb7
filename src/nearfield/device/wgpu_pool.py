"""Buffers of a WebGPU device, kept for reuse when freed: making one costs more than a small kernel."""

from collections.abc import Callable
from typing import Any

__all__ = ["Block", "Pool", "size_class"]

KEPT = 512 << 20  # freed bytes kept at most


class Block:
    """A driver's buffer with a number that no other buffer ever has."""

    __slots__ = ("buffer", "number", "size")

    def __init__(self, buffer: Any, size: int, number: int) -> None:
        self.buffer = buffer
        self.size = size
        self.number = number


def size_class(nbytes: int) -> int:
    """`nbytes` rounded up so that few sizes exist: by at most an eighth above 2 KiB, to a multiple of 256 below."""
    step = max(256, 1 << max(0, nbytes.bit_length() - 4))
    return -(-nbytes // step) * step


class Pool:
    """Blocks by size; the ones freed last are used first.

    make     makes a buffer of a size
    largest  bytes of the largest buffer that the device allows
    dropped  is told the number of each buffer that is destroyed
    pooled   bytes kept for reuse
    """

    def __init__(self, make: Callable[[int], Any], largest: int, dropped: Callable[[int], None]) -> None:
        self._make = make
        self._largest = largest
        self._dropped = dropped
        self._free: dict[int, list[Block]] = {}
        # Every buffer, also those in use: when Python collects a cycle, it finalises all that only the cycle refers to,
        # and a buffer that has been finalised is of no use to whoever gets its block next.
        self._made: dict[int, Any] = {}
        self._count = 0
        self.pooled = 0

    def take(self, nbytes: int) -> Block:
        """A block of at least `nbytes`; what `make` raises if there is none."""
        size = max(nbytes, min(size_class(nbytes), self._largest))
        row = self._free.get(size)
        if row:
            self.pooled -= size
            return row.pop()
        buffer = self._make(size)
        self._count += 1
        self._made[self._count] = buffer
        return Block(buffer, size, self._count)

    def give(self, block: Block) -> None:
        """Keep a block for reuse, or destroy it if enough are kept."""
        if block.size > KEPT:
            self._destroy(block)
            return
        while self.pooled + block.size > KEPT:
            self._destroy_one()
        self._free.setdefault(block.size, []).append(block)
        self.pooled += block.size

    def clear(self) -> None:
        """Destroy all that is kept."""
        while self.pooled:
            self._destroy_one()

    def _destroy_one(self) -> None:
        size = max(size for size, row in self._free.items() if row)
        self.pooled -= size
        self._destroy(self._free[size].pop(0))

    def _destroy(self, block: Block) -> None:
        self._dropped(block.number)
        del self._made[block.number]
        block.buffer.destroy()
