"""TensorFlow Lite files of the operators and models (LiteRT.js), and graph models of the models (TensorFlow.js).

python -m benchmarks.peers.build_tensorflow FOLDER [name …]
"""

import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from math import sqrt
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ["TF_USE_LEGACY_KERAS"] = "1"
import numpy as np
import tensorflow as tf

from benchmarks import weights
from benchmarks.workloads import WORKLOADS, Job, Workload

from .architectures import model


class TensorFlowBuilder(tf.Module):  # type: ignore[misc]
    """The operations as TensorFlow has them (architectures.Builder)."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: dict[str, Any] = {}

    def keep(self, name: str, values: Any) -> Any:
        """A variable, made once."""
        if name not in self.kept:
            with tf.init_scope():
                self.kept[name] = tf.Variable(values, trainable=False)
        return self.kept[name]

    def convolution(self, x: Any, name: str, ci: int, co: int, size: int, stride: int, groups: int, act: str) -> Any:
        weight, bias = weights.folded_convolution(name, ci, co, size, groups)
        if groups == 1:
            y = tf.nn.conv2d(x, self.keep(f"{name}.weight", weight.transpose(2, 3, 1, 0)), stride, "SAME")
        else:
            kernel = self.keep(f"{name}.weight", weight.transpose(2, 3, 0, 1))
            y = tf.nn.depthwise_conv2d(x, kernel, [1, stride, stride, 1], "SAME")
        y = tf.nn.bias_add(y, self.keep(f"{name}.bias", bias))
        return {"relu6": tf.nn.relu6, "relu": tf.nn.relu, "": lambda z: z}[act](y)

    def add(self, x: Any, y: Any) -> Any:
        return x + y

    def relu(self, x: Any) -> Any:
        return tf.nn.relu(x)

    def gelu(self, x: Any, approximate: bool) -> Any:
        if approximate:
            return 0.5 * x * (1.0 + tf.tanh(sqrt(2 / np.pi) * (x + 0.044715 * x * x * x)))
        return 0.5 * x * (1.0 + tf.math.erf(x * sqrt(0.5)))  # tf.nn.gelu becomes Erfc, which TensorFlow.js lacks

    def max_pool(self, x: Any) -> Any:
        return tf.nn.max_pool2d(x, 3, 2, "SAME")

    def mean_space(self, x: Any) -> Any:
        return tf.reduce_mean(x, [1, 2])

    def dense(self, x: Any, name: str, n_in: int, n_out: int) -> Any:
        weight, bias = weights.dense(name, n_in, n_out)
        y = tf.matmul(tf.reshape(x, [-1, n_in]), self.keep(f"{name}.weight", weight))
        y = tf.nn.bias_add(y, self.keep(f"{name}.bias", bias))
        return tf.reshape(y, [*x.shape[:-1], n_out])

    def constant(self, name: str, shape: tuple[int, ...], kind: str, fan_in: int = 1) -> Any:
        return self.keep(name, weights.named(name, shape, kind, fan_in))

    def take(self, table: Any, ids: Any) -> Any:
        return tf.gather(table, ids)

    def layer_norm(self, x: Any, name: str, d: int, eps: float) -> Any:
        weight, bias = weights.norm(name, d)
        return normalised(x, self.keep(f"{name}.weight", weight), self.keep(f"{name}.bias", bias), eps)

    def split_heads(self, x: Any, heads: int, d: int) -> Any:
        return tf.transpose(tf.reshape(x, [1, -1, heads, d]), [0, 2, 1, 3])

    def merge_heads(self, x: Any, width: int) -> Any:
        return tf.reshape(tf.transpose(x, [0, 2, 1, 3]), [1, -1, width])

    def attention(self, q: Any, k: Any, v: Any, bias: Any, scale: float) -> Any:
        return tf.matmul(tf.nn.softmax(tf.matmul(q, k, transpose_b=True) * scale + bias), v)

    def mask_bias(self, mask: Any) -> Any:
        return (1.0 - tf.cast(mask[:, None, None, :], tf.float32)) * -10000.0

    def place_bias(self, position: Any, n: int) -> Any:
        return tf.cast(tf.range(n) > position, tf.float32) * -10000.0

    def write(self, cache: Any, row: Any, position: Any) -> Any:
        return tf.where(tf.reshape(tf.range(cache.shape[2]) == position, [1, 1, -1, 1]), row, cache)

    def scores(self, x: Any, table: Any) -> Any:
        return tf.matmul(tf.reshape(x, [1, table.shape[1]]), table, transpose_b=True)


def normalised(x: Any, weight: Any, bias: Any, eps: float) -> Any:
    """Layer normalisation of the last axis."""
    mean = tf.reduce_mean(x, -1, keepdims=True)
    variance = tf.reduce_mean(tf.math.squared_difference(x, mean), -1, keepdims=True)
    return (x - mean) * tf.math.rsqrt(variance + eps) * weight + bias


def operator(workload: Workload, job: Job) -> Callable[..., Any]:
    """An operator as a function of tensors."""
    spec = workload.spec
    fixed = [np.asarray(w) for w in getattr(job.function, "weights", [])]
    depthwise = spec["kind"] == "conv" and spec["groups"] > 1
    kernel = fixed[0].transpose(0, 1, 3, 2) if depthwise else fixed[0] if fixed else None
    return {
        "matmul": (lambda a: tf.matmul(a, kernel)) if fixed else tf.matmul,
        "conv": (
            (lambda x: tf.nn.depthwise_conv2d(x, kernel, [1, 1, 1, 1], "SAME"))
            if depthwise
            else lambda x: tf.nn.conv2d(x, kernel, 1, "SAME")
        ),
        "chain": lambda a, b, c, d: tf.tanh(a * b + c) * tf.sigmoid(d),
        "softmax": tf.nn.softmax,
        "layer_norm": lambda x: normalised(x, *fixed, 1e-5),
        "attention": lambda q, k, v: tf.matmul(
            tf.nn.softmax(tf.matmul(q, k, transpose_b=True) * (1 / sqrt(spec["d"]))), v
        ),
        "embedding": lambda ids: tf.gather(kernel, ids),
        "embedding_gradient": lambda ids, rows: tf.scatter_nd(ids[:, None], rows, [spec["n"], spec["d"]]),
    }[spec["kind"]]


def write(name: str, folder: Path) -> None:
    """One file, and a folder for TensorFlow.js if it is a model."""
    workload = WORKLOADS[name]
    job, builder = workload.make(), TensorFlowBuilder()
    is_model = workload.group == "model"
    function = (lambda *xs: model(builder, name, list(xs))) if is_model else operator(workload, job)
    signature = [tf.TensorSpec(x.shape, x.dtype, name=k) for k, x in job.inputs.items()]
    concrete = tf.function(function).get_concrete_function(*signature)
    lite = tf.lite.TFLiteConverter.from_concrete_functions([concrete], builder).convert()
    (folder / f"{name}.tflite").write_bytes(lite)
    if is_model:
        builder.concrete = concrete
        with tempfile.TemporaryDirectory() as saved:
            tf.saved_model.save(builder, saved, signatures=concrete)
            write_graph_model(saved, folder / f"{name}.tfjs")


def write_graph_model(saved: str, folder: Path) -> None:
    """The official converter's graph model, in one shard: more than six large ones are never read over HTTP/1.1."""
    for missing in (
        "jax",
        "jax.experimental",
        "jax.experimental.jax2tf",
        "tensorflow_decision_forests",
        "tensorflow_hub",
    ):
        sys.modules.setdefault(missing, MagicMock())  # imported for formats that are not used here
    for old, new in (("object", object), ("bool", bool), ("int", int), ("float", float)):
        np.__dict__.get(old) or setattr(np, old, new)
    from tensorflowjs.converters import tf_saved_model_conversion_v2

    shutil.rmtree(folder, ignore_errors=True)
    tf_saved_model_conversion_v2.convert_tf_saved_model(saved, str(folder), weight_shard_size_bytes=1 << 30)


if __name__ == "__main__":
    for chosen in sys.argv[2:] or [n for n, w in WORKLOADS.items() if w.group != "training" and "own" not in w.spec]:
        write(chosen, Path(sys.argv[1]))
        print(chosen, flush=True)
