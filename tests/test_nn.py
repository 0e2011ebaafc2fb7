"""Modules, and one battery for every layer: shape, gradients, the same on every device, saving, text."""

import gc
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nearfield as nf
from learning import DEVICES, array, check_gradient, on, tensors, to_dtype, weighed
from nearfield import nn
from nearfield.errors import DTypeError, FormatError, GradError, ShapeError
from nearfield.random import Generator
from nearfield.tree import flatten_tree


@pytest.fixture(autouse=True)
def _on_the_reference() -> Iterator[None]:
    """Where a test does not ask for a device."""
    with on("reference"):
        yield


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest) -> Iterator[str]:
    with on(request.param):
        yield request.param


@dataclass(frozen=True)
class Layer:
    """A way to make a layer, the shapes of its inputs (with a dtype where they are no reals), and of its outputs."""

    make: Callable[[Generator], nn.Module]
    inputs: tuple[Any, ...]
    outputs: tuple[tuple[int, ...], ...]

    def arrays(self) -> list[np.ndarray]:
        return [
            array(*s[:-1], dtype=s[-1], seed=i) if isinstance(s[-1], str) else array(*s, seed=i)
            for i, s in enumerate(self.inputs)
        ]


LAYERS = {
    "linear": Layer(lambda g: nn.Linear(3, 4, generator=g), ((5, 3),), ((5, 4),)),
    "linear of higher rank": Layer(lambda g: nn.Linear(3, 4, bias=False, generator=g), ((2, 5, 3),), ((2, 5, 4),)),
    "conv1d": Layer(lambda g: nn.Conv1d(2, 4, 3, padding=1, stride=2, generator=g), ((2, 7, 2),), ((2, 4, 4),)),
    "conv1d dilated": Layer(lambda g: nn.Conv1d(2, 3, 3, dilation=2, generator=g), ((2, 7, 2),), ((2, 3, 3),)),
    "conv2d": Layer(lambda g: nn.Conv2d(2, 3, 3, generator=g), ((2, 5, 6, 2),), ((2, 3, 4, 3),)),
    "conv2d same, strides": Layer(
        lambda g: nn.Conv2d(2, 3, (3, 2), padding="same", stride=(2, 1), generator=g), ((1, 5, 4, 2),), ((1, 3, 4, 3),)
    ),
    "conv2d in groups": Layer(
        lambda g: nn.Conv2d(4, 6, 3, groups=2, padding=1, generator=g), ((1, 4, 4, 4),), ((1, 4, 4, 6),)
    ),
    "conv2d depthwise": Layer(
        lambda g: nn.Conv2d(3, 6, 2, groups=3, bias=False, generator=g), ((2, 4, 4, 3),), ((2, 3, 3, 6),)
    ),
    "conv transpose": Layer(
        lambda g: nn.ConvTranspose2d(2, 3, 3, stride=2, generator=g), ((2, 3, 2, 2),), ((2, 7, 5, 3),)
    ),
    "conv transpose same": Layer(
        lambda g: nn.ConvTranspose2d(2, 1, 2, stride=3, padding="same", generator=g), ((1, 3, 2, 2),), ((1, 9, 6, 1),)
    ),
    "max pool": Layer(lambda g: nn.MaxPool(2), ((2, 5, 4, 3),), ((2, 2, 2, 3),)),
    "max pool same": Layer(lambda g: nn.MaxPool(3, stride=2, padding="same"), ((1, 5, 4, 2),), ((1, 3, 2, 2),)),
    "max pool of time": Layer(lambda g: nn.MaxPool(2, stride=1), ((2, 5, 3),), ((2, 4, 3),)),
    "avg pool": Layer(lambda g: nn.AvgPool((2, 3), stride=1), ((2, 4, 4, 2),), ((2, 3, 2, 2),)),
    "avg pool same": Layer(lambda g: nn.AvgPool(3, stride=2, padding="same"), ((1, 5, 4, 2),), ((1, 3, 2, 2),)),
    "global avg pool": Layer(lambda g: nn.GlobalAvgPool(), ((2, 3, 4, 5),), ((2, 5),)),
    "global max pool": Layer(lambda g: nn.GlobalMaxPool(), ((2, 3, 4, 5),), ((2, 5),)),
    "flatten": Layer(lambda g: nn.Flatten(), ((2, 3, 4),), ((2, 12),)),
    "batch norm": Layer(lambda g: nn.BatchNorm(3), ((6, 3),), ((6, 3),)),
    "batch norm of images": Layer(lambda g: nn.BatchNorm(2), ((2, 3, 3, 2),), ((2, 3, 3, 2),)),
    "batch norm in use": Layer(lambda g: nn.BatchNorm(2).eval(), ((2, 3, 3, 2),), ((2, 3, 3, 2),)),
    "layer norm": Layer(lambda g: nn.LayerNorm(4), ((2, 3, 4),), ((2, 3, 4),)),
    "rms norm": Layer(lambda g: nn.RMSNorm(4), ((2, 3, 4),), ((2, 3, 4),)),
    "group norm": Layer(lambda g: nn.GroupNorm(2, 4), ((2, 3, 3, 4),), ((2, 3, 3, 4),)),
    "dropout in use": Layer(lambda g: nn.Dropout(0.5).eval(), ((4, 5),), ((4, 5),)),
    "embedding": Layer(lambda g: nn.Embedding(5, 3, generator=g), ((2, 4, "int32"),), ((2, 4, 3),)),
    "attention": Layer(lambda g: nn.MultiHeadAttention(6, 2, generator=g), ((2, 4, 6),), ((2, 4, 6),)),
    "attention to a memory": Layer(
        lambda g: nn.MultiHeadAttention(4, 2, d_memory=3, generator=g), ((2, 3, 4), (2, 5, 3)), ((2, 3, 4),)
    ),
    "transformer block": Layer(
        lambda g: nn.TransformerBlock(4, 2, causal=True, generator=g), ((2, 3, 4),), ((2, 3, 4),)
    ),
    "gru": Layer(lambda g: nn.GRU(3, 4, generator=g), ((2, 5, 3),), ((2, 5, 4), (2, 4))),
    "lstm": Layer(lambda g: nn.LSTM(3, 4, generator=g), ((2, 5, 3),), ((2, 5, 4), (2, 4), (2, 4))),
    "sequential": Layer(
        lambda g: nn.Sequential(nn.Linear(3, 4, generator=g), nn.gelu, nn.Linear(4, 2, generator=g)),
        ((5, 3),),
        ((5, 2),),
    ),
    "residual": Layer(lambda g: nn.Residual(nn.Linear(3, 3, generator=g), nn.silu), ((5, 3),), ((5, 3),)),
    "residual with shortcut": Layer(
        lambda g: nn.Residual(nn.tanh, nn.Linear(3, 2, generator=g), shortcut=nn.Linear(3, 2, generator=g)),
        ((5, 3),),
        ((5, 2),),
    ),
}
every_layer = pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS.keys())


