"""Kernel: one loop nest over a grid of parallel axes, in K. What lowering makes and the targets spell.

    for i in axes[0]: for j in axes[1]: …          every combination independent of the others
        stores[0]: argument[index] = value
        stores[1]: …

`load` expressions name an argument by its number and a flat element index; `reduce` expressions are inner loops. A
value may contain several reductions, one inside or after another: a reduction is computed in the outermost loop that
binds all its free variables, so softmax and layer norm are one kernel whose last axis is the row. All loads of one grid
point happen before its stores, and a point only loads what it stores itself from arguments that are written (so
updating in place is safe).
"""

from dataclasses import dataclass
from functools import lru_cache
from math import prod

from ..dtype import DType
from ..scalar import K, const_value, walk

__all__ = ["Kernel", "Store", "cost", "vary"]


@dataclass(frozen=True, slots=True)
class Store:
    """argument[index] = value, at every point of the grid."""

    argument: int
    index: K
    value: K


@dataclass(frozen=True, slots=True)
class Kernel:
    """One loop nest.

    name       describes it: "add_relu", "softmax"; not unique
    axes       loop variables, outermost first, each with its extent; empty for a single point
    stores     at least one; every one is done at every point of the grid
    arguments  the element type of each argument, in binding order
    """

    name: str
    axes: tuple[K, ...]
    stores: tuple[Store, ...]
    arguments: tuple[DType, ...]

    @property
    def extents(self) -> tuple[int, ...]:
        """How often each axis runs."""
        return tuple(v.value[1] for v in self.axes)

    @property
    def written(self) -> frozenset[int]:
        """The arguments that are stored to."""
        return frozenset(s.argument for s in self.stores)

    def __str__(self) -> str:
        loops = " ".join(f"{v.value[0]}<{v.value[1]}" for v in self.axes)
        arguments = ", ".join(f"{n}: {t.name}" for n, t in enumerate(self.arguments))
        head = f"{self.name}({arguments}) for {loops or 'one point'}"
        return "\n".join([head, *(f"  {s.argument}[{s.index}] = {s.value}" for s in self.stores)])


def vary(x: K, v: K) -> int | None:
    """How much the index expression grows when the variable grows by one; None if that is not a constant."""
    if v not in x.free:
        return 0
    if x is v:
        return 1
    if x.op == "linear":
        total = 0
        for c, t in zip(x.value[1:], x.args, strict=True):
            step = vary(t, v)
            if step is None:
                return None
            total += c * step
        return total
    if x.op == "mul" and x.args[1].op == "const":
        step = vary(x.args[0], v)
        return None if step is None else step * int(const_value(x.args[1]))
    return None


@lru_cache(maxsize=1024)
def cost(kernel: Kernel) -> int:
    """An estimate of the kernel's arithmetic, in operations: each is done once for all values of what it depends on."""
    total = len(kernel.stores) * prod(kernel.extents)
    for node in walk([s.value for s in kernel.stores]):
        inner = node.args[0] if node.op == "reduce" else node
        total += prod(v.value[1] for v in inner.free)
    return total
