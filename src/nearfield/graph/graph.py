"""Graph: operations in order, each naming earlier ones by number. Immutable, printable, comparable."""

from dataclasses import dataclass
from typing import Any

from ..dtype import DType

__all__ = ["Graph", "Line"]


@dataclass(frozen=True, slots=True)
class Line:
    """One operation of a Graph.

    op     the record's name, or "input"
    args   numbers of earlier lines
    attrs  (name, value) pairs, hashable
    """

    op: str
    args: tuple[int, ...]
    attrs: tuple[tuple[str, Any], ...]
    shape: tuple[int, ...]
    dtype: DType


@dataclass(frozen=True, slots=True)
class Graph:
    """Lines in order, and the numbers of those that are results. Two Graphs are equal if they print the same."""

    lines: tuple[Line, ...]
    outputs: tuple[int, ...]

    @property
    def inputs(self) -> tuple[int, ...]:
        """The numbers of the input lines, in order."""
        return tuple(i for i, line in enumerate(self.lines) if line.op == "input")

    def __str__(self) -> str:
        rows = []
        for i, line in enumerate(self.lines):
            args = [f"%{a}" for a in line.args] + [f"{name}={_show(value)}" for name, value in line.attrs]
            shape = ", ".join(map(str, line.shape))
            rows.append(f"%{i}: {line.dtype.name}[{shape}] = {line.op}({', '.join(args)})")
        rows.append("return " + ", ".join(f"%{i}" for i in self.outputs))
        return "\n".join(rows)


def _show(value: Any) -> str:
    if isinstance(value, DType):
        return value.name
    return value.hex() if isinstance(value, bytes) else str(value)
