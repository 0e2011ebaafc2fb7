"""What a Kernel adds at places that data tells: the gradient of `take`."""

from dataclasses import dataclass

from ..scalar import K, const_value, walk
from .kernel import Store

__all__ = ["Scatter", "scatter_of"]


@dataclass(frozen=True, slots=True)
class Scatter:
    """result[before, place, after] = Σ term over the rows that have this place.

    axis    of the result, that places count along
    before, after   the other axes of the result
    rows    variables that count the rows; place depends on them alone
    """

    store: Store
    axis: K
    before: tuple[K, ...]
    after: tuple[K, ...]
    rows: tuple[K, ...]
    place: K
    term: K


def scatter_of(axes: tuple[K, ...], stores: tuple[Store, ...]) -> Scatter | None:
    """The one sum that a kernel with these axes and stores makes, if its rows are added where data tells; or None."""
    total = stores[0].value
    if len(stores) > 1 or total.op != "reduce" or total.value[0] != "sum" or total.args[0].op != "select":
        return None
    condition, term, other = total.args[0].args
    rows = total.value[1]
    if condition.op != "eq" or other.op != "const" or const_value(other):
        return None
    if any(n.op == "load" and n.value == stores[0].argument for n in walk([total])):
        return None
    for axis, place in (condition.args, condition.args[::-1]):
        if (
            axis in axes
            and place.free <= set(rows)
            and axis not in term.free
            and place.low >= 0
            and place.high < axis.value[1]
        ):
            at = axes.index(axis)
            return Scatter(stores[0], axis, axes[:at], axes[at + 1 :], rows, place, term)
    return None
