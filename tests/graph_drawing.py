"""Small Graphs drawn at random: values of all dtypes, views of them, and what is done to a result before it is stored.

Half of the drawings are *exact*: small whole numbers and operations that keep them whole, so that a wrong element
differs by far more than rounding. Some have NaN and infinities among their values. What layers and families of
operations do to these is in graph_motifs.py.
"""

import random
from collections.abc import Callable, Sequence
from math import inf, nan, prod
from typing import Any

import numpy as np

import nearfield as nf
from nearfield import nn
from nearfield.dtype import DTYPES
from nearfield.tensor import Node, Tensor

Shape = tuple[int, ...]
Function = Callable[..., Tensor]

FLOATS = ("float32",) * 6 + ("float16",) * 2
ANY = (*FLOATS, "int32", "int8", "uint8", "uint32", "bool")
SIZES = (1, 2, 3, 4, 5, 7, 8, 9, 12, 16, 17, 24, 31, 32, 33, 40, 64, 65)
RANKS = (0, 1, 1, 2, 2, 2, 3, 3, 4)
MOST = 20_000  # elements of what is drawn without a size in mind

WHOLE: tuple[Function, ...] = (nf.negative, nf.abs, lambda x: nf.maximum(x, 0), lambda x: x + 1, lambda x: x * 2)
WHOLE_REALS: tuple[Function, ...] = (*WHOLE, nf.floor, nf.sign, nn.relu6, lambda x: nf.where(x > 1, x, -x))
SMOOTH: tuple[Function, ...] = (
    nf.exp, nf.tanh, nf.erf, nf.sin, nf.square, nf.abs,
    nn.sigmoid, nn.gelu, nn.silu, nn.softplus, nn.relu, nn.elu, nn.mish, nn.hard_swish,
    lambda x: nf.sqrt(nf.abs(x)), lambda x: nf.log(nf.abs(x) + 1), lambda x: 1 / (nf.abs(x) + 1),
    lambda x: x * 0.5 - 1, lambda x: nf.abs(x) ** 1.5,
)  # fmt: skip
PAIRS: tuple[Function, ...] = (
    nf.add, nf.subtract, nf.multiply, nf.maximum, nf.minimum, lambda a, b: nf.where(a > b, a, b * 2),
)  # fmt: skip
OF_INTEGERS: tuple[Function, ...] = (
    nf.bitwise_and, nf.bitwise_xor, nf.floor_divide, nf.remainder, nf.bitwise_left_shift,
)  # fmt: skip
OF_BOOLS: tuple[Function, ...] = (nf.logical_and, nf.logical_or, nf.logical_xor)
CUTS = (slice(None), slice(None), slice(None, None, 2), slice(None, None, -1), slice(1, None), slice(0, -1))


def stand_in(shape: Sequence[int], dtype: str = "float32") -> Tensor:
    """An input of a Graph: no value, no operation."""
    return Tensor(Node(None, (), {}, tuple(shape), DTYPES[dtype]))


def filled(shape: Sequence[int], dtype: str = "float32", seed: int = 0) -> Any:
    """Small whole numbers in any dtype."""
    rng = np.random.default_rng(seed)
    if dtype == "bool":
        return rng.random(tuple(shape)) < 0.5
    low, high = (-3, 4) if np.dtype(dtype).kind == "f" else {"int8": (-128, 128), "uint8": (0, 256)}.get(dtype, (0, 10))
    return rng.integers(low, high, tuple(shape)).astype(dtype)


