"""Graph: operations in order, each naming earlier ones by number. Immutable, printable, comparable."""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from math import isnan
from typing import Any, NamedTuple

from ..dtype import DType

__all__ = ["Graph", "Line", "constant_of"]


class Line(NamedTuple):
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


def constant_of(lines: Sequence[Line], i: int) -> bytes | None:
    """The number that all elements of line i are, as it lies in memory; None if that is not known."""
    while lines[i].op in ("reshape", "expand"):
        (i,) = lines[i].args
    return dict(lines[i].attrs)["value"] if lines[i].op == "const" else None


@dataclass(frozen=True, slots=True)
class Graph:
    """Lines in order, and the numbers of those that are results. Two Graphs are equal if they print the same."""

    lines: tuple[Line, ...]
    outputs: tuple[int, ...]

    @property
    def inputs(self) -> tuple[int, ...]:
        """The numbers of the input lines, in order."""
        return tuple(i for i, line in enumerate(self.lines) if line.op == "input")

    def users(self) -> list[list[int]]:
        """For each line the numbers of those that it is an argument of, each once, in order."""
        users: list[list[int]] = [[] for _ in self.lines]
        for i, line in enumerate(self.lines):
            for a in dict.fromkeys(line.args):
                users[a].append(i)
        return users

    def __str__(self) -> str:
        rows = []
        for i, line in enumerate(self.lines):
            args = [f"%{a}" for a in line.args]
            args += [f"{name}={_show(value, line.dtype)}" for name, value in line.attrs]
            shape = ", ".join(map(str, line.shape))
            rows.append(f"%{i}: {line.dtype.name}[{shape}] = {line.op}({', '.join(args)})")
        rows.append("return " + ", ".join(f"%{i}" for i in self.outputs))
        return "\n".join(rows)


def _show(value: Any, dtype: DType) -> str:
    if isinstance(value, DType):
        return value.name
    return _number(value, dtype) if isinstance(value, bytes) else str(value)


def _number(value: bytes, dtype: DType) -> str:
    """The shortest text of a number that no other number of its dtype has; NaNs differ by their bits."""
    (number,) = struct.unpack("<" + dtype.code, value)
    if dtype.kind != "f":
        return str(number)
    if isnan(number):
        return f"nan:{value[::-1].hex()}"
    texts = (f"{number:.{digits}g}" for digits in range(1, 18))
    return repr(float(next(t for t in texts if _packed(t, dtype) == value)))


def _packed(text: str, dtype: DType) -> bytes:
    try:
        return struct.pack("<" + dtype.code, float(text))
    except OverflowError:  # rounded up to fewer digits, the largest numbers become too large
        return b""
