"""What is measured: a table of names, each with the function, its inputs, and what it costs at the least.

python -m benchmarks.workloads [name …] [--device wasm] [--times 5]      time some of it natively
"""

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

import nearfield as nf
from nearfield import nn, optim

from . import models, weights

__all__ = ["WORKLOADS", "Job", "Workload"]

M = 1e6


@dataclass(frozen=True)
class Job:
    """A function of Tensors and its inputs by name; a training step changes the model and optimiser in its closure."""

    function: Callable[..., Any]
    inputs: dict[str, Any]


@dataclass(frozen=True)
class Workload:
    """One row of the table.

    group   "operator", "model" or "training"
    flops   operations: a multiplication with its addition counts two
    bytes   moved at the least: inputs, weights and outputs once each
    spec    what other frameworks need to know (peers/); "own": they have no such model; "at_once": products of bytes
            that one instruction does in place of one of floats
    """

    name: str
    title: str
    group: str
    make: Callable[[], Job]
    flops: float
    bytes: float
    spec: dict[str, Any] = field(default_factory=dict)


class Fixed(nn.Module):
    """A function whose last arguments are weights."""

    def __init__(self, function: Callable[..., Any], *values: Any) -> None:
        self.function, self.weights = function, [nf.asarray(v) for v in values]

    def __call__(self, *inputs: nf.Tensor) -> nf.Tensor:
        """The function of the inputs and the weights."""
        return self.function(*inputs, *self.weights)


# -- operators ---------------------------------------------------------------------------------------------------------


def product(m: int, k: int, n: int, fixed: bool) -> Job:
    """[m, k] @ [k, n]; `fixed`: the second is a weight."""
    a, b = weights.uniform(1, (m, k)), weights.uniform(2, (k, n))
    return Job(Fixed(nf.matmul, b), {"x0": a}) if fixed else Job(lambda a, b: nf.matmul(a, b), {"x0": a, "x1": b})


