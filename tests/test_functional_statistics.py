"""Reductions and running sums are NumPy's."""

from typing import Any

import numpy as np
import pytest

import nearfield as nf
from array_cases import on_devices, real, same, same_gradients, whole

pytestmark = on_devices

AXES = [None, 0, -1, (0, 2), (), (2, 0, 1)]
X = real(2, 3, 4)


@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize("keepdims", [False, True])
@pytest.mark.parametrize("name", ["sum", "prod", "max", "min", "mean", "std", "var", "all", "any"])
def test_reductions(name: str, axis: Any, keepdims: bool, device: str) -> None:
    function = getattr(np, name)
    same(getattr(nf, name)(X, axis=axis, keepdims=keepdims), function(X, axis=axis, keepdims=keepdims), 1e-5)
    same(getattr(nf.asarray(X), name)(axis=axis), function(X, axis=axis), 1e-5)


@pytest.mark.parametrize("name", ["sum", "prod"])
@pytest.mark.parametrize("dtype", ["bool", "int8", "uint8", "int32", "uint32", "float16", "float32"])
def test_sums_of_each_dtype(name: str, dtype: str, device: str) -> None:
    x = whole(3, 5, low=0, high=4).astype(dtype)
    wide = {"bool": "int32", "int8": "int32", "uint8": "uint32"}.get(dtype, dtype)
    same(getattr(nf, name)(x, axis=1), getattr(np, name)(x, axis=1, dtype=wide))
    same(getattr(nf, name)(x, axis=1, dtype="float32"), getattr(np, name)(x, axis=1, dtype="float32"))


@pytest.mark.parametrize("correction", [0, 1, 2.5, 4])
def test_corrections(correction: float, device: str) -> None:
    with np.errstate(divide="ignore"):
        want = np.var(X.astype("float64"), axis=-1) * 4 / np.float64(4 - correction)
    same(nf.var(X, axis=-1, correction=correction), want, 1e-5)
    same(nf.std(X, axis=-1, correction=correction), np.sqrt(want), 1e-5)


def test_nothing_to_reduce(device: str) -> None:
    x = np.zeros((0, 3), "float32")
    for name in ("sum", "prod", "any", "all"):
        same(getattr(nf, name)(x, axis=0), getattr(np, name)(x, axis=0))
    assert np.isnan(nf.mean(x, axis=0).numpy()).all()


def test_float16_is_averaged_in_float32(device: str) -> None:
    x = np.full(1000, 100, "float16")
    assert nf.mean(x).item() == 100
    assert nf.var(np.float16([200, -200])).item() == 40000
    assert nf.mean(x).dtype is nf.float16


@pytest.mark.parametrize("name", ["argmax", "argmin"])
@pytest.mark.parametrize("x", [whole(4, 5), X, whole(7) > 0, np.float32([[1, np.nan, 3, np.nan]])])
def test_positions_of_extremes(name: str, x: np.ndarray, device: str) -> None:
    for axis in (None, 0, -1):
        for keepdims in (False, True):
            same(getattr(nf, name)(x, axis=axis, keepdims=keepdims), getattr(np, name)(x, axis, keepdims=keepdims))


def test_counting(device: str) -> None:
    same(nf.count_nonzero(whole(4, 5), axis=1), np.count_nonzero(whole(4, 5), 1))
    same(nf.count_nonzero(X > 0), np.count_nonzero(X > 0))


def test_average(device: str) -> None:
    w = np.float32([1, 0, 2, 3])
    same(nf.average(X, axis=-1, weights=w), np.average(X, -1, w), 1e-5)
    same(nf.average(X), np.average(X), 1e-5)


@pytest.mark.parametrize("n", [0, 1, 2, 63, 64, 65, 200, 4097])
def test_running_sums(n: int, device: str) -> None:
    x = whole(2, n, seed=n)
    same(nf.cumulative_sum(x, axis=1), np.cumsum(x, 1, dtype="int32"))
    same(
        nf.cumulative_sum(x.T, axis=0, include_initial=True),
        np.cumulative_sum(x.T, axis=0, include_initial=True, dtype="int32"),
    )
    y = np.exp2(whole(n, low=-1, high=2, seed=n).astype("float32"))
    same(nf.cumulative_prod(y), np.cumprod(y), 1e-5)
    same(nf.cumulative_prod(y, include_initial=True), np.cumulative_prod(y, include_initial=True), 1e-5)
    same(nf.cumulative_sum(x > 0, axis=-1), np.cumsum(x > 0, 1, dtype="int32"))


def test_running_sums_pass_on_what_is_not_finite(device: str) -> None:
    x = np.float32([1, np.inf, 2, -np.inf, 1, np.nan])
    with np.errstate(invalid="ignore"):
        same(nf.cumulative_sum(x), np.cumsum(x))


def test_differences(device: str) -> None:
    for n in (0, 1, 2, 5):
        same(nf.diff(X, n=n), np.diff(X, n))
    same(nf.diff(X, axis=0, prepend=X[:1], append=X[:2]), np.diff(X, axis=0, prepend=X[:1], append=X[:2]))
    same(nf.diff(whole(9) > 0), np.diff(whole(9) > 0))


@pytest.mark.parametrize("low", [None, -0.5, np.float32([-1, 0, 0.5, 9])])
@pytest.mark.parametrize("high", [None, 0.5])
def test_clip(low: Any, high: Any, device: str) -> None:
    same(nf.clip(X, low, high), np.clip(X, low, high) if low is not None or high is not None else X)


GRADIENTS = {
    "mean": lambda x: nf.mean(x, axis=0) ** 2,
    "var": lambda x: nf.var(x, axis=1, correction=1),
    "std": lambda x: nf.std(x, axis=1),
    "prod": lambda x: nf.prod(x, axis=1),
    "max": lambda x: nf.max(x, axis=1) ** 2,
    "cumulative_sum": lambda x: nf.cumulative_sum(x, axis=1) ** 2,
    "cumulative_prod": lambda x: nf.cumulative_prod(x, axis=1),
    "diff": lambda x: nf.diff(x, n=2) ** 2,
    "clip": lambda x: nf.clip(x, -0.5, 0.7) ** 2,
    "average": lambda x: nf.average(x, axis=1, weights=x * x),
}


@pytest.mark.parametrize("name", GRADIENTS)
def test_gradients(name: str, device: str) -> None:
    same_gradients(GRADIENTS[name], real(3, 4))


def test_gradient_of_a_long_running_sum(device: str) -> None:
    g = nf.grad(lambda x: nf.sum(nf.cumulative_sum(x) ** 2))(nf.ones(150))
    sums = 2 * np.arange(1, 151)
    same(g, np.cumsum(sums[::-1])[::-1].astype("float32"), 1e-5)
