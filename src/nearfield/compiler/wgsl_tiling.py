"""Which tile a contraction is cut into: the candidates for its sizes, and the choice among them."""

from dataclasses import dataclass, replace

__all__ = ["Tiling", "candidates", "tiling"]


@dataclass(frozen=True, slots=True)
class Tiling:
    """A workgroup makes rows x columns results, a thread down x across of them (multiples of 4).

    deep     steps of the sum in workgroup memory at a time, a multiple of 4
    written  of these, steps that are written out one after the other; a loop does all. A divisor of deep
    """

    rows: int
    columns: int
    down: int
    across: int
    deep: int
    written: int

    @property
    def threads(self) -> int:
        """Of a workgroup."""
        return self.rows // self.down * (self.columns // self.across)


# The larger, the fewer bytes for each product, and the fewer workgroups: with each, how many keep a large device busy.
# With strips of 32 steps the large ones run out of registers; the smallest waits less often.
# How much is written out: with 64 results a thread a loop costs a quarter of the speed, and many workgroups run, to
# earn longer compilation back. With 16 results loading is the limit, and the short text compiles in half the time.
TILINGS = {
    Tiling(128, 64, 8, 8, 16, 16): 128,
    Tiling(64, 64, 8, 8, 16, 16): 256,
    Tiling(32, 64, 4, 4, 16, 4): 200,
    Tiling(32, 32, 4, 4, 32, 4): 0,
}


def candidates(batch: int, rows: int, columns: int, length: int) -> list[Tiling]:
    """The tilings worth trying for a contraction of these sizes, the one that is expected to be fastest first."""
    enough = [
        t
        for t, n in TILINGS.items()
        if batch * -(-rows // t.rows) * -(-columns // t.columns) >= n and 2 * rows > t.rows and 2 * columns > t.columns
    ] or [next(reversed(TILINGS))]
    found = [*enough, *(t for t in reversed(TILINGS) if t not in enough)]
    steps = max(4, 1 << (length - 1).bit_length())  # a short sum has no more
    return [replace(t, deep=min(t.deep, steps), written=min(t.written, steps)) for t in found]


def tiling(batch: int, rows: int, columns: int, length: int) -> Tiling:
    """The tiling that is expected to be fastest."""
    return candidates(batch, rows, columns, length)[0]
