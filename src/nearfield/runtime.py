"""Evaluation: trace what is pending, find or build its Program, run it, and give the nodes their values.

This file plugs itself into tensor.py, which therefore need not know compiler and devices.
"""

import sys
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from .dtype import DType
from .errors import DTypeError, TraceError
from .grad import tape
from .graph.interpret import interpret
from .tensor import PENDING, Node, Tensor, set_evaluator
from .trace import trace

__all__ = ["evaluate", "memory_stats", "use"]


class Reference:
    """The device that is NumPy: values are arrays, Programs are Graphs."""

    name = "reference"
    description = "NumPy, line by line"
    dtypes = frozenset(("bool", "int8", "uint8", "int32", "uint32", "int64", "float16", "float32", "float64"))


class _State:
    device: Any = Reference()


_state = _State()


def _array(node: Node) -> Any:
    import numpy

    value = node.value
    if not isinstance(value, (bytes, bytearray, memoryview)):
        value = value.device.read(value, node.size * node.dtype.itemsize)
    return numpy.frombuffer(value, node.dtype.name, node.size).reshape(node.shape)


def _wanted(root: Node) -> list[Node]:
    return [root, *(n for n in PENDING.values() if n is not root)]


def evaluate(root: Node) -> None:
    """Give `root`, and everything else that is pending and can be reached, a value."""
    if root.value is not None:
        return
    roots = _wanted(root)
    graph, feeds = trace(roots)
    results = interpret(graph, [_array(n) for n in feeds])
    for node, value in zip(roots, results, strict=True):
        _settle(node, value.tobytes())


def _settle(node: Node, value: Any) -> None:
    node.value = value
    PENDING.pop(id(node), None)
    if not tape.depth:
        node.args, node.op = (), None


def _read(node: Node) -> Any:
    evaluate(node)
    return node.value


async def _read_async(node: Node) -> Any:
    evaluate(node)


def _check_dtype(who: str, dtype: DType) -> None:
    if dtype.name not in _state.device.dtypes:
        raise DTypeError(f"{who}: device {_state.device.name} has no {dtype.name}; use float32 or int32, or another device: nf.use('wasm').")


set_evaluator(_read, _read_async, _check_dtype)
