"""Tensor -> Graph: the expressions behind some nodes, numbered, with equal ones merged."""

from .errors import TraceError
from .graph.graph import Graph, Line
from .tensor import Node, count_reference

__all__ = ["ordered", "trace"]

TRANSPARENT = ("identity", "stop_gradient")


def ordered(roots: list[Node]) -> list[Node]:
    """The nodes that the roots need and have no value for, and the values these need; arguments first."""
    order: list[Node] = []
    seen: set[int] = set()
    stack: list[tuple[Node, bool]] = [(r, False) for r in reversed(roots)]
    while stack:
        node, ready = stack.pop()
        if ready:
            order.append(node)
        elif id(node) not in seen:
            seen.add(id(node))
            if node.value is not None or not node.args:
                order.append(node)
                continue
            stack.append((node, True))
            stack.extend([(arg, False) for arg in reversed(node.args) if id(arg) not in seen])
    return order


def trace(roots: list[Node], placeholders: list[Node] | None = None) -> tuple[Graph, list[Node]]:
    """The Graph that computes the roots, and the nodes whose values are its inputs, in order.

    placeholders  nodes without value or operation that stand for inputs; they come first
    errors        TraceError for another node without value and operation: a traced input that has leaked
    """
    count_reference()
    feeds: list[Node] = []
    lines: list[Line] = []
    number: dict[int, int] = {}
    merged: dict[object, int] = {}

    def place(line: Line, key: object) -> int:
        found = merged.get(key)
        if found is None:
            found = merged[key] = len(lines)
            lines.append(line)
        return found

    for node in placeholders or ():
        number[id(node)] = len(lines)
        lines.append(Line("input", (), (), node.shape, node.dtype))
        feeds.append(node)
    for node in ordered(roots):
        if id(node) in number:
            continue
        if node.value is not None:
            key = (id(node.value), node.shape, node.dtype.name)
            if key not in merged:
                feeds.append(node)
            number[id(node)] = place(Line("input", (), (), node.shape, node.dtype), key)
        elif node.op is None:
            raise TraceError(
                "jit: a value was asked for that depends on an input of a traced function, and there is none yet. "
                "Inside the function, say it with nf.where instead of `if`; after it, use what it returned."
            )
        elif node.op.name in TRANSPARENT:
            number[id(node)] = number[id(node.args[0])]
        else:
            args = tuple([number[id(a)] for a in node.args])
            line = Line(node.op.name, args, tuple(node.attrs.items()), node.shape, node.dtype)
            number[id(node)] = place(line, line)
    return Graph(tuple(lines), tuple(number[id(r)] for r in roots)), feeds
