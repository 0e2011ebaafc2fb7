"""Quantised weights: what they are off by, on every device; products, gradients, files; and that they stay small."""

import re
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nearfield as nf
from nearfield import nn
from nearfield.compiler.build import Target, build
from nearfield.errors import ArgumentError, DTypeError, ShapeError
from nearfield.program.program import Program
from nearfield.tensor import Node, Tensor
from nearfield.trace import trace

SETTINGS = list(product((8, 4), (32, 64, 128)))
setting = pytest.mark.parametrize(("bits", "group"), SETTINGS, ids=lambda n: str(n))


def linear(n_in: int, n_out: int, **options: Any) -> nn.Linear:
    """With numbers of its own: the package's generator would keep its state in the device's memory."""
    return nn.Linear(n_in, n_out, generator=nf.random.Generator(n_in + n_out), **options)


def embedding(n: int, d: int) -> nn.Embedding:
    return nn.Embedding(n, d, generator=nf.random.Generator(1))


def drawn(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def numbers_of(packed: np.ndarray, bits: int) -> np.ndarray:
    """What the bytes stand for, by the layout that `quantize` promises."""
    if bits == 8:
        return packed.astype("int32")
    quads = packed.astype("int32").reshape(*packed.shape[:-1], -1, 1, 4)
    low, high = ((quads & 15) ^ 8) - 8, quads >> 4
    return np.concatenate([low, high], axis=-2).reshape(*packed.shape[:-1], -1)


def meant(packed: Tensor, scale: Tensor, bits: int) -> np.ndarray:
    """The reals, in NumPy."""
    whole, steps = numbers_of(packed.numpy(), bits), scale.numpy().astype("float32")
    return (whole * np.repeat(steps, whole.shape[-1] // steps.shape[-1], axis=-1)).astype("float32")


@setting
def test_numbers_are_the_nearest(bits: int, group: int, device: str) -> None:
    w = drawn(6, 256)
    packed, scale = nf.quantize(w, bits=bits, group_size=group)
    assert (packed.dtype.name, scale.dtype.name) == ("int8", "float16")
    assert (packed.shape, scale.shape) == ((6, 256 * bits // 8), (6, 256 // group))
    steps = np.repeat(scale.numpy().astype("float32"), group, axis=-1)
    whole = numbers_of(packed.numpy(), bits)
    most = 2 ** (bits - 1) - 1
    assert abs(whole).max() == most
    near = w / steps
    assert (abs(whole - near) <= 0.5 + 2e-3 * most).all()  # the largest may have been limited, by a rounded scale
    np.testing.assert_allclose(nf.dequantize(packed, scale, bits=bits).numpy(), meant(packed, scale, bits), rtol=1e-6)


def test_groups_of_zeros_and_of_large_numbers(device: str) -> None:
    w = np.zeros((2, 64), "float32")
    w[1, 32:] = 1e9
    packed, scale = nf.quantize(w, bits=4)
    got = nf.dequantize(packed, scale, bits=4).numpy()
    assert np.isfinite(got).all()
    assert (got[0] == 0).all()
    assert (got[1] == np.repeat([0, 7 * 65504], 32)).all()


@setting
@pytest.mark.parametrize(("rows", "columns"), [(1, 64), (3, 37), (20, 40)])
def test_products(bits: int, group: int, rows: int, columns: int, device: str) -> None:
    x, w = drawn(rows, 256, seed=1), drawn(columns, 256)
    packed, scale = nf.quantize(w, bits=bits, group_size=group)
    want = x @ meant(packed, scale, bits).T
    got = nf.quantized_matmul(x, packed, scale, bits=bits)
    np.testing.assert_allclose(got.numpy(), want, atol=1e-4)
    rounded = nf.quantized_matmul(x, packed, scale, bits=bits, activations="int8").numpy()
    steps = abs(x.reshape(rows, -1, group)).max(axis=-1, keepdims=True) / 127
    near = (np.rint(x.reshape(rows, -1, group) / steps) * steps).reshape(x.shape)
    # a ratio within rounding errors of a half may become either neighbour: one step of one number
    np.testing.assert_allclose(rounded, near @ meant(packed, scale, bits).T, atol=2e-4 + 2 * steps.max() * abs(w).max())
    assert abs(rounded - want).max() < 0.02 * abs(want).max()


@pytest.mark.parametrize(
    ("rows", "columns", "length"), [(1, 65, 544), (3, 97, 288), (7, 130, 320), (1, 66, 8192), (2, 70, 4352)]
)
def test_teams_share_out_sums(rows: int, columns: int, length: int, device: str) -> None:
    """Sizes that divide evenly by nothing: pieces that are not there, a column too many, loops."""
    x, w = drawn(rows, length, seed=1), drawn(columns, length)
    for bits in (4, 8):
        packed, scale = nf.quantize(w, bits=bits)
        want = x @ meant(packed, scale, bits).T
        bias = drawn(columns, seed=2)
        got = nf.tanh(nf.quantized_matmul(x, packed, scale, bits=bits) * 0.01 + bias)
        np.testing.assert_allclose(got.numpy(), np.tanh(want * 0.01 + bias), atol=1e-4)
        rounded = nf.quantized_matmul(x, packed, scale, bits=bits, activations="int8").numpy()
        assert abs(rounded - want).max() < 0.02 * abs(want).max()


def test_rows_of_a_batch_and_float16(device: str) -> None:
    x, w = drawn(2, 3, 64, seed=1), drawn(5, 64)
    packed, scale = nf.quantize(w, bits=8)
    want = x @ meant(packed, scale, 8).T
    got = nf.quantized_matmul(nf.asarray(x, dtype="float16"), packed, scale, bits=8)
    assert got.dtype.name == "float16"
    np.testing.assert_allclose(got.numpy(), want, atol=3e-2)
    np.testing.assert_allclose(nf.quantized_matmul(x[0, 0], packed, scale, bits=8).numpy(), want[0, 0], atol=1e-5)


def test_gradient_goes_through_frozen_weights(device: str) -> None:
    layer = nn.QuantizedLinear(linear(64, 32), bits=4)
    thin = nn.Sequential(linear(64, 4, bias=False), linear(4, 32, bias=False))  # a low-rank adaptation
    model = nn.Sequential(nn.Residual(linear(64, 64)), Both(layer, thin))
    x = nf.asarray(drawn(5, 64))
    _, grads = nn.value_and_grad(model, lambda x: nf.sum(nf.square(model(x))))(x)
    assert not any("weight" in name and "1.first" in name for name in grads)  # whole numbers have none
    w = meant(layer.weight, layer.scale, 4)
    plain = linear(64, 32)
    plain.weight, plain.bias = nf.asarray(w.T.copy()), layer.bias
    model.layers[1].first = plain
    _, want = nn.value_and_grad(model, lambda x: nf.sum(nf.square(model(x))))(x)
    assert set(grads) < set(want)
    for name, grad in grads.items():
        np.testing.assert_allclose(grad.numpy(), want[name].numpy(), rtol=1e-3, atol=1e-3, err_msg=name)


class Both(nn.Module):
    """first(x) + second(x)"""

    def __init__(self, first: nn.Module, second: nn.Module) -> None:
        self.first, self.second = first, second

    def __call__(self, x: Tensor) -> Any:
        return self.first(x) + self.second(x)  # type: ignore[operator]


class Reader(nn.Module):
    """Words in, scores of words out, by one table; layers in a list, a tuple and a dict."""

    def __init__(self) -> None:
        self.table = embedding(20, 64)
        self.layers = [linear(64, 96), nf.tanh, linear(96, 64)]
        self.more = (linear(64, 64), {"again": linear(64, 64, bias=False)})
        self.shared = self.layers[0]

    def __call__(self, ids: Tensor) -> Tensor:
        x = self.table(ids)
        for layer in (*self.layers, self.more[0], self.more[1]["again"]):
            x = layer(x)
        return self.table.scores(x)


@pytest.mark.parametrize("activations", [None, "int8"])
def test_a_model_quantised_saved_loaded_exported(activations: str | None, tmp_path: Path, device: str) -> None:
    model, ids = Reader(), nf.asarray([3, 19, 0], dtype="int32")
    before, size = model(ids).numpy(), sum(t.nbytes for t in model.state().values())
    assert nn.quantize(model, bits=8, activations=activations) is model
    assert model.shared is model.layers[0]
    kinds = [type(part).__name__ for part in model.modules().values()]
    assert "Linear" not in kinds
    assert "Embedding" not in kinds
    after = model(ids).numpy()
    assert abs(after - before).max() < 0.02 * abs(before).max()
    assert sum(t.nbytes for t in model.state().values()) < size / 3
    model.save(tmp_path / "model.safetensors")
    again = nn.quantize(Reader(), bits=8, activations=activations).load(tmp_path / "model.safetensors")
    np.testing.assert_array_equal(again(ids).numpy(), after)
    assert "bits=8" in repr(model)
    assert "QuantizedLinear" in str(model.summary(ids))
    if device == "reference":
        return  # which exported models do not run on
    nf.export(model, tmp_path / "site", inputs={"ids": ids})
    got = nf.load(tmp_path / "site").run({"ids": ids.numpy()})["output"]
    np.testing.assert_allclose(got, after, atol=1e-4)


def test_only_what_is_named() -> None:
    model = nn.quantize(Reader(), "layers", "more.1")
    kinds = {name: type(part).__name__ for name, part in model.modules().items()}
    assert kinds["layers.0"] == kinds["layers.2"] == kinds["more.1.again"] == "QuantizedLinear"
    assert (kinds["table"], kinds["more.0"]) == ("Embedding", "Linear")
    alone = nn.quantize(linear(64, 2))
    assert isinstance(alone, nn.QuantizedLinear)


def test_refused() -> None:
    w = nf.asarray(drawn(2, 64))
    packed, scale = nf.quantize(w)
    model = nn.Sequential(linear(64, 40), linear(40, 2))
    cases = [
        (lambda: nf.quantize(w, bits=3), ArgumentError, "quantize: bits is 3; accepted are 4 and 8"),
        (lambda: nf.quantize(w, group_size=16), ArgumentError, "quantize: group_size is 16; accepted are 32, 64, 128"),
        (lambda: nf.quantize(w, group_size=128), ShapeError, "w has shape (2, 64); accepted is a last axis"),
        (lambda: nf.quantize(nf.asarray([1])), DTypeError, "w has dtype int32; accepted are reals"),
        (lambda: nf.dequantize(*nf.quantize(w, bits=4), bits=8), ShapeError, "Are bits as they were?"),
        (lambda: nf.dequantize(w, scale), DTypeError, "numbers are float32"),
        (lambda: nf.quantized_matmul(w[:, :32], packed, scale), ShapeError, "accepted are reals [..., 64]"),
        (lambda: nf.quantized_matmul(w, packed[0], scale[0]), ShapeError, "accepted are two axes"),
        (lambda: nf.quantized_matmul(w, packed, scale, activations="int4"), ArgumentError, "accepted are None and"),
        (lambda: nn.quantize(model), ArgumentError, "quantize: 'layers.1' has rows of 40 numbers; accepted are"),
        (lambda: nn.quantize(model, "head"), ArgumentError, "'head' names no Linear or Embedding"),
        (lambda: nn.quantize(nn.Sequential(nf.tanh)), ArgumentError, "Sequential has no Linear or Embedding"),
        (lambda: nn.quantize(model, "layers.0", activations="int4"), ArgumentError, "accepted are None and 'int8'"),
        (lambda: nn.QuantizedLinear(linear(64, 2))(nf.ones((1, 32))), ShapeError, "QuantizedLinear"),
        (lambda: nn.quantize(embedding(3, 32))(nf.ones(3)), DTypeError, "ids have dtype float32"),
    ]  # fmt: skip
    for call, kind, text in cases:
        with pytest.raises(kind, match=re.escape(text)):
            call()  # type: ignore[no-untyped-call]
    assert type(model.layers[0]).__name__ == "Linear"  # nothing is exchanged by halves


# In memory they stay as small as they are.


def stand_in(*shape: int, dtype: str = "float32") -> Tensor:
    return Tensor(Node(None, (), {}, shape, nf.asarray(0.0, dtype=dtype).dtype))


def compiled(rows: int, bits: int, activations: str | None, target: str, *, held: bool, gradient: bool) -> Program:
    """A product of quantised weights [512, 1024], or its gradient."""
    x, g = stand_in(rows, 1024), stand_in(rows, 512)
    packed, scale = stand_in(512, 1024 * bits // 8, dtype="int8"), stand_in(512, 32, dtype="float16")

    def product(x: Tensor) -> Tensor:
        return nf.quantized_matmul(x, packed, scale, bits=bits, activations=activations)

    y = nf.vjp(product, x)[1](g) if gradient else product(x)
    y = y[0] if isinstance(y, (tuple, list)) else y
    inputs = [packed, scale, x, g]
    graph, _ = trace([y.node], [t.node for t in inputs])
    return build(graph, Target(target), weights={0: "packed", 1: "scale"} if held else {}).program


@pytest.mark.parametrize("target", ["webgpu", "wasm"])
@pytest.mark.parametrize("held", [True, False], ids=["held", "given"])
@pytest.mark.parametrize(("activations", "gradient"), [(None, False), ("int8", False), (None, True)])
def test_no_wide_copy_stays(target: str, held: bool, activations: str | None, gradient: bool) -> None:
    for bits, rows in product((8, 4), (1, 8, 64)):
        program = compiled(rows, bits, activations, target, held=held, gradient=gradient)
        prepared = sum(b.nbytes for b in program.buffers if b.kind == "prepared")
        assert prepared <= 512 * 1024 * bits // 8 + 2 * 512 * 32, "bytes and scales in another order, but not wider"
        wide = 4 * 512 * 1024
        once = wide if target == "wasm" and rows > 5 else 0  # a wide copy that lasts for one product
        assert program.arena < once + wide, f"{rows} rows of {bits} bits"


def test_few_rows_are_one_kernel_of_sums_of_four_products() -> None:
    for bits, rows in product((8, 4), (1, 8)):
        program = compiled(rows, bits, "int8", "webgpu", held=True, gradient=False)
        *_, last = program.kernels
        assert last.code.count("dot4I8Packed") == 8 * 2 * rows  # of a group of 32, for two columns
        assert not [b for b in program.buffers if b.dtype == "int32"]  # sums of groups are nowhere stored


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize(("rows", "columns", "length"), [(2, 64, 256), (5, 67, 264), (7, 65, 2000), (3, 80, 258)])
def test_few_rows_of_reals(dtype: str, rows: int, columns: int, length: int, device: str) -> None:
    x, w = drawn(2, rows, length, seed=1), drawn(2, columns, length).astype(dtype)
    want = np.einsum("bmk,bnk->bmn", x, w.astype("float32"))
    got = nf.einsum("bmk,bnk->bmn", x, nf.astype(nf.asarray(w), "float32"))
    np.testing.assert_allclose(got.numpy(), want, atol=2e-3)
    half = nf.einsum("bmk,bnk->bmn", nf.asarray(x, dtype="float16"), nf.asarray(w, dtype="float16"))
    np.testing.assert_allclose(half.numpy(), want, rtol=2e-2, atol=0.2)


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize(
    ("rows", "n_in", "n_out", "group"), [(1, 512, 256, 32), (3, 256, 301, 64), (5, 1024, 77, 128), (9, 1024, 1030, 32)]
)
def test_exported_weights_in_panels(
    bits: int, rows: int, n_in: int, n_out: int, group: int, tmp_path: Path, device: str
) -> None:
    """Columns that fill no panel, rows that fill no tile, weights above the size that is widened as a whole."""
    if device == "reference":
        return  # which exported models do not run on
    layer = nn.QuantizedLinear(linear(n_in, n_out), bits=bits, group_size=group)
    x = drawn(rows, n_in)
    nf.export(layer, tmp_path / "site", inputs={"x": nf.asarray(x)})
    got = nf.load(tmp_path / "site").run({"x": x})["output"]
    np.testing.assert_allclose(got, x @ meant(layer.weight, layer.scale, bits).T, atol=1e-4)


def test_bytes_in_panels_are_what_is_prepared() -> None:
    for bits in (8, 4):
        program = compiled(1, bits, None, "wasm", held=True, gradient=False)
        prepared = {b.dtype: b.shape for b in program.buffers if b.kind == "prepared"}
        assert prepared == {"int8": (64, 1024 * bits // 8, 8), "float16": (64, 32, 8)}


@pytest.mark.parametrize("scale", [(), (1024,), (1, 1)])
def test_scales_of_fewer_axes(scale: tuple[int, ...]) -> None:
    """One for all, or one for each column: not what `quantize` makes, and right all the same."""
    w, x = drawn(1024, 64).astype("int8"), drawn(1, 64)
    by = np.full(scale, 0.01, "float32")
    with nf.use("wasm"):
        weight, steps = nf.asarray(w), nf.asarray(by)
        column = nf.reshape(steps, (-1, 1)) if scale == (1024,) else steps
        product = nf.jit(lambda x: nf.einsum("ak,nk->an", x, nf.astype(weight, "float32") * column))
        got = product(nf.asarray(x)).numpy()
    np.testing.assert_allclose(got, x @ (w * np.float32(0.01)).T, atol=1e-4)


@pytest.mark.parametrize(("length", "groups"), [(64, 8), (64, 4), (96, 8), (16, 2)])
@pytest.mark.parametrize("is_turned", [False, True])
def test_groups_that_quantize_does_not_make(length: int, groups: int, is_turned: bool) -> None:
    """Short ones, and scales that come around again after each few numbers."""
    w, x = np.round(drawn(4096, length) * 30).astype("int8"), drawn(3, length)
    scale = (drawn(4096, groups) * 0.01).astype("float16")
    spread = np.tile(scale, (1, length // groups)) if is_turned else np.repeat(scale, length // groups, axis=1)
    want = x @ (w * spread.astype("float32")).T
    with nf.use("wasm"):
        weight, steps = nf.asarray(w), nf.astype(nf.asarray(scale), "float32")
        parts = (4096, length // groups, groups) if is_turned else (4096, groups, length // groups)
        wide = nf.reshape(nf.astype(weight, "float32"), parts) * nf.expand_dims(steps, axis=1 if is_turned else -1)
        product = nf.jit(lambda x: nf.einsum("ak,nk->an", x, nf.reshape(wide, w.shape)))
        got = product(nf.asarray(x)).numpy()
    np.testing.assert_allclose(got, want, atol=1e-3)


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("largest", [1e-7, 1e-6, 1e-5, 1e-4, 7e-3])
def test_small_weights_are_off_by_half_a_scale_at_most(bits: int, largest: float) -> None:
    w = largest * drawn(4, 64) / np.abs(drawn(4, 64)).max(axis=1, keepdims=True)
    numbers, scale = nf.quantize(w.astype("float32"), bits=bits)
    off = np.abs(nf.dequantize(numbers, scale, bits=bits).numpy() - w)
    assert (off <= 0.501 * np.repeat(scale.numpy().astype("float32"), 32, axis=1)).all()


def test_quantised_layers_stay_frozen() -> None:
    model = nn.Sequential(linear(64, 64), linear(64, 32))
    model.freeze()
    nn.quantize(model)
    assert not model.parameters()


def test_nothing_and_one_scale() -> None:
    numbers, scale = nf.quantize(np.zeros((3, 0), "float32"))
    assert nf.dequantize(numbers, scale).shape == (3, 0)
    with pytest.raises(ShapeError, match="dequantize: numbers have shape"):
        nf.dequantize(numbers, 1.0)
    with pytest.raises(ArgumentError, match="a name of a layer"):
        nn.quantize(nn.Sequential(linear(64, 64)), 4)  # type: ignore[arg-type]


def test_a_module_that_knows_its_parent() -> None:
    parent = nn.Sequential(linear(64, 64), nn.Sequential(linear(64, 32)))
    parent.layers[1].parent = parent  # type: ignore[union-attr]
    nn.quantize(parent)
    assert all(type(part) is not nn.Linear for part in parent.modules().values())
