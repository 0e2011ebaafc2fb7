"""Contractions on WebAssembly: panels keep a Graph's meaning, tiles end where rows, columns and sums do."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

import nearfield as nf
from nearfield import nn
from nearfield.compiler.build import Target, build
from nearfield.compiler.fuse import fuse
from nearfield.compiler.kernel import Kernel
from nearfield.compiler.lower import lower
from nearfield.compiler.pack import pack
from nearfield.compiler.prepare import Prepared
from nearfield.compiler.wasm_contraction import Tiling, tiling
from nearfield.device.open import open_device
from nearfield.graph.graph import Graph
from nearfield.graph.interpret import interpret
from nearfield.tensor import Node, Tensor
from nearfield.trace import trace
from wasm_machine import check, normal


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


def run(graph: Graph, arrays: Sequence[Any], *, relaxed: bool) -> list[Any]:
    """The Graph's outputs, as its Program for WebAssembly computes them."""
    program = build(graph, Target("wasm", frozenset({"relaxed-simd"} if relaxed else ()), 32)).program
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
    """Packed or not, with relaxed SIMD or not: exactly what NumPy says."""
    graph = graph_of(make, arrays)
    want = interpret(graph, arrays)
    for got, w in zip(interpret(pack(graph, frozenset()).graph, arrays), want, strict=True):
        np.testing.assert_array_equal(got, w)
    for relaxed in (True, False):
        for got, w in zip(run(graph, arrays, relaxed=relaxed), want, strict=True):
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


@pytest.mark.parametrize(("image", "window", "options"), CONVOLUTIONS[:-1], ids=str)
def test_convolutions_are_tiled(image: tuple[int, ...], window: tuple[int, ...], options: dict[str, Any]) -> None:
    """All that is not depthwise: one contraction, whose loads have no mask."""
    graph = graph_of(lambda x, w: nn.relu(nn.conv2d(x, w, **options)), (whole(*image), whole(*window)))
    assert len(tilings_of(graph)) == 1
