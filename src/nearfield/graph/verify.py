"""Does a Graph keep the rules of docs/spec/graph.md? For Graphs from outside, and for all with NEARFIELD_DEBUG=1."""

from ..dtype import DTYPES
from ..errors import FormatError
from ..op import REGISTRY, Op
from .graph import Graph, Line

__all__ = ["verify"]


def verify(graph: Graph) -> None:
    """Return if the Graph keeps the rules of docs/spec/graph.md.

    errors   FormatError for the first line that does not, with what stands there and what the record says
    """
    for at, line in enumerate(graph.lines):
        for arg in line.args:
            if not 0 <= arg < at:
                raise _error(at, line, f"argument %{arg}; accepted are earlier lines")
        if line.op == "input":
            _input(at, line)
        else:
            _operation(at, line, [graph.lines[arg] for arg in line.args])
    for number in graph.outputs:
        if not 0 <= number < len(graph.lines):
            raise FormatError(f"graph: returns %{number}; accepted are %0 to %{len(graph.lines) - 1}.")


def _input(at: int, line: Line) -> None:
    if line.args or line.attrs:
        raise _error(at, line, "an input with arguments or attributes; accepted are none")
    if line.dtype is not DTYPES.get(line.dtype.name) or not all(n >= 0 for n in line.shape):
        raise _error(at, line, f"shape {line.shape}; accepted are sizes of at least 0")


def _operation(at: int, line: Line, args: list[Line]) -> None:
    record = REGISTRY.get(line.op)
    if record is None:
        raise _error(at, line, f"there is no operation {line.op!r}; accepted are the names of nearfield.op.REGISTRY")
    if len(args) != record.n_in and not (record.n_in < 0 and args):
        wanted = "at least one" if record.n_in < 0 else record.n_in
        raise _error(at, line, f"{len(args)} arguments; accepted: {wanted}")
    _operands(at, line, record, args)
    try:
        found = record.infer([a.shape for a in args], [a.dtype for a in args], dict(line.attrs))
    except Exception as error:  # a record's infer trusts its attributes: anything may go wrong in it
        raise _error(at, line, f"its arguments do not fit: {error}") from error
    if (tuple(found[0]), found[1]) != (line.shape, line.dtype):
        raise _error(
            at, line, f"states {_type(line.dtype.name, line.shape)}; its record gives {_type(found[1].name, found[0])}"
        )


def _operands(at: int, line: Line, record: Op, args: list[Line]) -> None:
    """Broadcasting and promotion are spelled out: an elementwise line's operands are alike, but for its conditions."""
    if record.family != "elementwise":
        return
    values = args[record.notes.get("mixed", 0) :]
    if len({a.shape for a in args}) > 1 or len({a.dtype for a in values}) > 1:
        received = ", ".join(_type(a.dtype.name, a.shape) for a in args)
        raise _error(at, line, f"operands {received}; accepted are operands of one shape and dtype")


def _type(dtype: str, shape: tuple[int, ...]) -> str:
    return f"{dtype}[{', '.join(map(str, shape))}]"


def _error(at: int, line: Line, words: str) -> FormatError:
    return FormatError(f"graph: line %{at}, {line.op}: {words.rstrip('.')}.")
