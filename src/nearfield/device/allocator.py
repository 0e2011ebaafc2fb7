"""Which parts of one growing stretch of memory are free: pure arithmetic, no memory is touched."""

from bisect import bisect_left, insort

__all__ = ["ALIGNMENT", "Allocator"]

ALIGNMENT = 64  # a cache line, so that no two blocks share one


class Allocator:
    """Blocks in the stretch from `start` to `limit`.

    end    everything from here to `limit` has never been used or is free again
    freed  free bytes below `end`

    A freed block first waits in a list of blocks of its size, where the next request of that size finds it: a training
    loop asks for the same sizes again and again. Only when nothing fits are neighbours joined.
    """

    def __init__(self, start: int, limit: int) -> None:
        self._start = -(-start // ALIGNMENT) * ALIGNMENT
        self._limit = limit
        self.end = self._start
        self.freed = 0
        self._used: dict[int, int] = {}  # address → size
        self._waiting: dict[int, list[int]] = {}  # size → addresses, not joined with their neighbours
        self._sizes: list[int] = []  # sizes of joined blocks, sorted
        self._joined: dict[int, dict[int, None]] = {}  # size → addresses of joined blocks
        self._starts: dict[int, int] = {}  # joined block's address → size
        self._stops: dict[int, int] = {}  # joined block's end → address

    def take(self, nbytes: int) -> int:
        """The address of a block of `nbytes`, a multiple of 64; -1 if there is no room. `end` may have moved up."""
        size = max(ALIGNMENT, -(-nbytes // ALIGNMENT) * ALIGNMENT)
        waiting = self._waiting.get(size)
        if waiting:
            address = waiting.pop()
            self.freed -= size
        else:
            address = self._find(size)
            if address < 0 and self._waiting:
                self.join()
                address = self._find(size)
            if address < 0:
                address = self._extend(size)
        if address >= 0:
            self._used[address] = size
        return address

    def give(self, address: int) -> None:
        """Take a block back; KeyError if there is none at this address."""
        size = self._used.pop(address)
        self._waiting.setdefault(size, []).append(address)
        self.freed += size

    def size(self, address: int) -> int:
        """Bytes reserved for the block at this address."""
        return self._used[address]

    def blocks(self) -> list[tuple[int, int]]:
        """Address and size of each block in use, by address."""
        return sorted(self._used.items())

    def _find(self, size: int) -> int:
        """Best fit: the smallest joined block that is large enough; the rest of it stays free."""
        place = bisect_left(self._sizes, size)
        if place == len(self._sizes):
            return -1
        found = self._sizes[place]
        address = next(iter(self._joined[found]))
        self._remove(address)
        if found > size:
            self._insert(address + size, found - size)
        self.freed -= size
        return address

    def _extend(self, size: int) -> int:
        if self.end + size > self._limit:
            return -1
        address, self.end = self.end, self.end + size
        return address

    def join(self) -> None:
        """Join all free neighbours; those at the very end move `end` down."""
        for size, addresses in self._waiting.items():
            for address in addresses:
                self._join(address, size)
        self._waiting.clear()
        last = self._stops.get(self.end)
        if last is not None:  # a free block at the very end is as good as never used
            self.freed -= self._starts[last]
            self._remove(last)
            self.end = last

    def _join(self, address: int, size: int) -> None:
        before = self._stops.get(address)
        if before is not None:
            size += self._starts[before]
            self._remove(before)
            address = before
        after = self._starts.get(address + size)
        if after is not None:
            self._remove(address + size)
            size += after
        self._insert(address, size)

    def _insert(self, address: int, size: int) -> None:
        self._starts[address] = size
        self._stops[address + size] = address
        if size not in self._joined:
            insort(self._sizes, size)
            self._joined[size] = {}
        self._joined[size][address] = None

    def _remove(self, address: int) -> None:
        size = self._starts.pop(address)
        del self._stops[address + size]
        row = self._joined[size]
        del row[address]
        if not row:
            del self._joined[size]
            del self._sizes[bisect_left(self._sizes, size)]
