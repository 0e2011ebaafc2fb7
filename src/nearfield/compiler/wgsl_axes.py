"""Kernel -> Kernel: fewer axes, several points for each invocation, loops written out. The meaning stays the same."""

from dataclasses import replace
from functools import lru_cache, reduce
from math import prod

from .. import scalar as k
from ..index import linear, unflatten
from ..scalar import K, substitute, substitute_all, walk
from .kernel import Kernel, Store

__all__ = ["all_replaced", "bound", "collapsed", "fold", "lanes", "replaced", "unpacked", "unrolled"]

WRITTEN_OUT = 25  # steps of a short loop that are written one after the other
EACH = 4  # steps of a long loop that are written one after the other
LONGEST = 800  # nodes that a loop's body may grow to


@lru_cache(maxsize=256)
def collapsed(kernel: Kernel) -> Kernel:
    """Neighbouring axes as one, wherever all indices only depend on their row-major position."""
    axes = list(kernel.axes)
    stores = kernel.stores
    at = len(axes) - 1
    while at > 0:
        outer, inner = axes[at - 1 : at + 1]
        merged = _merged(stores, outer, inner)
        if merged is None:
            at -= 1
            continue
        axes[at - 1 : at + 1], stores = [merged[0]], merged[1]
        at = min(at, len(axes) - 1)
    return replace(kernel, axes=tuple(axes), stores=stores)


def _merged(stores: tuple[Store, ...], outer: K, inner: K) -> tuple[K, tuple[Store, ...]] | None:
    size = inner.value[1]
    loads = [n.args[0] for n in walk([s.value for s in stores]) if n.op == "load"]
    if any(_apart(x, outer, inner, size) for x in (*[s.index for s in stores], *loads)):  # as most are
        return None
    both = k.var(f"{outer.value[0]}{inner.value[0]}", outer.value[1] * size)
    table = {outer: both // k.const(size, "index"), inner: both % k.const(size, "index")}
    changed = all_replaced(stores, table)
    return None if _splits([x for s in changed for x in (s.index, s.value)], both) else (both, changed)


def _apart(index: K, outer: K, inner: K, size: int) -> bool:
    """Whether the two axes' coefficients show that an index does not depend on `outer * size + inner` alone."""
    terms = linear(index)[1]
    return terms.get(outer, 0) != terms.get(inner, 0) * size


def _splits(roots: list[K], variable: K) -> bool:
    return any(n.op in ("div", "rem") and n.type == "index" and variable in n.free for n in walk(roots))


def all_replaced(stores: tuple[Store, ...], table: dict[K, K]) -> tuple[Store, ...]:
    """The stores with parts of their expressions replaced."""
    changed = iter(substitute_all([x for s in stores for x in (s.index, s.value)], table))
    return tuple([Store(s.argument, next(changed), next(changed)) for s in stores])


def replaced(store: Store, table: dict[K, K]) -> Store:
    """The store with parts of its expressions replaced."""
    return Store(store.argument, substitute(store.index, table), substitute(store.value, table))


def unpacked(variables: tuple[K, ...], position: K) -> dict[K, K]:
    """The variables at a row-major position."""
    return dict(zip(variables, unflatten(position, tuple(v.value[1] for v in variables)), strict=True))


def bound(body: K, table: dict[K, K]) -> K:
    """The body of a fold at given values of its variables; a fold inside may have variables of the same names."""
    inner = {n: n for n in walk([body]) if n.op == "reduce" and n.free.isdisjoint(table)}
    return substitute(body, {**inner, **table})


def lanes(stores: tuple[Store, ...], axis: K, count: int) -> tuple[K, list[tuple[Store, ...]]]:
    """An axis for every `count` neighbours of one (whose extent is a multiple), and the stores of each neighbour."""
    coarse = k.var(f"{axis.value[0]}q", axis.value[1] // count)
    return coarse, [all_replaced(stores, {axis: coarse * count + lane}) for lane in range(count)]


def unrolled(store: Store) -> Store:
    """Short loops written out; of long ones, several steps at a time."""
    table: dict[K, K] = {}
    for node in walk([store.value]):
        if node.op == "reduce":
            table[node] = _unroll(substitute(node, {n: v for n, v in table.items() if n is not node}))
    return Store(store.argument, store.index, substitute(store.value, table))


def _unroll(node: K) -> K:
    if node.op != "reduce":
        return node
    kind, variables = node.value
    body, last = node.args[0], variables[-1]
    extent, size = last.value[1], len(walk([body]))
    whole = prod(v.value[1] for v in variables)
    if whole <= WRITTEN_OUT and whole * size <= LONGEST:
        for v in reversed(variables):
            body = fold(kind, [bound(body, {v: k.const(n, "index")}) for n in range(v.value[1])])
        return body
    if extent <= 2 * EACH and extent * size <= LONGEST:
        body = fold(kind, [bound(body, {last: k.const(n, "index")}) for n in range(extent)])
        return k.reduce(kind, variables[:-1], body)
    if extent % EACH == 0 and EACH * size <= LONGEST:
        coarse = k.var(f"{last.value[0]}q", extent // EACH)
        body = fold(kind, [bound(body, {last: coarse * EACH + n}) for n in range(EACH)])
        return k.reduce(kind, (*variables[:-1], coarse), body)
    return node


def fold(kind: str, values: list[K]) -> K:
    """One value of several."""
    steps = {"sum": lambda a, b: a + b, "prod": lambda a, b: a * b, "min": k.minimum, "max": k.maximum}
    return reduce(steps[kind], values)
