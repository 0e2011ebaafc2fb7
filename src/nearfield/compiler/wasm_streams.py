"""Products of a vector and a matrix that lies in panels: four panels at a time, since all that counts is memory.

    for each four panels of the range:
        eight accumulators = 0
        for each step of the sum: one element of a; from each panel two vectors of b, times it, added
        for each panel: what is done with its sums; stored
    for each panel that is left: as wasm_tile.py does it

A processor fetches ahead along each stream of addresses, but only so far: one core reads from memory twice as fast in
four streams as in one.
"""

from ..scalar import K
from .kernel import Kernel, vary
from .wasm_bytes import OP, get, i32, memarg, put
from .wasm_contraction import PANEL, Tiling
from .wasm_tile import Tile, Tiles

__all__ = ["STREAMS", "Streams", "is_streamed"]

STREAMS = 4


def is_streamed(plan: Tiling) -> bool:
    """Whether a contraction is one row times whole panels of floats, a fixed distance apart."""
    alone = plan.rows == 1 and not plan.batch and plan.b.dtype.name == "float32"
    return alone and bool(vary(plan.b.place, plan.panel)) and plan.columns >= STREAMS * PANEL


class Streams(Tiles):
    """The function of one kernel.

    streams  the panel and column of each vector of a step, while there are several panels
    """

    together = False

    def __init__(self, kernel: Kernel, plan: Tiling) -> None:
        super().__init__(kernel, plan)
        self.streams: list[tuple[int, int]] = []

    def shifted(self) -> tuple[K, ...]:
        """Panels are side by side, too."""
        return (*super().shifted(), self.plan.panel)

    def parts(self) -> None:
        """Four panels at a time, as long as there are four whole ones; then one."""
        plan, part = self.plan, self.begin
        full = plan.columns // PANEL
        last = get(self.end) + i32(full) + get(self.end) + i32(full) + OP["i32.lt_s"] + OP["select"]
        limit = get(self._set(last + i32(STREAMS - 1) + OP["i32.sub"]))
        self._loop(plan.panel, part, STREAMS, limit, self._side_by_side)
        super().parts()

    def _side_by_side(self) -> None:
        plan = self.plan
        vectors = [(panel, column) for panel in range(STREAMS) for column in range(0, PANEL, 4)]
        while len(self.sums) < len(vectors):
            self.sums.append(self.f.local("v128"))
        self.streams = vectors
        self.enter(plan.row, self.zero)
        self.point(self.right, plan.b)
        self.summed(Tile(self.left(1), [], [self.sums[: len(vectors)]]))
        self.streams = []
        self.enter(plan.lane, self.zero)
        self.lane = plan.lane
        for (panel, column), total in zip(vectors, self.sums, strict=False):
            self.shift = {plan.row: 0, plan.lane: column, plan.panel: panel}
            self.stored(get(total))
        self.lane, self.shift = None, {}
        for _ in (plan.lane, plan.row):
            self.emit(bytes(self.leave().code))

    def _steps(self, steps: list[tuple[int, int]], tile: Tile) -> None:
        if not self.streams:
            super()._steps(steps, tile)
            return
        a, b = self.plan.a, self.plan.b
        apart = vary(b.place, self.plan.panel) or 0
        ((pointer, offset),) = tile.left
        for one, other in steps:
            code = get(pointer) + OP["v128.load32_splat"] + memarg(offset + one * a.size) + put(self.splat)
            for (panel, column), total in zip(self.streams, tile.sums[0], strict=True):
                place = (other + panel * apart + column) * b.size
                vector = get(self.right) + OP["v128.load"] + memarg(place)
                code += self.added(get(self.splat), vector, get(total)) + put(total)
            self.emit(code)
