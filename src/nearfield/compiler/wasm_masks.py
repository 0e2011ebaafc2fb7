"""Where along a loop masks are surely true: all but the edges of what is padded."""

from collections.abc import Sequence

from .. import scalar as k
from ..scalar import K, walk
from .kernel import vary
from .wasm_schedule import extent

__all__ = ["inside", "interior", "masks_of"]


def masks_of(roots: Sequence[K]) -> dict[K, K]:
    """The loads that have a mask, and these."""
    return {n: n.args[1] for n in walk(list(roots)) if n.op == "load" and len(n.args) == 2}


def interior(v: K, roots: Sequence[K]) -> tuple[int, int]:
    """From which value of a variable to which masks are true, as far as they depend on it; (0, 0) if nobody knows."""
    low, high = 0, extent(v)
    for mask in set(masks_of(roots).values()):
        for term in _terms(mask):
            if v not in term.free:
                continue
            bounds = _certain(term, v)
            if bounds is None:
                return 0, 0
            low, high = max(low, bounds[0]), min(high, bounds[1])
    return (low, high) if low < high else (0, 0)


def inside(v: K, roots: Sequence[K]) -> list[K]:
    """The expressions in the interior: masks no longer depend on the variable."""
    table: dict[K, K] = {}
    for load, mask in masks_of(roots).items():
        left = k.const(True, "bool")
        for term in _terms(mask):
            left = left if v in term.free else left & term
        table[mask] = left
        table[load] = k.load(load.value, load.args[0], load.type, *(() if left.op == "const" else (left,)))
    return [k.substitute(r, table) for r in roots]


def _terms(mask: K) -> list[K]:
    """What is all true where a mask is."""
    return [*_terms(mask.args[0]), *_terms(mask.args[1])] if mask.op == "and" else [mask]


def _certain(term: K, v: K) -> tuple[int, int] | None:
    """For which values of a variable a comparison of indices is true, whatever the other variables."""
    if term.op not in ("lt", "le") or term.args[0].type != "index":
        return None
    apart = term.args[1] - term.args[0]
    pace = vary(apart, v)
    if not pace:
        return None
    short = (term.op == "lt") - k.substitute(apart, {v: k.const(0, "index")}).low  # pace · v must be at least this
    return (max(0, -(-short // pace)), extent(v)) if pace > 0 else (0, -short // -pace + 1)
