"""Products of one line with several weights become one, where that is worth it; and mean the same."""

from collections.abc import Callable

import numpy as np
import pytest

import nearfield as nf
from nearfield import nn
from nearfield.compiler.build import Target, build
from nearfield.compiler.join import join
from nearfield.device import open_device
from nearfield.graph.graph import Graph
from nearfield.graph.interpret import interpret
from nearfield.runtime import target_of
from nearfield.tensor import Tensor
from nearfield.trace import trace
from test_compiler import stand_in

Make = Callable[..., list[Tensor]]


def traced(make: Make, *shapes: tuple[int, ...], dtype: str = "float32") -> Graph:
    """The Graph of what is made of inputs of these shapes."""
    inputs = [stand_in(*shape, dtype=dtype) for shape in shapes]
    return trace([t.node for t in make(*inputs)], [t.node for t in inputs])[0]


def products(graph: Graph) -> int:
    return sum(line.op == "einsum" for line in graph.lines)


def scaled(x: Tensor, *weights: Tensor) -> list[Tensor]:
    """Products with and without a bias, one turned, and two that are multiplied again."""
    q, k, v, bias = weights
    made = [x @ q * 0.5, x @ nf.permute_dims(k, (1, 0)) + bias, nf.tanh(x @ v)]
    return [nf.matmul(made[0], nf.matrix_transpose(made[1])), made[2]]


def with_biases(x: Tensor, *weights: Tensor) -> list[Tensor]:
    """Of different widths; one is also a result, and one is used twice."""
    made = [x @ w + b for w, b in zip(weights[::2], weights[1::2], strict=True)]
    return [made[0], nf.exp(made[1]) + made[1], nf.sum(made[2], axis=-1)]


def widened(x: Tensor, *weights: Tensor) -> list[Tensor]:
    """Weights in float16, multiplied in float32; one is turned after it was widened."""
    a, b, c = (nf.astype(w, "float32") for w in weights)
    return [nn.gelu(nf.astype(x, "float32") @ w) for w in (a, nf.permute_dims(b, (1, 0)), c)]


CASES = {
    "without biases": (scaled, [(2, 9, 24), (24, 16), (16, 24), (24, 7), (16,)]),
    "widened": (widened, [(9, 24), (24, 8), (12, 24), (24, 16)]),
    "one row": (scaled, [(1, 24), (24, 40), (40, 24), (24, 40), (40,)]),
    "biases": (with_biases, [(33, 20), (20, 8), (8,), (20, 36), (36,), (20, 1), (1,)]),
    "sums in parts": (with_biases, [(2, 16, 480), (480, 24), (24,), (480, 32), (1, 32), (480, 5), (1, 1, 5)]),
}


@pytest.mark.device("webgpu")
@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("case", CASES)
def test_joined_products_mean_the_same(case: str, dtype: str) -> None:
    """Also after the weights have changed."""
    make, shapes = CASES[case]
    graph, draws = traced(make, *shapes, dtype=dtype), np.random.default_rng(0)
    weights = frozenset(range(1, len(shapes)))
    joined = join(graph, weights)
    assert (products(graph) - products(joined), joined.inputs) == (2, graph.inputs)
    device = open_device("webgpu")
    program = build(graph, target_of(device), weights={n: f"w{n}" for n in weights}).program
    assert any(b.kind == "prepared" and b.shape == (shapes[0][-1], _columns(shapes)) for b in program.buffers)
    session = device.load(program)
    for _ in range(2):
        arrays = [draws.uniform(-0.5, 0.5, shape).astype(dtype) for shape in shapes]
        session.load_weights({f"w{n}": arrays[n].tobytes() for n in weights})
        given = device.alloc(arrays[0].nbytes)
        device.write(given, arrays[0].tobytes())
        tol = 1e-4 if dtype == "float32" else 2e-2
        for got, again, want in zip(
            session.run("main", [given]), interpret(joined, arrays), interpret(graph, arrays), strict=True
        ):
            room = tol * max(1.0, float(np.abs(want).max()))
            np.testing.assert_allclose(again, want, rtol=tol, atol=room)
            array = np.frombuffer(device.read(got, want.nbytes), want.dtype).reshape(want.shape)
            np.testing.assert_allclose(array, want, rtol=tol, atol=room)


