"""The models of the benchmarks as nearfield.nn Modules, with weights that every peer makes alike (weights.py).

Image models are channels last and pad as "same" does; batch normalisation is multiplied into the convolutions, as the
peers' converters do. `peers/architectures.py` says the same to other frameworks.
"""

from collections.abc import Callable
from typing import Any, ClassVar

import nearfield as nf
from nearfield import nn
from nearfield.random import Generator  # one for each layer: initial values are replaced, and not drawn

from . import weights

__all__ = ["CNN", "MLP", "Classifier", "Decoder", "Encoder", "MobileNetV2", "ResNet50"]

Activation = Callable[[Any], Any] | None
SEQUENCE = 128
MOBILENET = [  # expansion, channels out, repetitions, stride of the first
    (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1),
]  # fmt: skip
RESNET = [(64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)]  # channels of the 3x3, repetitions, stride of the first


def linear(name: str, n_in: int, n_out: int) -> nn.Linear:
    """A linear layer with the weights of a name."""
    weight, bias = weights.dense(name, n_in, n_out)
    return nn.Linear(n_in, n_out, generator=Generator()).update({"weight": weight, "bias": bias})


def layer_norm(name: str, d: int, eps: float) -> nn.LayerNorm:
    """A layer normalisation with the weights of a name."""
    weight, bias = weights.norm(name, d)
    return nn.LayerNorm(d, eps=eps).update({"weight": weight, "bias": bias})


def embedding(name: str, n: int, d: int) -> nn.Embedding:
    """A table with the weights of a name."""
    return nn.Embedding(n, d, generator=Generator()).update({"weight": weights.named(name, (n, d), "xavier", 3)})


class Convolution(nn.Module):
    """A convolution with its batch normalisation multiplied in, and an activation."""

    def __init__(
        self, name: str, ci: int, co: int, size: int, *, stride: int = 1, groups: int = 1, activation: Activation = None
    ) -> None:
        weight, bias = weights.folded_convolution(name, ci, co, size, groups)
        layer = nn.Conv2d(ci, co, size, stride=stride, padding="same", groups=groups, generator=Generator())
        self.layer = layer.update({"weight": weight.transpose(2, 3, 1, 0), "bias": bias})
        self.activation = activation

    def __call__(self, x: nf.Tensor) -> nf.Tensor:
        """x[n, h, w, ci] -> [n, h / stride, w / stride, co]"""
        y = self.layer(x)
        return y if self.activation is None else self.activation(y)


class InvertedResidual(nn.Module):
    """Expand, filter each channel, project; with the input added where shapes agree."""

    def __init__(self, name: str, ci: int, co: int, stride: int, expansion: int) -> None:
        middle = ci * expansion
        expand = [Convolution(f"{name}.expand", ci, middle, 1, activation=nn.relu6)] if expansion > 1 else []
        self.layers = [
            *expand,
            Convolution(f"{name}.depthwise", middle, middle, 3, stride=stride, groups=middle, activation=nn.relu6),
            Convolution(f"{name}.project", middle, co, 1),
        ]
        self.residual = stride == 1 and ci == co

    def __call__(self, x: nf.Tensor) -> nf.Tensor:
        """x[n, h, w, ci] -> [n, h / stride, w / stride, co]"""
        y = x
        for layer in self.layers:
            y = layer(y)
        return x + y if self.residual else y


