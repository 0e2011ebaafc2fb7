"""safetensors: what is written is read, and hostile files are refused with the place."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import nearfield as nf
from learning import on
from nearfield.errors import FormatError
from nearfield.formats.safetensors import decode, load_metadata, load_tensors, save_tensors


@pytest.fixture(autouse=True)
def _on_the_reference() -> Iterator[None]:
    with on("reference"):
        yield


def packed(header: Any, data: bytes = b"", size: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(text) if size is None else size).to_bytes(8, "little") + text + data


def entry(dtype: Any = "F32", shape: Any = (1,), offsets: Any = (0, 4)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": list(shape) if isinstance(shape, tuple) else shape, "data_offsets": offsets}


DTYPES = ["bool", "int8", "uint8", "int32", "uint32", "int64", "float16", "float32", "float64"]


def test_every_dtype_and_shape_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    rng = np.random.default_rng(0)
    arrays = {
        f"{d}/{i}": np.asarray(rng.normal(size=s) * 9).astype(d)
        for d in DTYPES
        for i, s in enumerate([(), (3,), (2, 5), (0, 4)])
    }
    save_tensors(path, {name: nf.asarray(a) for name, a in arrays.items()}, {"who": "größer"})
    found = load_tensors(path)
    assert found.keys() == arrays.keys()
    for name, a in arrays.items():
        assert found[name].dtype.name == a.dtype.name
        np.testing.assert_array_equal(found[name].numpy(), a)
    assert load_metadata(path) == {"who": "größer"}
    raw = path.read_bytes()
    header = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])
    assert int.from_bytes(raw[:8], "little") % 8 == 0
    assert header["float64/2"]["data_offsets"][0] % 8 == 0


def test_bfloat16_becomes_float32() -> None:
    values = np.array([1.0, -2.5, 3e38, 0.0], "float32")
    data = (values.view("uint32") >> 16).astype("uint16").tobytes()
    found = decode(packed({"x": entry("BF16", (4,), (0, 8))}, data))[0]["x"]
    np.testing.assert_array_equal(found.numpy(), (values.view("uint32") & 0xFFFF0000).view("float32"))


HOSTILE = {
    "empty": (b"", "the file has 0 bytes"),
    "header longer than the file": (
        packed({}, size=1 << 40),
        "the header ends at byte 1099511627784 but the file has 10",
    ),
    "no JSON": (packed(b"{nope"), "is not JSON"),
    "not UTF-8": (packed(b"\xff\xfe{}"), "is not JSON"),
    "deep JSON": (packed(b"[" * 100_000), "is not JSON"),
    "a list": (packed([1]), "the header is [1]"),
    "a name twice": (packed(b'{"a":1,"a":2}'), "a name occurs twice"),
    "no entry": (packed({"a": 3}), "tensor 'a': the entry is 3"),
    "unknown dtype": (packed({"a": entry("F8")}, b"1234"), "dtype is 'F8'"),
    "dtype of another kind": (packed({"a": entry(["F32"])}, b"1234"), "dtype is ['F32']"),
    "negative size": (packed({"a": entry(shape=(-1,))}, b"1234"), "shape is [-1]"),
    "true as a size": (packed({"a": entry(shape=[True])}, b"1234"), "shape is [True]"),
    "huge size": (packed({"a": entry(shape=(1 << 62, 4))}, b"1234"), "needs 73786976294838206464 bytes"),
    "many axes": (packed({"a": entry(shape=(1,) * 33)}, b"1234"), "at most 32"),
    "past the end": (
        packed({"a": entry(offsets=(0, 8), shape=(2,))}, b"1234"),
        "bytes 0 to 8 are not in the 4 bytes of data",
    ),
    "backwards": (packed({"a": entry(offsets=(4, 0))}, b"1234"), "bytes 4 to 0"),
    "a hole": (packed({"a": entry(offsets=(4, 8))}, b"12345678"), "begins at byte 4 of the data; accepted is 0"),
    "overlapping": (packed({"a": entry(), "b": entry()}, b"1234"), "begins at byte 0 of the data; accepted is 4"),
    "data left over": (packed({"a": entry()}, b"123456"), "end at byte 4 of the data but it has 6"),
    "metadata": (packed({"__metadata__": {"a": 1}}), "__metadata__ is"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_refused(name: str) -> None:
    data, message = HOSTILE[name]
    with pytest.raises(FormatError) as error:
        decode(data, "model.safetensors")
    assert str(error.value).startswith("model.safetensors: ")
    assert message in str(error.value)
    assert len(str(error.value)) < 500


GOOD = packed(
    {"__metadata__": {"k": "v"}, "a": entry(shape=(2,), offsets=(0, 8)), "b": entry("U8", (3,), (8, 11))},
    b"12345678abc",
)


@given(st.integers(0, len(GOOD) - 1), st.integers(0, 255), st.integers(0, len(GOOD)))
def test_damaged_files_raise_format_error_or_nothing(place: int, byte: int, length: int) -> None:
    data = bytearray(GOOD)
    data[place] = byte
    for damaged in (bytes(data), bytes(data[:length])):
        try:
            tensors, _ = decode(damaged)
        except FormatError:
            continue
        assert sum(t.nbytes for t in tensors.values()) <= len(damaged)


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_tensors(path, {"x": nf.ones((2,))})
    before = path.read_bytes()
    broken = nf.asarray([1.0])
    broken.node.value = None  # a value that cannot be read
    with pytest.raises(Exception):  # noqa: B017, PT011
        save_tensors(path, {"x": broken})
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
