"""Op: the record of one operation, and the registry of all of them.

A record holds three independent statements: what the operation means (`ref`, in NumPy), how one element of its result
is made (`element`, in K), and how it changes (`grad`, in Tensor code). Tests check them against each other.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from .dtype import DType
from .scalar import K

__all__ = ["REGISTRY", "Op", "Source", "np"]

REGISTRY: dict[str, "Op"] = {}


@dataclass(frozen=True, slots=True)
class Source:
    """One input as a record's `element` sees it: a shape, and elements by index; with a mask, read where that holds."""

    shape: tuple[int, ...]
    dtype: DType
    at: Callable[..., K]


@dataclass(frozen=True, eq=False, slots=True)
class Op:
    """One operation.

    infer    (shapes, dtypes, attributes) -> (shape, dtype) of the result
    element  (index, sources, shape, dtype, attributes) -> the result's element at `index`, in K
    ref      (arrays, attributes) -> the result, in NumPy
    grad     (g, inputs, result, attributes) -> a gradient or None for each input; None if it is not differentiable
    samples  what the tests feed it: see tests/cases.py
    tol      largest relative error that a device may make against `ref` in float32
    """

    name: str
    family: str
    n_in: int
    infer: Callable[..., Any]
    element: Callable[..., K]
    ref: Callable[..., Any]
    grad: Callable[..., Any] | None
    doc: str
    samples: tuple[Any, ...] = ()
    tol: float = 1e-6
    notes: dict[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"Op({self.name}, {self.family}, {self.n_in} inputs)"


class _NumPy:
    """NumPy, imported when a function of it is first called: the browser does not have it."""

    def __getattr__(self, name: str) -> Any:
        import numpy

        return getattr(numpy, name)


np: Any = _NumPy()
