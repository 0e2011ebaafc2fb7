"""Axes that run together but for an edge: pixels and channels of a padded image are one axis, bounded in channels.

for i < 226: for j < 3: a[3 i + j] = b[3 i + j] if i < 224   →   for u < 678: a[u] = b[u] if u < 672
"""

from itertools import pairwise
from math import prod

from .. import scalar as k
from ..index import linear
from ..scalar import K, walk
from .kernel import Store

__all__ = ["ROWS", "across_edges"]

ROWS = 8  # of an image: with fewer, threads share parts of rows, which each have edges of their own


def across_edges(axes: tuple[K, ...], stores: tuple[Store, ...]) -> tuple[tuple[K, ...], tuple[Store, ...]]:
    """The axes and stores with neighbours (i, j) as one axis if all that is used of them is i n + j and bounds of i."""
    roots = [x for s in stores for x in (s.index, s.value)]
    bounds = [x for x in walk(roots) if x.op == "lt" and x.args[0].type == "index"]
    for at, (i, j) in enumerate(pairwise(axes) if bounds else ()):
        n = int(j.value[1])
        u = k.var(f"{i.value[0]}{j.value[0]}", int(i.value[1]) * n)
        edges = {x: edge for x in bounds if (edge := _moved(x, i, u, n)) is not None}
        if edges and prod(int(v.value[1]) for v in axes if v not in (i, j)) >= ROWS:
            found = iter(k.substitute_all(roots, {i: u // n, j: u % n} | edges))
            joined = tuple([Store(s.argument, next(found), next(found)) for s in stores])
            if not any(x.op in ("div", "rem") and u in x.free for s in joined for x in walk([s.index, s.value])):
                return across_edges((*axes[:at], u, *axes[at + 2 :]), joined)
    return axes, stores


def _moved(x: K, i: K, u: K, n: int) -> K | None:
    """A bound of i, with either sign, as one of u, of which i is the quotient by n; None if it is of something else."""
    constant, terms = linear(x.args[0] - x.args[1])
    if terms == {i: 1}:  # i < -constant
        return k.less(u, -constant * n)
    return k.less(k.const((constant + 1) * n - 1, "index"), u) if terms == {i: -1} else None
