"""Every stage of the compiler keeps the meaning of a Graph; fused chains are one kernel."""

import random
from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np
import pytest

import nearfield as nf
from nearfield import nn
from nearfield import scalar as k
from nearfield.compiler.build import Target, build
from nearfield.compiler.fuse import fuse
from nearfield.compiler.kernel import Kernel, Store
from nearfield.compiler.simplify import simplify
from nearfield.compiler.wgsl_axes import collapsed
from nearfield.graph.graph import Graph
from nearfield.graph.interpret import interpret
from nearfield.tensor import Node, Tensor, apply
from nearfield.trace import trace

UNARY = ("negative", "abs", "square", "sign", "floor")
BINARY = ("add", "subtract", "multiply", "maximum", "minimum")


def draw(rng: random.Random, inputs: list[Tensor], length: int) -> list[Tensor]:
    """Expressions drawn at random from all families, on small arrays."""
    pool = list(inputs)
    for _ in range(length):
        x = rng.choice(pool[-6:])
        pool.append(step(rng, x, pool))
    return pool[-3:]


def stand_in(*shape: int, dtype: str = "float32") -> Tensor:
    return Tensor(Node(None, (), {}, shape, nf.asarray(0.0, dtype=dtype).dtype))


def draw_graph(rng: random.Random) -> tuple[Graph, list[tuple[int, ...]], list[Any]]:
    """A Graph of three inputs drawn at random, some lines made of one alone; their shapes; its constants."""
    shapes = [rng.choice([(3, 5), (5,), (4, 1, 5), (17, 33)]) for _ in range(3)]
    inputs = [stand_in(*shape) for shape in shapes]
    outputs = draw(rng, inputs[:2], 10)
    outputs.append(outputs[-1] * nf.sum(inputs[2]) + nf.max(nf.square(inputs[1]) + nf.sum(inputs[1])))
    graph, feeds = trace([t.node for t in outputs], [t.node for t in inputs])
    constants = [np.frombuffer(n.value, n.dtype.name).reshape(n.shape) for n in feeds[3:]]
    return graph, shapes, constants


def step(rng: random.Random, x: Tensor, pool: list[Tensor]) -> Tensor:
    kind = rng.choice(
        ["unary", "binary", "reduce", "norm", "permute", "reshape", "slice", "pad", "matmul", "take", "concat"]
    )
    if kind == "unary":
        return getattr(nf, rng.choice(UNARY))(x)
    if kind == "binary":
        others = [y for y in pool if _fits(x.shape, y.shape)]
        return getattr(nf, rng.choice(BINARY))(x, rng.choice(others))
    if kind == "reduce" and x.ndim:
        axes = tuple(sorted(rng.sample(range(x.ndim), rng.randint(1, x.ndim))))
        return apply(rng.choice(["sum", "max", "min"]), x, axes=axes) * 0.5
    if kind == "norm" and x.ndim:
        e = nf.abs(x) + 1.0
        return e / nf.sum(e, axis=-1, keepdims=True)
    if kind == "permute" and x.ndim > 1:
        return nf.permute_dims(x, rng.sample(range(x.ndim), x.ndim))
    if kind == "reshape":
        return nf.reshape(x, rng.choice([(-1,), (1, -1), (x.size, 1)]))
    return place(rng, kind, x)


def place(rng: random.Random, kind: str, x: Tensor) -> Tensor:
    if kind == "slice" and x.ndim and min(x.shape) > 1:
        start = tuple(rng.randint(0, n - 1) for n in x.shape)
        backwards = tuple(rng.random() < 0.3 for _ in x.shape)
        stop = tuple(-1 if b else n for n, b in zip(x.shape, backwards, strict=True))
        return apply("slice", x, start=start, stop=stop, step=tuple(-1 if b else rng.choice([1, 2]) for b in backwards))
    if kind == "pad" and x.ndim and x.size < 500:
        sides = [tuple(rng.randint(0, 2) for _ in x.shape) for _ in range(2)]
        return apply("pad", x, low=sides[0], high=sides[1], step=(rng.choice([1, 2]),) * x.ndim, value=0.5)
    if kind == "matmul" and x.ndim == 2:
        return apply("einsum", x, x, spec=rng.choice(["ij,kj->ik", "ij,ik->jk"])) * 0.125
    if kind == "take" and x.ndim:
        return apply("take", x, nf.asarray([0, x.shape[0] - 1, 0]), axis=0)
    if kind == "concat" and x.ndim and x.size < 500:
        return apply("concat", x, x * 2.0, axis=rng.randrange(x.ndim))
    return x + 1.0


