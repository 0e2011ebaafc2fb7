"""Buffers that are read and written several elements at a time: which ones, and how their elements are declared.

A frame that makes neighbouring elements in one invocation writes the index of each as 4 n + 0 … 4 n + 3. Where that can
be proved of a buffer, it is declared as an array of vectors, and one access brings them all.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from math import gcd

from ..dtype import DType
from ..index import from_linear, linear
from ..scalar import K, walk
from .kernel import Store

__all__ = ["VECTOR", "Wide", "lanes_of", "most_lanes", "multiple", "widths"]

VECTOR = 4  # neighbouring elements that an invocation makes


@dataclass(frozen=True, slots=True)
class Wide:
    """One access: elements lanes · place … of a buffer, of which `lane` is asked for."""

    place: K
    lane: int


def multiple(x: K, n: int) -> bool:
    """Whether an index is provably a multiple of n."""
    constant, terms = linear(x)
    return constant % n == 0 and all(c % n == 0 or _whole(t, n // gcd(c, n)) for t, c in terms.items())


def _whole(x: K, n: int) -> bool:
    if x.op in ("min", "max"):
        return all(multiple(a, n) for a in x.args)
    if x.op == "mul":
        return any(multiple(a, n) for a in x.args)
    return x.op == "rem" and multiple(x.args[0], n) and multiple(x.args[1], n)


@lru_cache(maxsize=16384)
def lanes_of(index: K, lanes: int = VECTOR) -> Wide | None:
    """The wide access that holds this element, if its place among the lanes is known."""
    constant, terms = linear(index)
    lane = constant % lanes
    if not any(c % lanes for c in terms.values()):
        return Wide(from_linear(constant // lanes, {t: c // lanes for t, c in terms.items()}), lane)
    if not multiple(index - lane, lanes):
        return None
    return Wide((index - lane) // lanes, lane)


def most_lanes(dtypes: Iterable[DType], extent: int) -> int:
    """How many neighbours an invocation best makes of an axis: what fills 16 bytes of each buffer, 4, or 1."""
    if extent % 8 == 0 and all(t.itemsize == 2 for t in dtypes):
        return 8
    return VECTOR if extent % VECTOR == 0 else 1


def widths(values: Iterable[K], stores: Iterable[Store], dtypes: tuple[DType, ...]) -> dict[int, int]:
    """Buffer -> lanes, of those buffers that some wide access brings all lanes of."""
    loads = [(n.value, n.args) for n in walk(list(values)) if n.op == "load"]
    loads += [(s.argument, (s.index,)) for s in stores]
    found: dict[int, int] = {}
    for lanes in (VECTOR, 8, 16):
        brought: dict[tuple[object, ...], set[int]] = {}
        for buffer, (index, *mask) in loads:
            wide = lanes_of(index, lanes) if lanes * dtypes[buffer].itemsize <= 16 else None
            if wide is not None:
                brought.setdefault((buffer, wide.place, *mask), set()).add(wide.lane)
        found |= {int(str(key[0])): lanes for key, seen in brought.items() if len(seen) == lanes}
    return found
