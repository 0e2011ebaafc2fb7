"""ONNX files of the operators and models, node by node.

python -m benchmarks.peers.build_onnx FOLDER [name …]
"""

import sys
from math import sqrt
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from benchmarks import weights
from benchmarks.workloads import WORKLOADS, Job, Workload

from .architectures import model

OPSET = 18
TYPES = {"float32": TensorProto.FLOAT, "int32": TensorProto.INT32}
Value = tuple[str, tuple[int, ...]]  # a tensor: its name and its shape, channels first


class OnnxBuilder:
    """A graph in the making (architectures.Builder)."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: dict[str, Any] = {}

    def node(self, kind: str, inputs: list[str], shape: tuple[int, ...] = (), **attributes: Any) -> Value:
        """One operation with one output."""
        name = f"{kind.lower()}{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [name], **attributes))
        return name, shape

    def keep(self, name: str, values: Any) -> str:
        """A constant, stored once."""
        self.constants.setdefault(name, numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name

    def scalar(self, value: float) -> str:
        """A float32 constant."""
        return self.keep(f"scalar {value}", np.float32(value))

    def sizes(self, *values: int) -> str:
        """An int64 list."""
        return self.keep(f"sizes {values}", np.array(values, np.int64))

    def convolution(
        self, x: Value, name: str, ci: int, co: int, size: int, stride: int, groups: int, act: str
    ) -> Value:
        weight, bias = weights.folded_convolution(name, ci, co, size, groups)
        inputs = [x[0], self.keep(f"{name}.weight", weight), self.keep(f"{name}.bias", bias)]
        pads, shape = _same(x[1], co, size, stride)
        y = self.node(
            "Conv", inputs, shape, kernel_shape=[size, size], strides=[stride, stride], pads=pads, group=groups
        )
        if act == "relu6":
            return self.node("Clip", [y[0], self.scalar(0.0), self.scalar(6.0)], shape)
        return self.relu(y) if act == "relu" else y

    def add(self, x: Value, y: Value) -> Value:
        return self.node("Add", [x[0], y[0]], x[1])

    def relu(self, x: Value) -> Value:
        return self.node("Relu", [x[0]], x[1])

    def gelu(self, x: Value, approximate: bool) -> Value:
        def step(kind: str, *inputs: str) -> str:
            return self.node(kind, list(inputs))[0]

        (name, shape), half, one = x, self.scalar(0.5), self.scalar(1.0)
        if approximate:
            cube = step("Pow", name, self.scalar(3.0))
            inner = step("Add", name, step("Mul", cube, self.scalar(0.044715)))
            wave = step("Tanh", step("Mul", inner, self.scalar(sqrt(2 / np.pi))))
            return step("Mul", step("Mul", name, half), step("Add", one, wave)), shape
        wave = step("Add", step("Erf", step("Div", name, self.scalar(sqrt(2)))), one)
        return step("Mul", step("Mul", name, wave), half), shape

    def max_pool(self, x: Value) -> Value:
        pads, shape = _same(x[1], x[1][1], 3, 2)
        return self.node("MaxPool", [x[0]], shape, kernel_shape=[3, 3], strides=[2, 2], pads=pads)

    def mean_space(self, x: Value) -> Value:
        axes = self.sizes(2, 3)  # and not GlobalAveragePool, which jax-js lacks
        return self.node("ReduceMean", [x[0], axes], x[1][:2], keepdims=0)

    def dense(self, x: Value, name: str, n_in: int, n_out: int) -> Value:
        weight, bias = weights.dense(name, n_in, n_out)
        shape = (*x[1][:-1], n_out)
        y = self.node("MatMul", [x[0], self.keep(f"{name}.weight", weight)], shape)
        return self.node("Add", [y[0], self.keep(f"{name}.bias", bias)], shape)

    def constant(self, name: str, shape: tuple[int, ...], kind: str, fan_in: int = 1) -> Value:
        return self.keep(name, weights.named(name, shape, kind, fan_in)), shape

    def take(self, table: Value, ids: Value) -> Value:
        return self.node("Gather", [table[0], ids[0]], (*ids[1], table[1][1]), axis=0)

    def layer_norm(self, x: Value, name: str, d: int, eps: float) -> Value:
        weight, bias = weights.norm(name, d)
        inputs = [x[0], self.keep(f"{name}.weight", weight), self.keep(f"{name}.bias", bias)]
        return self.node("LayerNormalization", inputs, x[1], axis=-1, epsilon=eps)

    def split_heads(self, x: Value, heads: int, d: int) -> Value:
        split = self.node("Reshape", [x[0], self.sizes(1, -1, heads, d)])
        return self.node("Transpose", [split[0]], (1, heads, -1, d), perm=[0, 2, 1, 3])

    def merge_heads(self, x: Value, width: int) -> Value:
        turned = self.node("Transpose", [x[0]], perm=[0, 2, 1, 3])
        return self.node("Reshape", [turned[0], self.sizes(1, -1, width)], (1, -1, width))

    def attention(self, q: Value, k: Value, v: Value, bias: Value, scale: float) -> Value:
        turned = self.node("Transpose", [k[0]], perm=[0, 1, 3, 2])
        scores = self.node("Mul", [self.node("MatMul", [q[0], turned[0]])[0], self.scalar(scale)])
        scores = self.node("Add", [scores[0], bias[0]]) if bias else scores
        return self.node("MatMul", [self.node("Softmax", [scores[0]], axis=-1)[0], v[0]], q[1])

    def mask_bias(self, mask: Value) -> Value:
        real = self.node("Cast", [mask[0]], to=TensorProto.FLOAT)
        wide = self.node("Unsqueeze", [real[0], self.sizes(1, 2)])
        return self.node("Mul", [self.node("Sub", [self.scalar(1.0), wide[0]])[0], self.scalar(-10000.0)])

    def place_bias(self, position: Value, n: int) -> Value:
        places = self.keep("places", np.arange(n, dtype=np.int32))
        behind = self.node("Cast", [self.node("Greater", [places, position[0]])[0]], to=TensorProto.FLOAT)
        return self.node("Mul", [behind[0], self.scalar(-10000.0)])

    def write(self, cache: Value, row: Value, position: Value) -> Value:
        places = self.keep("places", np.arange(cache[1][2], dtype=np.int32))
        here = self.node("Reshape", [self.node("Equal", [places, position[0]])[0], self.sizes(1, 1, -1, 1)])
        return self.node("Where", [here[0], row[0], cache[0]], cache[1])

    def scores(self, x: Value, table: Value) -> Value:
        flat = self.node("Reshape", [x[0], self.sizes(1, table[1][1])])
        return self.node("Gemm", [flat[0], table[0]], (1, table[1][0]), transB=1)


def _same(shape: tuple[int, ...], co: int, size: int, stride: int) -> tuple[list[int], tuple[int, ...]]:
    """Padding [top, left, bottom, right] as "same" has it, and the shape of the result."""
    out = [-(-n // stride) for n in shape[2:]]
    total = [max((o - 1) * stride + size - n, 0) for o, n in zip(out, shape[2:], strict=True)]
    return [t // 2 for t in total] + [t - t // 2 for t in total], (shape[0], co, *out)


def operator(b: OnnxBuilder, workload: Workload, job: Job, xs: list[Value]) -> Value:
    """The output of an operator."""
    spec, names = workload.spec, [x[0] for x in xs]
    fixed = [np.asarray(w) for w in getattr(job.function, "weights", [])]
    kind = spec["kind"]
    if kind == "conv":
        weight = b.keep("weight", fixed[0].transpose(3, 2, 0, 1))
        pads, shape = _same(xs[0][1], spec["co"], spec["window"], 1)
        sizes = {"kernel_shape": [spec["window"]] * 2, "pads": pads, "group": spec["groups"]}
        return b.node("Conv", [*names, weight], shape, **sizes)
    names += [b.keep(f"weight{n}", w) for n, w in enumerate(fixed)]
    if kind == "chain":
        wave = b.node("Tanh", [b.node("Add", [b.node("Mul", names[:2])[0], names[2]])[0]])
        return b.node("Mul", [wave[0], b.node("Sigmoid", names[3:])[0]])
    if kind == "attention":
        return b.attention(*xs, (), 1 / sqrt(spec["d"]))  # type: ignore[arg-type]
    if kind == "embedding":
        return b.node("Gather", [names[1], names[0]], axis=0)
    if kind == "embedding_gradient":
        zeros = b.node("ConstantOfShape", [b.sizes(spec["n"], spec["d"])])
        ids = b.node("Unsqueeze", [b.node("Cast", [names[0]], to=TensorProto.INT64)[0], b.sizes(1)])
        return b.node("ScatterND", [zeros[0], ids[0], names[1]], reduction="add")
    node = {"matmul": "MatMul", "softmax": "Softmax", "layer_norm": "LayerNormalization"}[kind]
    return b.node(node, names, **({} if kind == "matmul" else {"axis": -1}))


def write(name: str, folder: Path) -> None:
    """One file."""
    workload = WORKLOADS[name]
    job, b = workload.make(), OnnxBuilder()
    first = workload.spec["kind"] in ("image", "conv")  # channels
    shapes = {k: (x.shape[0], x.shape[3], *x.shape[1:3]) if first else x.shape for k, x in job.inputs.items()}
    xs = list(shapes.items())
    ys = model(b, name, xs) if workload.group == "model" else [operator(b, workload, job, xs)]
    inputs = [helper.make_tensor_value_info(k, TYPES[str(job.inputs[k].dtype)], s) for k, s in shapes.items()]
    outputs = [helper.make_tensor_value_info(y[0], TensorProto.FLOAT, None) for y in ys]
    graph = helper.make_graph(b.nodes, name, inputs, outputs, list(b.constants.values()))
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=9), folder / f"{name}.onnx"
    )


if __name__ == "__main__":
    for chosen in sys.argv[2:] or [n for n, w in WORKLOADS.items() if w.group != "training" and "own" not in w.spec]:
        write(chosen, Path(sys.argv[1]))
        print(chosen, flush=True)
