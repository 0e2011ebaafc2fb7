"""Models in 8 bits throughout: the same bytes on every device, close to the reals, and read as bytes."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nearfield as nf
from nearfield import nn, optim
from nearfield.compiler.wasm_depthwise import compile_depthwise
from nearfield.graph.graph import Graph
from nearfield.tensor import Node, Tensor
from nearfield.trace import trace
from test_contraction import kernels_of, tilings_of


def real(*shape: int) -> Any:
    return np.random.default_rng(list(shape)).normal(size=shape).astype("float32")


class Block(nn.Module):
    """Expand, filter each channel, project, add; with batch normalisation that has seen something."""

    def __init__(self, c: int, co: int, stride: int = 1) -> None:
        self.convs = [
            nn.Conv2d(c, 4 * c, 1, bias=False),
            nn.Conv2d(4 * c, 4 * c, 3, stride=stride, padding="same", groups=4 * c, bias=False),
            nn.Conv2d(4 * c, co, 1, bias=False),
        ]
        self.norms = [nn.BatchNorm(n) for n in (4 * c, 4 * c, co)]
        for n, norm in enumerate(self.norms):
            size = norm.weight.shape[0]
            spread = np.abs(real(n + 1, size)[n]) + 0.5
            norm.update({"weight": real(n + 1, size)[0] + 0.1, "bias": real(n + 2, size)[0] * 0.3})
            norm.update({"running_mean": real(n + 3, size)[0] * 0.1, "running_variance": spread})
        self.same = stride == 1 and c == co

    def __call__(self, x: Tensor) -> Tensor:
        y = nn.relu6(self.norms[0](self.convs[0](x)))
        y = nn.relu6(self.norms[1](self.convs[1](y)))
        y = self.norms[2](self.convs[2](y))
        return x + y if self.same else y


class Net(nn.Module):
    """What mobile networks are made of."""

    def __init__(self) -> None:
        self.stem = nn.Conv2d(3, 8, 3, stride=2, padding="same")
        self.blocks = [Block(8, 8), Block(8, 12, 2), Block(12, 12), Block(12, 12)]
        self.out = nn.Linear(12, 7)

    def __call__(self, x: Tensor) -> Tensor:
        x = nn.relu(self.stem(x))
        for block in self.blocks:
            x = block(x)
        return self.out(nn.global_max_pool(x))


def made(kind: Any) -> Any:
    """A module for use, whose initial values are on no device."""
    with nf.use("reference"):
        model = kind().eval()
        nf.synchronize()
    return model


def cosine(a: Any, b: Any) -> float:
    return float((a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum()))


def graph_of(model: nn.Module, x: Any) -> Graph:
    stand_in = Tensor(Node(None, (), {}, x.shape, nf.float32))
    return trace([model(stand_in).node], [stand_in.node])[0]


@pytest.mark.parametrize(
    ("layers", "shape"),
    [
        ([(nn.Linear, 16, 31), nn.relu, (nn.Linear, 31, 5), nn.relu6, (nn.Linear, 5, 1)], (16,)),
        ([(nn.Conv2d, 3, 4, 3), (nn.Conv2d, 4, 4, 1), nn.relu6, nn.global_avg_pool, (nn.Linear, 4, 2)], (8, 7, 3)),
    ],
    ids=["rows", "convolutions"],
)
def test_one_example_is_computed_as_among_others(layers: list[Any], shape: tuple[int, ...]) -> None:
    """Its graph has other shapes: numbers are repeated as often as there are channels. Layers follow one another."""
    with nf.use("reference"):
        generator = nf.random.Generator(0)
        parts = [
            row if callable(row) else row[0](*row[1:], bias=row[0] is nn.Linear, generator=generator) for row in layers
        ]
        model, x = nn.Sequential(*parts), real(5, *shape)
        small = nn.quantize_static(model, x)
        together = small(nf.asarray(x)).numpy()
        assert cosine(together, model(nf.asarray(x)).numpy()) > 0.99
        for n in range(5):
            np.testing.assert_allclose(small(nf.asarray(x[n : n + 1])).numpy(), together[n : n + 1], rtol=1e-6)


def test_same_on_every_device(device: str) -> None:
    """Exactly what the reference says: every rounding is of a single product."""
    x = real(2, 20, 24, 3)
    with nf.use("reference"):
        model = nn.quantize_static(made(Net), x)
        want = np.asarray(model(nf.asarray(x)))
    np.testing.assert_array_equal(np.asarray(nf.jit(model)(nf.asarray(x))), want)


def test_close_to_the_reals() -> None:
    """Also for images that the ranges were not taken from, and in batches of another size."""
    with nf.use("reference"):
        model, x = made(Net), real(8, 32, 32, 3)
        small = nn.quantize_static(model, x)
        for more in (x, real(1, 32, 32, 3), real(3, 24, 40, 3)):
            assert cosine(np.asarray(small(nf.asarray(more))), np.asarray(model(nf.asarray(more)))) > 0.98


def test_products_read_bytes() -> None:
    """Between layers there is nothing wider: all products are of bytes, all windows of channels too."""
    x = real(1, 48, 48, 3)
    graph = graph_of(nn.quantize_static(made(Net), x), x)
    kernels = kernels_of(graph, frozenset(range(1, len(graph.inputs))))
    depthwise = [k for k in kernels if compile_depthwise(k, relaxed=True) is not None]
    assert len(depthwise) == 4
    assert [t.kind for t in tilings_of(graph, frozenset(range(1, len(graph.inputs))))].count("dot") == 9
    wide = [line for line in graph.lines if line.op in ("conv", "einsum") and line.dtype.name == "float32"]
    assert wide == []


def test_what_it_takes(tmp_path: Path) -> None:
    """A byte for each weight; the model itself stays as it is, and in training."""
    model = made(Net).train()
    before = {name: np.asarray(t) for name, t in model.state().items()}
    small = nn.quantize_static(model, real(4, 20, 20, 3))
    assert model.training
    assert not small.parameters()
    assert {t.dtype.name for t in small.state().values()} == {"int8", "int32", "float32"}
    after = {name: np.asarray(t) for name, t in model.state().items()}
    assert all(np.array_equal(before[name], after[name]) for name in before)
    nf.export(small, tmp_path / "model", inputs={"image": real(1, 20, 20, 3)})
    found = nf.load(tmp_path / "model").run({"image": real(1, 20, 20, 3)})
    np.testing.assert_array_equal(next(iter(found.values())), np.asarray(small(nf.asarray(real(1, 20, 20, 3)))))


class Residual(nn.Module):
    """A projection beside two layers, bounds after the sum, and curves that are computed in reals."""

    def __init__(self) -> None:
        self.first, self.second = nn.Conv2d(8, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1)
        self.project, self.last = nn.Conv2d(8, 16, 1), nn.Conv2d(16, 8, 1)
        self.norm = nn.LayerNorm(8)

    def __call__(self, x: Tensor) -> Tensor:
        y = nn.relu(self.second(nn.silu(self.first(x))) + self.project(x))
        return self.norm(self.last(y) * 3.0 - 1.0)


def test_other_shapes_of_networks() -> None:
    """ResNet's sums, curves that are no bounds, factors, and normalisation at the end."""
    model, x = made(Residual), real(2, 9, 9, 8)
    small = nn.quantize_static(model, x)
    assert len(small.products) == 4
    assert set(small.others) == {"norm.weight", "norm.bias"}
    assert cosine(np.asarray(small(nf.asarray(x))), np.asarray(model(nf.asarray(x)))) > 0.99


