"""Rows added at places that data tells: the kernel of `put_add` against its meaning, and when it is used."""

from dataclasses import replace

import numpy as np
import pytest

import nearfield as nf
from nearfield import scalar as k
from nearfield.compiler.build import Target, build
from nearfield.compiler.wasm_scatter import compile_scatter
from nearfield.trace import trace
from wasm_machine import Array, check, executed, normal, op_kernel


def places(n: int, *shape: int) -> Array:
    """Places with repetitions, and some that lie outside."""
    found = np.random.default_rng(sum(shape)).integers(0, max(1, n // 2), shape).astype("int32")
    found.reshape(-1)[:1], found.reshape(-1)[-1:] = -3, n + 5
    return found


@pytest.mark.parametrize("row", [1, 2, 3, 4, 5, 16, 67])
@pytest.mark.parametrize("n", [2, 9, 130])
def test_rows(n: int, row: int) -> None:
    """Any number of rows of any length."""
    for count in (1, 7, 40):
        check("put_add", normal(count, row), places(n, count), axis=0, n=n)


def test_axes_and_types() -> None:
    """Along any axis, with indices of any shape; types that are not stored as they are computed are added too."""
    check("put_add", normal(3, 8, 5), places(6, 8), axis=1, n=6)
    check("put_add", normal(4, 3, 9), places(6, 9), axis=2, n=6)
    check("put_add", normal(2, 3, 4, 8), places(6, 3, 4), axis=1, n=6)
    check("put_add", normal(5, 3, 2, 4), places(7, 5), axis=0, n=7)
    check("put_add", normal(3, 8), places(1, 3), axis=0, n=1)
    check("put_add", (normal(9, 6) * 10).astype("int32"), places(6, 9), axis=0, n=6)
    check("put_add", (normal(9, 6) * 10).astype("uint8"), places(6, 9), axis=0, n=6)
    check("put_add", normal(9, 6).astype("float16"), places(6, 9), axis=0, n=6, tol=1e-3)
    check("put_add", normal(9, 6).astype("float64"), places(6, 9), axis=0, n=6)


def test_nan_stays_in_its_row() -> None:
    """A row that is not a number spoils the place it is added to, and no other."""
    g, at = np.ones((4, 6), "float32"), np.array([0, 2, 2, 4], "int32")
    g[1, 3] = np.nan
    kernel, shape, dtype = op_kernel("put_add", [g, at], {"axis": 0, "n": 6})
    (got,) = executed(kernel, [g, at], np.full(shape, 7, dtype))
    assert np.isnan(got).sum() == 1
    assert np.isnan(got[2, 3])
    assert got[[1, 3, 5]].tolist() == [[0] * 6] * 3


def test_claim() -> None:
    """Only kernels that are one such sum, and nothing more, are claimed."""
    g, at = normal(40, 8), places(100, 40)
    kernel, _, _ = op_kernel("put_add", [g, at], {"axis": 0, "n": 100})
    assert compile_scatter(kernel, relaxed=True) is not None
    (store,) = kernel.stores
    twice = replace(kernel, stores=(replace(store, value=store.value * 2.0),))
    assert compile_scatter(twice, relaxed=True) is None
    updated = replace(store, value=store.value + k.load(store.argument, store.index, "float32"))
    assert compile_scatter(replace(kernel, stores=(updated,)), relaxed=True) is None
    for name, attrs in (("take", {"axis": 0}), ("sum", {"axes": (0,)})):
        other, _, _ = op_kernel(name, [g, at][: 2 if name == "take" else 1], attrs)
        assert compile_scatter(other, relaxed=True) is None


def test_adding_to_zeros_adds_nothing() -> None:
    """Rows added into zeros are one kernel; into other numbers, two."""
    with nf.use("reference"):
        at, rows, table = nf.zeros((5,), dtype="int32"), nf.zeros((5, 8)), nf.zeros((9, 8))
        for x, steps in ((nf.zeros((9, 8)), 1), (table, 2)):
            y = nf.scatter_add(x, at, rows, axis=0)
            graph, _ = trace([y.node], [t.node for t in (at, rows, table)])
            assert len(build(graph, Target("wasm")).program.steps) == steps
