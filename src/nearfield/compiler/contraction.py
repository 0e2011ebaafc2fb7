"""What a Kernel contracts: axes of the left factor alone (rows), the right alone (columns), both (batch), and sums."""

from dataclasses import dataclass
from math import prod

from ..scalar import K, walk
from .kernel import Kernel, Store, vary

__all__ = ["Contraction", "contraction_of"]


@dataclass(frozen=True, slots=True)
class Contraction:
    """store = epilogue(Σ over `summed` of a · b) at every point of batch × rows × columns.

    total  the `reduce` expression inside store.value, to be replaced by the sum
    """

    store: Store
    total: K
    a: K
    b: K
    batch: tuple[K, ...]
    rows: tuple[K, ...]
    columns: tuple[K, ...]
    summed: tuple[K, ...]

    @property
    def sizes(self) -> tuple[int, int, int, int]:
        """Batch, rows, columns and the length of the sum."""
        return _size(self.batch), _size(self.rows), _size(self.columns), _size(self.summed)


def _size(variables: tuple[K, ...]) -> int:
    return prod(v.value[1] for v in variables)


def contraction_of(kernel: Kernel) -> Contraction | None:
    """The kernel as one contraction with elementwise work around it, or None."""
    if len(kernel.stores) != 1:
        return None
    store = kernel.stores[0]
    folds = [n for n in walk([store.value]) if n.op == "reduce"]
    if len(folds) != 1 or folds[0].value[0] != "sum" or folds[0].args[0].op != "mul":
        return None
    total = folds[0]
    a, b = total.args[0].args
    axes = set(kernel.axes)
    if not a.free <= axes | set(total.value[1]) or not b.free <= axes | set(total.value[1]):
        return None
    both = tuple(v for v in kernel.axes if v in a.free and v in b.free)
    rows = tuple(v for v in kernel.axes if v in a.free and v not in b.free)
    columns = tuple(v for v in kernel.axes if v in b.free and v not in a.free)
    if len(both) + len(rows) + len(columns) != len(kernel.axes):
        return None
    if kernel.axes and kernel.axes[-1] in rows:  # the innermost axis numbers columns, so that stores are contiguous
        a, b, rows, columns = b, a, columns, rows
    return Contraction(store, total, a, b, both, rows, columns, total.value[1])


def runs_along(x: K, variable: K) -> bool:
    """Whether neighbouring values of the variable read neighbouring elements."""
    return any(n.op == "load" and vary(n.args[0], variable) == 1 for n in walk([x]))
