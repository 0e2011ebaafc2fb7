"""Stores of neighbouring elements -> WGSL: as one vector or one word where the buffer is written so."""

from collections.abc import Sequence

from ..dtype import DType
from .kernel import Store
from .wgsl import Scope, Writer
from .wgsl_wide import lanes_of

__all__ = ["packed", "stores"]

_AS_BYTE = {"bool": "select(0u, 1u, {0})", "int8": "(bitcast<u32>({0}) & 255u)", "uint8": "({0} & 255u)"}


def packed(writer: Writer, dtype: DType, values: Sequence[str]) -> list[str]:
    """Words that hold four elements of less than four bytes."""
    if dtype.name == "float16":
        writer.need("nf_half")
        return [f"nf_half({x}) | (nf_half({y}) << 16u)" for x, y in (values[:2], values[2:])]
    parts = [f"({_AS_BYTE[dtype.name].format(v)} << {8 * n}u)" for n, v in enumerate(values)]
    return [" | ".join(parts)]


def stores(
    scope: Scope, lanes: Sequence[Store], inside: Sequence[str] = ("", "", "", ""), place: str = ""
) -> list[str]:
    """Statements that store one result at neighbouring points, each only where `inside` holds ("" for always).

    Of a buffer with wide access all four lanes are stored at once: then no condition is given. They go to `place`, in
    units of four elements, or where their indices say.
    """
    argument, writer = lanes[0].argument, scope.writer
    values = [scope.value(s.value) for s in lanes]
    wide = lanes_of(lanes[0].index) if argument in writer.wide and not place else None
    if place or wide is not None:
        dtype = writer.dtypes[argument]
        words = values if dtype.itemsize == 4 else packed(writer, dtype, values)
        text = words[0] if len(words) == 1 else f"{writer.stored(argument)}({', '.join(words)})"
        return [f"b{argument}[{scope.value(wide.place) if wide else place}] = {text};"]
    lines = []
    for store, value, condition in zip(lanes, values, inside, strict=False):
        text = f"b{argument}[{scope.value(store.index)}] = {value};"
        lines.append(f"if ({condition}) {{ {text} }}" if condition else text)
    return lines