def varied(module: nn.Module) -> nn.Module:
    """The module with parameters that are neither 0 nor 1, so that no bias or scale goes unnoticed."""
    return module.update({n: t.numpy() + 0.1 * array(*t.shape, seed=9) for n, t in module.parameters().items()})


@every_layer
def test_shapes_are_as_promised(layer: Layer, device: str) -> None:
    module = layer.make(Generator(1))
    y = flatten_tree(module(*tensors(layer.arrays())))[0]
    assert tuple(t.shape for t in y) == layer.outputs
    assert all(np.isfinite(t.numpy()).all() for t in y)


@every_layer
def test_gradients_agree_with_finite_differences(layer: Layer) -> None:
    module = to_dtype(varied(layer.make(Generator(1))), "float64")
    x = tensors(layer.arrays(), "float64")
    before = module.state_tensors()

    def value_at(name: str, value: nf.Tensor) -> nf.Tensor:
        module.set_state_tensors({**before, name: value})
        return weighed(module(*x))

    if module.parameters():
        _, grads = nn.value_and_grad(module, lambda: weighed(module(*x)))()
        assert list(grads) == list(module.parameters())
        for name, g in grads.items():
            check_gradient(lambda v, name=name: value_at(name, v), before[name], g)
    module.set_state_tensors(before)
    if x[0].dtype.kind == "f":
        g = nf.grad(lambda v: weighed(module(v, *x[1:])))(x[0])
        check_gradient(lambda v: weighed(module(v, *x[1:])), x[0], g)


def value_and_gradients(layer: Layer) -> list[np.ndarray]:
    module = varied(layer.make(Generator(1)))
    x = tensors(layer.arrays())
    y, grads = (
        nn.value_and_grad(module, lambda: (weighed(module(*x), "float32"),) * 2, has_aux=True)()
        if module.parameters()
        else (module(*x), {})
    )
    return [t.numpy() for t in (*flatten_tree(y)[0], *grads.values(), *module.state().values())]


@every_layer
def test_devices_agree(layer: Layer, device: str) -> None:
    got = value_and_gradients(layer)
    with nf.use("reference"):
        want = value_and_gradients(layer)
    for a, b in zip(got, want, strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-5)


