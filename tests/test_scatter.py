"""Rows added at places that data tells: the kernel of `put_add` against its meaning, and when it is used."""

from dataclasses import replace

import numpy as np
import pytest

import nearfield as nf
from nearfield import scalar as k
from nearfield.compiler.build import Target, build
from nearfield.compiler.wasm_scatter import compile_scatter
from nearfield.compiler.wgsl_scatter import spell_scatter
from nearfield.tensor import apply
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


@pytest.mark.parametrize(
    ("rows", "width", "n", "pieces"),
    [(1000, 1, 100, 1), (1000, 16, 1000, 1), (1000, 64, 1000, 2), (100, 256, 300, 16), (10, 8, 10_000, 32)],
)
def test_pieces(rows: int, width: int, n: int, pieces: int) -> None:
    """Each piece looks at all rows: of narrow ones nothing would be left to share, if there are many."""
    kernel, _, _ = op_kernel("put_add", [normal(rows, width), places(n, rows)], {"axis": 0, "n": n})
    made = compile_scatter(kernel, relaxed=True)
    assert made is not None
    assert -(-made.total // made.grain) == pieces


# places, the indices' shape, what stands before and after the places: fewer and more than one list and one block
LONG_ROWS = [
    (30, (7,), (), (32,)),
    (100, (1024,), (), (64,)),
    (77, (1500,), (), (33,)),
    (2000, (5, 300), (), (4, 36)),
    (20, (40,), (3,), (36,)),
    (16, (2, 3), (3, 2), (140,)),
    (2000, (33,), (3,), (32,)),
]


@pytest.mark.parametrize("case", LONG_ROWS)
@pytest.mark.parametrize("dtype", ["float32", "int32"])
def test_long_rows(
    case: tuple[int, tuple[int, ...], tuple[int, ...], tuple[int, ...]], dtype: str, device: str
) -> None:
    """Rows that are worth a list of their own on a graphics card: at random places, and all at one."""
    n, shape, before, after = case
    rng = np.random.default_rng(n)
    g = rng.integers(-4, 5, (*before, *shape, *after)).astype(dtype)
    axis = len(before)
    for at in (places(n, *shape), np.full(shape, n // 3, "int32")):
        want = np.zeros((*before, n, *after), dtype)
        np.add.at(want, ((slice(None),) * axis + (np.clip(at, 0, n - 1),)), g)
        got = apply("put_add", nf.asarray(g), nf.asarray(at), axis=axis, n=n)
        np.testing.assert_array_equal(got.numpy(), want)


def test_long_rows_that_are_constant_or_not_a_number(device: str) -> None:
    """What is added need not depend on the row, and a NaN spoils its own place alone."""
    at = nf.asarray(places(50, 90))
    x = nf.zeros((50, 40))
    slope = nf.grad(lambda x: nf.sum(nf.take(x, nf.clip(at, 0, 49), axis=0)))(x).numpy()
    count = np.bincount(np.clip(at.numpy(), 0, 49), minlength=50)
    np.testing.assert_array_equal(slope, count[:, None] + x.numpy())
    g = np.ones((90, 40), "float32")
    g[33, 7] = np.nan
    bad = np.isnan(apply("put_add", nf.asarray(g), at, axis=0, n=50).numpy())
    assert bad.sum() == 1
    assert bad[np.clip(at.numpy()[33], 0, 49), 7]


def test_claim_on_webgpu() -> None:
    """Long rows at many places are listed; short ones, few places and sums that are worked on are not."""
    for n, row, claimed in ((100, 64, True), (100, 8, False), (3, 64, False)):
        kernel, _, _ = op_kernel("put_add", [normal(40, row), places(n, 40)], {"axis": 0, "n": n})
        assert (spell_scatter(kernel) is not None) == claimed
    kernel, _, _ = op_kernel("put_add", [normal(40, 64), places(100, 40)], {"axis": 0, "n": 100})
    (store,) = kernel.stores
    assert spell_scatter(replace(kernel, stores=(replace(store, value=store.value * 2.0),))) is None


def test_adding_to_zeros_adds_nothing() -> None:
    """Rows added into zeros are one kernel; into other numbers, two."""
    with nf.use("reference"):
        at, rows, table = nf.zeros((5,), dtype="int32"), nf.zeros((5, 8)), nf.zeros((9, 8))
        for x, steps in ((nf.zeros((9, 8)), 1), (table, 2)):
            y = nf.scatter_add(x, at, rows, axis=0)
            graph, _ = trace([y.node], [t.node for t in (at, rows, table)])
            assert len(build(graph, Target("wasm")).program.steps) == steps
