"""Program <-> bytes (docs/spec/program.md, sections 1 and 2)."""

import json
import struct
from collections.abc import Callable
from typing import Any

from ..errors import FormatError
from .program import Buffer, Entry, Kernel, Program, Step
from .verify import MOST, verify

__all__ = ["decode", "encode"]

SIGNATURE = b"\x89NFP\r\n\x1a\n"
VERSION = 1
LONGEST_HEADER = 67_108_864
KEYS = ("target", "features", "buffers", "kernels", "steps", "entries", "arena", "module", "memory_flag", "data")
DIGITS = len(str(MOST))


def encode(program: Program) -> bytes:
    """The file: the same bytes for equal Programs, on every machine.

    errors   FormatError if the Program is not legal
    """
    verify(program)
    header = {
        "target": program.target,
        "features": program.features,
        "buffers": [(b.name, b.dtype, b.shape, b.kind, b.offset, b.alias) for b in program.buffers],
        "kernels": [(k.name, k.code, k.bindings) for k in program.kernels],
        "steps": [(s.kernel, s.buffers, s.size, s.cost) for s in program.steps],
        "entries": [(e.name, e.inputs, e.outputs, e.start, e.stop) for e in program.entries],
        "arena": program.arena,
        "module": len(program.module),
        "memory_flag": program.memory_flag,
        "data": len(program.data),
    }
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    if len(text) > LONGEST_HEADER:
        raise _wrong("header", f"has {len(text)} bytes; accepted are at most {LONGEST_HEADER}")
    padding = bytes(-len(program.module) % 8)
    return b"".join((SIGNATURE, struct.pack("<II", VERSION, len(text)), text, program.module, padding, program.data))


def decode(data: bytes | bytearray | memoryview) -> Program:
    """The Program in a file, verified.

    errors   FormatError, with the place, for any bytes that `encode` does not write
    cost     time and memory proportional to the length of `data`
    """
    view = memoryview(data).cast("B")
    if len(view) < 16 or bytes(view[:8]) != SIGNATURE:
        raise _wrong("signature", "these bytes are not a Nearfield Program, or were changed in transfer")
    version, length = struct.unpack("<II", view[8:16])
    if version != VERSION:
        raise FormatError(f"program: version: is {version}; accepted is {VERSION}. Update Nearfield, or export again.")
    if length % 8 or length > LONGEST_HEADER or 16 + length > len(view):
        raise _wrong("header", f"its length {length} is not a multiple of 8 inside the file's {len(view)} bytes")
    header = _header(bytes(view[16 : 16 + length]))
    module, values = _blobs(header, view[16 + length :])
    program = _program(header, module, values)
    verify(program)
    return program


def _wrong(place: str, what: str) -> FormatError:
    return FormatError(f"program: {place}: {what}. The file is damaged or was not made by Nearfield; export it again.")


def _header(text: bytes) -> dict[str, Any]:
    try:
        header = json.loads(
            text.decode(), object_pairs_hook=_object, parse_int=_integer, parse_float=_float, parse_constant=_float
        )
    except FormatError:
        raise
    except (ValueError, RecursionError) as error:
        raise _wrong("header", f"is not JSON ({type(error).__name__})") from None
    if type(header) is not dict or set(header) != set(KEYS):
        raise _wrong("header", f"is not an object with exactly the keys {', '.join(KEYS)}")
    return header


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) != len(pairs):
        raise _wrong("header", "a key stands twice in one object")
    return dict(pairs)


def _integer(text: str) -> int:
    # longer numbers are out of range anyway, and reading them would take more than linear time
    if len(text) > DIGITS + 1:
        raise _wrong("header", f"a number has {len(text)} characters; accepted are integers up to {MOST}")
    return int(text)


def _float(text: str) -> int:
    raise _wrong("header", f"{text[:30]} is not an integer")


def _blobs(header: dict[str, Any], rest: memoryview) -> tuple[bytes, bytes]:
    module, data = header["module"], header["data"]
    if type(module) is not int or type(data) is not int or module < 0 or data < 0:
        raise _wrong("header", "module and data are lengths in bytes")
    start = module + -module % 8
    if start + data != len(rest):
        raise _wrong("length", f"{len(rest)} bytes follow the header; it names {start} of module and {data} of data")
    if any(rest[module:start]):
        raise _wrong("module", "the padding after it is not zeros")
    return bytes(rest[:module]), bytes(rest[start:])


def _program(header: dict[str, Any], module: bytes, data: bytes) -> Program:
    return Program(
        target=header["target"] if isinstance(header["target"], str) else "",
        features=_list("features", header["features"]),
        buffers=_rows(header, "buffers", Buffer, 6, (2,)),
        kernels=_rows(header, "kernels", Kernel, 3, ()),
        steps=_rows(header, "steps", Step, 4, (1, 2)),
        entries=_rows(header, "entries", Entry, 5, (1, 2)),
        arena=header["arena"],
        module=module,
        memory_flag=header["memory_flag"],
        data=data,
    )


def _rows(header: dict[str, Any], key: str, make: Callable[..., Any], count: int, lists: tuple[int, ...]) -> Any:
    """One dataclass for each row of a table; `lists` are the fields that are lists."""
    made = []
    for index, row in enumerate(_list(key, header[key])):
        place = f"{key}[{index}]"
        if type(row) is not list or len(row) != count:
            raise _wrong(place, f"is not a list of {count} fields")
        for field in lists:
            row[field] = _list(place, row[field])
        made.append(make(*row))
    return tuple(made)


def _list(place: str, value: object) -> tuple[Any, ...]:
    if type(value) is not list:
        raise _wrong(place, "is not a list")
    return tuple(value)