class Bounded(nn.Module):
    """Bounds before a sum, and after it."""

    def __init__(self) -> None:
        self.first, self.second, self.last = nn.Conv2d(6, 8, 1), nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 4, 1)

    def __call__(self, x: Tensor) -> Tensor:
        y = self.first(x)
        return self.last(nf.minimum(nn.relu(self.second(y)) + y, 0.5))


def test_bounds_on_both_sides_of_a_sum() -> None:
    model, x = made(Bounded), real(4, 8, 8, 6)
    small = nn.quantize_static(model, x)
    assert cosine(np.asarray(small(nf.asarray(x))), np.asarray(model(nf.asarray(x)))) > 0.99


class Twice(nn.Module):
    """One layer that is called twice, and one once."""

    def __init__(self) -> None:
        self.shared, self.up, self.once = nn.Linear(16, 16), nn.ConvTranspose2d(16, 16, 2, stride=2), nn.Linear(16, 8)

    def __call__(self, x: Tensor) -> dict[str, Tensor]:
        y = self.shared(nn.relu(self.shared(x)))
        return {"y": self.once(y), "up": self.up(nf.reshape(y, (1, -1, 1, 16)))}


def test_what_cannot_be_quantised_stays() -> None:
    model, x = made(Twice), real(6, 16)
    small = nn.quantize_static(model, x)
    assert list(small.products) == ["once.weight"]
    got, want = small(nf.asarray(x)), model(nf.asarray(x))
    np.testing.assert_allclose(np.asarray(got["up"]), np.asarray(want["up"]), atol=1e-6)
    assert cosine(np.asarray(got["y"]), np.asarray(want["y"])) > 0.999


