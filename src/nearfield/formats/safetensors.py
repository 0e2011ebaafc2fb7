"""safetensors: named arrays in one file. Eight bytes of length, a JSON header, then the bytes of all arrays.

source  https://github.com/huggingface/safetensors, "Format"
"""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from math import prod
from os import PathLike
from pathlib import Path
from typing import Any, BinaryIO

from ..dtype import DTYPES, DType
from ..errors import DTypeError, FormatError
from ..tensor import Tensor, call, leaf

__all__ = ["decode", "load_metadata", "load_tensors", "replacing", "save_tensors"]

MAX_HEADER_BYTES = 100_000_000  # the limit of the original
_CODES = {
    "bool": "BOOL", "int8": "I8", "uint8": "U8", "int32": "I32", "uint32": "U32", "int64": "I64", "float16": "F16",
    "float32": "F32", "float64": "F64",
}  # fmt: skip
_NAMES = {code: name for name, code in _CODES.items()}
_BITS = {code: 8 * DTYPES[name].itemsize for code, name in _NAMES.items()} | {"BF16": 16}


def decode(data: Any, where: str = "safetensors") -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors by name, and the metadata, of a file's bytes; bfloat16 becomes float32.

    memory  the tensors are views of `data`, except bfloat16
    errors  FormatError naming the place, for anything that is not as it must be
    """
    view = memoryview(data).cast("B")
    header, start = _header(view, where)
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise FormatError(f"{where}: __metadata__ is {_short(metadata)}; accepted is an object of strings.")
    body = view[start:]
    tensors: dict[str, Tensor] = {}
    spans: list[tuple[int, int, str]] = []
    for name, entry in header.items():
        code, shape, first, last = _entry(name, entry, len(body), where)
        spans.append((first, last, name))
        tensors[name] = _tensor(code, shape, body[first:last])
    _check_spans(sorted(spans), len(body), where)
    return tensors, metadata


def _header(view: memoryview, where: str) -> tuple[dict[str, Any], int]:
    if len(view) < 8:
        raise FormatError(
            f"{where}: the file has {len(view)} bytes; a safetensors file has at least 8. It is cut short; fetch it "
            "again."
        )
    size = int.from_bytes(view[:8], "little")
    if size > min(len(view) - 8, MAX_HEADER_BYTES):
        raise FormatError(
            f"{where}: the header ends at byte {8 + size} but the file has {len(view)}, and a header at most "
            f"{MAX_HEADER_BYTES}. "
            "It is cut short or no safetensors file; fetch it again."
        )
    try:
        header = json.loads(str(view[8 : 8 + size], "utf-8"), object_pairs_hook=_without_repeats)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{where}: the header, bytes 8 to {8 + size}, is not JSON: {str(error)[:200]}.") from None
    if not isinstance(header, dict):
        raise FormatError(f"{where}: the header is {_short(header)}; accepted is an object of tensors by name.")
    return header, 8 + size


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name occurs twice")
    return found


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _whole(value: Any) -> bool:
    return type(value) is int and 0 <= value < 1 << 63


def _entry(name: str, entry: Any, size: int, where: str) -> tuple[str, tuple[int, ...], int, int]:
    place = f"{where}: tensor {_short(name)}"
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise FormatError(f"{place}: the entry is {_short(entry)}; accepted are dtype, shape and data_offsets.")
    code, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(code, str) or code not in _BITS:
        raise FormatError(f"{place}: dtype is {_short(code)}; accepted are {', '.join(_BITS)}.")
    if not isinstance(shape, list) or len(shape) > 32 or not all(map(_whole, shape)):
        raise FormatError(f"{place}: shape is {_short(shape)}; accepted are at most 32 numbers from 0.")
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(map(_whole, offsets)):
        raise FormatError(
            f"{place}: data_offsets is {_short(offsets)}; accepted are [first byte, byte after the last]."
        )
    first, last = offsets
    if not first <= last <= size:
        raise FormatError(
            f"{place}: bytes {first} to {last} are not in the {size} bytes of data. The file is cut short; fetch it "
            "again."
        )
    needed = prod(shape) * _BITS[code] // 8
    if needed != last - first:
        raise FormatError(
            f"{place}: shape {_short(shape)} of {code} needs {needed} bytes but data_offsets hold {last - first}."
        )
    return code, tuple(shape), first, last


def _check_spans(spans: list[tuple[int, int, str]], size: int, where: str) -> None:
    """The tensors lie one after the other and fill the data: no holes, nothing twice."""
    at = 0
    for first, last, name in spans:
        if first != at:
            raise FormatError(
                f"{where}: tensor {_short(name)} begins at byte {first} of the data; accepted is {at}, where the one "
                "before ends."
            )
        at = last
    if at != size:
        raise FormatError(
            f"{where}: the tensors end at byte {at} of the data but it has {size}; accepted is the same number."
        )


def _tensor(code: str, shape: tuple[int, ...], data: memoryview) -> Tensor:
    if code == "BF16":  # the upper half of a float32
        wide = bytearray(2 * len(data))
        wide[2::4], wide[3::4] = data[0::2], data[1::2]
        return leaf(bytes(wide), shape, DTYPES["float32"])
    return leaf(data.toreadonly(), shape, DTYPES[_NAMES[code]])


def _read(path: str | PathLike[str]) -> bytes:
    try:
        return Path(path).read_bytes()
    except FileNotFoundError:
        raise FileNotFoundError(f"load: no file {str(path)!r}; the folder is {str(Path.cwd())!r}.") from None


def load_tensors(path: str | PathLike[str]) -> dict[str, Tensor]:
    """The tensors of a file, by name.

    errors  FormatError naming the place, if the file is damaged
    """
    return decode(_read(path), str(path))[0]


def load_metadata(path: str | PathLike[str]) -> dict[str, str]:
    """The strings that a file carries beside its tensors."""
    return decode(_read(path), str(path))[1]


def _layout(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> tuple[bytes, list[Tensor]]:
    """The header, and the tensors in the order of their bytes: wide types first, so that each is aligned."""
    order = sorted(tensors, key=lambda name: (-tensors[name].dtype.itemsize, name))
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    at = 0
    for name in order:
        t = tensors[name]
        if name == "__metadata__":
            raise FormatError("save: a tensor is called '__metadata__', which the format keeps for itself; rename it.")
        header[name] = {"dtype": _code(name, t.dtype), "shape": list(t.shape), "data_offsets": [at, at + t.nbytes]}
        at += t.nbytes
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    return text + b" " * (-len(text) % 8), [tensors[name] for name in order]


def _code(name: str, dtype: DType) -> str:
    if dtype.name not in _CODES:
        raise DTypeError(f"save: tensor {name!r} has dtype {dtype.name}; accepted are {', '.join(_CODES)}.")
    return _CODES[dtype.name]


def save_tensors(
    path: str | PathLike[str], tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> None:
    """Write named tensors, and strings beside them. The file appears whole or not at all."""
    header, order = _layout({name: call("asarray", t) for name, t in tensors.items()}, metadata or {})

    def write(file: BinaryIO) -> None:
        file.write(len(header).to_bytes(8, "little"))
        file.write(header)
        file.writelines(tensor._bytes() for tensor in order)

    with replacing(path) as writer:
        writer(write)


@contextmanager
def replacing(path: str | PathLike[str]) -> Iterator[Callable[[Callable[[BinaryIO], None]], None]]:
    """Write beside the file, then rename: who reads `path` sees the old file or the new one."""
    target = Path(path)
    beside = target.with_name(target.name + ".part")

    def writer(write: Callable[[BinaryIO], None]) -> None:
        with beside.open("wb") as file:
            write(file)

    try:
        yield writer
        beside.replace(target)
    finally:
        beside.unlink(missing_ok=True)