def _columns(shapes: list[tuple[int, ...]]) -> int:
    steps = shapes[0][-1]
    return sum(sum(shape) - steps for shape in shapes[1:] if len(shape) == 2 and steps in shape)


def pair(x: Tensor, first: Tensor, second: Tensor) -> list[Tensor]:
    return [x @ first, x @ second]


def rounded(x: Tensor, *weights: Tensor) -> list[Tensor]:
    return [x @ nf.astype(nf.astype(w, "float16"), "float32") for w in weights]


@pytest.mark.parametrize(
    ("make", "shapes", "weights", "dropped"),
    [
        (pair, [(9, 24), (24, 8), (24, 8)], {1, 2}, 1),
        (
            lambda x, v, w, u: [x @ v + u, x @ w],
            [(9, 24), (24, 8), (24, 8), (8,)],
            {1, 3},
            0,
        ),  # w changes with each call
        (pair, [(2, 9, 24), (2, 24, 8), (2, 24, 8)], {1, 2}, 0),  # a matrix for each of the batch
        (pair, [(4096, 24), (24, 512), (24, 512)], {1, 2}, 0),  # each keeps a graphics card busy
        (lambda x, v, w: [v @ x, w @ x], [(24, 9), (8, 24), (8, 24)], {1, 2}, 0),  # on the left
        (lambda x, v, w: [x @ nf.exp(v), x @ nf.exp(w)], [(9, 24), (24, 8), (24, 8)], {1, 2}, 0),
        (pair, [(24,), (24,), (24,)], {1, 2}, 0),
        (pair, [(24,), (24, 8), (24, 8)], {1, 2}, 1),
        (rounded, [(9, 24), (24, 8), (24, 8)], {1, 2}, 0),
        (pair, [(0, 24), (24, 8), (24, 8)], {1, 2}, 0),
        (lambda x, y, w: [x @ w, y @ w], [(9, 24), (9, 24), (24, 8)], {2}, 0),
        (lambda x, v, w: [x @ v, x @ w + v[0]], [(9, 24), (24, 8), (24, 8)], {1, 2}, 1),
        (lambda x, v, w: [y := x @ v, y + v[0], x @ w + w[0]], [(9, 24), (24, 8), (24, 8)], {1, 2}, 1),
    ],
)
def test_what_is_joined(make: Make, shapes: list[tuple[int, ...]], weights: set[int], dropped: int) -> None:
    """Small products of the same rows with weights as they are; the same numbers either way."""
    graph = traced(make, *shapes)
    joined = join(graph, frozenset(weights))
    assert products(graph) - products(joined) == dropped
    assert (joined is graph) == (dropped == 0)
    arrays = [np.random.default_rng(n).uniform(-1, 1, shape).astype("float32") for n, shape in enumerate(shapes)]
    for got, want in zip(interpret(joined, arrays), interpret(graph, arrays), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)


def test_attention_of_a_layer_is_three_kernels() -> None:
    """Queries, keys and values; softmax(q kᵀ) v; the output's product."""
    layer = nn.MultiHeadAttention(64, 4, generator=nf.random.Generator(0))
    x = stand_in(1, 48, 64)
    state = {name: stand_in(*t.shape) for name, t in layer.state_tensors().items()}
    layer.set_state_tensors(state)
    graph, _ = trace([layer(x).node], [x.node, *(t.node for t in state.values())])
    program = build(graph, Target("webgpu"), weights=dict(enumerate(state, 1))).program
    (main,) = (entry for entry in program.entries if entry.name == "main")
    assert main.stop - main.start == 3
