"""Golden files: what the compiler makes of well-known expressions, what wrong calls say. Rewritten by `make golden`."""

import inspect
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import nearfield as nf
from nearfield import data, nn, optim, train
from nearfield.compiler.build import Target, build
from nearfield.program.codec import decode
from nearfield.tensor import Node, Tensor
from nearfield.trace import trace

Golden = Callable[[str, str], None]
TARGETS = {
    "wasm": Target("wasm", frozenset({"relaxed-simd"}), 32),
    "webgpu": Target("webgpu", frozenset(), 8),
}


def stand_in(*shape: int, dtype: str = "float32") -> Tensor:
    """An input without a value."""
    return Tensor(Node(None, (), {}, shape, nf.dtype.canonical(dtype)))


def layer_norm() -> list[Tensor]:
    return [nn.layer_norm(stand_in(32, 100), stand_in(100), stand_in(100))]


def conv_bias_relu() -> list[Tensor]:
    return [nn.relu(nn.conv2d(stand_in(1, 28, 28, 8), stand_in(3, 3, 8, 16), padding="same") + stand_in(16))]


def adam_step() -> list[Tensor]:
    adam = optim.Adam(1e-3)
    p, g = stand_in(64, 32), stand_in(64, 32)
    adam.step, rate = stand_in(dtype="int32"), stand_in()
    return list(adam.change(p, g, rate, stand_in(64, 32), stand_in(64, 32)))


GRAPHS = {
    "softmax": lambda: [nn.softmax(stand_in(32, 100))],
    "layer_norm": layer_norm,
    "conv_bias_relu": conv_bias_relu,
    "adam_step": adam_step,
}


def graph_of(outputs: list[Tensor]) -> Any:
    """The Graph of expressions on stand-ins, which become its inputs in the order of their first use."""
    found: dict[int, Node] = {}
    stack = [y.node for y in reversed(outputs)]
    while stack:
        node = stack.pop()
        if node.op is None and node.value is None:
            found.setdefault(id(node), node)
        stack.extend(reversed(node.args))
    return trace([y.node for y in outputs], list(found.values()))[0]


def without_module(program: Any) -> str:
    """A Program as text; how many bytes its WebAssembly has, and how it is cut into pieces, is left out."""
    return re.sub(r"  module \d+", "  module …", str(program)) if program.target == "wasm" else str(program)


@pytest.mark.parametrize("name", GRAPHS)
def test_graphs_and_programs(name: str, golden: Golden) -> None:
    """What is traced, and how many kernels, buffers and steps it becomes on each target."""
    graph = graph_of(GRAPHS[name]())
    parts = [str(graph), *(without_module(build(graph, target).program) for target in TARGETS.values())]
    golden(f"graphs/{name}.txt", "\n\n".join(parts) + "\n")


KERNELS = {
    "chain": lambda: [nf.exp(stand_in(100) * 2.0) + stand_in(100)],
    "softmax": GRAPHS["softmax"],
    "matmul_bias_relu": lambda: [nn.relu(stand_in(100, 64) @ stand_in(64, 80) + stand_in(80))],
    "conv": lambda: [nn.conv2d(stand_in(1, 8, 8, 3), stand_in(3, 3, 3, 4), padding="same")],
    "to_float16": lambda: [nf.astype(stand_in(10) * 0.5, "float16")],
    "from_int8": lambda: [nf.astype(stand_in(10, dtype="int8"), "float32") * 0.1],
    "take": lambda: [nf.take(stand_in(10, 4), stand_in(5, dtype="int32"), axis=0)],
    "argmax": lambda: [nf.argmax(stand_in(6, 10), axis=1)],
    "max_pool": lambda: [nn.max_pool(stand_in(1, 8, 8, 3), 2)],
    "transpose_pad": lambda: [nf.pad(nf.permute_dims(stand_in(5, 7), (1, 0)), 1)],
}


