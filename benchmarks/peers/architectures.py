"""The models, written once against a Builder that each framework has; the same weights as benchmarks/models.py."""

from math import sqrt
from typing import Any, Protocol

from benchmarks.models import MOBILENET, RESNET, SEQUENCE, Decoder, Encoder

__all__ = ["Builder", "decoder", "encoder", "mobilenet_v2", "resnet50"]


class Builder(Protocol):
    """What a framework must say; x stands for whatever its tensors are, weights are known by name (weights.py)."""

    def convolution(self, x: Any, name: str, ci: int, co: int, size: int, stride: int, groups: int, act: str) -> Any:
        """Padded as "same", with bias, then "relu", "relu6" or ""."""

    def add(self, x: Any, y: Any) -> Any:
        """The sum."""

    def relu(self, x: Any) -> Any:
        """The larger of x and 0."""

    def gelu(self, x: Any, approximate: bool) -> Any:
        """By erf, or by tanh."""

    def max_pool(self, x: Any) -> Any:
        """3x3, stride 2, padded as "same"."""

    def mean_space(self, x: Any) -> Any:
        """Of each channel: [n, c]."""

    def dense(self, x: Any, name: str, n_in: int, n_out: int) -> Any:
        """x @ weight + bias."""

    def constant(self, name: str, shape: tuple[int, ...], kind: str, fan_in: int = 1) -> Any:
        """A weight."""

    def take(self, table: Any, ids: Any) -> Any:
        """Rows of a table."""

    def layer_norm(self, x: Any, name: str, d: int, eps: float) -> Any:
        """Over the last axis."""

    def split_heads(self, x: Any, heads: int, d: int) -> Any:
        """[1, t, heads · d] -> [1, heads, t, d]"""

    def merge_heads(self, x: Any, width: int) -> Any:
        """[1, heads, t, d] -> [1, t, heads · d]"""

    def attention(self, q: Any, k: Any, v: Any, bias: Any, scale: float) -> Any:
        """softmax(q kᵀ · scale + bias) v"""

    def mask_bias(self, mask: Any) -> Any:
        """int32 [1, t] -> [1, 1, 1, t]: 0, or -10000 where the mask is 0."""

    def place_bias(self, position: Any, n: int) -> Any:
        """int32 [1] -> [1, 1, 1, n]: 0, or -10000 behind the position."""

    def write(self, cache: Any, row: Any, position: Any) -> Any:
        """The cache [1, heads, n, d] with a row [1, heads, 1, d] at a position."""

    def scores(self, x: Any, table: Any) -> Any:
        """x @ tableᵀ, [1, n]."""


def mobilenet_v2(b: Builder, x: Any) -> Any:
    """image -> 1000 classes"""
    x = b.convolution(x, "mobilenet_v2/stem", 3, 32, 3, 2, 1, "relu6")
    ci, count = 32, 0
    for expansion, co, repetitions, first in MOBILENET:
        for n in range(repetitions):
            name, middle, stride = f"mobilenet_v2/block{count}", ci * expansion, 1 if n else first
            y = b.convolution(x, f"{name}.expand", ci, middle, 1, 1, 1, "relu6") if expansion > 1 else x
            y = b.convolution(y, f"{name}.depthwise", middle, middle, 3, stride, middle, "relu6")
            y = b.convolution(y, f"{name}.project", middle, co, 1, 1, 1, "")
            x = b.add(x, y) if stride == 1 and ci == co else y
            ci, count = co, count + 1
    x = b.convolution(x, "mobilenet_v2/head", 320, 1280, 1, 1, 1, "relu6")
    return b.dense(b.mean_space(x), "mobilenet_v2/out", 1280, 1000)


