"""Axes whose values choose between expressions are written out: a store for each value, and nothing to choose.

Arrays that are put side by side (`concat`) ask for each element which of them it comes from; arrays whose elements take
turns ask for a remainder. As loops stand, every element would compute all of them. With a store for each case, what the
cases have in common is computed once.
"""

from collections.abc import Iterable, Sequence

from .. import scalar as k
from ..scalar import K, walk
from .kernel import Kernel, Store, vary
from .wasm_schedule import extent, loads_of, reduces_of

__all__ = ["by_cases"]

MOST = 16  # stores of one point


def by_cases(kernel: Kernel) -> Kernel:
    """An equal kernel whose leading axes do not choose between expressions, where they have few cases."""
    if reduces_of(s.value for s in kernel.stores):
        return kernel
    axes, stores = list(kernel.axes), kernel.stores
    for v in kernel.axes[:-1]:
        cases = _cases(v, _choices(s.value for s in stores))
        beside = any(vary(s.index, v) == 1 for s in stores)  # these may be lanes
        if cases > 1 and len(stores) * cases <= MOST and not beside:
            turns = k.var(f"{v.value[0]}t", extent(v) // cases)
            at = axes.index(v)
            axes[at : at + 1] = [turns] if extent(turns) > 1 else []
            first = turns * cases if extent(turns) > 1 else k.const(0, "index")
            stores = tuple(_with(s, {v: first + n}) for s in stores for n in range(cases))
    return Kernel(kernel.name, tuple(axes), stores, kernel.arguments) if stores != kernel.stores else kernel


def _with(store: Store, table: dict[K, K]) -> Store:
    return Store(store.argument, k.substitute(store.index, table), k.substitute(store.value, table))


def _choices(values: Iterable[K]) -> list[K]:
    """The conditions on which one or another load is taken."""
    chosen = [n.args for n in walk(list(values)) if n.op == "select"]
    return [condition for condition, a, b in chosen if loads_of([a]) and loads_of([b])]


def _cases(v: K, conditions: Sequence[K]) -> int:
    """Into how many cases an axis falls, of which each has its own answer to the conditions; 1 if into too many."""
    mine = [c for c in conditions if v in c.free]
    if not mine:
        return 1
    rests = [n for n in walk(mine) if n.op == "rem" and vary(n.args[0], v)]
    cases = max((int(n.args[1].value) for n in rests), default=extent(v))
    return cases if cases <= MOST and extent(v) % cases == 0 else 1
