"""Copies that cut rows into panels go through a strip of rows at a time, all of its panels, before the next.

    for each strip:              instead of   for each panel:
        for each panel:                           for each row:
            for each row of it:                       copy the panel's few columns
                copy the panel's few columns

A panel's columns are less than a cache line, and the rows lie apart, each on a page of its own: from a strip, which
stays near, all of each line is taken.
"""

from .. import scalar as k
from ..scalar import K
from .kernel import Store, vary

__all__ = ["CACHE_LINE", "in_strips"]

CACHE_LINE = 16  # elements
STRIP = 16  # rows at most, whose pages and lines stay near
FEWEST = 4  # rows that are worth a loop of their own


def in_strips(axes: tuple[K, ...], stores: tuple[Store, ...]) -> tuple[tuple[K, ...], tuple[Store, ...]]:
    """The axes and stores of a copy into panels with its rows in strips; of any other kernel, as they are."""
    if len(axes) < 3 or len(stores) != 1 or stores[0].value.op != "load" or len(stores[0].value.args) == 2:
        return axes, stores
    (store,) = stores
    *outer, panel, row, lane = axes
    width, rows, place = int(lane.value[1]), int(row.value[1]), store.value.args[0]
    together = (vary(place, lane), vary(place, panel), vary(store.index, lane), vary(store.index, row))
    if width >= CACHE_LINE or together != (1, width, 1, width) or (vary(place, row) or 0) <= CACHE_LINE:
        return axes, stores
    size = max(n for n in range(1, STRIP + 1) if rows % n == 0)
    if size < FEWEST or size == rows:
        return axes, stores
    strip, inside = k.var(f"{row.value[0]}o", rows // size), k.var(f"{row.value[0]}i", size)
    table = {row: strip * size + inside}
    moved = Store(store.argument, k.substitute(store.index, table), k.substitute(store.value, table))
    return (*outer, strip, panel, inside, lane), (moved,)