def test_channels_of_zeros_and_large_biases() -> None:
    layer = made(lambda: nn.Linear(8, 4)).update({"bias": np.float32([0, 5, -1e6, 1e-6])})
    layer.update({"weight": real(8, 4) * np.float32([0, 0, 1e-3, 1])})
    x = real(10, 8)
    got, want = np.asarray(nn.quantize_static(layer, x)(nf.asarray(x))), np.asarray(layer(nf.asarray(x)))
    np.testing.assert_allclose(got, want, rtol=1e-3, atol=0.1)
    assert not np.asarray(nn.quantize_static(layer, np.zeros((2, 8), "float32"))(nf.zeros((2, 8))))[:, 0].any()


def bars(n: int, seed: int) -> tuple[Any, Any]:
    """Noise and a bar: lying, standing or sloping."""
    rng = np.random.default_rng(seed)
    x, kinds = rng.normal(0, 0.5, (n, 8, 8, 1)), rng.integers(0, 3, n)
    for image, kind, at in zip(x, kinds, rng.integers(0, 8, n), strict=True):
        image[[(at, slice(None)), (slice(None), at), (range(8), range(8))][kind]] += 1
    return x.astype("float32"), kinds.astype("int32")


@pytest.mark.leaks_ok("the default random generator, which shuffles, keeps its state")
def test_accuracy_stays() -> None:
    """Of a network that has learned something: at most one picture in a hundred is taken for another."""
    model = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding="same"), nn.relu, nn.Conv2d(16, 16, 3, padding="same", groups=16), nn.relu6,
        nn.Conv2d(16, 16, 1), nn.relu, nn.GlobalMaxPool(), nn.Linear(16, 3),
    )  # fmt: skip
    with nf.use("wasm"):
        nf.fit(model, bars(1500, 1), loss=nn.losses.cross_entropy, optimizer=optim.Adam(1e-2), epochs=4, verbose=False)
        x, kinds = bars(1000, 2)
        small = nn.quantize_static(model.eval(), bars(100, 3)[0])
        exact, nearly = (np.asarray(nf.jit(m)(nf.asarray(x))).argmax(-1) for m in (model, small))
    assert (exact == kinds).mean() > 0.9
    assert (nearly == kinds).mean() > (exact == kinds).mean() - 0.01


def test_a_copy_is_one() -> None:
    x = real(2, 20, 20, 3)
    with nf.use("reference"):
        small = nn.quantize_static(made(Net), x)
        np.testing.assert_array_equal(np.asarray(small.copy()(nf.asarray(x))), np.asarray(small(nf.asarray(x))))


class Shared(nn.Module):
    """What a layer that is called twice gives is added to another's result."""

    def __init__(self) -> None:
        self.shared, self.once, self.last = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 4)

    def __call__(self, x: Tensor) -> Tensor:
        both = nn.relu(self.shared(self.shared(x)))
        return self.last(self.once(nf.tanh(both)) + both)


def test_sums_with_a_layer_that_is_called_twice() -> None:
    """Its inputs are float64 here, as NumPy makes them."""
    model, x = made(Shared), real(16, 8).astype("float64")
    with nf.use("reference"):
        small = nn.quantize_static(model, x)
        exact, nearly = np.asarray(model(nf.asarray(x, dtype="float32"))), np.asarray(small(x))
    assert cosine(exact, nearly) > 0.999


class Counted(nn.Linear):
    """A number beside its result."""

    def __init__(self) -> None:
        super().__init__(8, 4)

    def __call__(self, x: Tensor) -> Any:
        return super().__call__(x), 7


def test_errors() -> None:
    with pytest.raises(nf.ArgumentError, match="not the scales between layers"):
        nn.quantize_static(made(lambda: nn.Linear(8, 4)), real(2, 8)).load("some.safetensors")
    with pytest.raises(nf.ArgumentError, match="not the scales between layers"):
        nn.Sequential(nn.quantize_static(made(lambda: nn.Linear(8, 4)), real(2, 8)), nn.Linear(4, 4)).load(
            "a.safetensors"
        )
    with pytest.raises(nf.ArgumentError, match="a model that returns Tensors"):
        nn.quantize_static(made(Counted), real(2, 8))
    with pytest.raises(nf.ArgumentError, match="no inputs"):
        nn.quantize_static(made(Net))
    with pytest.raises(nf.ArgumentError, match="a Module"):
        nn.quantize_static(nn.relu, real(1, 2))
    with pytest.raises(nf.ArgumentError, match="infinite or NaN"):
        nn.quantize_static(made(lambda: nn.Linear(8, 4)), np.full((2, 8), np.nan, "float32"))
    with pytest.raises(nf.ArgumentError, match="no weight"):
        nn.quantize_static(nn.LayerNorm(4), real(2, 4))
