"""Tensors as text: values in rows, long arrays with their middle left out."""

import struct
from math import isfinite
from typing import Any

from .errors import TraceError
from .tensor import Tensor, method

__all__ = ["to_text"]

MOST = 1000  # elements shown in full
EDGE = 3  # elements shown at either end of an axis otherwise
WIDTH = 100
GAP = "…"


@method
def to_text(x: Tensor) -> str:
    """The values, the dtype, and the shape where the values do not show it; inside `nf.jit` only dtype and shape."""
    try:
        data = x._bytes()
    except TraceError:
        return f"Tensor(shape {x.shape}, {x.dtype.name}, traced)"
    is_short = x.size <= MOST
    values = _nested(x, data, 0, 0, is_short)
    shape = "" if is_short and (x.size or x.ndim == 1) else f", shape {x.shape}"
    line = _one_line(values)
    if x.ndim > 2 or len(line) > WIDTH:
        line = _lines(values, _aligned(values), len("Tensor("))
    return f"Tensor({line}{shape}, {x.dtype.name})"


def _nested(x: Tensor, data: memoryview, axis: int, start: int, is_short: bool) -> Any:
    """The elements as text, in nested lists, from flat position `start`."""
    if axis == x.ndim:
        return _number(struct.unpack_from("<" + x.dtype.code, data, start * x.dtype.itemsize)[0], x.dtype.code)
    n, step = x.shape[axis], 1
    for size in x.shape[axis + 1 :]:
        step *= size
    if not x.size:
        return []
    places: list[int | None] = [*range(n)]
    if not is_short and n > 2 * EDGE + 1:
        places[EDGE:-EDGE] = [None]
    return [GAP if i is None else _nested(x, data, axis + 1, start + i * step, is_short) for i in places]


def _number(value: Any, code: str) -> str:
    """The fewest digits that name this number among those of its type."""
    if code not in "ef" or not isfinite(value):
        return repr(value)
    for digits in range(1, 9):
        text = float(f"{value:.{digits}g}")
        try:
            if struct.unpack(code, struct.pack(code, text))[0] == value:
                return repr(text)
        except OverflowError:  # rounded above the largest number
            continue
    return repr(float(f"{value:.9g}"))


def _one_line(values: Any) -> str:
    return values if isinstance(values, str) else f"[{', '.join(map(_one_line, values))}]"


def _leaves(values: Any) -> list[str]:
    return [values] if isinstance(values, str) else [leaf for v in values for leaf in _leaves(v)]


def _aligned(values: Any) -> Any:
    """What pads each number so that points stand below points."""
    numbers = [v for v in _leaves(values) if v != GAP]
    wholes = max(len(v.partition(".")[0]) for v in numbers)
    parts = max(len(v.partition(".")[2]) for v in numbers)
    has_point = any("." in v for v in numbers)

    def padded(text: str) -> str:
        if text == GAP:
            return text
        whole, point, part = text.partition(".")
        return whole.rjust(wholes) + ((point or " ") + part.ljust(parts) if has_point else "")

    return padded


def _lines(values: Any, padded: Any, indent: int) -> str:
    """One row of the last axis a line; longer rows go on in the next line."""
    if isinstance(values, str):
        return values
    inner = indent + 1
    if all(isinstance(v, str) for v in values):
        return f"[{_wrapped([padded(v) for v in values], inner)}]"
    depth = 0
    first = next(v for v in values if not isinstance(v, str))
    while not isinstance(first[0], str):
        depth, first = depth + 1, first[0]
    between = "," + "\n" * (depth + 1) + " " * inner
    return f"[{between.join(v if isinstance(v, str) else _lines(v, padded, inner) for v in values)}]"


def _wrapped(cells: list[str], indent: int) -> str:
    rows: list[list[str]] = [[]]
    used = indent
    for cell in cells:
        if used + len(cell) + 2 > WIDTH and rows[-1]:
            rows.append([])
            used = indent
        rows[-1].append(cell)
        used += len(cell) + 2
    return (",\n" + " " * indent).join(", ".join(row) for row in rows)
