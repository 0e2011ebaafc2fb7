"""Small models drawn at random, and whether training, exporting and quantising them keeps what they mean.

Half of the faults between layers are in what no single Graph shows: weights laid out once, names in files, scales that
were measured, state of a normalisation.
"""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

import nearfield as nf
from nearfield import nn
from node_runner import runner

ACTIVATIONS = (nn.relu, nn.relu6, nn.silu, nn.gelu, nn.hard_swish, nn.leaky_relu, nn.tanh)
Array = Any


@dataclass(frozen=True)
class Drawn:
    """A model, and two inputs for it: reals, or numbers below `vocabulary`."""

    model: nn.Module
    inputs: tuple[Array, Array]
    vocabulary: int = 0


class Convolutional:
    """Layers for images, one after another; `channels` is what the last one made."""

    def __init__(self, rng: random.Random, generator: nf.random.Generator) -> None:
        self.rng, self.generator = rng, generator
        self.channels = self.begun_with = rng.choice((1, 2, 3))
        self.layers: list[Any] = []
        self.add(self.plain)  # something to train
        for _ in range(rng.randint(0, 3)):
            self.add(
                rng.choice(
                    (
                        self.plain,
                        self.plain,
                        self.depthwise,
                        self.residual,
                        self.separable,
                        self.pool,
                        self.up,
                        self.norm,
                    )
                )
            )
        self.layers += rng.choice((self.head, list))()

    def add(self, part: Callable[[], list[Any]]) -> None:
        self.layers += part()
        if self.rng.random() < 0.7:
            self.layers.append(self.rng.choice(ACTIVATIONS))
        if self.rng.random() < 0.2:
            self.layers.append(nn.Dropout(0.3))

    def conv(self, n_out: int, size: int, **options: Any) -> nn.Module:
        n_in, self.channels = self.channels, n_out
        return nn.Conv2d(n_in, n_out, size, padding="same", generator=self.generator, **options)

    def plain(self) -> list[Any]:
        stride, size = self.rng.choice((1, 1, 2)), self.rng.choice((1, 3, 3, 5))
        return [self.conv(self.rng.choice((4, 8, 16, 24, 32)), size, stride=stride, bias=self.rng.random() < 0.5)]

    def depthwise(self) -> list[Any]:
        return [self.conv(self.channels, self.rng.choice((3, 5)), groups=self.channels, stride=self.rng.choice((1, 2)))]

    def separable(self) -> list[Any]:
        wide = 4 * self.channels
        return [
            self.conv(wide, 1), nn.BatchNorm(wide), nn.relu6,
            self.conv(wide, 3, groups=wide), nn.BatchNorm(wide), nn.relu6,
            self.conv(16, 1), nn.BatchNorm(16),
        ]  # fmt: skip

    def residual(self) -> list[Any]:
        n = self.channels
        return [nn.Residual(nn.Sequential(self.conv(n, 3), nn.BatchNorm(n), nn.relu, self.conv(n, 3)))]

    def pool(self) -> list[Any]:
        return [self.rng.choice((nn.MaxPool, nn.AvgPool))(2, stride=self.rng.choice((1, 2)), padding="same")]

    def up(self) -> list[Any]:
        n_in, self.channels = self.channels, self.rng.choice((3, 8))
        size, stride = self.rng.choice((2, 3)), self.rng.choice((1, 2))
        return [nn.ConvTranspose2d(n_in, self.channels, size, stride=stride, generator=self.generator)]

    def norm(self) -> list[Any]:
        n = self.channels
        return [nn.GroupNorm(2, n) if n % 2 == 0 and self.rng.random() < 0.5 else nn.BatchNorm(n)]

    def head(self) -> list[Any]:
        linear = [nn.Linear(a, b, generator=self.generator) for a, b in ((self.channels, 33), (33, 4))]
        return [self.rng.choice((nn.GlobalAvgPool, nn.GlobalMaxPool))(), linear[0], nn.relu, linear[1]]


def images(rng: random.Random, numbers: np.random.Generator, generator: nf.random.Generator) -> Drawn:
    drawn = Convolutional(rng, generator)
    shape = rng.choice((1, 2, 3)), rng.randint(6, 20), rng.randint(6, 20), drawn.begun_with
    return Drawn(nn.Sequential(*drawn.layers), reals(numbers, shape))