@every_layer
def test_state_survives_a_file(layer: Layer, device: str, tmp_path: Path) -> None:
    module, other = varied(layer.make(Generator(1))), layer.make(Generator(2))
    module.save(tmp_path / "layer.safetensors")
    other.load(tmp_path / "layer.safetensors")
    for name, tensor in module.state().items():
        np.testing.assert_array_equal(other.state()[name].numpy(), tensor.numpy())
    x = tensors(layer.arrays())
    for a, b in zip(flatten_tree(module(*x))[0], flatten_tree(other(*x))[0], strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())
    assert [p.name for p in tmp_path.iterdir()] == ["layer.safetensors"]


@every_layer
def test_text_names_the_parts(layer: Layer) -> None:
    module = layer.make(Generator(1))
    text, table = repr(module), str(module.summary(tuple(tensors(layer.arrays()))))
    assert type(module).__name__ in text
    assert all(name.split(".")[-1] in text for name in module.state())
    assert str(list(layer.outputs[0])) in table
    assert f"{module.num_parameters:,} parameters" in table
    assert module.summary()._repr_html_().startswith("<table")


class Nest(nn.Module):
    """Parameters in every kind of place."""

    def __init__(self) -> None:
        self.scale = nf.ones((2,))
        self.parts = [nn.Linear(2, 2), (nn.Linear(2, 2), nn.relu)]
        self.heads = {"a": nn.Linear(2, 1), "b": nn.Linear(2, 1)}
        self.loose = (nf.zeros((1,)), nf.ones((1,)))
        self.again = self.parts[0]
        self.count = nf.asarray(3)
        self._hidden = nf.zeros((7,))

    def __call__(self, x: nf.Tensor) -> nf.Tensor:
        h = self.parts[1][0](self.parts[0](x * self.scale))
        return self.heads["a"](h) + self.heads["b"](h) * self.loose[1]


NEST = [
    "scale", "parts.0.weight", "parts.0.bias", "parts.1.0.weight", "parts.1.0.bias", "heads.a.weight", "heads.a.bias",
    "heads.b.weight", "heads.b.bias", "loose.0", "loose.1",
]  # fmt: skip


def test_names_are_paths() -> None:
    module = Nest()
    assert list(module.parameters()) == NEST
    assert list(module.state()) == [*NEST, "count"]
    assert list(module.modules()) == ["", "parts.0", "parts.1.0", "heads.a", "heads.b"]
    module.update({name: nf.full(t.shape, 7) for name, t in module.parameters().items()})
    assert all((t.numpy() == 7).all() for t in module.parameters().values())
    assert module.again is module.parts[0]
    assert module._hidden.shape == (7,)


def test_frozen_parameters_have_no_gradient() -> None:
    module = Nest()
    assert module.freeze("parts", "heads.a.bias") is module
    assert list(module.parameters()) == [
        "scale",
        "heads.a.weight",
        "heads.b.weight",
        "heads.b.bias",
        "loose.0",
        "loose.1",
    ]
    _, grads = nn.value_and_grad(module, lambda m, x: nf.sum(m(x)))(module, nf.ones((3, 2)))
    assert list(grads) == list(module.parameters())
    assert "weight[2, 2] frozen" in repr(module)
    assert len(module.unfreeze().parameters()) == len(NEST)
    with pytest.raises(GradError, match="no trainable parameter"):
        nn.value_and_grad(module.freeze(), lambda m, x: nf.sum(m(x)))(module, nf.ones((3, 2)))


def test_a_frozen_batch_norm_keeps_its_statistics() -> None:
    module = nn.BatchNorm(2)
    module(nf.asarray(array(8, 2)))
    moved = module.running_mean.numpy()
    assert (moved != 0).all()
    module.freeze()(nf.asarray(array(8, 2, seed=1)))
    np.testing.assert_array_equal(module.running_mean.numpy(), moved)


def test_value_and_grad_leaves_the_module_as_it_was() -> None:
    module = nn.Linear(2, 1)
    before = module.parameters()
    (value, aux), grads = nn.value_and_grad(module, lambda m, x: (nf.sum(m(x)), "kept"), has_aux=True)(
        module, nf.ones((3, 2))
    )
    assert aux == "kept"
    assert value.shape == ()
    assert all(module.parameters()[name] is t for name, t in before.items())
    np.testing.assert_array_equal(grads["bias"].numpy(), [3.0])


def test_modes_reach_every_module() -> None:
    module = nn.Sequential(nn.Dropout(0.5), nn.Residual(nn.BatchNorm(2)))
    assert all(part.training for part in module.modules().values())
    assert module.eval() is module
    assert not any(part.training for part in module.modules().values())
    assert module.train().state_key() != module.eval().state_key()


