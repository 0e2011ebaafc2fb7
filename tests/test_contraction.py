"""Contractions on WebAssembly: panels keep a Graph's meaning, tiles end where rows, columns and sums do."""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

import nearfield as nf
from devices import need
from nearfield import nn
from nearfield.compiler.build import Target, build
from nearfield.compiler.fuse import fuse
from nearfield.compiler.kernel import Kernel
from nearfield.compiler.lower import lower
from nearfield.compiler.pack import pack
from nearfield.compiler.prepare import Prepared
from nearfield.compiler.wasm_contraction import Tiling, tiling
from nearfield.compiler.wasm_generator import CRANELIFT, V8
from nearfield.compiler.wasm_schedule import simplified
from nearfield.compiler.wasm_streams import is_streamed
from nearfield.compiler.wasm_strips import in_strips
from nearfield.device.open import open_device
from nearfield.graph.graph import Graph
from nearfield.graph.interpret import interpret
from nearfield.runtime import target_of
from nearfield.tensor import Node, Tensor
from nearfield.trace import trace
from wasm_machine import check, normal, op_kernel


def whole(*shape: int) -> Any:
    """Small whole numbers: sums of them are exact in any order."""
    return np.random.default_rng(list(shape)).integers(-4, 5, shape).astype("float32")


def given(x: Any) -> Tensor:
    return Tensor(Node(None, (), {}, x.shape, nf.dtype.canonical(x.dtype.name)))


def graph_of(make: Any, arrays: Sequence[Any]) -> Graph:
    inputs = [given(x) for x in arrays]
    outputs = make(*inputs)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    return trace([y.node for y in outputs], [x.node for x in inputs])[0]


def kernels_of(graph: Graph, weights: frozenset[int] = frozenset()) -> list[Kernel]:
    packed = pack(graph, weights)
    fusion, inputs = fuse(packed.graph, 32, Prepared(set(), packed.kept)), set(packed.graph.inputs)
    return [
        lower(packed.graph, group, lambda n: n in fusion.stored or n in inputs, fusion.path.get(group[0], [])).kernel
        for group in fusion.groups
    ]


def tilings_of(graph: Graph, weights: frozenset[int] = frozenset()) -> list[Tiling]:
    found = [tiling(kernel, relaxed=True) for kernel in kernels_of(graph, weights)]
    return [t for t in found if t is not None]


TARGETS = [
    Target("wasm", features, 32, code_generator=generator)
    for features in (frozenset({"relaxed-simd"}), frozenset[str]())
    for generator in ("", "cranelift")
]


def run(graph: Graph, arrays: Sequence[Any], target: Target) -> list[Any]:
    """The Graph's outputs, as its Program for WebAssembly computes them."""
    program = build(graph, target).program
    device = open_device("wasm")
    session, inputs = device.load(program), [device.alloc(x.nbytes) for x in arrays]
    for memory, x in zip(inputs, arrays, strict=True):
        device.write(memory, x)
    outputs = session.run("main", inputs)
    about = [program.buffers[n] for n in program.entries[0].outputs]
    found = [
        np.frombuffer(device.read(m, b.nbytes), b.dtype).reshape(b.shape) for m, b in zip(outputs, about, strict=True)
    ]
    session.close()
    return found


def agree(make: Any, *arrays: Any) -> None:
    """Packed or not, with relaxed SIMD or not, in tiles for all code generators: exactly what NumPy says."""
    graph = graph_of(make, arrays)
    want = interpret(graph, arrays)
    for got, w in zip(interpret(pack(graph, frozenset()).graph, arrays), want, strict=True):
        np.testing.assert_array_equal(got, w)
    for target in TARGETS:
        for got, w in zip(run(graph, arrays, target), want, strict=True):
            np.testing.assert_array_equal(got, w)


# Tiles

EDGES = [(1, 4), (1, 40), (2, 7), (5, 9), (6, 8), (7, 14), (11, 5), (13, 40), (23, 9), (24, 12)]