def table(rng: random.Random, numbers: np.random.Generator, generator: nf.random.Generator) -> Drawn:
    sizes = [rng.choice((1, 3, 8, 16, 31, 32, 64, 100, 128, 256)) for _ in range(rng.randint(2, 4))]
    layers: list[Any] = []
    for a, b in pairwise(sizes):
        norms = (nn.LayerNorm(b), nn.RMSNorm(b)) if b > 1 else ()
        layers.append(nn.Linear(a, b, bias=rng.random() < 0.8, generator=generator))
        layers.append(rng.choice((nn.relu, nn.gelu, nn.tanh, *norms)))
    return Drawn(nn.Sequential(*layers), reals(numbers, (rng.choice((1, 1, 2, 7, 8, 9, 33)), sizes[0])))


class Text(nn.Module):
    """Scores of the next token, perhaps by the embedding's own matrix."""

    def __init__(self, rng: random.Random, generator: nf.random.Generator) -> None:
        self.vocabulary, size = rng.choice((7, 50, 130)), rng.choice((32, 64, 96))
        self.tokens = nn.Embedding(self.vocabulary, size, generator=generator)
        heads = rng.choice((2, 4))
        self.blocks = [
            nn.TransformerBlock(size, heads, causal=True, generator=generator) for _ in range(rng.randint(1, 2))
        ]
        self.out = None if rng.random() < 0.4 else nn.Linear(size, self.vocabulary, generator=generator)

    def __call__(self, x: nf.Tensor) -> nf.Tensor:
        h = self.tokens(x)
        for block in self.blocks:
            h = block(h)
        return self.out(h) if self.out else nf.matmul(h, nf.permute_dims(self.tokens.weight, (1, 0)))


def text(rng: random.Random, numbers: np.random.Generator, generator: nf.random.Generator) -> Drawn:
    model, shape = Text(rng, generator), (rng.choice((1, 2)), rng.choice((1, 5, 16, 33)))
    first, second = (numbers.integers(0, model.vocabulary, shape).astype("int32") for _ in "ab")
    return Drawn(model, (first, second), model.vocabulary)


class Sequence(nn.Module):
    """The states of a recurrent layer, and what is read from each."""

    def __init__(self, rng: random.Random, n_in: int, generator: nf.random.Generator) -> None:
        n = rng.choice((4, 16))
        self.states = rng.choice((nn.GRU, nn.LSTM))(n_in, n, generator=generator)
        self.out = nn.Linear(n, 2, generator=generator)

    def __call__(self, x: nf.Tensor) -> nf.Tensor:
        y = self.states(x)
        return self.out(y[0] if isinstance(y, tuple) else y)


def sequences(rng: random.Random, numbers: np.random.Generator, generator: nf.random.Generator) -> Drawn:
    n_in = rng.choice((3, 8))
    shape = rng.choice((1, 2)), rng.choice((1, 5, 9)), n_in
    return Drawn(Sequence(rng, n_in, generator), reals(numbers, shape))


KINDS = {"images": images, "table": table, "text": text, "sequences": sequences}


def reals(numbers: np.random.Generator, shape: tuple[int, ...]) -> tuple[Array, Array]:
    return numbers.normal(size=shape).astype("float32"), numbers.normal(size=shape).astype("float32")


def drawn_model(kind: str, seed: int) -> Drawn:
    """A model whose normalisations have averages of their own, ready to predict."""
    rng, numbers, generator = random.Random(seed), np.random.default_rng(seed), nf.random.Generator(seed)
    drawn = KINDS[kind](rng, numbers, generator)
    for part in drawn.model.modules().values():
        if isinstance(part, nn.BatchNorm):
            state = {name: np.abs(numbers.normal(1, 0.3, t.shape)) for name, t in part.state_tensors().items()}
            part.set_state_tensors({name: nf.asarray(x.astype("float32")) for name, x in state.items()})
    drawn.model.eval()
    return drawn


# --- what is compared -----------------------------------------------------------------------------------------------


def distance(got: Array, want: Array) -> float:
    """The largest difference, in parts of the largest number."""
    got, want = (np.asarray(x, "float64").reshape(-1) for x in (got, want))
    return float(np.abs(got - want).max(initial=0) / (np.abs(want).max(initial=0) + 1e-6))


Finding = tuple[str, float, float]  # what was done, how far it is from what is meant, how far it may be