def test_a_copy_is_trained_on_its_own() -> None:
    module = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.5, generator=Generator(3)))
    other = module.copy()
    other.update({"layers.0.bias": [1.0, 2.0]})
    assert module[0].bias.tolist() == [0.0, 0.0]
    assert other[0].bias.tolist() == [1.0, 2.0]
    assert other[1].generator is not module[1].generator


def test_dropout_keeps_the_mean_and_follows_its_generator() -> None:
    x = nf.ones((100, 100))
    first, second = (nn.Dropout(0.3, generator=Generator(5)) for _ in range(2))
    y = first(x).numpy()
    assert set(np.unique(y)) == {np.float32(0), np.float32(1 / 0.7)}
    assert abs(y.mean() - 1) < 0.03
    np.testing.assert_array_equal(second(x).numpy(), y)
    assert (first(x).numpy() != y).any()
    assert list(first.state_tensors()) == ["generator.state"]
    assert first.state() == {}


def test_jit_sees_the_state_of_a_module() -> None:
    module = nn.Sequential(nn.BatchNorm(3), nn.Dropout(0.5, generator=Generator(1)))
    twin = nn.Sequential(nn.BatchNorm(3), nn.Dropout(0.5, generator=Generator(1)))
    from nearfield.jit import jit

    fast = jit(lambda x: module(x))
    for n in range(3):
        x = nf.asarray(array(4, 3, seed=n))
        np.testing.assert_allclose(fast(x).numpy(), twin(x).numpy(), rtol=1e-6)
    module.eval(), twin.eval()
    np.testing.assert_allclose(fast(x).numpy(), twin(x).numpy(), rtol=1e-6)
    np.testing.assert_allclose(module[0].running_variance.numpy(), twin[0].running_variance.numpy(), rtol=1e-6)


def test_summary_changes_nothing() -> None:
    module = nn.Sequential(nn.BatchNorm(3), nn.Dropout(0.5, generator=Generator(1)))
    before = module.state_tensors()
    table = str(module.summary((4, 3)))
    assert all(t is before[name] for name, t in module.state_tensors().items())
    assert module.training
    assert nn.BatchNorm.__call__.__name__ == "__call__"
    assert table.splitlines() == [
        "┌──────────────────────┬────────┬────────────┐",
        "│ layer                │ output │ parameters │",
        "├──────────────────────┼────────┼────────────┤",
        "│ Sequential           │ [4, 3] │          – │",
        "│ layers.0 (BatchNorm) │ [4, 3] │          6 │",
        "│ layers.1 (Dropout)   │ [4, 3] │          – │",
        "├──────────────────────┴────────┴────────────┤",
        "│ 6 parameters, 48 B                         │",
        "└────────────────────────────────────────────┘",
    ]


def test_repr_is_a_tree() -> None:
    module = nn.Sequential(nn.Linear(2, 3), nn.relu, nn.Residual(nn.Linear(3, 3, bias=False)))
    assert repr(module) == (
        "Sequential(\n  layers.0: Linear(weight[2, 3], bias[3])\n  layers.1: relu\n  layers.2: Residual(\n    body: "
        "Sequential(\n"
        "      layers.0: Linear(weight[3, 3])\n    )\n  )\n)"
    )


def test_a_file_of_other_names_or_sizes_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1)).save(path)
    with pytest.raises(
        FormatError,
        match=r"lacks 'weight', 'bias' and has 'layers.0.bias', 'layers.0.weight', 'layers.1.bias' and 1 more too many",
    ):
        nn.Linear(2, 3).load(path)
    nn.Sequential(nn.Linear(2, 3)).load(path, strict=False)
    with pytest.raises(ShapeError, match=r"'layers.1.bias' has shape \(1,\); accepted is \(2,\)"):
        nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 2)).load(path)
    with pytest.raises(FileNotFoundError, match=r"no file '.*b.safetensors'"):
        nn.Linear(2, 3).load(tmp_path / "b.safetensors")


def test_load_keeps_the_dtype_of_the_module(tmp_path: Path) -> None:
    half = to_dtype(nn.Linear(2, 3), "float16")
    half.save(tmp_path / "half.safetensors")
    module = nn.Linear(2, 3).load(tmp_path / "half.safetensors")
    assert module.weight.dtype.name == "float32"
    np.testing.assert_array_equal(module.weight.numpy(), half.weight.numpy().astype("float32"))


X, W = nf.ones((1, 4, 4, 3)), nf.ones((3, 3, 3, 2))

