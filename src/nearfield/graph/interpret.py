"""The meaning of a Graph: NumPy, line by line. The reference that devices are compared with."""

from typing import Any

from ..op import REGISTRY
from .graph import Graph

__all__ = ["interpret"]


def interpret(graph: Graph, inputs: list[Any]) -> list[Any]:
    """The output arrays for NumPy input arrays."""
    feeds = iter(inputs)
    values: list[Any] = []
    for line in graph.lines:
        if line.op == "input":
            values.append(next(feeds))
            continue
        attrs = dict(line.attrs)
        attrs["dtype"] = line.dtype
        result = REGISTRY[line.op].ref(*[values[a] for a in line.args], **attrs)
        assert (result.shape, result.dtype.name) == (line.shape, line.dtype.name), (line, result.shape, result.dtype)
        values.append(result)
    return [values[i] for i in graph.outputs]
