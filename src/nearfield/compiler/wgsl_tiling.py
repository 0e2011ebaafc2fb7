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
TILINGS = {
    Tiling(128, 64, 8, 8, 16, 16): 128,
    Tiling(64, 64, 8, 8, 16, 16): 256,
    Tiling(32, 64, 4, 4, 16, 16): 200,
    Tiling(32, 32, 4, 4, 32, 32): 0,
}
# A strip that is written out in full runs up to a third faster than a loop of a few steps, and takes twice as long to
# compile: 50 ms more. Products of fewer multiplications than these take microseconds, and get the loop.
LARGE = 1 << 26
STEPS = 4  # of the loop that are written out


def candidates(batch: int, rows: int, columns: int, length: int) -> list[Tiling]:
    """The tilings worth trying for a contraction of these sizes, the one that is expected to be fastest first."""
    enough = [
        t
        for t, n in TILINGS.items()
        if batch * -(-rows // t.rows) * -(-columns // t.columns) >= n and 2 * rows > t.rows and 2 * columns > t.columns
    ] or [next(reversed(TILINGS))]
    found = [*enough, *(t for t in reversed(TILINGS) if t not in enough)]
    deepest = max(4, 1 << (length - 1).bit_length())  # a short sum has no more steps
    most = deepest if batch * rows * columns * length >= LARGE else STEPS
    return [replace(t, deep=min(t.deep, deepest), written=min(t.written, most)) for t in found]


def tiling(batch: int, rows: int, columns: int, length: int) -> Tiling:
    """The tiling that is expected to be fastest."""
    return candidates(batch, rows, columns, length)[0]
