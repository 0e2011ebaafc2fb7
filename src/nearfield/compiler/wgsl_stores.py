"""Stores of neighbouring elements -> WGSL: as one vector or one word where the buffer is written so."""

from collections.abc import Sequence

from ..dtype import DType
from .kernel import Store
from .wgsl import Scope, Writer
from .wgsl_wide import lanes_of

__all__ = ["packed", "stores", "whole"]

_AS_BYTE = {"bool": "select(0u, 1u, {0})", "int8": "(bitcast<u32>({0}) & 255u)", "uint8": "({0} & 255u)"}


def packed(writer: Writer, dtype: DType, values: Sequence[str]) -> list[str]:
    """Words that hold elements of less than four bytes."""
    if dtype.name == "float16":
        writer.need("nf_half")
        return [f"nf_half({x}) | (nf_half({y}) << 16u)" for x, y in zip(values[::2], values[1::2], strict=True)]
    parts = [f"({_AS_BYTE[dtype.name].format(v)} << {8 * (n % 4)}u)" for n, v in enumerate(values)]
    return [" | ".join(parts[n : n + 4]) for n in range(0, len(parts), 4)]


def whole(writer: Writer, argument: int, place: str, values: Sequence[str]) -> str:
    """The statement that stores all lanes of a wide access."""
    dtype = writer.dtypes[argument]
    words = values if dtype.itemsize == 4 else packed(writer, dtype, values)
    text = words[0] if len(words) == 1 else f"{writer.stored(argument)}({', '.join(words)})"
    return f"b{argument}[{place}] = {text};"


def stores(scope: Scope, points: Sequence[Store], inside: Sequence[str] = ()) -> list[str]:
    """Statements that store one result at neighbouring points, each only where `inside` holds ("" for always).

    Of a buffer with wide access all lanes are stored at once: then no condition is given.
    """
    argument, writer = points[0].argument, scope.writer
    values = [scope.value(s.value) for s in points]
    lanes = writer.wide.get(argument, 0)
    if lanes and len(points) % lanes == 0:
        wides = [lanes_of(s.index, lanes) for s in points[::lanes]]
        places = [scope.value(w.place) for w in wides if w is not None and w.lane == 0]
        if len(places) == len(wides):
            return [whole(writer, argument, at, values[n * lanes :][:lanes]) for n, at in enumerate(places)]
    lines = []
    for n, (store, value) in enumerate(zip(points, values, strict=True)):
        target = writer.element(argument, scope.value(store.index))
        condition = inside[n] if inside else ""
        lines.append(f"if ({condition}) {{ {target} = {value}; }}" if condition else f"{target} = {value};")
    return lines