@pytest.mark.parametrize(("rows", "columns"), EDGES)
def test_edges_of_tiles(rows: int, columns: int) -> None:
    """Without panels: rows and columns that fill no tile, sums of every remainder of the unrolled loop."""
    length = 4 + (rows + columns) % 9 * 3
    check("einsum", normal(rows, length), normal(length, columns), spec="ab,bc->ac")
    check("einsum", normal(length, rows), normal(length, columns), spec="ba,bc->ac")
    check("einsum", normal(length, columns), normal(rows, length), spec="bc,ab->ac")


@pytest.mark.parametrize("dtype", ["float32", "int32", "uint32"])
def test_types(dtype: str) -> None:
    a, b = (whole(13, 21) + 9).astype(dtype), (whole(21, 19) + 9).astype(dtype)
    check("einsum", a, b, spec="ab,bc->ac")


def test_not_a_number_and_infinity() -> None:
    """They reach what they are summed into, and nothing beside it."""
    a, b = normal(9, 12), normal(12, 11)
    a[3, 5], a[8, 0], b[7, 10] = np.nan, np.inf, -np.inf
    check("einsum", a, b, spec="ab,bc->ac")


def test_sums_over_several_axes() -> None:
    """Loops over parts of the sum, and a factor that is read through a reshape of the sum."""
    check("einsum", normal(3, 5, 9, 7), normal(5, 7, 12), spec="nxhc,xcd->nhd")
    a, b = whole(2, 3, 10, 16), whole(48, 24)
    agree(lambda a, b: nf.reshape(nf.permute_dims(a, (0, 2, 1, 3)), (2, 10, 48)) @ b, a, b)


# Panels


@pytest.mark.parametrize("sizes", [(64, 40, 24), (25, 120, 12), (61, 33, 17), (600, 9, 10), (24, 1000, 4)])
@pytest.mark.parametrize("turned", [False, True])
def test_products_in_panels(sizes: tuple[int, int, int], *, turned: bool) -> None:
    rows, length, columns = sizes
    a, b, bias = whole(rows, length), whole(columns, length) if turned else whole(length, columns), whole(columns)

    def make(a: Tensor, b: Tensor, bias: Tensor) -> Tensor:
        return nf.maximum(a @ (nf.permute_dims(b, (1, 0)) if turned else b) + bias, 0.0)

    agree(make, a, b, bias)
    assert len(tilings_of(graph_of(make, (a, b, bias)))) == 1