WRONG = {
    "Linear: axis 'n_in' is 4 in weight[4, 2] but 3 in x[5, 3]; they must be equal.": lambda: nn.Linear(4, 2)(
        nf.ones((5, 3))
    ),
    "Conv2d: x has shape (2, 3, 4), of rank 3; accepted is [n, h, w, ci]. Reshape x.": lambda: nn.Conv2d(1, 1, 3)(
        nf.ones((2, 3, 4))
    ),
    "conv2d: x[1, 4, 4, 3] has 3 channels but w[3, 3, 2, 5] takes 2 in each of 1 groups, and makes 5; accepted are x "
    "channels = groups × 2, "
    "and a multiple of groups.": lambda: nn.Conv2d(2, 5, 3)(nf.ones((1, 4, 4, 3))),
    "conv2d: the window spans 5 along axis 1 but x has 3, with padding 3; accepted is 5 and more.": lambda: nn.Conv2d(
        1, 1, 5
    )(nf.ones((1, 3, 9, 1))),
    "conv2d: padding is 'full'; accepted are 'same', 'valid', a number, or 2 numbers or "
    "(before, after) pairs.": lambda: nn.Conv2d(1, 1, 2, padding="full")(nf.ones((1, 3, 3, 1))),
    "conv2d: stride is 1.0; accepted are a number from 1, or 2 of them, one per axis of space.": lambda: (
        nn.conv2d(X, W, stride=1),  # what equals 1 is not taken for it, though 1 has been seen
        nn.conv2d(X, W, stride=1.0),  # type: ignore[arg-type]
    ),
    "conv2d: dilation is (1, 1.0); accepted are a number from 1, or 2 of them, one per axis of space.": lambda: (
        nn.conv2d(X, W, dilation=(1, 1)),
        nn.conv2d(X, W, dilation=(1, 1.0)),  # type: ignore[arg-type]
    ),
    "conv2d: padding is (1, (0, 0.5)); accepted are 'same', 'valid', a number, or 2 numbers or "
    "(before, after) pairs.": lambda: nn.conv2d(X, W, padding=(1, (0, 0.5))),  # type: ignore[arg-type]
    "max_pool: size is (2, 2, 2); accepted are a number from 1, or 2 of them, one per axis of space.": lambda: (
        nn.MaxPool((2, 2, 2))(nf.ones((1, 4, 4, 1)))
    ),
    "LayerNorm: axis 'd' is 4 in weight[4] but 3 in x[2, 3]; they must be equal.": lambda: nn.LayerNorm(4)(
        nf.ones((2, 3))
    ),
    "MultiHeadAttention: 3 heads do not divide 4 features; accepted are divisors.": lambda: nn.MultiHeadAttention(4, 3),
    "Dropout: rate is 1; accepted are numbers from 0 to below 1.": lambda: nn.Dropout(1),
    "Embedding: ids have dtype float32; accepted are integers. Convert with nf.astype(ids, 'int32').": lambda: (
        nn.Embedding(3, 2)(nf.ones((2,)))
    ),
    "Linear.update: 'weight' has shape (2, 2); accepted is (4, 2), as it is now.": lambda: nn.Linear(4, 2).update(
        {"weight": nf.ones((2, 2))}
    ),
    "GRU: axis 'd' is 4 in weight_x[4, 9] but 2 in x[1, 5, 2]; they must be equal.": lambda: nn.GRU(4, 3)(
        nf.ones((1, 5, 2))
    ),
}


@pytest.mark.parametrize("message", WRONG)
def test_wrong_calls_say_what_is_wrong(message: str) -> None:
    with pytest.raises((ShapeError, ValueError, DTypeError)) as error:
        WRONG[message]()
    assert str(error.value) == message


def test_unknown_names_get_a_hint() -> None:
    with pytest.raises(KeyError, match="Did you mean 'weight'"):
        nn.Linear(2, 2).update({"wieght": nf.ones((2, 2))})
    with pytest.raises(KeyError, match=r"there is no 'layer.0'.*Did you mean 'layers.0'"):
        nn.Sequential(nn.Linear(2, 2)).freeze("layer.0")


def test_a_module_leaves_nothing_behind() -> None:
    """No reference cycle holds parameters once the module is gone."""
    gc.collect()
    module = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm(3))
    nn.value_and_grad(module, lambda m, x: nf.sum(m(x)))(module, nf.ones((4, 3)))
    import weakref

    watched = weakref.ref(module[0].weight)
    gc.disable()
    try:
        del module
        assert watched() is None
    finally:
        gc.enable()
