"""Products of vectors and matrices are NumPy's."""

from typing import Any

import numpy as np
import pytest

import nearfield as nf
from array_cases import on_devices, real, same, same_gradients, whole

pytestmark = on_devices

MATMULS = [
    ((3,), (3,)), ((2, 3), (3,)), ((3,), (3, 4)), ((2, 3), (3, 4)), ((5, 2, 3), (3, 4)), ((5, 1, 2, 3), (6, 3, 4)),
    ((1, 2, 3), (4, 3, 2)),
    ((0, 3), (3, 2)), ((2, 0), (0, 3)), ((3,), (2, 3, 4)), ((2, 2, 1, 3), (3,)), ((2, 1), (1, 2)), ((1, 1), (1, 1)),
]  # fmt: skip


@pytest.mark.parametrize(("left", "right"), MATMULS)
def test_matmul(left: Any, right: Any, device: str) -> None:
    a, b = real(*left), real(*right, seed=1)
    same(nf.matmul(a, b), a @ b, 1e-5)
    same(nf.asarray(a) @ b, a @ b, 1e-5)
    same(nf.matmul(whole(*left), whole(*right)), whole(*left) @ whole(*right))
    if nf.asarray(a @ b).size:
        same_gradients(nf.matmul, a, b)


EINSUMS = {
    "ij,jk->ik": [(2, 3), (3, 4)],
    "ii->i": [(3, 3)],
    "ii": [(3, 3)],
    "ijij->ij": [(2, 3, 2, 3)],
    "ijk,kl,lm": [(2, 3, 4), (4, 5), (5, 2)],
    "...ij,...jk": [(2, 1, 3, 4), (5, 4, 2)],
    "i...,i...->...": [(2, 3), (2, 1, 3)],
    "i,j,k->kij": [(2,), (3,), (4,)],
    "ba": [(2, 3)],
    "iij,jkk->ik": [(2, 2, 3), (3, 4, 4)],
    "...,...": [(2, 3), (3,)],
    "i->": [(4,)],
    ",": [(), ()],
    " i j , j ": [(2, 3), (3,)],
    "...i->...": [(2, 3)],
    "ab,ab,ab->a": [(2, 3)] * 3,
    "ij,ij": [(1, 3), (2, 3)],
    "aB,Bc->ac": [(2, 3), (3, 4)],
    "i,i->i": [(0,), (0,)],
}


@pytest.mark.parametrize("spec", EINSUMS)
def test_einsum(spec: str, device: str) -> None:
    arrays = [real(*s, seed=n) for n, s in enumerate(EINSUMS[spec])]
    same(nf.einsum(spec, *arrays), np.einsum(spec, *arrays), 1e-5)
    if arrays[0].size and spec != ",":
        same_gradients(lambda *xs: nf.einsum(spec, *xs), *arrays)


def test_dtypes_promote(device: str) -> None:
    same(nf.matmul(np.int8([[1, 2]]), np.float32([[1], [2]])), np.float32([[5]]))
    same(nf.einsum("i,i", np.uint8([200]), np.int32([200])), np.int32(40000))


@pytest.mark.parametrize("axes", [0, 1, 2, ((1, 0), (0, 2)), ((-1,), (1,))])
def test_tensordot(axes: Any, device: str) -> None:
    a, b = real(2, 3, 3), real(3, 3, 2)
    same(nf.tensordot(a, b, axes=axes), np.tensordot(a, b, axes), 1e-5)


def test_vecdot(device: str) -> None:
    a, b = real(2, 3, 4), real(3, 1)
    same(nf.vecdot(real(2, 4), real(4)), np.vecdot(real(2, 4), real(4)), 1e-5)
    same(nf.vecdot(a, b, axis=-2), np.sum(a * b, -2), 1e-5)


def test_small_products(device: str) -> None:
    same(nf.outer(real(3), real(4)), np.outer(real(3), real(4)))
    a, b = real(2, 3), real(3, seed=1)
    same(nf.cross(a, b), np.cross(a, b), 1e-5)
    same(nf.cross(a.T, a.T * 2 + 1, axis=0), np.cross(a.T, a.T * 2 + 1, axis=0), 1e-5)


@pytest.mark.parametrize("offset", range(-5, 6))
def test_diagonals(offset: int, device: str) -> None:
    x = real(2, 4, 5)
    same(nf.diagonal(x, offset=offset), np.linalg.diagonal(x, offset=offset))
    same(nf.trace(x, offset=offset), np.linalg.trace(x, offset=offset), 1e-5)
    same(nf.trace(np.int8([[100, 0], [0, 100]])), np.int32(200))


@pytest.mark.parametrize("order", [2, 1, 0, 3, 0.5, np.inf, -np.inf, -1])
@pytest.mark.parametrize("axis", [None, 0, (0, 1)])
@pytest.mark.parametrize("keepdims", [False, True])
def test_vector_norm(order: float, axis: Any, keepdims: bool, device: str) -> None:
    x = real(3, 4)
    same(
        nf.vector_norm(x, axis=axis, ord=order, keepdims=keepdims),
        np.linalg.vector_norm(x, axis=axis, ord=order, keepdims=keepdims),
        1e-5,
    )


@pytest.mark.parametrize("order", ["fro", 1, -1, np.inf, -np.inf])
@pytest.mark.parametrize("keepdims", [False, True])
def test_matrix_norm(order: Any, keepdims: bool, device: str) -> None:
    x = real(2, 3, 4)
    same(nf.matrix_norm(x, ord=order, keepdims=keepdims), np.linalg.matrix_norm(x, ord=order, keepdims=keepdims), 1e-5)


GRADIENTS = {
    "tensordot": lambda x, y: nf.tensordot(x, y, axes=((1,), (1,))),
    "cross": lambda x, y: nf.cross(x, y) ** 2,
    "vecdot": lambda x, y: nf.vecdot(x, y),
    "outer": lambda x, y: nf.outer(x[0], y[1]),
    "trace": lambda x, y: nf.trace(x * y, offset=1),
    "vector_norm": lambda x, y: nf.vector_norm(x + y, axis=1),
    "matrix_norm": lambda x, y: nf.matrix_norm(x * y, ord=1),
}


@pytest.mark.parametrize("name", GRADIENTS)
def test_gradients(name: str, device: str) -> None:
    same_gradients(GRADIENTS[name], real(3, 3), real(3, 3, seed=1))
