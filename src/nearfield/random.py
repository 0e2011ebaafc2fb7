"""Random numbers that depend on a seed and a count alone: the same on every device and in every version of Python.

A Generator's state is a Tensor, so a traced training step can draw from it and hand the new state on.

source  Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3" (Threefry)
"""

import itertools
import operator
import struct
from math import pi, prod
from typing import Any

from .argument import whole
from .dtype import DTYPES, canonical
from .errors import ArgumentError, DTypeError, ShapeError
from .functional.conversion import asarray, astype
from .functional.gather import searchsorted, take
from .functional.manipulation import reshape
from .functional.scan import cumulative_sum
from .functional.sorting import argsort, topk
from .functional.statistics import argmax
from .ops.arithmetic import less, maximum, minimum, sqrt
from .ops.mathematics import cos, log
from .ops.source import threefry
from .shape import sizes_of
from .state import Place, Stateful
from .tensor import Tensor, apply, leaf

__all__ = [
    "Generator", "bernoulli", "bits", "categorical", "choice", "default_generator", "integers", "normal", "permutation",
    "randint", "seed", "uniform",
]  # fmt: skip

UINT = DTYPES["uint32"]


class Generator(Stateful):
    """Draws of random numbers, one after the other, from a seed.

    state    [2] uint32: the seed, and how many draws there were
    """

    def __init__(self, seed: int = 0) -> None:
        whole("Generator", 0, seed=seed)
        if seed >= 1 << 32:
            raise ArgumentError(f"Generator: seed is {seed}; accepted are 0 … {(1 << 32) - 1}.")
        self.state = leaf(struct.pack("<2I", seed, 0), (2,), UINT)

    def state_tensors(self) -> dict[str, Tensor]:
        """What the next numbers depend on, by name."""
        return {"state": self.state}

    def set_state_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Go on from a state that `state_tensors` gave."""
        self.state = tensors["state"]

    def state_places(self) -> tuple[list[Place], list[Place]]:
        """Where the state is."""
        return [Place("state", self, ("state",))], []

    def bits(self, shape: Any = (), *, words: int = 1) -> Tensor:
        """Random 32-bit words, uint32; with `words`, that many per element along a new first axis. One draw."""
        sizes = (*((words,) if words > 1 else ()), *sizes_of("random", shape))
        counter = astype(apply("iota", n=prod(sizes)), UINT)
        y = threefry(self.state[0], self.state[1], counter)
        self.state = self.state + leaf(struct.pack("<2I", 0, 1), (2,), UINT)
        return reshape(y, sizes)

    def uniform(self, shape: Any = (), low: Any = 0.0, high: Any = 1.0, *, dtype: Any = "float32") -> Tensor:
        """Real numbers from low to high (exclusive, up to rounding), all equally likely."""
        wanted = _real("uniform", dtype)
        unit = _unit(self.bits(shape, words=2 if wanted.itemsize == 8 else 1), wanted)
        if isinstance(low, (int, float)) and isinstance(high, (int, float)) and (low, high) == (0, 1):
            return unit
        return astype(unit * (high - low) + low, wanted)

    def normal(self, shape: Any = (), mean: Any = 0.0, std: Any = 1.0, *, dtype: Any = "float32") -> Tensor:
        """Normally distributed numbers.

        source  Box & Muller 1958, "A note on the generation of random normal deviates"
        """
        wanted = _real("normal", dtype)
        compute = DTYPES["float64" if wanted.itemsize == 8 else "float32"]
        words = self.bits(shape, words=4 if wanted.itemsize == 8 else 2)
        half = words.shape[0] // 2
        u, v = (_unit(reshape(w, words.shape[1:]) if half == 1 else w, compute) for w in (words[:half], words[half:]))
        z = sqrt(log(1.0 - u) * -2.0) * cos(v * (2 * pi))
        plain = isinstance(mean, (int, float)) and isinstance(std, (int, float)) and (mean, std) == (0, 1)
        return astype(z if plain else z * std + mean, wanted)

    def integers(self, shape: Any = (), low: int = 0, high: int | None = None, *, dtype: Any = "int32") -> Tensor:
        """Whole numbers from low to high (exclusive), all equally likely; with one bound, from 0 to it.

        Some numbers are more likely than others by 2^-48 for a range below 2^16, and by (high - low) / 2^32 above.

        errors   ShapeError if there is no number between low and high
        """
        low, high = (0, low) if high is None else (low, high)
        span = high - low
        if not 0 < span <= 1 << 32:
            raise ShapeError(f"integers: low is {low} and high is {high}; accepted are low < high, at most 2^32 apart.")
        if span < 1 << 16:  # two words as one number of 64 bits, modulo the span
            words = self.bits(shape, words=2)
            y = ((words[0] % span) * ((1 << 32) % span) + words[1] % span) % span
        else:
            y = self.bits(shape)
            y = y % span if span < 1 << 32 else y
        wanted = canonical(dtype)
        wide = DTYPES["int64"] if wanted.itemsize == 8 else DTYPES["int32"]
        return astype(astype(y, wide) + low if low else astype(y, wide), wanted)

    randint = integers

    def bernoulli(self, shape: Any = (), p: Any = 0.5, *, dtype: Any = "bool") -> Tensor:
        """True with probability p, which broadcasts to the shape."""
        return astype(less(self.uniform(shape), p), dtype)

    def permutation(self, x: Any, /, *, axis: int = 0) -> Tensor:
        """The slices of x along an axis in random order; of a number n, 0 … n - 1 in random order."""
        if hasattr(x, "__index__") and not isinstance(x, Tensor):
            return argsort(self.bits(operator.index(x)))
        x = asarray(x)
        return take(x, argsort(self.bits(x.shape[axis])), axis=axis)

    def choice(self, x: Any, shape: Any = (), *, replace: bool = True, p: Any = None, axis: int = 0) -> Tensor:
        """Slices of x along an axis (or of 0 … n - 1 for a number n), chosen at random.

        replace  whether one can be chosen again
        p        [n] probabilities; default: all equal
        errors   ShapeError if more are wanted than there are, without replacement
        """
        is_number = hasattr(x, "__index__") and not isinstance(x, Tensor)
        items = None if is_number else asarray(x)
        n = operator.index(x) if items is None else items.shape[axis]
        count = prod(sizes_of("random", shape))
        if not n or (not replace and count > n):
            how = "with" if replace else "without"
            raise ShapeError(
                f"choice: {count} of {n} elements cannot be chosen {how} replacement; give more elements, or ask for "
                "fewer."
            )
        places = reshape(self._places(n, count, replace, p), sizes_of("random", shape))
        return places if items is None else take(items, places, axis=axis)

    def _places(self, n: int, count: int, replace: bool, p: Any) -> Tensor:
        if p is None:
            return self.integers((count,), 0, n) if replace else argsort(self.bits(n))[:count]
        weights = astype(asarray(p), "float32")
        if weights.shape != (n,):
            raise ShapeError(f"choice: p has shape {weights.shape} for {n} elements; accepted is ({n},).")
        if not replace:
            return topk(log(weights) + self._gumbel((n,)), count)[1]
        ends = cumulative_sum(weights)
        found = searchsorted(ends, self.uniform((count,)) * ends[-1], side="right")
        return minimum(found, n - 1)  # the sum is rounded

    def _gumbel(self, shape: Any) -> Tensor:
        return -log(-log(maximum(self.uniform(shape), 2.0**-25)))

    def categorical(self, logits: Any, /, *, axis: int = -1) -> Tensor:
        """For each vector of logits along an axis one position (int32), likely as softmax of the logits says.

        source  Gumbel 1954; Maddison et al. 2014, "A* sampling": the largest logit after Gumbel noise
        """
        logits = asarray(logits)
        return argmax(logits + self._gumbel(logits.shape), axis=axis)


def _real(who: str, dtype: Any) -> Any:
    wanted = canonical(dtype)
    if wanted.kind != "f":
        raise DTypeError(
            f"{who}: dtype is {wanted.name}; accepted are float16, float32, float64. Use nf.random.integers for "
            "integers."
        )
    return wanted


def _unit(words: Tensor, dtype: Any) -> Tensor:
    """Words as numbers in [0, 1): as many leading bits as the dtype has digits, so that none rounds up to 1."""
    if dtype.itemsize == 8:
        high, low = astype(words[0] >> 5, dtype), astype(words[1] >> 6, dtype)
        return (high * 67108864.0 + low) * 2.0**-53
    bits = 24 if dtype.itemsize == 4 else 11
    return astype(astype(words >> (32 - bits), "float32") * 2.0**-bits, dtype)


_default = Generator()
_renewals = itertools.count(1)


def default_generator() -> Generator:
    """What the functions of this module draw from when no generator is given; its seed is 0 until `seed` is called."""
    return _default


def seed(n: int) -> None:
    """Start the default generator again from a seed."""
    _default.set_state_tensors(Generator(n).state_tensors())


def renew() -> None:
    """Give the default generator a new state, when the device that held the old one is gone: other numbers follow."""
    seed((1 << 32) - next(_renewals))


def bits(shape: Any = (), *, generator: Generator | None = None) -> Tensor:
    """Random 32-bit words, uint32."""
    return (generator or _default).bits(shape)


def uniform(
    shape: Any = (), low: Any = 0.0, high: Any = 1.0, *, dtype: Any = "float32", generator: Generator | None = None
) -> Tensor:
    """Real numbers from low to high (exclusive, up to rounding), all equally likely."""
    return (generator or _default).uniform(shape, low, high, dtype=dtype)


def normal(
    shape: Any = (), mean: Any = 0.0, std: Any = 1.0, *, dtype: Any = "float32", generator: Generator | None = None
) -> Tensor:
    """Normally distributed numbers."""
    return (generator or _default).normal(shape, mean, std, dtype=dtype)


def integers(
    shape: Any = (), low: int = 0, high: int | None = None, *, dtype: Any = "int32", generator: Generator | None = None
) -> Tensor:
    """Whole numbers from low to high (exclusive), all equally likely; with one bound, from 0 to it."""
    return (generator or _default).integers(shape, low, high, dtype=dtype)


randint = integers


def bernoulli(shape: Any = (), p: Any = 0.5, *, dtype: Any = "bool", generator: Generator | None = None) -> Tensor:
    """True with probability p, which broadcasts to the shape."""
    return (generator or _default).bernoulli(shape, p, dtype=dtype)


def permutation(x: Any, /, *, axis: int = 0, generator: Generator | None = None) -> Tensor:
    """The slices of x along an axis in random order; of a number n, 0 … n - 1 in random order."""
    return (generator or _default).permutation(x, axis=axis)


def choice(
    x: Any, shape: Any = (), *, replace: bool = True, p: Any = None, axis: int = 0, generator: Generator | None = None
) -> Tensor:
    """Slices of x along an axis (or of 0 … n - 1 for a number n), chosen at random; see `Generator.choice`."""
    return (generator or _default).choice(x, shape, replace=replace, p=p, axis=axis)


def categorical(logits: Any, /, *, axis: int = -1, generator: Generator | None = None) -> Tensor:
    """For each vector of logits along an axis one position (int32), likely as softmax of the logits says."""
    return (generator or _default).categorical(logits, axis=axis)
