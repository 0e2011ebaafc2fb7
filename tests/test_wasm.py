"""The WebAssembly target: every shape of loop nest, and the module's steps and threads, against NumPy."""

import functools
import itertools
from typing import Any

import numpy as np
import pytest

import nearfield.ops.arithmetic
from nearfield import scalar as k
from nearfield.compiler.kernel import Kernel, Store
from nearfield.compiler.wasm_bytes import OP
from nearfield.compiler.wasm_edges import across_edges
from nearfield.compiler.wasm_loops import compile_kernel
from nearfield.compiler.wasm_module import Place, Work, assemble, meetings
from nearfield.compiler.wasm_schedule import simplified
from nearfield.dtype import DTYPES
from nearfield.op import REGISTRY, Source
from nearfield.scalar import K
from wasm_machine import Machine, check, edges, executed, lowered, normal, op_kernel

# Loop nests

SIZES = [1, 3, 4, 5, 17, 64]
SHAPES = [(5, 7), (17, 64), (64, 17), (3, 4, 5), (2, 3, 4, 17)]
shapes = pytest.mark.parametrize("shape", SHAPES, ids=str)


@pytest.mark.parametrize("n", SIZES)
def test_elementwise_sizes(n: int) -> None:
    """Any length, and nothing beyond the buffer is touched."""
    check("add", normal(n), normal(n) * 3)
    check("multiply", normal(n).astype("float16"), normal(n).astype("float16"))


@shapes
def test_movement(shape: tuple[int, ...]) -> None:
    """Index maps: transposed, reversed, strided, padded, joined, repeated."""
    x, rank = normal(*shape), len(shape)
    check("permute", x, axes=tuple(reversed(range(rank))))
    check("permute", x, axes=(*range(1, rank), 0))
    check("slice", x, start=tuple(n - 1 for n in shape), stop=(-1,) * rank, step=(-1,) * rank)
    check("slice", x, start=(0,) * rank, stop=shape, step=(2,) * rank)
    for step, value in itertools.product((1, 2), (0.0, 1.5)):
        check("pad", x, low=(1,) * rank, high=(2,) * rank, step=(step,) * rank, value=value)
    for axis in range(rank):
        check("concat", x, x * 2, axis=axis)
        check("expand", x[tuple(slice(0, 1) if a == axis else slice(None) for a in range(rank))], shape=shape)


@pytest.mark.parametrize("dtype", ["float32", "float16", "uint8", "bool"])
@pytest.mark.parametrize("n", [128, 129, 515])
def test_rows_copied_whole(n: int, dtype: str) -> None:
    """Long rows that move as they are: chosen, joined, cut, in other order, with edges of zeros, shared by threads."""
    x = (normal(6, 4 * n) * 3).astype(dtype)
    check("take", x, np.array([4, 0, 0, 5, -1, 1], "int32"), axis=0)
    many = np.arange(40, dtype="int32") % 5
    check("take", x, many, axis=0)
    check("concat", x, x[:2], axis=0)
    check("concat", x, x[:, :7], axis=1)
    check("slice", x, start=(5, 3), stop=(-1, 4 * n - 2), step=(-1, 1))
    check("pad", x, low=(1, 3), high=(2, 0), step=(1, 1), value=1.0)
    flat = lowered(lambda i, s: s[0].at(i), [x[0]], (4 * n,), dtype)
    rows, _, _ = op_kernel("take", (x, many), {"axis": 0})
    assert all(OP["memory.copy"] in compile_kernel(kernel, relaxed=True).body for kernel in (flat, rows))
    (got,) = executed(flat, [x[0]], np.zeros_like(x[0]), threads=3)
    np.testing.assert_array_equal(got, x[0])


EDGES = [((1, 1), (2, 2)), ((0, 1), (0, 2)), ((2, 0), (1, 0)), ((0, 0), (0, 0)), ((3, 0), (0, 3))]


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8", "bool", "int32", "float64", "int64"])
@pytest.mark.parametrize("channels", [1, 3, 16, 130])
def test_padded_images(channels: int, dtype: str) -> None:
    """Zeros around rows of pixels, whose channels go along: copied whole or in vectors, shared by threads."""
    for width, value in ((7, 0.0), (7, 1.0), (61, 0.0)):
        x = (normal(2, 4, width, channels) * 30).astype(dtype)
        for rows, columns in EDGES:
            low, high = zip((0, 0), rows, columns, (0, 0), strict=True)
            check("pad", x, low=low, high=high, step=(1, 1, 1, 1), value=value)
    x = (normal(1, 3, 4, channels) * 30).astype(dtype)
    check("pad", x, low=(0, 1, 1, 0), high=(0, 2, 1, 0), step=(1, 2, 2, 1), value=0.0)
    check("pad", x, low=(0, 1, 1, 1), high=(0, 2, 1, 2), step=(1, 1, 1, 1), value=0.0)


