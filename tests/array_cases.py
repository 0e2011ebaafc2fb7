"""What the tests of array functions share: the devices they run on, and comparisons with NumPy."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

import nearfield as nf

DEVICES = ["reference", "wasm", "webgpu"]  # all tests of array functions run on each
arbitrary = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
on_devices = pytest.mark.parametrize("device", DEVICES, indirect=True)


def same(got: nf.Tensor, want: Any, tol: float = 0.0) -> None:
    """Shape, dtype and values are NumPy's (whose default types of 64 bits are Nearfield's of 32)."""
    want = np.asarray(want)
    narrow = {"int64": "int32", "uint64": "uint32", "float64": "float32"}
    name = want.dtype.name
    assert got.dtype.name in (name, narrow.get(name)), f"dtype {got.dtype.name}, in NumPy {name}"
    assert got.shape == want.shape, f"shape {got.shape}, in NumPy {want.shape}"
    np.testing.assert_allclose(got.numpy(), want, rtol=tol, atol=tol)


def real(*shape: int, seed: int = 0) -> np.ndarray:
    """Real numbers around 0, float32."""
    return np.random.default_rng(seed).standard_normal(shape).astype("float32")


def whole(*shape: int, low: int = -9, high: int = 10, seed: int = 0) -> np.ndarray:
    """Whole numbers, int32."""
    return np.random.default_rng(seed).integers(low, high, shape).astype("int32")


def same_gradients(function: Callable[..., nf.Tensor], *arrays: np.ndarray, tol: float = 2e-3) -> None:
    """Gradients of Σ weight × function agree with central differences, taken in float64 by the reference."""
    with nf.use("reference"):
        shape = function(*map(nf.asarray, arrays)).shape
        weights = np.random.default_rng(1).uniform(0.5, 1.5, shape)

        def value(*values: np.ndarray) -> float:
            y = function(*[nf.asarray(v, "float64") for v in values])
            return float(np.sum(y.numpy() * weights))

        wanted = [_differences(value, [a.astype("float64") for a in arrays], n) for n in range(len(arrays))]
    w = nf.asarray(weights.astype("float32"))
    found = nf.grad(lambda *xs: nf.sum(function(*xs) * w), tuple(range(len(arrays))))(*map(nf.asarray, arrays))
    for got, want in zip(found, wanted, strict=True):
        np.testing.assert_allclose(got.numpy(), want, rtol=tol, atol=tol)


def _differences(value: Callable[..., float], arrays: list[np.ndarray], n: int, step: float = 1e-5) -> np.ndarray:
    result = np.zeros(arrays[n].shape)
    for i in np.ndindex(result.shape):
        sides = []
        for sign in (1, -1):
            moved = [a.copy() for a in arrays]
            moved[n][i] += sign * step
            sides.append(value(*moved))
        result[i] = (sides[0] - sides[1]) / (2 * step)
    return result
