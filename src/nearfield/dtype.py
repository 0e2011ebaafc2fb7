"""Element types: their size, their kind, and which type two of them promote to.

source  Python array API standard 2024.12, "Data types" and "Type promotion rules"
"""

from dataclasses import dataclass

from .errors import DTypeError

__all__ = ["DTYPES", "DType", "canonical", "promote", "result_type"]


@dataclass(frozen=True, eq=False)
class DType:
    """One element type.

    name      the standard's name, such as "float32"
    kind      "f" real, "i" signed integer, "u" unsigned integer, "b" truth value
    itemsize  bytes of one element in memory
    code      the `struct` format character
    compute   the name of the type that arithmetic happens in (f16 widens to f32, small integers to 32 bits)
    """

    name: str
    kind: str
    itemsize: int
    code: str
    compute: str

    def __repr__(self) -> str:
        return f"nearfield.{self.name}"

    def __reduce__(self) -> tuple[object, ...]:
        return (canonical, (self.name,))


_ROWS = (
    DType("bool", "b", 1, "?", "bool"),
    DType("int8", "i", 1, "b", "int32"),
    DType("uint8", "u", 1, "B", "uint32"),
    DType("int32", "i", 4, "i", "int32"),
    DType("uint32", "u", 4, "I", "uint32"),
    DType("int64", "i", 8, "q", "int64"),
    DType("float16", "f", 2, "e", "float32"),
    DType("float32", "f", 4, "f", "float32"),
    DType("float64", "f", 8, "d", "float64"),
)
DTYPES: dict[str, DType] = {row.name: row for row in _ROWS}


def canonical(dtype: object) -> DType:
    """The DType that a DType, a name, a Python type or a NumPy dtype stands for.

    errors   DTypeError for anything else
    """
    if isinstance(dtype, DType):
        return dtype
    python = {bool: "bool", int: "int32", float: "float32"}
    name = python.get(dtype) if isinstance(dtype, type) else None
    name = name or (dtype if isinstance(dtype, str) else getattr(dtype, "name", getattr(dtype, "__name__", None)))
    found = DTYPES.get("bool" if name == "bool_" else name)  # type: ignore[arg-type]
    if found is None:
        raise DTypeError(f"dtype: {dtype!r} is not an element type; accepted are {', '.join(DTYPES)}.")
    return found


_SIGNED = {"uint8": {"int8": "int32"}, "uint32": {"int8": "int64", "int32": "int64"}}


def promote(a: DType, b: DType) -> DType:
    """The type that holds the values of both; kinds mix as bool < integer < real.

    An integer and a real give the real type (the standard leaves this open). int8 and uint8 would
    promote to int16, which Nearfield lacks, and so give int32.
    """
    if a is b or b.kind == "b":
        return a
    if a.kind == "b":
        return b
    if a.kind == "f" or b.kind == "f":
        if a.kind == b.kind:
            return a if a.itemsize >= b.itemsize else b
        return a if a.kind == "f" else b
    if a.kind == b.kind:
        return a if a.itemsize >= b.itemsize else b
    unsigned, signed = (a, b) if a.kind == "u" else (b, a)
    if signed.itemsize > unsigned.itemsize:
        return signed
    return DTYPES[_SIGNED[unsigned.name][signed.name]]


def result_type(*dtypes: DType) -> DType:
    """The promotion of all the types given."""
    result = dtypes[0]
    for dtype in dtypes[1:]:
        result = promote(result, dtype)
    return result
