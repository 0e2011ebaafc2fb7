"""x[key], taking, putting and finding are NumPy's."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import nearfield as nf
from array_cases import arbitrary, on_devices, real, same, same_gradients, whole

pytestmark = on_devices

X = np.arange(2 * 3 * 4 * 5, dtype="int32").reshape(2, 3, 4, 5)
MASK = np.random.default_rng(0).random((3, 4)) > 0.5
SHAPES = hnp.array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=4)

KEYS = {
    "number": 0,
    "negative": -1,
    "numpy number": np.int64(1),
    "new axes": (None, 0, ..., None),
    "reversed": (slice(None, None, -1), slice(2, 0, -1)),
    "steps": (slice(None), slice(None, None, 2), slice(10, 0, -3)),
    "nothing": (slice(2, 1), 0),
    "list": [0, 1],
    "list inside": (slice(None), [0, 2], slice(1, 3)),
    "number and list apart": (0, slice(None), [1, 2]),
    "number and list together": (slice(None), 0, [1, 2]),
    "dots between": (0, ..., [0, 1]),
    "two lists apart": ([0, 1], slice(None), [1, 2]),
    "two lists together": (slice(None), [0, 2], [1, -1]),
    "outer": ([[0], [1]], [0, 2]),
    "three": (slice(None), [0, 1], [[1], [2]], [0, -1]),
    "new axis between": (slice(None), [1, 2], None, [0, 1]),
    "scalar array": (np.array(1), slice(None), np.array([0, 1])),
    "mask in front": np.array([True, False]),
    "mask of two axes": (slice(None), MASK),
    "mask of all": X % 3 == 0,
    "mask of nothing": X < 0,
    "mask and list": (np.array([True, False]), [1]),
    "true": True,
    "false": False,
    "empty list": [],
    "empty apart": (slice(0, 0), [0, 0]),
}


@pytest.mark.parametrize("name", KEYS)
def test_getitem(name: str, device: str) -> None:
    key: Any = KEYS[name] if name != "empty list" else np.array([], "int32")
    same(nf.asarray(X)[key], X[key])


def test_tensors_are_keys(device: str) -> None:
    t, i = nf.asarray(X), nf.asarray([1, -1, 0])
    same(t[:, i], X[:, [1, -1, 0]])
    same(t[nf.asarray(1)], X[1])
    same(t[nf.asarray(1) : nf.asarray(2)], X[1:2])
    same(t[t > 50], X[X > 50])
    same(t[nf.asarray([0, 1], "uint8")], X[[0, 1]])
    assert [row.tolist() for row in nf.asarray([[1, 2], [3, 4]])] == [[1, 2], [3, 4]]


@arbitrary
@given(data=st.data(), shape=SHAPES)
def test_any_basic_key(data: Any, shape: Any, device: str) -> None:
    x = np.arange(np.prod(shape), dtype="int32").reshape(shape)
    key = data.draw(hnp.basic_indices(shape, allow_newaxis=True))
    same(nf.asarray(x)[key], x[key])


@arbitrary
@given(data=st.data(), shape=hnp.array_shapes(min_dims=1, max_dims=4, max_side=4))
def test_any_advanced_key(data: Any, shape: Any, device: str) -> None:
    x = np.arange(np.prod(shape), dtype="int32").reshape(shape)
    key = tuple(a.astype("int32") for a in data.draw(hnp.integer_array_indices(shape)))
    lead = data.draw(st.integers(0, 1))
    if lead and len(key) < len(shape):  # a slice, number or new axis somewhere between
        at = data.draw(st.integers(0, len(key)))
        sizes = (*shape[:at], *shape[at + 1 :])
        if all(a.size == 0 or a.max() < n for a, n in zip(key, sizes, strict=False)) and all(
            a.size == 0 or a.min() >= -n for a, n in zip(key, sizes, strict=False)
        ):
            key = (*key[:at], data.draw(st.sampled_from([slice(None), slice(None, None, -1), 0])), *key[at:])
    same(nf.asarray(x)[key], x[key])


def test_nonzero(device: str) -> None:
    for got, want in zip(nf.nonzero(X % 7 == 0), np.nonzero(X % 7 == 0), strict=True):
        same(got, want)
    same(nf.nonzero([0.0, 2.0, -1.0])[0], np.int32([1, 2]))


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_take(axis: int, device: str) -> None:
    x = real(3, 4, 5)
    same(nf.take(x, [[2, 0], [1, -1]], axis=axis), np.take(x, [[2, 0], [1, -1]], axis))
    order = np.argsort(x, axis)
    same(nf.take_along_axis(x, order, axis=axis), np.take_along_axis(x, order, axis))


def test_taking_along_an_axis_broadcasts(device: str) -> None:
    x, i = real(3, 1, 5), whole(1, 2, 5, low=-3, high=3)
    same(nf.take_along_axis(x, i, axis=0), np.take_along_axis(x.repeat(2, 1), i, 0))


@arbitrary
@given(data=st.data(), shape=hnp.array_shapes(min_dims=1, max_dims=3, max_side=4))
def test_scatter(data: Any, shape: Any, device: str) -> None:
    axis = data.draw(st.integers(0, len(shape) - 1))
    n = shape[axis]
    i = data.draw(
        hnp.arrays("int32", hnp.array_shapes(min_dims=0, max_dims=2, max_side=3), elements=st.integers(-n, n - 1))
    )
    x = np.arange(np.prod(shape), dtype="float32").reshape(shape)
    new = whole(*shape[:axis], *i.shape, *shape[axis + 1 :]).astype("float32")
    flat = np.moveaxis(new.reshape(*shape[:axis], i.size, *shape[axis + 1 :]), axis, 0)
    set_, added = (np.moveaxis(x.copy(), axis, 0) for _ in range(2))
    for place, update in zip(i.reshape(-1), flat, strict=True):
        set_[place] = update
        added[place] += update
    same(nf.scatter(x, i, new, axis=axis), np.moveaxis(set_, 0, axis))
    same(nf.scatter_add(x, i, new, axis=axis), np.moveaxis(added, 0, axis))


def test_scattering_bools_and_numbers(device: str) -> None:
    same(nf.scatter(nf.zeros(4, dtype="bool"), [1, -1], True), np.array([False, True, False, True]))
    same(nf.scatter(nf.zeros((2, 3)), [1], 5.0, axis=1), np.float32([[0, 5, 0]] * 2))
    same(nf.scatter_add(nf.zeros(3), [], nf.zeros(0)), np.zeros(3))


@pytest.mark.parametrize("side", ["left", "right"])
def test_searchsorted(side: Any, device: str) -> None:
    x = np.sort(whole(50)).astype("float32")
    v = np.float32([[-100, -9, 0], [3.5, 100, np.nan]])
    same(nf.searchsorted(x, v, side=side), np.searchsorted(x, v, side))
    mixed = real(9)
    same(nf.searchsorted(mixed, v, side=side, sorter=nf.argsort(mixed)), np.searchsorted(np.sort(mixed), v, side))
    same(nf.searchsorted(np.float32([1, np.nan]), np.float32([np.nan]), side=side), [1 if side == "left" else 2])


def test_one_hot(device: str) -> None:
    same(nf.one_hot([0, 2, 5], 3), np.float32([[1, 0, 0], [0, 0, 1], [0, 0, 0]]))
    same(nf.one_hot([[1]], 2, axis=0, dtype="int32"), np.int32([[[0]], [[1]]]))


GRADIENTS = {
    "numbers and slices": lambda x: x[1, ::-2, None] ** 2,
    "positions": lambda x: x[[2, 0, 2]] ** 2,
    "pairs": lambda x: x[[0, 1, 1], [3, 2, 2]] ** 2,
    "mask": lambda x: x[nf.stop_gradient(x) > 0] ** 2,
    "take": lambda x: nf.take(x, [[0, 1], [1, 1]], axis=1) ** 2,
    "take_along_axis": lambda x: nf.take_along_axis(x, [[1, 1], [0, 2], [3, 3]], axis=1) ** 2,
    "scatter": lambda x: nf.scatter(x, [1, 1], x[:2] * 3) ** 2,
    "scatter_add": lambda x: nf.scatter_add(x, [1, 1], x[:2] * 3) ** 2,
}


@pytest.mark.parametrize("name", GRADIENTS)
def test_gradients(name: str, device: str) -> None:
    same_gradients(GRADIENTS[name], real(3, 4))


def test_gradient_of_updates(device: str) -> None:
    same_gradients(lambda x, u: nf.scatter(x, [0, 2, 0], u) ** 2, real(4), real(3, seed=1))
