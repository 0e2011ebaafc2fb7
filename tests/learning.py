"""What tests of layers, optimisers and training share: devices, arrays, gradients by finite differences."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

import nearfield as nf
from devices import chosen_devices, need
from nearfield import nn
from nearfield.tree import flatten_tree

SLOW = ("webgpu",)  # in software; left out of `make check`
DEVICES = [pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in chosen_devices()]


@contextmanager
def on(device: str) -> Iterator[str]:
    """Compute on a device; the default generator starts, and is left, without values on any."""
    need(device)
    with nf.use(device):
        nf.random.seed(0)
        yield device
        nf.random.seed(0)


def array(*shape: int, seed: int = 0, dtype: str = "float32") -> np.ndarray:
    """Normal numbers, or for an integer dtype numbers from 0 to 4."""
    rng = np.random.default_rng([seed, *shape])
    return rng.integers(0, 5, shape).astype(dtype) if "int" in dtype else rng.normal(size=shape).astype(dtype)


def tensors(arrays: Any, dtype: str | None = None) -> list[nf.Tensor]:
    """The arrays as Tensors, the real ones in the dtype."""
    made = [nf.asarray(a) for a in arrays]
    return [nf.astype(t, dtype) if dtype and t.dtype.kind == "f" else t for t in made]


def to_dtype(module: nn.Module, dtype: str) -> nn.Module:
    """The module with its real state in another dtype."""
    real = {name: nf.astype(t, dtype) for name, t in module.state_tensors().items() if t.dtype.kind == "f"}
    module.set_state_tensors(real)
    return module


def weighed(y: Any, dtype: str = "float64") -> nf.Tensor:
    """A scalar that depends on every element of every Tensor of y."""
    parts = [
        nf.sum(t * nf.asarray(np.cos(np.arange(t.size)).reshape(t.shape).astype(dtype))) for t in flatten_tree(y)[0]
    ]
    return sum(parts[1:], parts[0])


def slope(function: Callable[[nf.Tensor], nf.Tensor], x: nf.Tensor, direction: np.ndarray, eps: float = 1e-5) -> float:
    """The derivative of a scalar function along a direction, by central differences."""
    values = [function(nf.asarray(x.numpy() + sign * eps * direction)).item() for sign in (1, -1)]
    return (values[0] - values[1]) / (2 * eps)


def check_gradient(function: Callable[[nf.Tensor], nf.Tensor], x: nf.Tensor, g: nf.Tensor, rtol: float = 1e-6) -> None:
    """g is the gradient of the function at x, along two directions drawn at random."""
    for seed in (0, 1):
        direction = array(*x.shape, seed=seed, dtype="float64")
        want = slope(function, x, direction)
        np.testing.assert_allclose(np.sum(g.numpy() * direction), want, rtol=rtol, atol=1e-8)