class Drawing:
    """Choices, from a seed, and the inputs that they have made: stand-ins, and the array for each."""

    def __init__(self, seed: int) -> None:
        self.random, self.numbers = random.Random(seed), np.random.default_rng(seed)
        self.exact = self.random.random() < 0.55
        self.odd = self.random.random() < 0.2
        self.inputs: list[Tensor] = []
        self.arrays: list[Any] = []
        self.one_of, self.whole = self.random.choice, self.random.randint

    def maybe(self, probability: float = 0.5) -> bool:
        return self.random.random() < probability

    # --- shapes and values ------------------------------------------------------------------------------------------

    def size(self) -> int:
        return self.one_of(SIZES)

    def shape(self, rank: int | None = None) -> Shape:
        """Of that rank; now and then without elements."""
        rank = self.one_of(RANKS) if rank is None else rank
        while True:
            found = tuple(self.size() for _ in range(rank))
            if found and self.maybe(0.02):
                found = (0, *found[1:])
            if prod(found) <= MOST:
                return found

    def values(self, shape: Shape, dtype: str) -> Any:
        if dtype in ("int32", "int64"):
            return self.numbers.integers(-9, 10, shape).astype(dtype)
        if np.dtype(dtype).kind != "f":
            return filled(shape, dtype, self.whole(0, 2**31))
        if self.exact:
            found = self.numbers.integers(-3, 4, shape).astype(dtype)
        else:
            found = np.asarray(self.numbers.normal(0, 1, shape)).astype(dtype)
        if self.odd and found.size:
            for _ in range(self.one_of((1, 1, 2))):
                found.reshape(-1)[self.numbers.integers(0, found.size)] = self.one_of((nan, inf, -inf))
        return found

    def new(self, shape: Sequence[int], dtype: str = "float32", values: Any = None) -> Tensor:
        """A further input."""
        array = self.values(tuple(shape), dtype) if values is None else values
        self.inputs.append(stand_in(shape, dtype))
        self.arrays.append(np.asarray(array, dtype).reshape(tuple(shape)))
        return self.inputs[-1]

    def positions(self, shape: Shape, n: int) -> Tensor:
        """Numbers below n: any, sorted, or all the same."""
        found = self.numbers.integers(0, n, shape)
        kind = self.one_of(("any",) * 3 + ("sorted", "same"))
        if kind == "sorted":
            found = np.sort(found, axis=None).reshape(shape)
        elif kind == "same":
            found = np.full(shape, self.random.randrange(n))
        return self.new(shape, "int32", found)

    # --- views ------------------------------------------------------------------------------------------------------

    def view(self, shape: Sequence[int], dtype: str = "float32") -> Tensor:
        """Something of that shape: an input, or what is easily computed where it is read."""
        shape = tuple(shape)
        kind = self.one_of(
            ("plain",) * 4 + ("permuted", "sliced", "spread", "cast", "flipped", "computed", "padded", "joined")
        )
        if kind == "cast" and dtype == "float32":
            return nf.astype(self.new(shape, self.one_of(("float16", "int8", "int32", "bool", "uint8"))), dtype)
        if kind == "computed" and dtype.startswith("float"):
            return self.changed(self.new(shape, dtype))
        if kind == "plain" or not shape:
            return self.new(shape, dtype)
        return self._viewed(kind, shape, dtype, self.random.randrange(len(shape)))

    def _viewed(self, kind: str, shape: Shape, dtype: str, axis: int) -> Tensor:
        def sized(n: int) -> Shape:
            return (*shape[:axis], n, *shape[axis + 1 :])

        if kind == "permuted":
            order = self.random.sample(range(len(shape)), len(shape))
            return nf.permute_dims(self.new([shape[a] for a in np.argsort(order)], dtype), order)
        if kind == "sliced":
            step, start = self.one_of((1, 2, 3)), self.one_of((0, 1, 2))
            stop = start + step * shape[axis]
            x = self.new(sized(stop + self.one_of((0, 1))), dtype)
            return x[(*[slice(None)] * axis, slice(start, stop, step))]
        if kind == "spread":
            return nf.broadcast_to(self.new(sized(1), dtype), shape)
        if kind == "flipped":
            return nf.flip(self.new(shape, dtype), axis=axis)
        if kind == "padded" and dtype.startswith("float"):
            before = self.whole(0, min(2, shape[axis]))
            after = self.whole(0, min(2, shape[axis] - before))
            width = [(before, after) if a == axis else (0, 0) for a in range(len(shape))]
            return nf.pad(self.new(sized(shape[axis] - before - after), dtype), width)
        if kind == "joined":
            first = self.whole(0, shape[axis])
            parts = [self.new(sized(n), dtype) for n in (first, shape[axis] - first)]
            return nf.concat(parts, axis=axis)
        return self.new(shape, dtype)

    # --- operations -------------------------------------------------------------------------------------------------

    def small(self, x: Tensor) -> Tensor:
        """Kept small, so that exact numbers stay exact."""
        return nf.clip(x, -3, 3) if self.exact and x.dtype.kind == "f" else x

    def scaled(self, x: Tensor, terms: float) -> Tensor:
        """A sum of so many terms, as large as one."""
        return x if self.exact else x * max(1.0, terms) ** -0.5

    def changed(self, x: Tensor) -> Tensor:
        """A function of each element."""
        kind = x.dtype.kind
        if kind == "b":
            return nf.logical_not(x)
        functions = SMOOTH if kind == "f" and not self.exact else WHOLE_REALS if kind == "f" else WHOLE
        return self.small(self.one_of(functions)(x))

    def paired(self, x: Tensor, y: Tensor) -> Tensor:
        """A function of elements of both."""
        kind = x.dtype.kind
        functions = OF_BOOLS if kind == "b" else PAIRS + OF_INTEGERS if kind in "iu" else PAIRS
        return self.small(self.one_of(functions)(x, y))

    def reduced(self, x: Tensor) -> Tensor:
        """Over some axes."""
        axes = tuple(sorted(self.random.sample(range(x.ndim), self.whole(1, x.ndim))))
        keep = self.maybe()
        if x.dtype.kind == "b":
            return self.one_of((nf.any, nf.all))(x, axis=axes, keepdims=keep)
        functions: tuple[Function, ...] = (nf.sum, nf.sum, nf.max, nf.min)
        if x.dtype.kind == "f" and not self.exact:
            functions += (nf.mean, nf.var)
        function = self.one_of(functions)
        return (
            self.small(x)
            if function is not nf.sum and 0 in x.shape
            else function(self.small(x), axis=axes, keepdims=keep)
        )

    def finished(self, y: Tensor) -> Tensor:
        """With a bias, an activation, what is added from elsewhere, a normalisation, a reduction; or as it is."""
        for _ in range(self.one_of((0, 0, 1, 1, 2))):
            if y.dtype.kind == "f":
                y = self._finished(
                    y, self.one_of(("bias", "function", "sum", "cast", "rows", "turned", "twice", "whole"))
                )
            elif y.dtype.kind != "b":
                y = self.changed(y)
        return y

    def _finished(self, y: Tensor, kind: str) -> Tensor:
        dtype = y.dtype.name
        if kind == "function":
            return self.changed(y)
        if kind == "sum":
            return self.small(y + self.view(y.shape, dtype))
        if kind == "cast":
            return nf.astype(y, self.one_of(("float16", "float32")))
        if kind == "twice":
            return self.small(self.changed(y) + self.changed(y))
        if not y.ndim:
            return y
        if kind == "bias":
            return self.small(y + self.new(y.shape[-1:], dtype))
        if kind == "rows":
            return self.small(y * self.new((*y.shape[:-1], 1), dtype))
        if kind == "turned":
            return nf.permute_dims(y, self.random.sample(range(y.ndim), y.ndim))
        if self.exact or y.shape[-1] < 2:
            return self.reduced(y)
        return self.one_of((self.reduced, nn.layer_norm, nn.softmax, lambda y: nn.softmax(y, axis=0)))(y)