def _fits(a: tuple[int, ...], b: tuple[int, ...]) -> bool:
    try:
        return int(np.prod(np.broadcast_shapes(a, b))) < 5000
    except ValueError:
        return False


@pytest.mark.parametrize("seed", range(60))
def test_random_graphs_mean_the_same_on_every_device(seed: int, device: str) -> None:
    """Three expressions that share parts, evaluated together."""
    rng = random.Random(seed)
    shapes = [(3, 5), (5,), (4, 1, 5), (17, 33)]
    arrays = [np.random.default_rng(seed).uniform(-2, 2, rng.choice(shapes)).astype("float32") for _ in range(2)]
    outputs = draw(rng, [nf.asarray(a) for a in arrays], 10)
    graph, feeds = trace([t.node for t in outputs])
    want = interpret(graph, [np.frombuffer(n.value, n.dtype.name).reshape(n.shape) for n in feeds])
    for y, w in zip(outputs, want, strict=True):
        np.testing.assert_allclose(y.numpy(), w, rtol=2e-4, atol=2e-4 * max(1.0, float(np.abs(w).max(initial=0))))


def kernels_of(*outputs: Tensor, target: str = "webgpu") -> int:
    """How many kernels the outputs compile to."""
    graph, _ = trace([t.node for t in outputs])
    return len(build(graph, Target(target, frozenset(), 8)).program.steps)


def placeholder(*shape: int) -> Tensor:
    return Tensor(Node(None, (), {}, shape, nf.asarray(0.0).dtype))


def inputs(*shapes: tuple[int, ...]) -> list[Tensor]:
    return [nf.asarray(np.ones(shape, "float32")) for shape in shapes]


def test_a_chain_of_ten_operations_is_one_kernel() -> None:
    """Elementwise work is fused whatever its length."""
    (x,) = inputs((1000, 40))
    y = x
    for n in range(5):
        y = nf.abs(y * 1.5 + float(n))
    assert kernels_of(y) == 1


def test_softmax_is_one_kernel() -> None:
    """Reductions over whole rows are inlined into what works on the rows."""
    (x,) = inputs((64, 100))
    e = nf.square(x - nf.max(x, axis=-1, keepdims=True))
    assert kernels_of(e / nf.sum(e, axis=-1, keepdims=True)) == 1


@pytest.mark.parametrize(("rows", "kernels"), [(4096, 1), (64, 6)])
def test_long_rows_are_cut_only_if_they_are_few(rows: int, kernels: int) -> None:
    """Many rows keep a graphics card busy as they are; maximum, sum and quotient of few are folded in parts."""
    x = placeholder(rows, 16384)
    graph, _ = trace([nn.softmax(x).node], [x.node])
    assert len(build(graph, Target("webgpu", frozenset(), 8)).program.steps) == kernels


def test_layer_norm_is_one_kernel() -> None:
    """Mean, variance, scale and shift of a row together."""
    x, scale, shift = inputs((64, 100), (100,), (100,))
    centred = x - nf.mean(x, axis=-1, keepdims=True)
    variance = nf.mean(nf.square(centred), axis=-1, keepdims=True)
    assert kernels_of(centred / nf.sqrt(variance + 1e-5) * scale + shift) == 1


def test_bias_and_activation_join_the_product() -> None:
    """Elementwise work on a contraction's result is its epilogue."""
    x, w, b = inputs((32, 64), (64, 48), (48,))
    assert kernels_of(nf.maximum(apply("einsum", x, w, spec="ij,jk->ik") + b, 0.0)) == 1


def test_an_optimiser_update_is_one_kernel() -> None:
    """Updates of one shape that read the same gradient are made together."""
    p, m, v, g = inputs(*[(40, 50)] * 4)
    m2 = m * 0.9 + g * 0.1
    v2 = v * 0.99 + g * g * 0.01
    assert kernels_of(p - m2 / (nf.sqrt(v2) + 1e-8), m2, v2) == 1


