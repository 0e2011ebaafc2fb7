"""What depends on weights alone is computed once: the same values, fewer steps at each call."""

import random
from pathlib import Path

import numpy as np
import pytest

import nearfield as nf
from nearfield import nn
from nearfield.compiler.build import Target, build
from nearfield.device import open_device
from nearfield.graph.interpret import interpret
from nearfield.program.codec import decode, encode
from nearfield.program.program import Program
from nearfield.runtime import target_of
from nearfield.tensor import Tensor
from nearfield.trace import trace
from test_compiler import draw_graph, stand_in

NATIVE = [pytest.param(name, marks=pytest.mark.device(name)) for name in ("wasm", "webgpu")]


def compiled(outputs: list[Tensor], inputs: list[Tensor], weights: dict[int, str], target: str = "webgpu") -> Program:
    graph, _ = trace([t.node for t in outputs], [t.node for t in inputs])
    return build(graph, Target(target), weights=weights).program


def steps_of(program: Program) -> dict[str, list[str]]:
    """For each entry the names of its kernels."""
    return {
        entry.name: [program.kernels[step.kernel].name for step in program.steps[entry.start : entry.stop]]
        for entry in program.entries
    }


def kept(program: Program) -> list[tuple[str, tuple[int, ...]]]:
    return [(b.dtype, b.shape) for b in program.buffers if b.kind == "prepared"]


@pytest.mark.parametrize("name", NATIVE)
@pytest.mark.parametrize("seed", range(30))
def test_random_graphs_mean_the_same_with_weights(seed: int, name: str) -> None:
    """Whatever is weight and whatever is input: the same numbers, also after the weights have changed."""
    rng, values = random.Random(seed), np.random.default_rng(seed)
    graph, shapes, constants = draw_graph(rng)
    weights = {at: f"w{at}" for at in range(3) if rng.random() < 0.6} or {1: "w1"}
    device = open_device(name)
    built = build(graph, target_of(device), weights=weights)
    session = device.load(decode(encode(built.program)))
    for _ in range(2):
        arrays = [values.uniform(-2, 2, shape).astype("float32") for shape in shapes] + constants
        session.load_weights({word: arrays[at].tobytes() for at, word in weights.items()})
        for _ in range(2):
            given = []
            for array in (a for at, a in enumerate(arrays) if at not in weights):
                given.append(device.alloc(array.nbytes))
                device.write(given[-1], array.tobytes())
            made = session.run("main", given)
            for (kind, n), want in zip(built.results, interpret(graph, arrays), strict=True):
                assert kind == "output"
                got = np.frombuffer(device.read(made[n], want.nbytes), "float32").reshape(want.shape)
                np.testing.assert_allclose(got, want, rtol=2e-4, atol=2e-4 * max(1.0, float(np.abs(want).max())))


def test_arithmetic_on_weights_leaves_the_call() -> None:
    """A batch norm's scale and shift: computed once, in one kernel, and then only read."""
    x, average, variance, scale, bias = stand_in(9, 40), *(stand_in(40) for _ in range(4))
    factor = 1 / nf.sqrt(variance + 1e-5) * scale
    y = x * factor + (bias - average * factor)
    program = compiled([y], [x, average, variance, scale, bias], dict(enumerate("avsb", 1)))
    assert kept(program) == [("float32", (40,))] * 2
    assert [len(steps) for steps in steps_of(program).values()] == [1, 1]
    assert "sqrt" not in steps_of(program)["main"][0]


def test_nothing_is_prepared_without_weights() -> None:
    """Inputs may differ from call to call."""
    x, w = stand_in(9, 40), stand_in(40)
    assert list(steps_of(compiled([x * nf.sqrt(w)], [x, w], {}))) == ["main"]
    assert list(steps_of(compiled([x * w], [x, w], {1: "w"}))) == ["main"]


def test_what_grows_is_made_where_it_is_used() -> None:
    """A wide copy of narrow weights would be read from memory at each call."""
    x, rows, columns = stand_in(500, 600), stand_in(500, 1), stand_in(1, 600)
    assert kept(compiled([x * (rows + columns)], [x, rows, columns], {1: "r", 2: "c"})) == []
    narrow = stand_in(500, 600, dtype="float16")
    wide = nf.astype(narrow, "float32") * 2.0
    assert kept(compiled([x * wide], [x, narrow], {1: "w"}, "wasm")) == []
    # but expensive arithmetic is done once, whatever it takes
    assert kept(compiled([x * nf.exp(rows + columns)], [x, rows, columns], {1: "r", 2: "c"})) == [
        ("float32", (500, 600))
    ]


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_transposed_factors_are_stored_in_order_and_narrow(dtype: str) -> None:
    """On wasm a contraction reads its weights in the order of memory; float16 stays float16."""
    x, w = stand_in(7, 30), stand_in(50, 30, dtype=dtype)
    y = nf.matmul(x, nf.permute_dims(nf.astype(w, "float32"), (1, 0)))
    assert kept(compiled([y], [x, w], {1: "w"}, "wasm")) == [(dtype, (30, 50))]
    assert kept(compiled([y], [x, w], {1: "w"}, "webgpu")) == []
    row = stand_in(1, 30, dtype=dtype)  # an axis of one element changes no order
    y = nf.matmul(x, nf.permute_dims(nf.astype(row, "float32"), (1, 0)))
    assert kept(compiled([y], [x, row], {1: "w"}, "wasm")) == []


def test_an_output_is_made_at_each_call() -> None:
    """Its memory is the caller's, also if it depends on weights alone."""
    x, w = stand_in(3), stand_in(3)
    root = nf.sqrt(w)
    program = compiled([root, x * nf.exp(root)], [x, w], {1: "w"})
    assert sorted(steps_of(program)) == ["main"]


@pytest.mark.parametrize("name", NATIVE)
def test_an_exported_model_prepares_once(name: str, tmp_path: Path) -> None:
    """A tied, transposed factor and statistics: `predict` reads what `prepare` made."""
    with nf.use(name):
        layer = nn.Embedding(50, 16, generator=nf.random.Generator(1))
        norm = nn.BatchNorm(16).eval()

        def scores(ids: Tensor) -> Tensor:
            return nf.matmul(norm(layer(ids)), nf.permute_dims(layer.weight, (1, 0)))

        ids = np.asarray([[3, 1, 4, 1, 5]], "int32")
        folder = nf.export(scores, tmp_path / "model", inputs={"ids": ids})
        program = decode((folder / f"{name}.nfp").read_bytes())
        assert [e.name for e in program.entries] == ["predict", "prepare"]
        model = nf.load(folder)
        want = scores(nf.asarray(ids)).numpy()
        for _ in range(3):
            np.testing.assert_allclose(model.run({"ids": ids})["output"], want, rtol=1e-5, atol=1e-6)