class MobileNetV2(nn.Module):
    """Sandler et al. 2018, arXiv:1801.04381, width 1, 1000 classes; 0.60 GFLOP for one image of 224 x 224."""

    def __init__(self, name: str = "mobilenet_v2") -> None:
        self.stem = Convolution(f"{name}/stem", 3, 32, 3, stride=2, activation=nn.relu6)
        self.blocks, ci = [], 32
        for expansion, co, repetitions, first in MOBILENET:
            for n in range(repetitions):
                block = f"{name}/block{len(self.blocks)}"
                self.blocks.append(InvertedResidual(block, ci, co, 1 if n else first, expansion))
                ci = co
        self.head = Convolution(f"{name}/head", 320, 1280, 1, activation=nn.relu6)
        self.out = linear(f"{name}/out", 1280, 1000)

    def __call__(self, image: nf.Tensor) -> nf.Tensor:
        """image[n, 224, 224, 3] -> [n, 1000]"""
        x = self.stem(image)
        for block in self.blocks:
            x = block(x)
        return self.out(nn.global_avg_pool(self.head(x)))


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1, added to the input or to its projection."""

    def __init__(self, name: str, ci: int, middle: int, stride: int, project: bool) -> None:
        co = 4 * middle
        self.reduce = Convolution(f"{name}.reduce", ci, middle, 1, activation=nn.relu)
        self.filter = Convolution(f"{name}.filter", middle, middle, 3, stride=stride, activation=nn.relu)
        self.expand = Convolution(f"{name}.expand", middle, co, 1)
        self.project = Convolution(f"{name}.project", ci, co, 1, stride=stride) if project else None

    def __call__(self, x: nf.Tensor) -> nf.Tensor:
        """x[n, h, w, ci] -> [n, h / stride, w / stride, 4 middle]"""
        y = self.expand(self.filter(self.reduce(x)))
        return nn.relu(y + (x if self.project is None else self.project(x)))


class ResNet50(nn.Module):
    """He et al. 2015, arXiv:1512.03385, stride in the 3x3, 1000 classes; 8.2 GFLOP for one image of 224 x 224."""

    def __init__(self, name: str = "resnet50") -> None:
        self.stem = Convolution(f"{name}/stem", 3, 64, 7, stride=2, activation=nn.relu)
        self.blocks, ci = [], 64
        for middle, repetitions, first in RESNET:
            for n in range(repetitions):
                block = f"{name}/block{len(self.blocks)}"
                self.blocks.append(Bottleneck(block, ci, middle, 1 if n else first, not n))
                ci = 4 * middle
        self.out = linear(f"{name}/out", 2048, 1000)

    def __call__(self, image: nf.Tensor) -> nf.Tensor:
        """image[n, 224, 224, 3] -> [n, 1000]"""
        x = nn.max_pool(self.stem(image), 3, stride=2, padding="same")
        for block in self.blocks:
            x = block(x)
        return self.out(nn.global_avg_pool(x))


def split_heads(x: nf.Tensor, heads: int) -> nf.Tensor:
    """x[n, t, d] -> [n, heads, t, d / heads]"""
    n, t, d = x.shape
    return nf.permute_dims(nf.reshape(x, (n, t, heads, d // heads)), (0, 2, 1, 3))


def merge_heads(x: nf.Tensor) -> nf.Tensor:
    """x[n, heads, t, d] -> [n, t, heads · d]"""
    n, heads, t, d = x.shape
    return nf.reshape(nf.permute_dims(x, (0, 2, 1, 3)), (n, t, heads * d))


class EncoderLayer(nn.Module):
    """Attention and two linear layers, normalised after each addition."""

    def __init__(self, name: str, d: int, heads: int) -> None:
        self.query, self.key, self.value, self.output = (
            linear(f"{name}.{part}", d, d) for part in ("query", "key", "value", "output")
        )
        self.grow, self.shrink = linear(f"{name}.grow", d, 4 * d), linear(f"{name}.shrink", 4 * d, d)
        self.norm1, self.norm2 = (layer_norm(f"{name}.norm{n}", d, 1e-12) for n in (1, 2))
        self.heads = heads

    def __call__(self, x: nf.Tensor, bias: nf.Tensor) -> nf.Tensor:
        """x[n, t, d], bias[n, 1, 1, t] -> [n, t, d]"""
        q, k, v = (split_heads(part(x), self.heads) for part in (self.query, self.key, self.value))
        h = merge_heads(nn.scaled_dot_product_attention(q, k, v, mask=bias))
        x = self.norm1(x + self.output(h))
        return self.norm2(x + self.shrink(nn.gelu(self.grow(x))))


class Encoder(nn.Module):
    """Devlin et al. 2018, arXiv:1810.04805, without segments and pooler.

    name    "bert_mini" (4 layers, 256, 4 heads; 0.87 GFLOP for 128 tokens) or "minilm_l6" (6, 384, 12; 2.87 GFLOP)
    """

    SIZES: ClassVar = {"bert_mini": (4, 256, 4), "minilm_l6": (6, 384, 12)}
    VOCABULARY = 30522

    def __init__(self, name: str) -> None:
        layers, d, heads = self.SIZES[name]
        self.words = embedding(f"{name}/words", self.VOCABULARY, d)
        self.positions = nf.asarray(weights.named(f"{name}/positions", (SEQUENCE, d), "small"))
        self.norm = layer_norm(f"{name}/norm", d, 1e-12)
        self.layers = [EncoderLayer(f"{name}/layer{n}", d, heads) for n in range(layers)]

    def __call__(self, ids: nf.Tensor, mask: nf.Tensor) -> nf.Tensor:
        """ids, mask int32 [n, 128] -> [n, 128, d]"""
        n, t = mask.shape
        bias = (1.0 - nf.astype(nf.reshape(mask, (n, 1, 1, t)), "float32")) * -10000.0
        x = self.norm(self.words(ids) + self.positions)
        for layer in self.layers:
            x = layer(x, bias)
        return x


class Classifier(nn.Module):
    """An encoder, the mean over the positions, and two classes: what is fine-tuned."""

    def __init__(self, name: str = "bert_mini") -> None:
        self.encoder = Encoder(name)
        self.out = linear(f"{name}/classes", Encoder.SIZES[name][1], 2)

    def __call__(self, ids: nf.Tensor, mask: nf.Tensor) -> nf.Tensor:
        """ids, mask int32 [n, 128] -> [n, 2]"""
        return self.out(nf.mean(self.encoder(ids, mask), axis=1))


class DecoderLayer(nn.Module):
    """Attention over what is cached and two linear layers, normalised before each."""

    def __init__(self, name: str, d: int, heads: int) -> None:
        self.query, self.key, self.value, self.output = (
            linear(f"{name}.{part}", d, d) for part in ("query", "key", "value", "output")
        )
        self.grow, self.shrink = linear(f"{name}.grow", d, 4 * d), linear(f"{name}.shrink", 4 * d, d)
        self.norm1, self.norm2 = (layer_norm(f"{name}.norm{n}", d, 1e-5) for n in (1, 2))
        self.heads = heads

    def __call__(
        self, x: nf.Tensor, position: nf.Tensor, keys: nf.Tensor, values: nf.Tensor
    ) -> tuple[nf.Tensor, nf.Tensor, nf.Tensor]:
        """x[1, 1, d], position int32 [1], keys and values [1, heads, context, d / heads] -> x, keys, values"""
        h = self.norm1(x)
        q, k, v = (split_heads(part(h), self.heads) for part in (self.query, self.key, self.value))
        places = nf.arange(keys.shape[2])
        here = nf.reshape(places == position, (1, 1, -1, 1))
        keys, values = nf.where(here, k, keys), nf.where(here, v, values)
        x = x + self.output(merge_heads(nn.scaled_dot_product_attention(q, keys, values, mask=places <= position)))
        return x + self.shrink(nn.gelu(self.grow(self.norm2(x)), approximate="tanh")), keys, values


class Decoder(nn.Module):
    """Radford et al. 2019 (GPT-2), small: 12 layers, 768, 12 heads, 124 M weights; one step of it."""

    LAYERS, D, HEADS, VOCABULARY, CONTEXT = 12, 768, 12, 50257, 256

    def __init__(self, name: str = "gpt2") -> None:
        self.words = embedding(f"{name}/words", self.VOCABULARY, self.D)
        self.positions = embedding(f"{name}/positions", 1024, self.D)
        self.layers = [DecoderLayer(f"{name}/layer{n}", self.D, self.HEADS) for n in range(self.LAYERS)]
        self.norm = layer_norm(f"{name}/norm", self.D, 1e-5)

    def __call__(self, token: nf.Tensor, position: nf.Tensor, *cache: nf.Tensor) -> tuple[nf.Tensor, ...]:
        """token, position int32 [1], keys and values of each layer -> scores [1, 50257], keys and values"""
        x = nf.reshape(self.words(token) + self.positions(position), (1, 1, self.D))
        kept: list[nf.Tensor] = []
        for n, layer in enumerate(self.layers):
            x, keys, values = layer(x, position, cache[2 * n], cache[2 * n + 1])
            kept += [keys, values]
        return (self.words.scores(nf.reshape(self.norm(x), (1, self.D))), *kept)


def initial(seed: int, shape: tuple[int, ...], fan_in: int) -> Any:
    """Initial values for training."""
    return weights.uniform(seed, shape, (6 / fan_in) ** 0.5)


class MLP(nn.Module):
    """784 - 512 - 512 - 10"""

    def __init__(self) -> None:
        self.layers = [
            nn.Linear(n_in, n_out, generator=Generator()).update({"weight": initial(11 + n, (n_in, n_out), n_in)})
            for n, (n_in, n_out) in enumerate([(784, 512), (512, 512), (512, 10)])
        ]

    def __call__(self, x: nf.Tensor) -> nf.Tensor:
        """x[n, 784] -> [n, 10]"""
        first, second, out = self.layers
        return out(nn.relu(second(nn.relu(first(x)))))


class CNN(nn.Module):
    """Two 3x3 convolutions of 32 and 64 channels, a pooling by 2, and 12544 - 128 - 10."""

    def __init__(self) -> None:
        self.convs = [
            nn.Conv2d(ci, co, 3, padding="same", generator=Generator()).update(
                {"weight": initial(11 + n, (co, ci, 3, 3), 9 * ci).transpose(2, 3, 1, 0)}
            )
            for n, (ci, co) in enumerate([(1, 32), (32, 64)])
        ]
        # the rows are numbered as by peers whose channels come first
        rows = initial(13, (64, 14 * 14, 128), 12544).transpose(1, 0, 2).reshape(12544, 128)
        self.hidden = nn.Linear(12544, 128, generator=Generator()).update({"weight": rows})
        self.out = nn.Linear(128, 10, generator=Generator()).update({"weight": initial(14, (128, 10), 128)})

    def __call__(self, x: nf.Tensor) -> nf.Tensor:
        """x[n, 28, 28, 1] -> [n, 10]"""
        for conv in self.convs:
            x = nn.relu(conv(x))
        x = nf.reshape(nn.max_pool(x, 2), (x.shape[0], -1))
        return self.out(nn.relu(self.hidden(x)))
