"""A Graph that is being written, line by line: what rewriting it needs to know of a line."""

from typing import Any

from ..graph.graph import Line
from ..op import REGISTRY

__all__ = ["Writer"]


class Writer:
    """The lines so far; equal ones are one.

    lines  in order
    kept   numbers of lines that must be stored
    fixed  numbers of lines that depend on weights and constants alone
    """

    def __init__(self) -> None:
        self.lines: list[Line] = []
        self.kept: set[int] = set()
        self.fixed: set[int] = set()
        self._seen: dict[Line, int] = {}

    def add(self, line: Line) -> int:
        """The line's number."""
        if line.op != "input" and line in self._seen:
            return self._seen[line]
        self.lines.append(line)
        at = self._seen[line] = len(self.lines) - 1
        if line.op != "input" and all(a in self.fixed for a in line.args):
            self.fixed.add(at)
        return at

    def op(self, name: str, *args: int, **attrs: Any) -> int:
        """The number of a line that applies an operation to earlier ones."""
        lines = [self.lines[a] for a in args]
        shape, dtype = REGISTRY[name].infer([x.shape for x in lines], [x.dtype for x in lines], attrs)
        return self.add(Line(name, args, tuple(attrs.items()), shape, dtype))
