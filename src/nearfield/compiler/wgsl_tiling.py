"""Which tile a contraction is cut into: the candidates for its sizes, and the choice among them."""

from dataclasses import dataclass, replace

__all__ = ["Tiling", "candidates", "tiling"]


@dataclass(frozen=True, slots=True)
class Tiling:
    """A workgroup makes rows x columns results, a thread down x across of them (multiples of 4).

    deep  steps of the sum in workgroup memory at a time, a multiple of 4
    """

    rows: int
    columns: int
    down: int
    across: int
    deep: int

    @property
    def threads(self) -> int:
        """Of a workgroup."""
        return self.rows // self.down * (self.columns // self.across)


# The larger, the fewer bytes for each product, and the fewer workgroups to keep a device busy. With strips of 32 steps
# the large ones run out of registers; the small ones wait less often.
TILINGS = (
    Tiling(128, 64, 8, 8, 16),
    Tiling(64, 64, 8, 8, 16),
    Tiling(32, 64, 4, 4, 16),
    Tiling(32, 32, 4, 4, 32),
)
ENOUGH = 128  # workgroups that keep a large device busy


def candidates(batch: int, rows: int, columns: int, length: int) -> list[Tiling]:
    """The tilings worth trying for a contraction of these sizes, largest first."""
    return list(TILINGS)


def workgroups(tile: Tiling, batch: int, rows: int, columns: int) -> int:
    """How many tiles the result has."""
    return batch * -(-rows // tile.rows) * -(-columns // tile.columns)


def tiling(batch: int, rows: int, columns: int, length: int) -> Tiling:
    """The tiling that is expected to be fastest: the largest that makes enough workgroups."""
    found = candidates(batch, rows, columns, length)
    best = next((t for t in found if workgroups(t, batch, rows, columns) >= ENOUGH), found[-1])
    return best if length > best.deep // 2 else replace(best, deep=max(4, 1 << (length - 1).bit_length()))