def predictions(model: nn.Module, inputs: tuple[Array, Array], want: list[Array], most: float) -> Iterator[Finding]:
    """The model as it is and compiled, for one input, the other, and the first again."""
    compiled = nf.jit(model)
    for n in (0, 1, 0):
        yield "jit", distance(compiled(nf.asarray(inputs[n])).numpy(), want[n]), most
    yield "eager", distance(model(nf.asarray(inputs[1])).numpy(), want[1]), most


def exports(
    model: nn.Module,
    inputs: tuple[Array, Array],
    want: list[Array],
    most: float,
    folder: Path,
    dtype: str | None = None,
) -> Iterator[Finding]:
    """The exported model, here and in the JavaScript runner."""
    nf.export(model, folder, inputs={"x": inputs[0]}, dtype=dtype)
    loaded = nf.load(folder)
    for n in (0, 1, 0):
        yield f"export {dtype}", distance(loaded.run({"x": inputs[n]})["output"], want[n]), most
    for threads in (1, 2):
        for n in (0, 1):
            [found] = runner().predict(folder, {"x": inputs[n]}, threads)
            yield f"export {dtype}, node, {threads} threads", distance(found, want[n]), most


def gradients(model: nn.Module, x: Array) -> dict[str, Array]:
    """The loss and the gradient of each parameter, on the device that is in use."""
    loss_and_grads = nn.value_and_grad(model, lambda x: nf.mean(nf.square(model(x))))
    loss, grads = nf.jit(lambda x: loss_and_grads(x))(nf.asarray(x))
    return {"loss": loss.numpy(), **{name: g.numpy() for name, g in grads.items()}}


def findings(drawn: Drawn, device: str, folder: Path, rng: random.Random) -> Iterator[Finding]:
    """All that is compared with the reference device's numbers."""
    model, inputs = drawn.model, drawn.inputs

    def meant(model: Callable[[nf.Tensor], nf.Tensor]) -> list[Array]:
        with nf.use("reference"):
            return [model(nf.asarray(x)).numpy() for x in inputs]

    want = meant(model)
    with nf.use("reference"):
        slopes = gradients(model, inputs[0])
    with nf.use(device):
        yield from predictions(model, inputs, want, 1e-3)
        found = gradients(model, inputs[0])
        largest = max(np.abs(g).max() for g in slopes.values())
        for name, g in slopes.items():
            yield f"gradient of {name}", float(np.abs(found[name] - g).max() / (largest + 1e-9)), 2e-3
        for dtype, most in ((None, 1e-3), ("float16", 3e-2)):
            yield from exports(model, inputs, want, most, folder / str(dtype), dtype)
    names = [
        name for name, part in model.modules().items() if isinstance(part, nn.Linear) and part.weight.shape[0] % 32 == 0
    ]
    if names:
        bits, activations = rng.choice((4, 8)), rng.choice((None, "int8"))
        with nf.use("reference"):
            few = nn.quantize(model, *names, bits=bits, group_size=32, activations=activations)
        want, most = meant(few), 2e-2 if activations else 2e-3
        with nf.use(device):
            yield from predictions(few, inputs, want, most)
            yield from exports(few, inputs, want, most, folder / "few")
    if not drawn.vocabulary and inputs[0].ndim in (2, 4):
        yield from in_bytes(model, inputs, device, folder / "bytes", meant)


def in_bytes(
    model: nn.Module, inputs: tuple[Array, Array], device: str, folder: Path, meant: Callable[..., list[Array]]
) -> Iterator[Finding]:
    """Weights and what lies between layers in 8 bits, if the model is of a kind that can be."""
    try:
        with nf.use("reference"):
            small = nn.quantize_static(model, np.concatenate(inputs))
    except nf.ArgumentError:
        return
    want = meant(small)
    with nf.use(device):
        yield from predictions(small, inputs, want, 4e-2)
        yield from exports(small, inputs, want, 4e-2, folder)


def wrong(kind: str, seed: int, device: str, folder: Path) -> list[str]:
    """What is too far from what is meant, of the model that is drawn for a seed."""
    with nf.use("reference"):
        drawn = drawn_model(kind, seed)
    found = findings(drawn, device, folder, random.Random(seed))
    return [f"{what}: {far:.2g} of the largest number" for what, far, most in found if not far < most]
