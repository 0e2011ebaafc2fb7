"""Kernels where their grids, tiles and rows end: sizes that fill no workgroup, or more than one direction of a grid."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import nearfield as nf
from nearfield import nn
from nearfield.compiler import wgsl_points, wgsl_tile, wgsl_tiling
from nearfield.compiler.lower import lower
from nearfield.trace import trace


@pytest.fixture(autouse=True)
def _on(device: str) -> str:
    return device


def array(*shape: int) -> np.ndarray:
    """Small whole numbers: sums of them are exact in any order."""
    return np.random.default_rng(list(shape)).integers(-4, 5, shape).astype("float32")


@pytest.mark.parametrize("shape", [(5, 7, 3), (3, 21, 2), (63, 1, 5), (2, 2, 70), (65, 3, 4)])
def test_results_stored_in_another_order(shape: tuple[int, ...]) -> None:
    """What lies beyond the last point of the grid is not stored: turned around, it would lie inside the result."""
    x = array(*shape)
    got = nf.permute_dims(nf.sum(nf.asarray(x), axis=2), (1, 0)) + 1.0
    np.testing.assert_array_equal(got.numpy(), x.sum(axis=2).T + 1)


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8"])
def test_more_workgroups_than_one_direction_has(dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A grid has at most 65535 workgroups in a direction, here 5; the rest stand in the second."""
    monkeypatch.setattr(wgsl_points, "MOST", 5)
    nf.forget_programs()
    x = np.arange(20_011, dtype="int32") % 100
    y = (nf.astype(nf.asarray(x), dtype) + nf.asarray(1, dtype)).numpy()
    np.testing.assert_array_equal(y, (x + 1).astype(dtype))
    nf.forget_programs()


def test_grids_have_hardly_more_workgroups_than_asked_for() -> None:
    """65,536 in two rows are 2 x 32,768: 65,535 in the first row would leave all but one of the second idle."""
    for groups in (1, 65_535, 65_536, 65_537, 200_001):
        x, y, z = wgsl_points.grid(groups)
        assert x <= 65_535
        assert groups <= x * y * z < groups + y


