"""Wrong calls of array functions, and what they say: tests/golden/errors_arrays.txt, which reviewers read."""

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import nearfield as nf
from nearfield.errors import NearfieldError

A, V, I = nf.zeros((2, 3)), nf.zeros(3), nf.arange(3)  # a matrix, a vector, whole numbers

WRONG: list[Callable[[], Any]] = [
    lambda: nf.asarray([[1, 2], [3]]),
    lambda: nf.asarray(["a"]),
    lambda: nf.asarray("text"),
    lambda: nf.asarray(2**40),
    lambda: nf.asarray([300], "int8"),
    lambda: nf.asarray(-1, "uint32"),
    lambda: nf.asarray(np.zeros(2, "complex64")),
    lambda: nf.asarray(np.zeros(2, "int16")),
    lambda: nf.asarray(1, "int7"),
    lambda: nf.zeros((2, -1)),
    lambda: nf.arange(1, 5, 0),
    lambda: nf.tril(V),
    lambda: nf.meshgrid(V, A),
    lambda: nf.meshgrid(V, indexing="yx"),
    lambda: nf.reshape(A, (4,)),
    lambda: nf.reshape(A, (4, -1)),
    lambda: nf.reshape(A, (-1, -1)),
    lambda: nf.broadcast_to(A, (2, 4)),
    lambda: nf.broadcast_arrays(A, nf.zeros(2)),
    lambda: nf.permute_dims(A, (0, 0)),
    lambda: nf.permute_dims(A, (0, 2)),
    lambda: nf.moveaxis(A, (0, 1), 0),
    lambda: nf.matrix_transpose(V),
    lambda: nf.expand_dims(A, axis=5),
    lambda: nf.squeeze(A, 0),
    lambda: nf.flip(A, axis=2),
    lambda: nf.concat([]),
    lambda: nf.concat([A, nf.zeros((3, 3))], axis=1),
    lambda: nf.concat([A, V]),
    lambda: nf.concat([A, nf.zeros(2)], axis=1),
    lambda: nf.stack([A, V]),
    lambda: nf.split(A, 2, axis=1),
    lambda: nf.split(A, [1, 1], axis=1),
    lambda: nf.repeat(A, [1, 2], axis=1),
    lambda: nf.roll(A, (1, 2), axis=0),
    lambda: nf.pad(A, [(1, 1)]),
    lambda: nf.pad(A, -1),
    lambda: A[2],
    lambda: A[0, -4],
    lambda: A[0, 0, 0],
    lambda: A[..., ...],
    lambda: A[1.5],
    lambda: A["a"],
    lambda: A[[0, 5]],
    lambda: A[V],
    lambda: A[nf.asarray([True, False, True])],
    lambda: A[[0, 1], [0, 1, 2]],
    lambda: nf.nonzero(nf.asarray(1)),
    lambda: nf.take(A, [0]),
    lambda: nf.take(A, [2], axis=0),
    lambda: nf.take(A, [0.5], axis=0),
    lambda: nf.take(nf.zeros((0, 2)), I, axis=0),
    lambda: nf.take_along_axis(A, [0], axis=1),
    lambda: nf.scatter(V, [0, 1], nf.zeros(3)),
    lambda: nf.scatter_add(V, [3], 1.0),
    lambda: nf.searchsorted(A, V),
    lambda: nf.searchsorted(V, V, side="middle"),
    lambda: nf.sort(V, axis=1),
    lambda: nf.topk(V, 4),
    lambda: nf.median(nf.zeros(0)),
    lambda: nf.sum(A, axis=2),
    lambda: nf.sum(A, axis=(0, -2)),
    lambda: nf.max(nf.zeros((0, 2)), axis=0),
    lambda: nf.argmax(nf.zeros(0)),
    lambda: nf.average(V, weights=V > 0),
    lambda: nf.cumulative_sum(A),
    lambda: nf.diff(A, n=-1),
    lambda: nf.matmul(A, A),
    lambda: nf.matmul(A, nf.zeros(2)),
    lambda: nf.matmul(A, 2.0),
    lambda: nf.matmul(nf.zeros((2, 1, 3)), nf.zeros((3, 3, 1))),
    lambda: nf.matmul(A > 0, V > 0),
    lambda: nf.tensordot(A, nf.zeros((3, 2))),
    lambda: nf.tensordot(A, A, axes=3),
    lambda: nf.tensordot(A, A, axes=((0,), (1,))),
    lambda: nf.vecdot(A, nf.zeros(2)),
    lambda: nf.outer(A, V),
    lambda: nf.cross(nf.zeros(2), nf.zeros(2)),
    lambda: nf.diagonal(V),
    lambda: nf.matrix_norm(V),
    lambda: nf.matrix_norm(A, ord="nuc"),
    lambda: nf.einsum("ij,jk->ik", A),
    lambda: nf.einsum("ij,jk->ik", A, A),
    lambda: nf.einsum("ii", A),
    lambda: nf.einsum("ijk->i", A),
    lambda: nf.einsum("ij->ik", A),
    lambda: nf.einsum("i$", A),
    lambda: nf.einsum("ij->ij"),
    lambda: nf.finfo("int8"),
    lambda: nf.iinfo("float32"),
    lambda: nf.isdtype("int8", "whole"),
    lambda: nf.result_type(),
    lambda: nf.random.Generator(-1),
    lambda: nf.random.uniform(3, dtype="int32"),
    lambda: nf.random.integers(3, 5, 5),
    lambda: nf.random.choice(3, (4,), replace=False),
    lambda: nf.random.choice(3, p=[0.5, 0.5]),
]


def calls() -> list[str]:
    """The wrong calls as they are written above."""
    lines = inspect.getsource(inspect.getmodule(calls)).splitlines()  # type: ignore[arg-type]
    return [
        line.strip().removeprefix("lambda: ").removesuffix(",") for line in lines if line.startswith("    lambda: ")
    ]


def test_wrong_calls_say_what_is_wrong(golden: Callable[[str, str], None]) -> None:
    texts = []
    for text, call in zip(calls(), WRONG, strict=True):
        with pytest.raises(NearfieldError) as error:
            call()
        texts.append(f"{text}\n    {type(error.value).__name__}: {error.value}\n")
    golden("errors_arrays.txt", "".join(texts))


DATA_DEPENDENT: list[Callable[[nf.Tensor], Any]] = [
    lambda x: x[x > 0],
    lambda x: nf.nonzero(x)[0],
    nf.unique_values,
    lambda x: nf.repeat(x, x),
]


@pytest.mark.parametrize("function", DATA_DEPENDENT)
def test_shapes_that_depend_on_values_cannot_be_traced(function: Callable[[nf.Tensor], Any]) -> None:
    with pytest.raises(nf.errors.TraceError), nf.use("reference"):
        nf.jit(function)(nf.arange(3))
