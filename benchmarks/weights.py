"""Numbers that are the same in every framework, bit for bit: made from a seed or a name.

A counter goes through the finaliser of MurmurHash3, a permutation of 32 bits, and its result is a position in -1 … 1.
"""

import zlib
from collections.abc import Sequence
from math import prod, sqrt
from typing import Any

import numpy as np

__all__ = ["dense", "folded_convolution", "named", "norm", "summary", "uniform"]

STEP, FIRST, SECOND = np.uint32(0x9E3779B1), np.uint32(0x85EBCA6B), np.uint32(0xC2B2AE35)
BATCH_NORM_EPS = 1e-3


def uniform(seed: int, shape: Sequence[int], scale: float = 1.0) -> Any:
    """float32 values in [-scale, scale)."""
    with np.errstate(over="ignore"):
        h = np.arange(prod(shape), dtype=np.uint32) * STEP + np.uint32(seed)
        h ^= h >> np.uint32(16)
        h *= FIRST
        h ^= h >> np.uint32(13)
        h *= SECOND
        h ^= h >> np.uint32(16)
    return ((h.astype(np.float64) / 2.0**32 * 2.0 - 1.0) * scale).astype(np.float32).reshape(shape)


def named(name: str, shape: Sequence[int], kind: str, fan_in: int = 1) -> Any:
    """A model's weight; the name decides its seed.

    kind  "he" (uniform, variance 2 / fan_in), "xavier" (variance 1 / fan_in), "small" (±0.1), or one about 1:
          "gain" (±0.2), "variance" (±0.3)
    """
    scale = {"he": sqrt(6 / fan_in), "xavier": sqrt(3 / fan_in), "small": 0.1, "gain": 0.2, "variance": 0.3}[kind]
    values = uniform(zlib.crc32(name.encode()), shape, scale)
    return 1 + values if kind in ("gain", "variance") else values


def folded_convolution(name: str, ci: int, co: int, size: int, groups: int = 1) -> tuple[Any, Any]:
    """Weight [co, ci / groups, size, size] and bias [co] of a convolution, batch normalisation multiplied in."""
    fan_in = ci // groups * size * size
    weight = named(f"{name}.weight", (co, ci // groups, size, size), "he", fan_in).astype(np.float64)
    gain, shift = named(f"{name}.gain", (co,), "gain"), named(f"{name}.shift", (co,), "small")
    mean, variance = named(f"{name}.mean", (co,), "small"), named(f"{name}.variance", (co,), "variance")
    factor = gain / np.sqrt(variance.astype(np.float64) + BATCH_NORM_EPS)
    return (weight * factor[:, None, None, None]).astype(np.float32), (shift - mean * factor).astype(np.float32)


def dense(name: str, n_in: int, n_out: int) -> tuple[Any, Any]:
    """Weight [n_in, n_out] and bias [n_out] of a linear layer."""
    return named(f"{name}.weight", (n_in, n_out), "xavier", n_in), named(f"{name}.bias", (n_out,), "small")


def norm(name: str, d: int) -> tuple[Any, Any]:
    """Weight [d] and bias [d] of a layer normalisation."""
    return named(f"{name}.weight", (d,), "gain"), named(f"{name}.bias", (d,), "small")


def summary(values: Any) -> dict[str, float]:
    """A fingerprint of an output that does not depend on the order of its elements: peers differ in layout."""
    y = np.asarray(values, np.float64).ravel()
    return {
        "n": int(y.size),
        "mean": float(y.mean()),
        "absolute": float(np.abs(y).mean()),
        "rms": float(np.sqrt((y * y).mean())),
        "max": float(y.max()),
    }
