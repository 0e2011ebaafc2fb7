"""Shapes, axes, joining and repeating are NumPy's."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import nearfield as nf
from array_cases import arbitrary, on_devices, real, same, same_gradients, whole

pytestmark = on_devices

X = whole(2, 3, 4)
SHAPES = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)


def numbers(shape: tuple[int, ...]) -> np.ndarray:
    return np.arange(np.prod(shape), dtype="int32").reshape(shape)


@pytest.mark.parametrize("shape", [(24,), (-1,), (4, 6), (2, -1, 2), 24, (3, 1, 8)])
def test_reshape(shape: Any, device: str) -> None:
    same(nf.reshape(X, shape), np.reshape(X, shape))
    same(nf.asarray(X).reshape(4, -1), X.reshape(4, -1))


@arbitrary
@given(data=st.data(), shape=SHAPES)
def test_axes_move(data: Any, shape: Any, device: str) -> None:
    x, rank = numbers(shape), len(shape)
    order = data.draw(st.permutations(range(rank)))
    same(nf.permute_dims(x, order), np.transpose(x, order))
    if rank:
        a, b = data.draw(st.integers(-rank, rank - 1)), data.draw(st.integers(-rank, rank - 1))
        same(nf.moveaxis(x, a, b), np.moveaxis(x, a, b))
        same(nf.flip(x, axis=a), np.flip(x, a))
        same(nf.roll(x, 3, axis=a), np.roll(x, 3, a))
        by = data.draw(st.integers(-9, 9))
        same(nf.roll(x, by), np.roll(x, by))
    at = data.draw(st.integers(-rank - 1, rank))
    same(nf.expand_dims(x, axis=at), np.expand_dims(x, at))
    same(nf.squeeze(nf.expand_dims(x, axis=at), at), x)
    same(nf.flip(x), np.flip(x))


@arbitrary
@given(shapes=hnp.mutually_broadcastable_shapes(num_shapes=3, max_dims=3, max_side=3, min_side=0))
def test_broadcasting(shapes: Any, device: str) -> None:
    arrays = [numbers(s) for s in shapes.input_shapes]
    for got, x in zip(nf.broadcast_arrays(*arrays), arrays, strict=True):
        same(got, np.broadcast_to(x, shapes.result_shape))
        same(nf.broadcast_to(x, shapes.result_shape), np.broadcast_to(x, shapes.result_shape))


def test_moving_several_axes(device: str) -> None:
    same(nf.moveaxis(X, (0, 2), (-1, 0)), np.moveaxis(X, (0, 2), (-1, 0)))
    same(nf.expand_dims(X, axis=(0, -1)), np.expand_dims(X, (0, -1)))
    same(nf.matrix_transpose(X), np.swapaxes(X, -1, -2))
    same(nf.asarray(X).mT, np.swapaxes(X, -1, -2))
    same(nf.flatten(X), X.reshape(-1))
    same(nf.flatten(X, 1), X.reshape(2, -1))
    same(nf.flatten(nf.asarray(3)), np.int32([3]))
    same(nf.squeeze(X[:1, :, :1]), X[0, :, 0])


@arbitrary
@given(data=st.data(), shape=hnp.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=3), count=st.integers(1, 3))
def test_joining(data: Any, shape: Any, count: int, device: str) -> None:
    x = numbers(shape)
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    sizes = [data.draw(st.integers(0, 3)) for _ in range(count)]
    parts = [np.repeat(x, n, axis) for n in sizes]
    same(nf.concat(parts, axis=axis), np.concatenate(parts, axis))
    same(nf.concat(parts, axis=None), np.concatenate(parts, None))
    at = data.draw(st.integers(-len(shape) - 1, len(shape)))
    same(nf.stack([x] * count, axis=at), np.stack([x] * count, at))


def test_joining_promotes(device: str) -> None:
    same(nf.concat([np.int8([1]), np.float32([2.5])]), np.float32([1, 2.5]))
    same(nf.stack([np.int8([1]), np.int32([2])]), np.int32([[1], [2]]))


def test_taking_apart(device: str) -> None:
    for got, want in zip(nf.unstack(X, axis=1), np.moveaxis(X, 1, 0), strict=True):
        same(got, want)
    for got, want in zip(nf.split(X, 2, axis=-1), np.split(X, 2, -1), strict=True):
        same(got, want)
    for got, want in zip(nf.split(X, [1, 0, 3], axis=2), np.split(X, [1, 1], 2), strict=True):
        same(got, want)


@arbitrary
@given(data=st.data(), shape=SHAPES)
def test_repeating(data: Any, shape: Any, device: str) -> None:
    x = numbers(shape)
    times = data.draw(st.lists(st.integers(0, 3), max_size=4))
    same(nf.tile(x, times), np.tile(x, times))
    n = data.draw(st.integers(0, 3))
    same(nf.repeat(x, n), np.repeat(x, n))
    if shape:
        axis = data.draw(st.integers(-len(shape), len(shape) - 1))
        same(nf.repeat(x, n, axis=axis), np.repeat(x, n, axis))
        each = [data.draw(st.integers(0, 2)) for _ in range(shape[axis])]
        same(nf.repeat(x, nf.asarray(each, "int32"), axis=axis), np.repeat(x, each, axis))


@arbitrary
@given(data=st.data(), shape=SHAPES)
def test_padding(data: Any, shape: Any, device: str) -> None:
    x = numbers(shape)
    widths = [(data.draw(st.integers(0, 2)), data.draw(st.integers(0, 2))) for _ in shape]
    same(nf.pad(x, widths, value=7), np.pad(x, widths, constant_values=7) if shape else x)
    same(nf.pad(x, 1), np.pad(x, 1) if shape else x)
    same(nf.pad(x > 2, (2, 1), value=True), np.pad(x > 2, (2, 1), constant_values=True) if shape else x > 2)


GRADIENTS = {
    "concat": lambda x: nf.concat([x, x[:1] * 2], axis=0),
    "stack": lambda x: nf.stack([x, x * x], axis=1),
    "flip": lambda x: nf.flip(x, axis=1) * x,
    "roll": lambda x: nf.roll(x, 2, axis=-1) * x,
    "repeat": lambda x: nf.repeat(x, 2, axis=0),
    "tile": lambda x: nf.tile(x, (2, 2)) ** 2,
    "pad": lambda x: nf.pad(x, ((1, 0), (2, 1)), value=3.0) ** 2,
    "split": lambda x: nf.split(x, [1, 2], axis=0)[1] * 3,
    "broadcast_to": lambda x: nf.broadcast_to(x, (4, *x.shape)),
    "strided": lambda x: x[::-2, 3:0:-2] ** 2,
}


@pytest.mark.parametrize("name", GRADIENTS)
def test_gradients(name: str, device: str) -> None:
    same_gradients(GRADIENTS[name], real(3, 4))