def test_dead_inputs_are_written_over() -> None:
    """An output takes the memory of an input that is given away."""
    p, g = inputs((40, 50), (40, 50))
    graph, _ = trace([(p - g * 0.1).node])
    program = build(graph, Target("webgpu"), frozenset({0})).program
    assert [b.alias for b in program.buffers if b.kind == "output"] == [0]


def test_fusion_stores_each_line_once_and_in_order() -> None:
    """Groups run after what they read."""
    rng = random.Random(3)
    outputs = draw(rng, inputs((3, 5), (5,)), 20)
    graph = simplify(trace([t.node for t in outputs])[0], "webgpu")
    fusion = fuse(graph, 8)
    flat = [line for group in fusion.groups for line in group]
    assert sorted(flat) == sorted(fusion.stored)


@pytest.mark.device("webgpu")
def test_names_of_sums_hide_no_buffer() -> None:
    """An einsum's letter b numbers a loop variable b1; the second buffer has that name in WGSL."""
    x, w = nf.asarray([[1.0, 2.0]] * 5), nf.asarray([[1.0] * 3, [2.0] * 3])
    with nf.use("webgpu"):
        assert nf.einsum("ab,bc->ac", x, w).tolist() == [[5.0] * 3] * 5


@pytest.mark.parametrize(
    ("target", "kernels"),
    [(Target("webgpu", bindings=32), 2), (Target("webgpu", bindings=8), 12), (Target("wasm"), 12)],
)
def test_small_updates_are_made_together(target: Target, kernels: int) -> None:
    """Parameters of one shape that nothing else connects: as many as can be bound, on a graphics card."""
    with nf.use("reference"):
        old = [[nf.zeros(64) for _ in range(3)] for _ in range(12)]
        new = []
        for p, m, g in old:
            mean = m * 0.9 + g
            new += [mean, p - mean * 0.1]
        graph, _ = trace([t.node for t in new], [t.node for row in old for t in row])
        assert len(build(graph, target).program.steps) == kernels


@pytest.mark.parametrize(("first", "is_vector"), [(0, True), (4, True), (1, False)])
def test_neighbours_are_written_as_vectors(first: int, is_vector: bool) -> None:
    """One WGSL statement for four elements that are computed alike, unless they lie askew in memory."""
    x = Tensor(Node(None, (), {}, (8, 16), nf.float32))
    y = x[:, first : first + 8] + 1.0
    [kernel] = build(trace([y.node], [x.node])[0], Target("webgpu")).program.kernels
    assert ("vec4<f32>(1.0f)" in kernel.code) == is_vector
    assert ("b0: array<vec4<f32>>" in kernel.code) == is_vector


WAYS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": nn.gelu,
    "hard swish": nn.hard_swish,
    "turned": lambda y: nf.permute_dims(nn.silu(y), (1, 0)) * 2.0,
    "twice": lambda y: nn.silu(nn.silu(y) + y),
    "parts": lambda y: y * nf.permute_dims(nf.permute_dims(y, (1, 0)), (1, 0)),
    "a row of its own": lambda y: y + nf.max(y, axis=-1, keepdims=True),
    "a result": lambda y: nf.where(y > 0, y, y * nf.exp(y[:, ::-1])),
}


@pytest.mark.parametrize("name", WAYS)
def test_results_used_several_times_mean_the_same(name: str, device: str) -> None:
    """Activations in which a product stands more than once."""
    draws = np.random.default_rng(0)
    x, w, b = (nf.asarray(draws.uniform(-1, 1, shape).astype("float32")) for shape in [(33, 20), (20, 47), (47,)])
    y = WAYS[name](x @ w + b)
    graph, feeds = trace([y.node])
    (want,) = interpret(graph, [np.frombuffer(n.value, n.dtype.name).reshape(n.shape) for n in feeds])
    np.testing.assert_allclose(y.numpy(), want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "webgpu", "wasm"),
    [("gelu", 1, 2), ("hard swish", 1, 1), ("turned", 1, 2), ("twice", 1, 2), ("a row of its own", 2, 2)],
)
def test_activations_join_the_product(name: str, webgpu: int, wasm: int) -> None:
    """Also where they use it more than once; on a processor, if they are cheap."""
    x, w, b = inputs((128, 40), (40, 48), (48,))
    y = WAYS[name](x @ w + b)
    assert (kernels_of(y), kernels_of(y, target="wasm")) == (webgpu, wasm)