def test_pixels_and_channels_are_one_axis() -> None:
    """A row of a padded image is copied whole, between its edges; one that is all edge is filled."""
    x = normal(1, 6, 61, 5)
    attrs = {"low": (0, 1, 1, 0), "high": (0, 1, 2, 0), "step": (1, 1, 1, 1), "value": 0.0}
    kernel, _, _ = op_kernel("pad", (x,), attrs)
    axes, stores = across_edges(*simplified(kernel))
    assert [v.value[1] for v in axes] == [8, 64 * 5]
    assert "div" not in str(stores)
    body = compile_kernel(kernel, relaxed=True).body
    assert OP["memory.copy"] in body
    assert OP["memory.fill"] in body
    few, _, _ = op_kernel("pad", (x[:, :2],), attrs)
    assert len(across_edges(*simplified(few))[0]) == 3


@shapes
def test_reductions(shape: tuple[int, ...]) -> None:
    """Along each axis, all but the first, and all."""
    x, rank = normal(*shape), len(shape)
    y = (x * 10).astype("int32")
    x[tuple(n // 2 for n in shape)] = np.nan
    for axes in [*((a,) for a in range(rank)), tuple(range(1, rank)), tuple(range(rank))]:
        for name in ("sum", "prod", "max", "min"):
            check(name, x, axes=axes, tol=1e-4)
            check(name, y, axes=axes)
        check("any", x > 1, axes=axes)
    for axis, name in itertools.product(range(rank), ("argmax", "argmin")):
        check(name, x, axis=axis)
        check(name, y // 5, axis=axis)


@pytest.mark.parametrize("kind", ["sum", "prod", "min", "max"])
@pytest.mark.parametrize("dtype", ["float32", "float64", "int32", "uint32", "int64"])
def test_reduction_over_nothing(kind: str, dtype: str) -> None:
    """It gives what changes no other value."""
    i, r = k.var("i", 5), k.var("r", 0)
    kernel = Kernel("empty", (i,), (Store(1, i, k.reduce(kind, (r,), k.load(0, i + r, dtype))),), (DTYPES[dtype],) * 2)
    info = np.finfo(dtype) if dtype.startswith("float") else np.iinfo(dtype)
    low, high = (-np.inf, np.inf) if dtype.startswith("float") else (info.min, info.max)
    want = {"sum": 0, "prod": 1, "min": high, "max": low}[kind]
    (got,) = executed(kernel, [np.zeros(5, dtype)], np.zeros(5, dtype))
    np.testing.assert_array_equal(got, np.full(5, want, dtype))


ROWS = [(1, 1), (3, 5), (4, 17), (9, 64), (130, 33)]


@pytest.mark.parametrize("shape", ROWS, ids=str)
def test_row_programs(shape: tuple[int, ...]) -> None:
    """Reductions inside and after one another are computed once a row: a softmax without exp, and layer norm."""
    x, scale = normal(*shape), normal(shape[1])
    n = shape[1]

    def spread(index: list[K], s: list[Source]) -> K:
        r, q = k.fresh("r", n), k.fresh("r", n)
        top = k.reduce("max", (r,), s[0].at([index[0], r]))
        total = k.reduce("sum", (q,), (s[0].at([index[0], q]) - top) * (s[0].at([index[0], q]) - top))
        return (s[0].at(index) - top) / (total + 1)

    def norm(index: list[K], s: list[Source]) -> K:
        r, q = k.fresh("r", n), k.fresh("r", n)
        mean = k.reduce("sum", (r,), s[0].at([index[0], r])) * (1 / n)
        d = s[0].at([index[0], q]) - mean
        return (s[0].at(index) - mean) / k.sqrt(k.reduce("sum", (q,), d * d) * (1 / n) + 1e-3) * s[1].at([index[1]])

    top = x.max(1, keepdims=True)
    wants = [(x - top) / (((x - top) ** 2).sum(1, keepdims=True) + 1)]
    wants.append((x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + 1e-3) * scale)
    for make, want, inputs in zip((spread, norm), wants, ([x], [x, scale]), strict=True):
        kernel = lowered(make, inputs, shape, "float32")
        for relaxed, threads in ((True, 1), (False, 2)):
            (got,) = executed(kernel, inputs, np.zeros(shape, "float32"), relaxed=relaxed, threads=threads)
            np.testing.assert_allclose(got, want, rtol=2e-5, atol=1e-5)


@pytest.mark.parametrize("spec", ["ab,bc->ac", "ab,cb->ac", "ba,bc->ac", "ba,cb->ac", "ab,bc->ca"])
@pytest.mark.parametrize(
    "sizes", [(1, 1, 1), (5, 7, 9), (17, 33, 20), (64, 64, 64), (6, 128, 8), (13, 5, 3), (1, 70, 40)], ids=str
)
def test_matmul(spec: str, sizes: tuple[int, int, int]) -> None:
    """Products of matrices in every orientation, with remainders in every direction."""
    size = dict(zip("abc", sizes, strict=True))
    first, second = spec.split("->", maxsplit=1)[0].split(",")
    x, y = normal(*(size[c] for c in first)), normal(*(size[c] for c in second)) + 1
    check("einsum", x, y, spec=spec, tol=1e-4)


def test_contractions() -> None:
    """Batches, vectors, outer products, several summed letters, and other types."""
    check("einsum", normal(3, 5, 20), normal(3, 20, 12), spec="nab,nbc->nac", tol=1e-4)
    check("einsum", normal(3, 5, 20), normal(20, 12), spec="nab,bc->nac", tol=1e-4)
    check("einsum", normal(4, 20, 6), normal(4, 30, 6), spec="nad,nbd->nab", tol=1e-4)
    check("einsum", normal(20, 4, 6), normal(30, 4, 6), spec="ahd,bhd->hab", tol=1e-4)
    check("einsum", normal(50, 60), normal(60), spec="ab,b->a", tol=1e-4)
    check("einsum", normal(60), normal(60, 50), spec="b,ba->a", tol=1e-4)
    check("einsum", normal(60), normal(50), spec="a,b->ab", tol=1e-4)
    check("einsum", normal(12, 5, 9), normal(5, 9, 16), spec="abc,bcd->ad", tol=1e-4)
    check("einsum", normal(60), normal(60), spec="a,a->", tol=1e-4)
    x, y = normal(18, 21), normal(21, 17)
    check("einsum", x.astype("float16"), y.astype("float16"), spec="ab,bc->ac", tol=1e-2)
    check("einsum", x.astype("float64"), y.astype("float64"), spec="ab,bc->ac", tol=1e-12)
    for dtype in ("int32", "int64", "int8", "uint8"):
        check("einsum", (x * 5).astype("int8").astype(dtype), (y * 5).astype("int8").astype(dtype), spec="ab,bc->ac")


CONVOLUTIONS = [
    ((5, 6), 3, 8, 3, (1, 1), ((1, 1), (1, 1)), (1, 1), (1, 1)),
    ((9, 14), 8, 16, 3, (2, 2), ((0, 1), (0, 1)), (1, 1), (1, 1)),
    ((7, 7), 4, 5, 1, (1, 1), ((0, 0), (0, 0)), (1, 1), (1, 1)),
    ((6, 6), 4, 5, 3, (1, 1), ((2, 2), (2, 2)), (1, 1), (2, 2)),
    ((8, 13), 5, 9, 3, (1, 1), ((2, 2), (2, 2)), (2, 2), (1, 1)),
    ((12, 13), 1, 1, 3, (1, 1), ((1, 1), (1, 1)), (1, 1), (1, 1)),
]


@pytest.mark.parametrize("case", CONVOLUTIONS, ids=str)
@pytest.mark.parametrize("groups", [1, 4, 9])
def test_convolution(case: Any, groups: int) -> None:
    """Padding, strides, dilation, spread images, groups."""
    space, ci, co, window, stride, pad, dilation, spread = case
    x, w = normal(2, *space, groups, ci), normal(window, window, groups, ci, co)
    check("conv", x, w, stride=stride, pad=pad, dilation=dilation, spread=spread, tol=2e-4)


def test_indexing() -> None:
    """Loads whose place is data, and windows with their adjoint."""
    places = np.random.default_rng(5).integers(-3, 25, (5, 3)).astype("int32")
    check("take", normal(20, 8), places, axis=0)
    check("take", normal(8, 20), places, axis=1)
    check("take", normal(20, 8).astype("float16"), places, axis=0)
    check("put_add", normal(5, 3, 8), places, axis=0, n=20)
    check("take_along", normal(20, 3), places, axis=0)
    check("put_along", normal(5, 3), places, axis=0, n=20)
    check("windows", normal(2, 9, 9), size=(3, 3), stride=(2, 2), dilation=(1, 1))
    check("unwindow", normal(2, 4, 4, 3, 3), shape=(2, 9, 9), size=(3, 3), stride=(2, 2), dilation=(1, 1))


@pytest.mark.parametrize("name", [n for n in nearfield.ops.arithmetic.__all__ if n in REGISTRY])
def test_elementwise_ops(name: str) -> None:
    """Every arithmetic record, in each compute type it accepts."""
    op = REGISTRY[name]
    for dtype in ("bool", "int8", "uint8", "int32", "uint32", "int64", "float32", "float64"):
        if DTYPES[dtype].kind not in op.notes["kinds"] or (name in ("remainder", "floor_divide") and dtype[0] == "f"):
            continue  # of reals of very different size it is a matter of rounding: tests/test_ops.py
        values = edges("int32" if DTYPES[dtype].itemsize == 1 else dtype).astype(dtype)
        inputs = [np.resize(np.roll(values, n * 3 + 1), 40) for n in range(op.n_in)]
        if op.notes.get("mixed"):
            inputs[0] = np.arange(40) % 3 == 0
        kernel, shape, result = op_kernel(name, inputs, {})
        with np.errstate(all="ignore"):
            want = op.ref(*inputs, dtype=DTYPES[result])
        (got,) = executed(kernel, inputs, np.zeros(shape, result), relaxed=False)
        np.testing.assert_allclose(got, want, rtol=op.tol, err_msg=f"{name} {dtype}")


def test_several_stores_in_place() -> None:
    """All loads of a point come before its stores, so that a parameter and its momentum change together."""
    p, m, g = normal(70), normal(70) + 1, normal(70) * 2
    i = k.var("i", 70)
    old, speed, slope = (k.load(n, i, "float32") for n in range(3))
    faster = speed * 0.5 + slope
    stores = (Store(0, i, old - faster * speed), Store(1, i, faster * old))
    kernel = Kernel("update", (i,), stores, (DTYPES["float32"],) * 3)
    got = executed(kernel, [p, m, g], relaxed=False)
    np.testing.assert_array_equal(got[0], p - (m * 0.5 + g) * m)
    np.testing.assert_array_equal(got[1], (m * 0.5 + g) * p)


def test_stores_out_of_order() -> None:
    """A result stored transposed: along the axis that is contiguous in it, or one by one after a sum."""
    x, w = normal(18, 23), normal(23, 21)
    a, b, r = k.var("a", 18), k.var("b", 21), k.var("r", 23)
    total = k.reduce("sum", (r,), k.load(0, a * 23 + r, "float32") * k.load(1, r * 21 + b, "float32"))
    split = (b % 7) * 54 + (b // 7) * 18 + a
    f32 = DTYPES["float32"]
    want = (x @ w).T
    kernel = Kernel("turned", (a, b), (Store(2, b * 18 + a, total),), (f32, f32, f32))
    np.testing.assert_allclose(executed(kernel, [x, w], np.zeros((21, 18), "float32"))[0], want, rtol=1e-4, atol=1e-5)
    kernel = Kernel("turned", (a, b), (Store(2, split, total),), (f32, f32, f32))
    (got,) = executed(kernel, [x, w], np.zeros((7, 3, 18), "float32"))
    np.testing.assert_allclose(got, want.reshape(3, 7, 18).transpose(1, 0, 2), rtol=1e-4, atol=1e-5)
    kernel = Kernel("turned", (a, b), (Store(1, b * 18 + a, k.load(0, a * 21 + b, "float32") * 2),), (f32, f32))
    y = normal(18, 21)
    np.testing.assert_array_equal(executed(kernel, [y], np.zeros((21, 18), "float32"))[0], y.T * 2)


def test_blocks_of_columns() -> None:
    """A long sum over many columns goes through them in blocks."""
    check("einsum", normal(7, 4100), normal(4100, 75), spec="ab,bc->ac", tol=1e-3)


def test_fused_epilogue() -> None:
    """A bias, a residual and a clamp around a sum stay in its tile."""
    x, w, bias, rest = normal(19, 23), normal(23, 21), normal(21), normal(19, 21)

    def make(index: list[K], s: list[Source]) -> K:
        r = k.fresh("r", 23)
        total = k.reduce("sum", (r,), s[0].at([index[0], r]) * s[1].at([r, index[1]]))
        return k.maximum(total + s[2].at([index[1]]), 0.0) + s[3].at(index)

    inputs = [x, w, bias, rest]
    for relaxed in (True, False):
        (got,) = executed(
            lowered(make, inputs, (19, 21), "float32"), inputs, np.zeros((19, 21), "float32"), relaxed=relaxed
        )
        np.testing.assert_allclose(got, np.maximum(x @ w + bias, 0) + rest, rtol=1e-4, atol=1e-4)


# Modules


def test_barriers() -> None:
    """Threads meet only where a step touches what others wrote, or writes what others read; not for thread 0 alone."""
    a, b, c, d = (Place(n, 0, 64) for n in range(4))

    def shared(reads: list[Place], writes: list[Place]) -> Work:
        return Work(False, tuple(reads), tuple(writes))

    def alone(reads: list[Place], writes: list[Place]) -> Work:
        return Work(True, tuple(reads), tuple(writes))

    assert meetings([shared([a], [b]), shared([a], [c])]) == [False, False, True]
    assert meetings([shared([a], [b]), shared([b], [c]), shared([a], [d])]) == [False, True, False, True]
    assert meetings([shared([a], [b]), shared([c], [a])]) == [False, True, True], "read before it is written"
    assert meetings([shared([a], [c]), shared([b], [c])]) == [False, True, True], "written twice"
    assert meetings([alone([a], [b]), alone([b], [c])]) == [False, False, False]
    assert meetings([alone([a], [b]), shared([c], [d]), shared([b], [c])]) == [False, False, True, True]
    assert meetings([shared([a], [b]), alone([b], [c]), alone([c], [d])]) == [False, True, False, False]
    half, other = Place(-1, 0, 512), Place(-1, 256, 768)
    assert meetings([shared([a], [half]), shared([other], [b])]) == [False, True, True], "one arena"


def test_steps_and_threads() -> None:
    """Steps see what all threads wrote in the steps before; equal kernels are one function; entries are apart."""
    n = 70_000
    i = k.var("i", n)
    f32 = DTYPES["float32"]
    heavy = functools.reduce(
        lambda v, _: k.sqrt(v * v + 1.0), range(8), k.load(0, k.const(n - 1, "index") - i, "float32")
    )
    turn = Kernel("turn", (i,), (Store(1, i, heavy),), (f32, f32))
    again = Kernel("turn", (i,), (Store(1, i, heavy),), (f32, f32))
    steps = [(n % 2, (n % 2, 1 - n % 2)) for n in range(40)]
    module = assemble([turn, again], steps, [("main", 0, 40), ("half", 0, 1)], relaxed=True)
    assert module.names[0] == module.names[1]
    assert module.bytes[module.memory_flag] == 3
    assert all(total == n and grain < n for total, grain in module.sizes)
    x = normal(n)
    results = []
    for threads in (1, 2, 3):
        machine = Machine(module, [x, x])
        machine.run(threads=threads)
        results.append(machine.read(0).tobytes() + machine.read(1).tobytes())
    assert results[0] == results[1] == results[2]


def test_small_steps_stay_on_one_thread() -> None:
    """A piece of a range is worth some thousand operations."""
    kernel, _, _ = op_kernel("add", [normal(100), normal(100)], {})
    module = assemble([kernel], [(0, (0, 1, 2))], [("main", 0, 1)], relaxed=False)
    assert module.sizes[0][1] >= 100


def test_same_kernel_same_bytes() -> None:
    """The module depends on nothing but the kernels."""
    texts = []
    for _ in range(2):
        kernel, _, _ = op_kernel("einsum", [normal(20, 30), normal(30, 40)], {"spec": "ab,bc->ac"})
        texts.append(assemble([kernel], [(0, (0, 1, 2))], [("main", 0, 1)], relaxed=True).bytes)
    assert texts[0] == texts[1]
