"""Order and distinct values are NumPy's; NaN comes last in both directions."""

import numpy as np
import pytest

import nearfield as nf
from array_cases import on_devices, real, same, same_gradients, whole
from nearfield.functional import sorting

pytestmark = on_devices

SIZES = [0, 1, 2, 3, 17, 255, 1000]


def values(dtype: str, n: int) -> np.ndarray:
    x = whole(2, n, low=0, high=50, seed=n).astype(dtype)
    if dtype in ("float32", "float16") and n > 3:
        x[0, 1], x[0, 3], x[1, 2], x[1, 0] = np.nan, np.inf, -np.inf, np.nan
    return x - 20 if dtype in ("int8", "int32", "float32") else x


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("dtype", ["float32", "int32", "uint8", "bool", "int8", "float16", "uint32"])
def test_sorting(n: int, dtype: str, device: str) -> None:
    x = values(dtype, n)
    same(nf.argsort(x), np.argsort(x, axis=-1, kind="stable"))
    same(nf.sort(x), np.sort(x, -1))


@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "uint8", "int32"])
def test_merging(dtype: str, descending: bool, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The network that long axes need, with short blocks."""
    monkeypatch.setattr(sorting, "COUNTED", 8)
    monkeypatch.setattr(sorting, "BLOCK", 4)
    x = values(dtype, 13)
    wide = -x.astype("float32") if descending else x
    same(nf.argsort(x, descending=descending), np.argsort(wide, axis=-1, kind="stable"))


def test_a_long_axis(device: str) -> None:
    if device == "reference":
        x = values("float32", 9000)
        same(nf.argsort(x), np.argsort(x, axis=-1, kind="stable"))


@pytest.mark.parametrize("n", [2, 17, 500])
def test_descending(n: int, device: str) -> None:
    x = values("float32", n)
    same(nf.argsort(x, descending=True), np.argsort(-x, axis=-1, kind="stable"))
    y = values("uint8", n)
    same(nf.argsort(y, descending=True), np.argsort(-y.astype("int32"), axis=-1, kind="stable"))


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_sorting_along_axes(axis: int, device: str) -> None:
    x = real(4, 3, 5)
    same(nf.sort(x, axis=axis), np.sort(x, axis))
    same(nf.argsort(x, axis=axis, descending=True), np.argsort(-x, axis))


def test_topk(device: str) -> None:
    x = real(3, 10)
    best, places = nf.topk(x, 4)
    same(best, -np.sort(-x, 1)[:, :4])
    same(places, np.argsort(-x, 1)[:, :4])
    same(nf.topk(x, 2, axis=0, largest=False)[0], np.sort(x, 0)[:2])
    assert nf.topk(x, 0)[0].shape == (3, 0)


@pytest.mark.parametrize("axis", [None, 0, 1])
@pytest.mark.parametrize("shape", [(3, 4), (4, 5)])
def test_median(axis: int | None, shape: tuple[int, int], device: str) -> None:
    x = real(*shape)
    same(nf.median(x, axis=axis), np.median(x, axis), 1e-6)
    same(nf.median(x, axis=axis, keepdims=True), np.median(x, axis, keepdims=True), 1e-6)
    x[0, 0] = np.nan
    same(nf.median(x, axis=axis), np.median(x, axis), 1e-6)


@pytest.mark.parametrize(
    "x", [whole(4, 5), np.float32([[3, np.nan, 1, np.nan, 3]]), np.zeros((0, 2), "int32"), whole(9) > 0]
)
def test_distinct_values(x: np.ndarray, device: str) -> None:
    want = np.unique_all(x)
    for name in ("values", "indices", "inverse_indices", "counts"):
        same(getattr(nf.unique_all(x), name), getattr(want, name))
    same(nf.unique_values(x), want.values)
    same(nf.unique_counts(x).counts, want.counts)
    same(nf.unique_inverse(x).inverse_indices, want.inverse_indices)


def test_gradients(device: str) -> None:
    weights = np.arange(12, dtype="float32").reshape(3, 4)
    same_gradients(lambda x: nf.sort(x, axis=1) * nf.asarray(weights), real(3, 4))
    same_gradients(lambda x: nf.topk(x, 2, axis=0)[0] ** 2, real(3, 4))
    same_gradients(lambda x: nf.median(x, axis=1), real(3, 4))