@pytest.mark.parametrize("name", KERNELS)
def test_kernels(name: str, golden: Golden) -> None:
    """The WGSL of kernels of each kind."""
    program = build(graph_of(KERNELS[name]()), TARGETS["webgpu"]).program
    golden(f"kernels/{name}.wgsl", "\n".join(f"// {k.name}\n{k.code}" for k in program.kernels))


A, V, I, S = nf.zeros((2, 3)), nf.zeros(3), nf.arange(3), nf.asarray(1.0)
IMAGE = nf.zeros((1, 8, 8, 3))
LINEAR = nn.Linear(4, 8, generator=nf.random.Generator(0))
FIT = {"loss": nn.losses.mse, "optimizer": optim.SGD(0.1)}

WRONG: list[Callable[[], Any]] = [
    lambda: A + nf.zeros(2),
    lambda: bool(A),
    lambda: int(V),
    lambda: A.item(),
    lambda: len(S),
    lambda: A.__setitem__(0, 1.0),
    lambda: range(3)[V],
    lambda: nf.exp(A > 0),
    lambda: nf.bitwise_and(V, V),
    lambda: nf.where(V > 0, V),
    lambda: nf.zeros("a"),
    lambda: nf.zeros(2.5),
    lambda: nf.reshape(A, "x"),
    lambda: nf.mean(A, axis="x"),
    lambda: nf.argmax(A, axis=(0, 1)),
    lambda: nf.random.normal((2, -1)),
    lambda: nf.random.Generator("a"),
    lambda: nf.use("cuda"),
    lambda: A.to_device("gpu"),
    lambda: nn.Linear(4, 8)(nf.zeros((2, 5))),
    lambda: nn.Linear(4, 8)(S),
    lambda: nn.Conv2d(3, 8, 3)(nf.zeros((1, 8, 8, 4))),
    lambda: nn.Conv2d(3, 8, 3)(nf.zeros((8, 8, 3))),
    lambda: nn.Conv2d(3, 8, 9)(IMAGE),
    lambda: nn.Conv2d(3, 8, 3, stride=0)(IMAGE),
    lambda: nn.Conv2d(3, 8, 3, padding="full")(IMAGE),
    lambda: nn.conv2d(IMAGE, V),
    lambda: nn.max_pool(IMAGE, 9),
    lambda: nn.max_pool(IMAGE, "2"),
    lambda: nn.max_pool(V, 2),
    lambda: nn.Linear("4", 8),
    lambda: nn.Linear(4, 8.5),
    lambda: nn.Linear(4, 0),
    lambda: nn.Conv2d(3, 8, (3, 3, 3)),
    lambda: nn.Conv2d(3, 8, 3, stride="2"),
    lambda: nn.Conv2d(3, 8, 3, groups=2),
    lambda: nn.BatchNorm(8, eps="small"),
    lambda: nn.BatchNorm(8, momentum=2),
    lambda: nn.GroupNorm(0, 8),
    lambda: nn.MaxPool(0),
    lambda: nn.LSTM(4, None),
    lambda: nn.Embedding(10, 0),
    lambda: nn.Embedding(10, 4)(V),
    lambda: nn.Dropout(1.5),
    lambda: nn.Dropout(None),
    lambda: nn.GroupNorm(3, 8),
    lambda: nn.LayerNorm(8)(A),
    lambda: nn.MultiHeadAttention(10, 3),
    lambda: nn.MultiHeadAttention(8, 2)(nf.zeros((1, 4, 6))),
    lambda: nn.LSTM(4, 8)(nf.zeros((1, 5, 3))),
    lambda: nn.Sequential(nn.relu, 3),
    lambda: nn.gelu(A, approximate="fast"),
    lambda: nn.softmax(A, axis=2),
    lambda: nn.glu(A),
    lambda: nn.losses.cross_entropy(A, I),
    lambda: nn.losses.mse(A, V),
    lambda: nn.losses.mse(A, A, reduction="max"),
    lambda: LINEAR.update({"weigth": V}),
    lambda: LINEAR.update({"bias": V}),
    lambda: LINEAR.update(V),
    lambda: LINEAR.freeze("weigth"),
    lambda: LINEAR.freeze(3),
    lambda: nn.value_and_grad(nn.Linear(2, 2).freeze(), nf.sum)(A),
    lambda: optim.SGD("0.1"),
    lambda: optim.SGD(-0.1),
    lambda: optim.SGD(0.1, momentum=1.5),
    lambda: optim.SGD(0.1, nesterov=True),
    lambda: optim.Adam(beta1=V),
    lambda: optim.AdamW(weight_decay="a"),
    lambda: optim.Adam().init(A),
    lambda: optim.Adam().update(LINEAR, V),
    lambda: optim.cosine(0.1, 0),
    lambda: optim.step_decay(0.1, 0.0, 10),
    lambda: optim.warm_up("a", 0.1),
    lambda: optim.clip_by_norm({"bias": V}, -1.0),
    lambda: optim.Adam(0.1).update(LINEAR, {"weigth": V}),
    lambda: optim.Adam(0.1).update(LINEAR, {"bias": V}),
    lambda: nf.grad(3),
    lambda: nf.grad(lambda x: x)(V),
    lambda: nf.grad(nf.sum)(I),
    lambda: nf.grad(nf.sum, argnums=2)(V),
    lambda: nf.vjp(lambda x: x * 2.0, V)[1](A),
    lambda: nf.jit(lambda x: x if x > 0 else -x)(S),
    lambda: nf.jit(lambda x, n: x)(S, {1, 2}),
    lambda: nf.jit(3),
    lambda: nf.export(LINEAR, "model", inputs=[A]),
    lambda: nf.export(LINEAR, "model", inputs={"x": A}, dtype="int8"),
    lambda: data.Dataset(A, V),
    lambda: data.Dataset(A).split(1.5),
    lambda: data.Dataset(A).count(0),
    lambda: data.Dataset(A).map(3),
    lambda: nf.fit(nn.relu, (A, A), **FIT),
    lambda: nf.fit(LINEAR, (A, A), loss="mse", optimizer=optim.SGD(0.1)),
    lambda: nf.fit(LINEAR, (A, A), loss=nn.losses.mse, optimizer="sgd"),
    lambda: nf.fit(LINEAR, (A, A), batch_size=0, **FIT),
    lambda: nf.fit(LINEAR, (A, A), callbacks=[3], **FIT),
    lambda: nf.fit(LINEAR, 3, **FIT),
    lambda: nf.predict(3, A),
    lambda: nf.fit(LINEAR, (A, A), metrics=["acuracy"], **FIT),
    lambda: nf.fit(LINEAR, iter([]), **FIT),
    lambda: nf.fit(LINEAR, [], **FIT),
    lambda: train.EarlyStopping("loss", mode="up"),
    lambda: train.EarlyStopping(3),
    lambda: train.EarlyStopping(patience="a"),
    lambda: train.Checkpoint(3),
    lambda: train.LearningRate(0.1),
    lambda: train.accuracy(A, A[:, :2]),
    lambda: decode(b"nothing"),
    lambda: decode(b"\x89NFP\r\n\x1a\n" + bytes(8)),
    lambda: nf.asarray(np.zeros(2, "complex64")),
]


def test_wrong_calls_say_what_is_wrong(golden: Golden) -> None:
    """Who, what is wrong, what was received, what is accepted, the way out."""
    lines = [line.strip() for line in inspect.getsource(inspect.getmodule(golden_lines)).splitlines()]
    calls = [line.removeprefix("lambda: ").removesuffix(",") for line in lines if line.startswith("lambda: ")]
    assert len(calls) == len(WRONG)
    golden("errors.txt", "".join(golden_lines(*row) for row in zip(calls, WRONG, strict=True)))


def golden_lines(text: str, call: Callable[[], Any]) -> str:
    """The call and what it said, in two lines."""
    with nf.use("reference"), pytest.raises((ValueError, TypeError, LookupError, nf.errors.NearfieldError)) as caught:
        call()
    words = caught.value.args[0]
    assert words.endswith((".", "?")), f"{text}: not a sentence: {words}"
    return f"{text}\n    {type(caught.value).__name__}: {words}\n"