def resnet50(b: Builder, x: Any) -> Any:
    """image -> 1000 classes"""
    x = b.max_pool(b.convolution(x, "resnet50/stem", 3, 64, 7, 2, 1, "relu"))
    ci, count = 64, 0
    for middle, repetitions, first in RESNET:
        for n in range(repetitions):
            name, stride, co = f"resnet50/block{count}", 1 if n else first, 4 * middle
            y = b.convolution(x, f"{name}.reduce", ci, middle, 1, 1, 1, "relu")
            y = b.convolution(y, f"{name}.filter", middle, middle, 3, stride, 1, "relu")
            y = b.convolution(y, f"{name}.expand", middle, co, 1, 1, 1, "")
            x = x if n else b.convolution(x, f"{name}.project", ci, co, 1, stride, 1, "")
            x = b.relu(b.add(y, x))
            ci, count = co, count + 1
    return b.dense(b.mean_space(x), "resnet50/out", 2048, 1000)


def encoder(b: Builder, name: str, ids: Any, mask: Any) -> Any:
    """ids, mask [1, 128] -> [1, 128, d]"""
    layers, d, heads = Encoder.SIZES[name]
    x = b.take(b.constant(f"{name}/words", (Encoder.VOCABULARY, d), "xavier", 3), ids)
    x = b.layer_norm(b.add(x, b.constant(f"{name}/positions", (SEQUENCE, d), "small")), f"{name}/norm", d, 1e-12)
    bias = b.mask_bias(mask)
    for n in range(layers):
        layer = f"{name}/layer{n}"
        parts = (b.dense(x, f"{layer}.{part}", d, d) for part in ("query", "key", "value"))
        q, k, v = (b.split_heads(part, heads, d // heads) for part in parts)
        h = b.merge_heads(b.attention(q, k, v, bias, 1 / sqrt(d // heads)), d)
        x = b.layer_norm(b.add(x, b.dense(h, f"{layer}.output", d, d)), f"{layer}.norm1", d, 1e-12)
        h = b.gelu(b.dense(x, f"{layer}.grow", d, 4 * d), False)
        x = b.layer_norm(b.add(x, b.dense(h, f"{layer}.shrink", 4 * d, d)), f"{layer}.norm2", d, 1e-12)
    return x


def decoder(b: Builder, token: Any, position: Any, *cache: Any) -> list[Any]:
    """One step: scores [1, 50257], then keys and values of each layer."""
    d, heads, kept = Decoder.D, Decoder.HEADS, []
    words = b.constant("gpt2/words", (Decoder.VOCABULARY, d), "xavier", 3)
    x = b.add(b.take(words, token), b.take(b.constant("gpt2/positions", (1024, d), "xavier", 3), position))
    bias = b.place_bias(position, Decoder.CONTEXT)
    for n in range(Decoder.LAYERS):
        layer = f"gpt2/layer{n}"
        h = b.layer_norm(x, f"{layer}.norm1", d, 1e-5)
        parts = (b.dense(h, f"{layer}.{part}", d, d) for part in ("query", "key", "value"))
        q, k, v = (b.split_heads(part, heads, d // heads) for part in parts)
        keys, values = b.write(cache[2 * n], k, position), b.write(cache[2 * n + 1], v, position)
        h = b.merge_heads(b.attention(q, keys, values, bias, 1 / sqrt(d // heads)), d)
        x = b.add(x, b.dense(h, f"{layer}.output", d, d))
        h = b.gelu(b.dense(b.layer_norm(x, f"{layer}.norm2", d, 1e-5), f"{layer}.grow", d, 4 * d), True)
        x = b.add(x, b.dense(h, f"{layer}.shrink", 4 * d, d))
        kept += [keys, values]
    return [b.scores(b.layer_norm(x, "gpt2/norm", d, 1e-5), words), *kept]


def model(b: Builder, name: str, inputs: list[Any]) -> list[Any]:
    """The outputs of a model of workloads.py."""
    if name == "gpt2_decode":
        return decoder(b, *inputs)
    if name in Encoder.SIZES:
        return [encoder(b, name, *inputs)]
    return [{"mobilenet_v2": mobilenet_v2, "resnet50": resnet50}[name](b, *inputs)]