@pytest.mark.parametrize("count", [8192, 8200, 12_288, 12_296])
def test_two_vectors_of_float16_for_each_invocation(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """From as many elements on, here 8192, and where whole workgroups have two each."""
    monkeypatch.setattr(wgsl_points, "TWICE", 1024)
    nf.forget_programs()
    x, y = (np.random.default_rng(n).uniform(-2, 2, count).astype("float16") for n in range(2))
    a, b = nf.asarray(x), nf.asarray(y)
    np.testing.assert_array_equal((a + b).numpy(), x + y)
    np.testing.assert_array_equal(nf.jit(lambda a, b: (a * b, nf.maximum(a, b)))(a, b)[1].numpy(), np.maximum(x, y))
    nf.forget_programs()


LONG = [((70_000,), 0), ((1 << 20,), 0), ((8, 16_384), 1), ((16_384, 8), 0), ((128, 8192), None), ((4, 65_536, 3), 1)]


@pytest.mark.parametrize(("shape", "axis"), LONG)
def test_long_reductions(shape: tuple[int, ...], axis: int | None) -> None:
    """Folded in two, so that many threads share the work."""
    x = array(*shape) - 9  # all below 0
    np.testing.assert_array_equal(nf.sum(nf.asarray(x), axis=axis).numpy(), x.sum(axis=axis))
    np.testing.assert_array_equal(nf.max(nf.asarray(x), axis=axis).numpy(), x.max(axis=axis))


@pytest.mark.parametrize("shape", [(128, 32), (7, 48), (70, 33), (4095, 32), (4096, 32), (3, 100, 36)])
def test_short_rows(shape: tuple[int, ...]) -> None:
    """Few of them are shared out among threads; many take a thread each."""
    x = array(*shape)
    np.testing.assert_array_equal(nf.sum(nf.asarray(x), axis=-1).numpy(), x.sum(axis=-1))
    x[..., 1, 5], x[..., 2, 31] = np.nan, np.inf
    np.testing.assert_array_equal(nf.max(nf.asarray(x) * 2.0, axis=-1).numpy(), x.max(axis=-1) * 2)


@pytest.mark.parametrize("columns", [4, 6, 20])
def test_neighbours_that_are_computed_alike(columns: int) -> None:
    """Four at a time where rows are whole vectors, else one by one: NaN, masks, values of a row, what lies askew."""
    x, y = array(9, columns) - 4, array(9, columns) - 3
    x[2, 1], y[3, 2], x[4] = np.nan, np.nan, np.inf
    row, column = array(9, 1), array(columns)
    a, b = nf.asarray(x), nf.asarray(y)
    np.testing.assert_array_equal((nf.minimum(a, b) + nf.maximum(a, 1.0)).numpy(), np.minimum(x, y) + np.maximum(x, 1))
    chosen = nf.where(a < b, a * nf.asarray(row), nf.asarray(column) - nf.floor(b / 2.0))
    np.testing.assert_array_equal(chosen.numpy(), np.where(x < y, x * row, column - np.floor(y / 2)))
    np.testing.assert_array_equal((a * nf.minimum(nf.asarray(row), 3.0)).numpy(), x * np.minimum(row, 3))
    shifted = nf.concat([nf.zeros((9, 1)), a[:, 1:] - b[:, :-1]], axis=1) + a
    want = np.concatenate([np.zeros((9, 1), "float32"), x[:, 1:] - y[:, :-1]], axis=1) + x
    np.testing.assert_array_equal(shifted.numpy(), want)
    np.testing.assert_array_equal((a[::-1] * 2.0 + b[:, ::-1]).numpy(), x[::-1] * 2 + y[:, ::-1])
    cut = columns // 4 * 4 - 4  # whole vectors in the result, of which each begins one element late in a
    late = nf.minimum(a[:, 1 : 1 + cut], b[:, 4 : 4 + cut]) * 2.0
    np.testing.assert_array_equal(late.numpy(), np.minimum(x[:, 1 : 1 + cut], y[:, 4 : 4 + cut]) * 2)
    n, m = (array(9, columns) - 5).astype("int32"), (array(9, columns) % 4 + 1).astype("int32")
    whole = nf.asarray(n) % nf.asarray(m) - nf.minimum(nf.asarray(n), nf.asarray(m)) * 3
    np.testing.assert_array_equal(whole.numpy(), n % m - np.minimum(n, m) * 3)


# rows, length of the sum, columns; the last ones are summed in parts
SIZES = [(8, 8, 8), (33, 40, 17), (65, 17, 130), (64, 100, 64), (9, 257, 31), (33, 512, 40), (1, 5000, 36)]


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("turned", [False, True])
def test_products_that_fill_no_tile(sizes: tuple[int, int, int], *, turned: bool) -> None:
    """Rows, columns and the length of the sum, each a little more or less than a tile."""
    n, length, m = sizes
    a, b = array(n, length), array(length, m)
    right = nf.asarray(np.ascontiguousarray(b.T) if turned else b)
    product = nf.asarray(a) @ (nf.permute_dims(right, (1, 0)) if turned else right)
    np.testing.assert_array_equal(product.numpy(), a @ b)


@pytest.mark.parametrize("shape", [(3, 129), (70, 127), (2, 1000), (300, 64)])
def test_rows_that_fill_no_workgroup(shape: tuple[int, int]) -> None:
    """Two folds of each row, and all of the row made from them."""
    x = array(*shape) - 9  # all below 0
    y = nf.asarray(x) - nf.max(nf.asarray(x), axis=1, keepdims=True)
    got = (y - nf.sum(y, axis=1, keepdims=True)).numpy()
    want = x - x.max(axis=1, keepdims=True)
    np.testing.assert_array_equal(got, want - want.sum(axis=1, keepdims=True))


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("shape", [(128, 512), (37, 40), (1000, 12), (3, 500, 8)])
def test_columns_that_threads_share(shape: tuple[int, ...], dtype: str) -> None:
    """Few columns of many rows; the last rows do not fill a round of the threads."""
    x = array(*shape).astype(dtype)
    axes = tuple(range(len(shape) - 1))
    np.testing.assert_array_equal(nf.sum(nf.asarray(x), axis=axes).numpy(), x.astype("float32").sum(axis=axes))
    x[..., 3, 2] = np.nan
    np.testing.assert_array_equal(nf.max(nf.asarray(x), axis=axes).numpy(), x.max(axis=axes))


@pytest.mark.parametrize("shape", [(64, 96), (600, 1024), (3, 9001), (2, 20_000)])
def test_largest_of_rows_with_nan(shape: tuple[int, int]) -> None:
    """A row with a NaN has no largest element, wherever the NaN is; infinities are as others."""
    x = array(*shape)
    x[0, -1], x[1, 0], x[-1, 7] = np.nan, np.inf, -np.inf
    np.testing.assert_array_equal(nf.max(nf.asarray(x), axis=1).numpy(), x.max(axis=1))
    np.testing.assert_array_equal(nf.min(nf.asarray(x), axis=1).numpy(), x.min(axis=1))


def around_halves() -> Any:
    """Every float16 number and every number halfway between two, and its neighbours."""
    halves = np.arange(0x7C00, dtype="uint16").view("float16").astype("float32")
    middle = (halves[:-1] + halves[1:]) / 2
    x = np.concatenate([halves, middle, np.nextafter(middle, np.float32(0)), np.nextafter(middle, np.float32(1e9))])
    return np.concatenate([x, -x])


def test_halves_round_to_even() -> None:
    x = around_halves()
    got = nf.astype(nf.asarray(x) * 1.0, "float16").numpy()
    np.testing.assert_array_equal(got.view("uint16"), x.astype("float16").view("uint16"))


def test_a_cast_to_float16_rounds_also_where_nothing_is_stored(device: str) -> None:
    """Read in the same kernel; in the last elements, which fill no vector, too."""
    special = np.float32([65519.99, 65520, 1e38, np.inf, np.nan, 2.0**-25, 3 * 2.0**-26, 1e-30, 0])
    x = np.concatenate([around_halves(), special, -special])
    with np.errstate(over="ignore"):
        want = x.astype("float16").astype("float32")
    y = nf.astype(nf.asarray(x) * 1.0, "float16")
    got = (nf.astype(y, "float32") * 2.0).numpy()
    np.testing.assert_array_equal(got, want * 2)
    np.testing.assert_array_equal(np.signbit(got[:-1]), np.signbit(want[:-1]))  # of NaN there is none
    whole = np.arange(2040, 4104, 3, "int32")
    got = nf.astype(nf.astype(nf.asarray(whole) + 1, "float16"), "int32").numpy()
    np.testing.assert_array_equal(got, (whole + 1).astype("float16").astype("int32"))


def test_a_cast_to_float16_that_is_stored_is_rounded_by_the_store() -> None:
    def kernel(y: nf.Tensor) -> str:
        graph, _ = trace([y.node])
        return str(lower(graph, list(graph.outputs), lambda n: graph.lines[n].op == "input", []).kernel)

    stored = nf.astype(nf.asarray(array(64)) * 0.5, "float16")
    assert "half(" not in kernel(stored)
    assert "half(" not in kernel(nf.reshape(stored, (8, 8)))
    assert "half(" in kernel(nf.astype(stored, "float32") + 1.0)


def test_what_waits_for_a_kernel_does_not_join_it() -> None:
    """Two results of one shape from one input would be one kernel, if the second did not need a sum of the first."""
    x = array(40, 50)
    start = nf.asarray(x)
    first = start * 2.0
    second = start + nf.sum(first)
    third = second * 0.5 + first
    np.testing.assert_array_equal(third.numpy(), (x + x.sum() * 2) * 0.5 + x * 2)
    np.testing.assert_array_equal(second.numpy(), x + x.sum() * 2)
    np.testing.assert_array_equal(first.numpy(), x * 2)


TILINGS = [replace(t, written=n) for t in wgsl_tiling.TILINGS for n in (wgsl_tiling.STEPS, t.deep)]


@pytest.mark.parametrize("cut", TILINGS, ids=lambda t: f"{t.rows}x{t.columns}, {t.written} of {t.deep}")
def test_every_tiling(cut: wgsl_tiling.Tiling, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each way to cut a product into tiles gives the same, also where the last tiles are not full."""
    monkeypatch.setattr(wgsl_tile, "tiling", lambda *sizes: cut)
    x, w, b = array(2, 9, 7, 20), array(3, 3, 20, 68), array(68)
    image = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    views = np.lib.stride_tricks.sliding_window_view(image, (3, 3), axis=(1, 2))
    want = np.maximum(np.einsum("nxycuv,uvco->nxyo", views, w) + b, 0)
    nf.forget_programs()
    got = nn.relu(nn.conv2d(nf.asarray(x), nf.asarray(w), padding=1) + nf.asarray(b))
    np.testing.assert_array_equal(got.numpy(), want)
    nf.forget_programs()


@pytest.mark.parametrize("n", [6, 20])
def test_small_elements_turned_after_a_product(n: int) -> None:
    """Elements of two bytes are written several at a time, so not where the product's kernel would find them."""
    a, b = array(n, n) / n, array(n, n)[::-1] / n
    product = nf.asarray(a, dtype="float16") @ nf.asarray(b, dtype="float16")
    np.testing.assert_allclose(nf.matrix_transpose(product).numpy(), (a @ b).T, rtol=2e-2, atol=1e-2)


def test_few_rows_whose_batch_comes_last() -> None:
    """Columns that are no neighbours in a result of two bytes an element."""
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(3, 4, 256)), rng.normal(size=(3, 64, 256))
    got = nf.einsum("brk,bnk->rnb", nf.asarray(a, dtype="float16"), nf.asarray(b, dtype="float16"))
    np.testing.assert_allclose(got.numpy(), np.einsum("brk,bnk->rnb", a, b), rtol=2e-2, atol=0.2)


def test_what_follows_a_product_is_stored_on_the_way() -> None:
    """More lines after a product than one kernel takes."""
    y = nf.asarray(np.eye(8, dtype="float32")) @ nf.asarray(np.eye(8, dtype="float32"))
    for _ in range(60):
        y = y * 0.5 + 1
    np.testing.assert_allclose(y.numpy(), np.full((8, 8), 2.0), rtol=1e-6)


def test_values_that_are_used_twice_each_time() -> None:
    """The compiler looks at each line once, however many ways lead to it: with 3^40 ways this would not end."""
    x, score = nf.asarray(np.eye(32, dtype="float32") / 4), nf.asarray(array(32, 4)) @ nf.asarray(array(4, 32))
    want, added = np.eye(32, dtype="float32") / 4, array(32, 4) @ array(4, 32)
    for _ in range(40):
        x, want = x * x * 0.5 + x * 0.25, want * want * np.float32(0.5) + want * np.float32(0.25)
    np.testing.assert_allclose(((x + score) @ nf.asarray(np.eye(32, dtype="float32"))).numpy(), want + added, rtol=1e-5)


def test_many_functions_one_after_the_other() -> None:
    """More than Python's stack takes, were they all written in one kernel."""
    x, want = nf.asarray(array(8) / 8), array(8) / 8
    for _ in range(40):
        x, want = nf.exp(-x), np.exp(-want)
    np.testing.assert_allclose(x.numpy(), want, rtol=1e-5)


def test_many_folds_one_after_the_other() -> None:
    """Each has an array in workgroup memory, of which there are 16 KiB."""
    x, want = nf.asarray(array(4, 1024) / 100), array(4, 1024).astype("float64") / 100
    for _ in range(6):
        x = nf.nn.softmax(x * 3.0)
        powers = np.exp(3 * want - (3 * want).max(-1, keepdims=True))
        want = powers / powers.sum(-1, keepdims=True)
    np.testing.assert_allclose(x.numpy(), want, rtol=1e-4)