def convolution(size: int, ci: int, co: int, window: int, groups: int, batch: int = 1) -> Job:
    """Stride 1, as large as its input."""
    x = weights.uniform(1, (batch, size, size, ci))
    w = weights.uniform(2, (co, ci // groups, window, window), 0.1).transpose(2, 3, 1, 0)
    return Job(Fixed(partial(nn.conv2d, padding="same", groups=groups), w), {"x0": x})


def chain(n: int, rows: int = 0) -> Job:
    """tanh(a b + c) · sigmoid(d)"""
    inputs = {f"x{i}": weights.uniform(i + 1, (rows or n, n)) for i in range(4)}
    return Job(lambda a, b, c, d: nf.tanh(a * b + c) * nn.sigmoid(d), inputs)


def softmax(n: int, rows: int = 0) -> Job:
    """Of each row; as many rows as columns unless given."""
    return Job(nn.softmax, {"x0": weights.uniform(1, (rows or n, n), 4.0)})


def layer_norm(n: int, rows: int = 0) -> Job:
    """Of each row, with weight and bias; as many rows as columns unless given."""
    gain, shift = weights.uniform(2, (n,)), weights.uniform(3, (n,))
    return Job(Fixed(nn.layer_norm, gain, shift), {"x0": weights.uniform(1, (rows or n, n), 4.0)})


def attention(heads: int, t: int, d: int) -> Job:
    """softmax(q kᵀ / √d) v"""
    inputs = {f"x{i}": weights.uniform(i + 1, (1, heads, t, d), 2.0) for i in range(3)}
    return Job(lambda q, k, v: nn.scaled_dot_product_attention(q, k, v), inputs)


def token_ids(count: int, vocabulary: int) -> Any:
    """int32 [count], spread over the vocabulary."""
    return ((np.arange(count, dtype=np.int64) * 7919 + 101) % vocabulary).astype(np.int32)


def embedding(count: int, n: int, d: int) -> Job:
    """Rows of a table [n, d]."""
    table = weights.named("table", (n, d), "xavier", 3)
    return Job(Fixed(lambda ids, table: nf.take(table, ids, axis=0), table), {"x0": token_ids(count, n)})


def embedding_gradient(count: int, n: int, d: int) -> Job:
    """Rows added where they belong in a table of zeros [n, d]."""
    inputs = {"x0": token_ids(count, n), "x1": weights.uniform(1, (count, d))}
    return Job(lambda ids, rows: nf.scatter_add(nf.zeros((n, d)), ids, rows, axis=0), inputs)


# -- models ------------------------------------------------------------------------------------------------------------


def image(make: Callable[[], nn.Module], batch: int = 1) -> Job:
    """A model of pictures of 224 x 224."""
    return Job(make(), {"x0": weights.uniform(7, (batch, 224, 224, 3))})


def quantised_image(make: Callable[[], nn.Module]) -> Job:
    """A model of pictures in 8 bits, weights and activations, with the ranges of the picture itself."""
    job = image(make)
    return Job(nn.quantize_static(job.function, *job.inputs.values()), job.inputs)


def text_inputs(batch: int) -> dict[str, Any]:
    """Token numbers and a mask of ones, [batch, 128]."""
    shape = (batch, models.SEQUENCE)
    ids = token_ids(batch * models.SEQUENCE, models.Encoder.VOCABULARY).reshape(shape)
    return {"ids": ids, "mask": np.ones(shape, np.int32)}


def text(name: str, batch: int = 1) -> Job:
    """An encoder of 128 tokens."""
    return Job(models.Encoder(name), text_inputs(batch))


def decode() -> Job:
    """One step of a decoder, at place 200 of its cache."""
    model = models.Decoder()
    shape = (1, model.HEADS, model.CONTEXT, model.D // model.HEADS)
    cache = {
        f"{kind}{n}": weights.uniform(100 + 2 * n + k, shape)
        for n in range(model.LAYERS)
        for k, kind in enumerate(("keys", "values"))
    }
    return Job(model, {"token": np.array([1234], np.int32), "position": np.array([200], np.int32)} | cache)


# -- training ----------------------------------------------------------------------------------------------------------


def labels(count: int, classes: int) -> Any:
    """int32 [count]"""
    return (np.arange(count) * 7 % classes).astype(np.int32)


def training(make: Callable[[], nn.Module], inputs: dict[str, Any], classes: int) -> Job:
    """A step of Adam on the mean cross entropy; its result is the loss before the step."""
    model, optimizer = make(), optim.Adam(1e-3)
    optimizer.init(model)
    loss_and_grads = nn.value_and_grad(model, lambda y, *xs: nf.mean(nn.losses.cross_entropy(model(*xs), y)))

    def step(y: nf.Tensor, *xs: nf.Tensor) -> nf.Tensor:
        loss, grads = loss_and_grads(y, *xs)
        optimizer.update(model, grads)
        return loss

    count = next(iter(inputs.values())).shape[0]
    return Job(step, {"y": labels(count, classes)} | inputs)


def mlp() -> Job:
    """A step on 128 rows."""
    return training(models.MLP, {"x0": weights.uniform(5, (128, 784))}, 10)


def cnn() -> Job:
    """A step on 64 pictures."""
    return training(models.CNN, {"x0": weights.uniform(5, (64, 28, 28, 1))}, 10)


def fine_tuning() -> Job:
    """A step on 8 texts of 128 tokens."""
    return training(models.Classifier, text_inputs(8), 2)


# -- the table ---------------------------------------------------------------------------------------------------------


def matmul_row(n: int, fixed: bool) -> Workload:
    """A square product."""
    name, title = f"matmul_{n}" + "_w" * fixed, f"matmul {n}" + ", constant weights" * fixed
    spec = {"kind": "matmul", "m": n, "k": n, "n": n, "fixed": fixed}
    return Workload(name, title, "operator", partial(product, n, n, n, fixed), 2.0 * n**3, 12.0 * n * n, spec)


def convolution_row(name: str, title: str, size: int, ci: int, co: int, window: int, groups: int) -> Workload:
    """A convolution of one picture."""
    flops = 2.0 * size * size * co * (ci // groups) * window * window
    moved = 4.0 * (size * size * (ci + co) + co * (ci // groups) * window * window)
    spec = {"kind": "conv", "size": size, "ci": ci, "co": co, "window": window, "groups": groups}
    return Workload(name, title, "operator", partial(convolution, size, ci, co, window, groups), flops, moved, spec)


OPERATORS = [
    *(matmul_row(n, fixed) for fixed in (False, True) for n in (256, 512, 1024)),
    Workload(
        "matvec_4096_w", "matvec 4096, constant weights", "operator", partial(product, 1, 4096, 4096, True),
        33.6 * M, 67.1 * M, {"kind": "matmul", "m": 1, "k": 4096, "n": 4096, "fixed": True},
    ),
    convolution_row("conv3x3_56_64", "convolution 3x3, 56 x 56 x 64", 56, 64, 64, 3, 1),
    convolution_row("depthwise_112_96", "depthwise 3x3, 112 x 112 x 96", 112, 96, 96, 3, 96),
    convolution_row("pointwise_28_192", "pointwise, 28 x 28 x 192", 28, 192, 192, 1, 1),
    Workload("chain_4m", "elementwise chain, 4 M", "operator", partial(chain, 2048), 100 * M, 83.9 * M,
             {"kind": "chain", "n": 2048}),
    Workload("softmax_1024", "softmax 1024²", "operator", partial(softmax, 1024), 21 * M, 8.4 * M,
             {"kind": "softmax", "n": 1024}),
    Workload("layer_norm_1024", "layer norm 1024²", "operator", partial(layer_norm, 1024), 8.4 * M, 8.4 * M,
             {"kind": "layer_norm", "n": 1024}),
    Workload("attention_512", "attention, 12 heads of 512 x 64", "operator", partial(attention, 12, 512, 64),
             805 * M, 6.3 * M, {"kind": "attention", "heads": 12, "t": 512, "d": 64}),
    Workload("embedding_4096", "embedding, 4096 of 30522 x 384", "operator", partial(embedding, 4096, 30522, 384),
             0, 12.6 * M, {"kind": "embedding", "count": 4096, "n": 30522, "d": 384}),
    Workload("embedding_gradient_4096", "embedding gradient, the same", "operator",
             partial(embedding_gradient, 4096, 30522, 384), 1.6 * M, 53.2 * M,
             {"kind": "embedding_gradient", "count": 4096, "n": 30522, "d": 384}),
]  # fmt: skip
MODELS = [
    Workload("mobilenet_v2", "MobileNetV2, 224", "model", partial(image, models.MobileNetV2), 602 * M, 14.5 * M,
             {"kind": "image"}),
    Workload("mobilenet_v2_int8", "MobileNetV2 in 8 bits, 224", "model", partial(quantised_image, models.MobileNetV2),
             602 * M, 4.8 * M, {"kind": "image", "own": True, "at_once": 4}),
    Workload("resnet50", "ResNet-50, 224", "model", partial(image, models.ResNet50), 8180 * M, 103 * M,
             {"kind": "image"}),
    Workload("bert_mini", "BERT-mini, 128 tokens", "model", partial(text, "bert_mini"), 872 * M, 12.9 * M,
             {"kind": "text"}),
    Workload("minilm_l6", "MiniLM-like encoder, 128 tokens", "model", partial(text, "minilm_l6"), 2870 * M, 42.8 * M,
             {"kind": "text"}),
    Workload("gpt2_decode", "GPT-2 small, one token, cache 256", "model", decode, 257 * M, 513 * M,
             {"kind": "decode"}),
]  # fmt: skip
TRAINING = [  # a step is three times the forward pass; each weight with its gradient and two means moves 7 times
    Workload("train_mlp", "MLP + Adam, batch 128", "training", mlp, 515 * M, 18.7 * M, {"kind": "train"}),
    Workload("train_cnn", "CNN + Adam, batch 64", "training", cnn, 6200 * M, 46 * M, {"kind": "train"}),
    Workload("train_encoder", "BERT-mini fine-tuning + Adam, batch 8", "training", fine_tuning, 20900 * M, 310 * M,
             {"kind": "train"}),
]  # fmt: skip
WORKLOADS = {w.name: w for w in [*OPERATORS, *MODELS, *TRAINING]}


def first(result: Any) -> nf.Tensor:
    """The output that is compared."""
    return result[0] if isinstance(result, tuple) else result


def main() -> None:
    """Time workloads on a native device, and print a fingerprint of what they compute."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help=f"of {', '.join(WORKLOADS)}")
    parser.add_argument("--device", default="wasm")
    parser.add_argument("--times", type=int, default=5)
    options = parser.parse_args()
    with nf.use(options.device):
        for name in options.names or WORKLOADS:
            job = WORKLOADS[name].make()
            inputs = [nf.asarray(x) for x in job.inputs.values()]
            run = nf.jit(job.function)
            began = time.perf_counter()
            found = weights.summary(np.asarray(first(run(*inputs))))
            compiled = time.perf_counter() - began
            times = []
            for _ in range(options.times):
                began = time.perf_counter()
                run(*inputs)
                nf.synchronize()
                times.append(time.perf_counter() - began)
            rate = WORKLOADS[name].flops / statistics.median(times) / 1e9
            print(f"{name:24} {statistics.median(times) * 1e3:9.2f} ms {rate:7.1f} GFLOP/s", end=" ")
            print(f"first {compiled:6.2f} s  rms {found['rms']:.7g} mean {found['mean']:.7g}", flush=True)


if __name__ == "__main__":
    main()