@pytest.mark.parametrize("sizes", [(2500, 33), (768, 100), (301, 257), (1203, 64)])
def test_one_row_goes_along_four_panels_at_once(sizes: tuple[int, int]) -> None:
    """Whole panels, four and fewer, and the columns that are left; results in the places of their panels."""
    need("wasm")
    length, columns = sizes
    x, w, bias = whole(1, length), whole(length, columns), whole(columns)

    def make(x: Tensor, w: Tensor, bias: Tensor) -> Tensor:
        return nf.maximum(x @ w + bias, 0.0)

    (found,) = tilings_of(graph_of(make, (x, w, bias)), frozenset([1, 2]))
    assert is_streamed(found)
    with nf.use("wasm"):
        fixed, offset = nf.asarray(w), nf.asarray(bias)
        step = nf.jit(lambda x: make(x, fixed, offset))
        for _ in range(3):
            np.testing.assert_array_equal(step(nf.asarray(x)).numpy(), np.maximum(x @ w + bias, 0))
    panels = normal(-(-columns // 8), length, 8)
    check("einsum", x, panels, spec="ab,pbc->apc", tol=1e-4)
    for relaxed in (True, False):
        plan = tiling(op_kernel("einsum", (x, panels), {"spec": "ab,pbc->apc"})[0], relaxed=relaxed)
        assert plan is not None
        assert is_streamed(plan)


def test_tiles_suit_the_code_generator() -> None:
    """Rows of tiles that fill its registers, whatever the device; a Program for pages knows nothing of wasmtime."""
    a, b = whole(13, 24), whole(24, 16)
    graph = graph_of(lambda a, b: a @ b, (a, b))
    (kernel,) = kernels_of(graph)[-1:]
    plans = [tiling(kernel, relaxed=True, generator=generator) for generator in (V8, CRANELIFT)]
    assert [(t.tiles, t.height) for t in plans if t] == [(3, 6), (4, 4)]
    for_pages, for_wasmtime = (build(graph, target).program for target in TARGETS[:2])
    assert for_pages.module != for_wasmtime.module
    assert for_pages.features == for_wasmtime.features == ("relaxed-simd",)
    assert target_of(open_device("wasm")).code_generator == "cranelift"


def test_gradients_are_tiled() -> None:
    """Forward, gradient of the left factor and of the right: three contractions, each with what follows it."""
    a, b = whole(40, 48), whole(48, 56)

    def make(a: Tensor, b: Tensor) -> Any:
        return nf.value_and_grad(lambda a, b: nf.sum(nf.square(a @ b)), argnums=(0, 1))(a, b)

    def flat(a: Tensor, b: Tensor) -> tuple[Tensor, ...]:
        value, grads = make(a, b)
        return (value, *grads)

    agree(flat, a, b)
    assert len(tilings_of(graph_of(flat, (a, b)))) == 3


def test_attention_is_tiled() -> None:
    q, key, v = whole(2, 40, 3, 16), whole(2, 48, 3, 16), whole(2, 48, 3, 16)

    def make(q: Tensor, key: Tensor, v: Tensor) -> Tensor:
        return nf.einsum("bhqk,bkhd->bqhd", nf.einsum("bqhd,bkhd->bhqk", q, key), v)

    agree(make, q, key, v)
    assert len(tilings_of(graph_of(make, (q, key, v)))) == 2


def test_wide_results_of_short_sums_are_made_in_blocks() -> None:
    """Of rows, each block with all panels; the last block has fewer rows."""
    q, key = whole(3, 131, 16), whole(3, 700, 16)

    def make(q: Tensor, key: Tensor) -> Tensor:
        return nf.einsum("hqd,hkd->hqk", q, key)

    agree(make, q, key)
    (found,) = tilings_of(graph_of(make, (q, key)))
    assert found.blocks == 3
    assert found.tiles % found.block


def test_few_rows_read_a_right_factor_as_it_lies() -> None:
    """Laying it out in panels would cost more than the product; a weight's panels are made once."""
    graph = graph_of(lambda a, b: a @ b, (whole(2, 256), whole(256, 256)))
    assert not pack(graph, frozenset()).kept
    assert len(pack(graph, frozenset({1})).kept) == 1


# image, window, and what else the convolution is told
CONVOLUTIONS = [
    ((1, 14, 14, 16), (3, 3, 16, 32), {"padding": 1}),
    ((2, 15, 13, 16), (3, 3, 16, 20), {"padding": "same", "stride": 2}),
    ((1, 20, 20, 3), (7, 7, 3, 16), {"padding": 3, "stride": 2}),
    ((1, 14, 14, 32), (1, 1, 32, 48), {}),
    ((3, 9, 9, 64), (1, 1, 64, 9), {"stride": 2}),
    ((1, 14, 14, 32), (3, 3, 16, 64), {"padding": 1, "groups": 2}),
    ((1, 14, 14, 32), (3, 3, 32, 12), {"padding": 2, "dilation": 2}),
    ((1, 14, 14, 32), (3, 3, 1, 32), {"padding": 1, "groups": 32}),
]


@pytest.mark.parametrize(("image", "window", "options"), CONVOLUTIONS, ids=str)
def test_convolutions(image: tuple[int, ...], window: tuple[int, ...], options: dict[str, Any]) -> None:
    """And their gradients."""

    def make(x: Tensor, w: Tensor) -> tuple[Tensor, ...]:
        y = nn.conv2d(x, w, **options)
        return (y, *nf.vjp(lambda x, w: nn.conv2d(x, w, **options), x, w)[1](y))

    agree(make, whole(*image), whole(*window))


@pytest.mark.parametrize(
    ("size", "window", "stride", "padding"),
    [
        (14, 3, 2, 1),
        (15, 3, 2, "same"),
        (16, 4, 2, 1),
        (13, 5, 3, 2),
        (17, 7, 2, 3),
        (12, 2, 2, 0),
        (14, 1, 2, 0),
        (14, 2, 3, 0),
    ],
)
def test_gradients_of_strided_convolutions(size: int, window: int, stride: int, padding: Any) -> None:
    """No zeros between elements are multiplied: a contraction for each phase of the stride."""
    x, w = whole(2, size, size, 8), whole(window, window, 8, 12)
    y = interpret(graph_of(lambda x, w: nn.conv2d(x, w, stride=stride, padding=padding), (x, w)), [x, w])[0]

    def make(g: Tensor, x: Tensor, w: Tensor) -> Tensor:
        return nf.vjp(lambda x: nn.conv2d(x, w, stride=stride, padding=padding), x)[1](g)[0]

    agree(make, whole(*y.shape), x, w)


@pytest.mark.parametrize(("image", "window", "options"), CONVOLUTIONS[:-1], ids=str)
def test_convolutions_are_tiled(image: tuple[int, ...], window: tuple[int, ...], options: dict[str, Any]) -> None:
    """All that is not depthwise: one contraction, whose loads have no mask."""
    graph = graph_of(lambda x, w: nn.relu(nn.conv2d(x, w, **options)), (whole(*image), whole(*window)))
    assert len(tilings_of(graph)) == 1


# Long sums


@pytest.mark.parametrize(("rows", "length", "columns"), [(9, 8192, 12), (7, 10_000, 40), (30, 9973, 8)])
def test_long_sums_are_shared(rows: int, length: int, columns: int) -> None:
    """In parts that several threads can make, where the length can be divided."""
    a, b = whole(rows, length), whole(length, columns)
    agree(lambda a, b: a @ b + 1.0, a, b)
    (found,) = tilings_of(graph_of(lambda a, b: a @ b, (a, b)))
    assert len(found.batch) == (length != 9973)


def test_long_sums_through_a_reshape() -> None:
    """Whose parts no fixed step reaches: the factor is stored as it is read."""
    a, b = whole(6, 7, 40, 32), whole(8960, 12)
    agree(lambda a, b: nf.reshape(nf.permute_dims(a, (0, 2, 3, 1)), (6, 8960)) @ b, a, b)
    assert (
        len(tilings_of(graph_of(lambda a, b: nf.reshape(nf.permute_dims(a, (0, 2, 3, 1)), (6, 8960)) @ b, (a, b)))) == 1
    )


def test_long_sums_over_what_lies_in_order() -> None:
    """Axes that were joined: nothing is stored once more for it."""
    x, w = whole(5, 14, 14, 64), whole(14 * 14 * 64, 8)

    def make(x: Tensor, w: Tensor) -> Tensor:
        return nf.reshape(nn.max_pool(x, 2, stride=1, padding="same"), (5, -1)) @ w

    agree(make, x, w)
    assert not [kernel for kernel in kernels_of(graph_of(make, (x, w))) if kernel.name == "reshape"]


def test_left_factors_that_lie_across_are_turned() -> None:
    """The gradient of a weight: both factors lie along what is not summed."""
    x, g = whole(48, 300), whole(48, 128)
    agree(lambda x, g: nf.permute_dims(x, (1, 0)) @ g, x, g)
    (found,) = tilings_of(graph_of(lambda x, g: nf.permute_dims(x, (1, 0)) @ g, (x, g)))
    assert found.a.steps == (1,)


@pytest.mark.parametrize(
    ("shape", "loops"),
    [
        ((48, 5, 8), [3, 5, 16, 8]),
        ((90, 3, 8), [6, 3, 15, 8]),
        ((47, 3, 8), [3, 47, 8]),
        ((16, 3, 8), [3, 16, 8]),
        ((48, 2, 8), [2, 48, 8]),
        ((48, 3, 16), [3, 48, 16]),
    ],
)
def test_copies_into_panels_go_through_strips_of_rows(shape: tuple[int, ...], loops: list[int]) -> None:
    """Where strips divide the rows, rows are longer than a cache line and panels shorter. Elements stay as they are."""
    rows, panels, width = shape

    def make(x: Tensor) -> Tensor:
        return nf.permute_dims(nf.reshape(x, shape), (1, 0, 2))

    x = normal(rows, panels * width)
    agree(make, x)
    (kernel,) = kernels_of(graph_of(make, [x]))
    axes, _ = in_strips(*simplified(kernel))
    assert [v.value[1] for v in axes] == loops


# Bytes


def octets(dtype: str, *shape: int) -> Any:
    """All values that there are, the extreme ones too."""
    info = np.iinfo(dtype)
    found = np.random.default_rng(list(shape)).integers(info.min, info.max + 1, shape).astype(dtype)
    found.flat[:8] = [info.min, info.max] * 4
    return found


@pytest.mark.parametrize("left", ["int8", "uint8"])
@pytest.mark.parametrize("sizes", [(40, 64, 24), (27, 132, 12), (64, 36, 17)])
def test_products_of_bytes(left: str, sizes: tuple[int, int, int]) -> None:
    """Exact, whatever the processor does with a factor's eighth bit."""
    rows, length, columns = sizes
    a, b = octets(left, rows, length), octets("int8", length, columns)
    b[:, 0], a[0] = -128, np.iinfo(left).max

    def make(a: Tensor, b: Tensor) -> Tensor:
        return nf.astype(nf.astype(a, "int32") @ nf.astype(b, "int32") + 1, "float32") * 0.5

    agree(make, a, b)
    (found,) = tilings_of(graph_of(make, (a, b)))
    assert found.kind == "dot"


def test_products_of_bytes_that_wrap() -> None:
    a, b = octets("int8", 40, 64), octets("int8", 64, 24)
    agree(lambda a, b: a @ b, a, b)
    assert [t.kind for t in tilings_of(graph_of(lambda a, b: a @ b, (a, b)))] == ["dot"]


def test_convolution_of_bytes() -> None:
    x, w = octets("uint8", 1, 13, 13, 16), octets("int8", 3, 3, 16, 24)

    def make(x: Tensor, w: Tensor) -> Tensor:
        return nn.conv2d(nf.astype(x, "int32"), nf.astype(w, "int32"), padding=1, stride=2)

    agree(make, x, w)
    assert [t.kind for t in tilings_of(graph_of(make, (x, w)))] == ["dot"]


def test_bytes_are_made_of_products_of_bytes() -> None:
    """Scaled, rounded and stored in 8 bits; bits that are shifted away on purpose are."""
    a, b = octets("int8", 40, 64), octets("int8", 64, 24)

    def make(a: Tensor, b: Tensor) -> tuple[Tensor, ...]:
        total = nf.astype(a, "int32") @ nf.astype(b, "int32")
        scaled = nf.clip(nf.round(nf.astype(total, "float32") * 0.001), -128.0, 127.0)
        low = nf.bitwise_right_shift(nf.bitwise_left_shift(nf.astype(b, "int32").T @ nf.astype(a, "int32").T, 24), 24)
        return nf.astype(scaled, "int8"), low

    agree(make, a, b)


def test_parts_of_a_sum_take_bounded_memory() -> None:
    """A long sum for a large result is not shared: its parts would be as large as the result each."""
    graph = graph_of(lambda a, b: a @ b, (np.empty((4096, 8192), "float32"), np.empty((8192, 4096), "float32")))
    assert max(np.prod(line.shape) for line in pack(graph, frozenset()).graph.lines) <= 8192 * 4096


# Weights in float16


def halves(*shape: int) -> Any:
    """Weights with everything that float16 has: subnormal numbers, the largest, zeros."""
    found = (whole(*shape) / 4).astype("float16")
    found.flat[:6] = [6e-8, -6e-5, 6.2e-5, 65504, -0.0, 1e-7]
    return found


# how many rows: one tile that widens what it reads, and many that read a wide copy
@pytest.mark.parametrize("rows", [1, 2, 5, 6, 40])
@pytest.mark.parametrize("sizes", [(200, 165), (167, 200), (8192, 12), (40, 1000)], ids=str)
@pytest.mark.parametrize("turned", [False, True])
def test_float16_weights_are_packed_as_they_are(rows: int, sizes: tuple[int, int], *, turned: bool) -> None:
    x, w = np.abs(whole(rows, sizes[0])) + 1, halves(*(sizes[::-1] if turned else sizes))
    w[0, 1], w[0, 3] = np.inf, np.nan

    def make(x: Tensor, w: Tensor) -> Tensor:
        wide = nf.astype(w, "float32")
        return x @ (nf.permute_dims(wide, (1, 0)) if turned else wide)

    graph, device = graph_of(make, (x, w)), open_device("wasm")
    for target in TARGETS:
        program = build(graph, target, weights={1: "w"}).program
        assert {b.dtype for b in program.buffers if b.kind == "prepared"} <= {"float16"}
        session, memory = device.load(program), device.alloc(x.nbytes)
        session.load_weights({"w": w})
        device.write(memory, x)
        (y,) = session.run("main", [memory])
        got = np.frombuffer(device.read(y, 4 * rows * sizes[1]), "float32").reshape(rows, sizes[1])
        want = x.astype("float64") @ (w.T if turned else w).astype("float64")
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-2)
        session.close()
    tiled = [t for t in tilings_of(graph, frozenset({1})) if t.length >= 4]
    assert [t.b.dtype.name for t in tiled] == ["float16" if rows < 6 else "float32"]


def test_all_numbers_of_float16_are_widened() -> None:
    """In registers, where a weight is multiplied: each number that there is, of either sign, by one."""
    every = np.arange(2**16, dtype=np.uint16).view("float16").reshape(4, -1)
    x = np.ones((1, 4), "float32")
    graph, device = graph_of(lambda x, w: x @ nf.astype(w, "float32"), (x, every)), open_device("wasm")
    program = build(graph, Target("wasm", frozenset({"relaxed-simd"}), 32), weights={1: "w"}).program
    session, memory = device.load(program), device.alloc(x.nbytes)
    device.write(memory, x)
    for n, row in enumerate(every):
        w = np.zeros_like(every)
        w[n] = row
        session.load_weights({"w": w})
        (y,) = session.run("main", [memory])
        np.testing.assert_array_equal(np.frombuffer(device.read(y, 4 * row.size), "float32"), row.astype("float32"))
    session.close()


def test_wide_copies_take_up_memory_one_at_a_time() -> None:
    """The arena has room for the largest, not for all."""
    sizes = [64, 96, 160, 256, 256, 320, 64]  # larger and larger, so that none fits where the one before was
    weights = [halves(a, b) for a, b in itertools.pairwise(sizes)]

    def make(x: Tensor, *weights: Tensor) -> Tensor:
        for w in weights:
            x = nf.maximum(x @ nf.astype(w, "float32"), 0.0)
        return x

    graph = graph_of(make, (whole(8, 64), *weights))
    names = {n: f"w{n}" for n in range(1, 7)}
    program = build(graph, Target("wasm", frozenset(), 32), weights=names).program
    largest = 4 * 256 * 320
    assert largest <= program.arena < largest + 4 * 8 * (256 + 320) + 1024


@pytest.mark.parametrize("padding", [0, 1])
def test_convolutions_with_float16_weights(padding: int) -> None:
    """And a transposed one, whose window is cut up: nothing that is stored is wider than the weights."""
    x, w = whole(1, 9, 9, 20), halves(3, 3, 20, 13)

    def make(x: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
        wide = nf.astype(w, "float32")
        return nn.conv2d(x, wide, padding=padding), nn.conv_transpose2d(x, wide, stride=2, padding=padding)

    graph = graph_of(make, (x, w))
    program = build(graph, Target("wasm", frozenset(), 32), weights={1: "w"}).program
    assert {b.dtype for b in program.buffers if b.kind == "prepared"} == {"float16"}
    assert not [b for b in build(graph, Target("webgpu"), weights={1: "w"}).program.buffers if b.kind == "prepared"]
    want = interpret(graph, [x, w])
    for got, wanted in zip(interpret(pack(graph, frozenset({1})).graph, [x, w]), want, strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-2)
