"""Arrays from numbers, lists, buffers and patterns are NumPy's."""

import array
from typing import Any

import numpy as np
import pytest

import nearfield as nf
from array_cases import on_devices, real, same, whole

pytestmark = on_devices


@pytest.mark.parametrize(
    ("value", "dtype", "shape"),
    [
        (True, "bool", ()), (3, "int32", ()), (2.5, "float32", ()), ([], "float32", (0,)), ([[]], "float32", (1, 0)),
        ([1, 2], "int32", (2,)),
        ([True, 2], "int32", (2,)), ([1, 2.0], "float32", (2,)), ([[1], [2]], "int32", (2, 1)),
        (range(4), "int32", (4,)),
        ((1.0, (2.0)), "float32", (2,)), ([(1, 2), [3, 4]], "int32", (2, 2)), ([True], "bool", (1,)), (b"ab",
        "uint8", (2,)),
        (array.array("f", [1, 2]), "float32", (2,)), (array.array("l", [1]), "int64", (1,)),
        (array.array("d", [1]), "float64", (1,)),
    ],
)  # fmt: skip
def test_asarray_guesses(value: Any, dtype: str, shape: tuple[int, ...], device: str) -> None:
    t = nf.asarray(value)
    assert (t.dtype.name, t.shape) == (dtype, shape)
    if not isinstance(value, (bytes, array.array)):
        assert t.tolist() == np.asarray(value).tolist()


@pytest.mark.parametrize("dtype", ["bool", "int8", "uint8", "int32", "uint32", "float16", "float32"])
def test_asarray_round_trip(dtype: str, device: str) -> None:
    x = whole(3, 4, low=0, high=100).astype(dtype)
    same(nf.asarray(x), x)
    same(nf.asarray(x.T), x.T)
    same(nf.asarray(x.tolist(), dtype), x)
    same(nf.from_dlpack(np.array(x)), x)
    np.testing.assert_array_equal(np.from_dlpack(nf.asarray(x)), x)
    np.testing.assert_array_equal(np.asarray(nf.asarray(x)), x)


def test_asarray_of_mixed_lists(device: str) -> None:
    same(nf.asarray([nf.asarray([1.0, 2.0]), [3.0, 4.0], np.float32([5, 6])]), np.float32([[1, 2], [3, 4], [5, 6]]))
    same(nf.asarray([nf.asarray(1), 2]), np.int32([1, 2]))
    same(nf.asarray(memoryview(b"abcdef").cast("B", (2, 3))), np.frombuffer(b"abcdef", "uint8").reshape(2, 3))


def test_numbers_too_large_are_infinite(device: str) -> None:
    same(nf.asarray([1e39, -1e300, 1.0]), np.float32([np.inf, -np.inf, 1]))
    same(nf.asarray([70000.0, 1.0], "float16"), np.float16([np.inf, 1]))


def test_converting(device: str) -> None:
    x = np.float32([-1.5, 0.0, 2.7, 300.0])
    same(nf.astype(x, "int32"), x.astype("int32"))
    same(nf.asarray(x, "bool"), x != 0)
    assert nf.asarray(nf.ones(2), "float32").dtype is nf.float32
    same(nf.asarray([1.9, 2], "int32"), np.int32([1, 2]))


@pytest.mark.parametrize("name", ["zeros", "ones", "empty"])
@pytest.mark.parametrize("shape", [(), 3, (2, 0), (2, 3)])
@pytest.mark.parametrize("dtype", [None, "int8", "bool"])
def test_filled(name: str, shape: Any, dtype: Any, device: str) -> None:
    want = (np.ones if name == "ones" else np.zeros)(shape, dtype or "float32")
    same(getattr(nf, name)(shape, dtype=dtype), want)
    same(getattr(nf, name + "_like")(nf.asarray(want)), want)


def test_full(device: str) -> None:
    same(nf.full((2, 2), 7), np.full((2, 2), 7))
    same(nf.full(3, 2.5), np.full(3, 2.5))
    same(nf.full_like(nf.ones(2), 7), np.float32([7, 7]))
    same(nf.full_like(nf.ones(2), 7, dtype="int8"), np.int8([7, 7]))


@pytest.mark.parametrize(
    "args", [(5,), (0,), (2, 7), (7, 2), (7, 2, -2), (1, 8, 3), (-3, 3), (0, 1, 0.25), (1.5, 4), (5, 0, -0.5)]
)
@pytest.mark.parametrize("dtype", [None, "float32", "int8"])
def test_arange(args: Any, dtype: Any, device: str) -> None:
    if dtype == "int8" and any(isinstance(a, float) for a in args):
        return
    same(nf.arange(*args, dtype=dtype), np.arange(*args, dtype=dtype), 1e-6)


@pytest.mark.parametrize("args", [(0, 1, 5), (2.5, -3, 7), (0, 1, 1), (0, 1, 0), (-1, 1, 100), (0, 0.1, 3)])
@pytest.mark.parametrize("endpoint", [True, False])
def test_linspace(args: Any, endpoint: bool, device: str) -> None:
    got = nf.linspace(*args, endpoint=endpoint)
    same(got, np.linspace(*args, endpoint=endpoint), 1e-6)
    if endpoint and args[2] > 1:
        assert got[-1].item() == np.float32(args[1])


@pytest.mark.parametrize("k", [-5, -1, 0, 2, 9])
def test_diagonal_patterns(k: int, device: str) -> None:
    same(nf.eye(3, 4, k=k, dtype="int32"), np.eye(3, 4, k=k, dtype="int32"))
    x = real(2, 3, 4)
    same(nf.tril(x, k=k), np.tril(x, k=k))
    same(nf.triu(x, k=k), np.triu(x, k=k))
    same(nf.triu(x > 0, k=k), np.triu(x > 0, k=k))


@pytest.mark.parametrize("indexing", ["xy", "ij"])
@pytest.mark.parametrize("sizes", [(3,), (3, 2), (3, 2, 4)])
def test_meshgrid(indexing: str, sizes: Any, device: str) -> None:
    axes = [real(n) for n in sizes]
    for got, want in zip(nf.meshgrid(*axes, indexing=indexing), np.meshgrid(*axes, indexing=indexing), strict=True):
        same(got, want)


def test_nothing_runs_until_asked(device: str) -> None:
    made = [
        nf.arange(10),
        nf.linspace(0, 1, 5),
        nf.eye(3),
        nf.sort(nf.ones(5) * 2),
        nf.cumulative_sum(nf.ones(99) + 1),
        nf.zeros(2),
    ]
    assert all(t.device == "pending" for t in made)