def test_what_is_stored_on_one_of_several_ways_ends_the_epilogue() -> None:
    """A kernel of few buffers: the product is made once, by the kernel whose result all ways begin with."""
    x, w, *rows = inputs((64, 40), (40, 48), *[(64, 48)] * 12)
    y = x @ w
    total = y * nf.exp(y)
    for row in rows:
        total = total + nf.abs(row - y)
    graph, _ = trace([total.node])
    program = build(graph, Target("webgpu", bindings=6)).program
    assert sum("einsum" in program.kernels[step.kernel].name for step in program.steps) == 1
    assert max(len(step.buffers) for step in program.steps) <= 6


def test_parts_of_a_sum_are_added_where_they_are_used() -> None:
    """Product in parts, and one kernel that adds them up and works on the result: also whole rows of it."""
    x, w, b = inputs((64, 1024), (1024, 256), (256,))
    y = x @ w + b
    assert kernels_of(nn.gelu(y)) == 2
    assert kernels_of(nn.softmax(y + x[:, :256])) == 2


@pytest.mark.parametrize(
    ("rows", "columns", "terms", "parts"),
    [(1024, 1024, 1024, 2), (512, 1024, 1024, 4), (4096, 384, 384, 2), (2048, 1024, 1024, 1), (1024, 1024, 576, 1)],
)
def test_large_products_are_cut_so_that_each_multiprocessor_has_several_tiles(
    rows: int, columns: int, terms: int, parts: int
) -> None:
    """Of 128 x 64: one at a time waits. Two for each there are anyway, or parts of few terms, are left alone."""
    x, w = inputs((rows, terms), (terms, columns))
    graph, _ = trace([(x @ w).node])
    program = build(graph, Target("webgpu")).program
    tiles = -(-rows // 128) * -(-columns // 64)
    assert prod(program.steps[0].size) == parts * tiles
    assert len(program.steps) == (1 if parts == 1 else 2)


def test_a_constant_factor_is_multiplied_where_it_is_read() -> None:
    """On a graphics card no kernel is started for q / √d; on a processor, which lays out k, it would be repeated."""
    q, k = inputs((64, 32), (64, 32))
    y = nf.matmul(q * 0.25, nf.matrix_transpose(k))
    assert (kernels_of(y), kernels_of(y, target="wasm")) == (1, 3)
    assert kernels_of(nf.matmul(q * 0.25, nf.matrix_transpose(k)), nf.matmul(q * 0.25, k[:32])) == 3


def test_axes_are_one_where_indices_depend_on_their_place_alone() -> None:
    """Directly or in a bound; not if rows are longer where they are read, or turned."""
    rows, columns = k.var("i0", 6), k.var("i1", 8)
    place, last = rows * 8 + columns, k.const(40, "index")

    def axes_left(read: k.K) -> int:
        store = Store(1, place, k.load(0, read, "float32") + 1.0)
        return len(collapsed(Kernel("kernel", (rows, columns), (store,), (nf.float32, nf.float32))).axes)

    assert axes_left(place) == 1
    assert axes_left(k.const(0, "index")) == 1
    assert axes_left(k.minimum(place, last)) == 1
    assert axes_left(k.minimum(place, last) * 2 + place) == 1
    assert axes_left(k.minimum(place, last) + rows) == 2
    assert axes_left(k.minimum(rows * 9 + columns, last)) == 2
    assert axes_left(rows * 9 + columns) == 2
    assert axes_left(columns * 6 + rows) == 2
    assert axes_left(columns) == 2


def test_narrow_products_have_small_tiles_and_enough_of_them() -> None:
    """50176 x 32 is not cut: of tiles of 32 x 32 a multiprocessor has several."""
    x, w = inputs((50176, 576), (576, 32))
    assert kernels_of(x @ w) == 1
