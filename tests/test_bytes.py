"""Bytes in, bytes out on WebAssembly: depthwise windows, channels that are no multiple of four, rounding."""

from typing import Any

import numpy as np
import pytest

import nearfield as nf
from devices import need
from nearfield import nn
from nearfield.compiler.wasm_depthwise import compile_depthwise
from nearfield.tensor import Tensor, apply
from test_contraction import agree, graph_of, kernels_of, normal, octets, tilings_of


def biases(channels: int) -> Any:
    return np.random.default_rng(channels).integers(-5000, 5000, channels).astype("int32")


def scales(channels: int) -> Any:
    """Such that results fill the range of a byte, are far beyond it, or halves."""
    found = np.random.default_rng(channels + 1).uniform(1e-3, 5e-3, channels).astype("float32")
    found[:4] = [0.5, 300.0, 1e-30, -1e30]
    return found


def in_a_byte(total: Tensor, scale: Tensor, low: float = -127.0, dtype: str = "int8") -> Tensor:
    high = 127.0 if dtype == "int8" else 255.0
    return nf.astype(nf.round(nf.clip(nf.astype(total, "float32") * scale, low, high)), dtype)


def bytes_scaled(a: Tensor, b: Tensor, bias: Tensor, scale: Tensor) -> Tensor:
    return in_a_byte(nf.astype(a, "int32") @ nf.astype(b, "int32") + bias, scale, 0.0)


def convolved(x: Tensor, w: Tensor) -> Tensor:
    return nn.conv2d(nf.astype(x, "int32"), nf.astype(w, "int32"), stride=2, padding="same")


def filtered(stride: int, padding: Any = "same", low: float = 0.0, dtype: str = "int8") -> Any:
    """A depthwise convolution of bytes, with everything that may follow it."""

    def make(x: Tensor, w: Tensor, bias: Tensor, scale: Tensor) -> Tensor:
        wide = nf.astype(x, "int32"), nf.astype(w, "int32")
        return in_a_byte(nn.conv2d(*wide, stride=stride, padding=padding, groups=x.shape[-1]) + bias, scale, low, dtype)

    return make


def claimed(graph: Any) -> list[bool]:
    """Whether each kernel with a sum is a depthwise convolution of bytes."""
    sums = [kernel for kernel in kernels_of(graph) if "conv" in kernel.name]
    return [compile_depthwise(kernel, relaxed=True) is not None for kernel in sums]


WINDOWS = [  # image, window, stride, padding, whether the claim takes it
    ((1, 7, 9, 16), (3, 3), 1, 1, True),
    ((2, 6, 6, 40), (3, 3), 2, "same", True),
    ((1, 5, 5, 17), (3, 3), 1, "same", True),
    ((1, 9, 9, 16), (2, 2), 1, "valid", True),
    ((1, 9, 7, 33), (4, 5), 1, "same", True),
    ((2, 9, 7, 20), (1, 3), 1, "same", True),
    ((1, 9, 9, 16), (3, 3), 3, "valid", True),
    ((1, 9, 9, 16), (3, 3), 3, 2, False),
    ((1, 9, 9, 8), (3, 3), 1, 1, False),
    ((1, 4, 4, 16), (3, 3), 1, 3, False),
    ((1, 9, 9, 16), (5, 5), 1, 2, False),
]


@pytest.mark.parametrize("left", ["int8", "uint8"])
@pytest.mark.parametrize(("image", "window", "stride", "padding", "taken"), WINDOWS)
def test_depthwise(left: str, image: Any, window: Any, stride: int, padding: Any, taken: bool) -> None:
    """Exact for all bytes; rows and columns outside the image, the last channels, and sums at the limits."""
    channels = image[-1]
    x, w = octets(left, *image), octets("int8", *window, 1, channels)
    x[0, :3, :3, 1], w[..., 1] = np.iinfo(left).min, -128
    arrays = x, w, biases(channels), scales(channels)
    agree(filtered(stride, padding), *arrays)
    agree(filtered(stride, padding, -127.0), *arrays)
    assert claimed(graph_of(filtered(stride, padding), arrays)) == [taken]


def test_depthwise_sums_as_they_are() -> None:
    """Stored in 32 bits, and as unsigned bytes."""
    x, w = octets("int8", 1, 6, 6, 24), octets("int8", 3, 3, 1, 24)

    def make(x: Tensor, w: Tensor) -> Tensor:
        return nn.conv2d(nf.astype(x, "int32"), nf.astype(w, "int32"), padding=1, groups=24)

    agree(make, x, w)
    assert claimed(graph_of(make, (x, w))) == [True]
    agree(filtered(1, dtype="uint8"), x, w, biases(24), scales(24))


@pytest.mark.parametrize("columns", [12, 16, 24])
@pytest.mark.parametrize("low", [0.0, -127.0])
def test_products_become_bytes(columns: int, low: float) -> None:
    """Rounded to even halves, saturated, also where the scale is infinite or no number."""
    a, b = octets("int8", 40, 64), octets("int8", 64, columns)
    scale = scales(columns)
    scale[4:8] = [np.inf, -np.inf, np.nan, 0.0]

    def make(a: Tensor, b: Tensor, bias: Tensor, scale: Tensor) -> Tensor:
        return in_a_byte(nf.astype(a, "int32") @ nf.astype(b, "int32") + bias, scale, low)

    with np.errstate(invalid="ignore"):
        agree(make, a, b, biases(columns), scale)


def test_sums_begin_with_what_is_of_a_column() -> None:
    """And with nothing else: here each element has a summand of its own."""
    a, b = octets("int8", 40, 64), octets("int8", 64, 24)
    more = np.random.default_rng(5).integers(-1000, 1000, (40, 24)).astype("int32")
    agree(bytes_scaled, a, b, more, scales(24))
    agree(bytes_scaled, a, b, more[:, :1], scales(24))


@pytest.mark.parametrize("dtype", ["int8", "uint8"])
def test_numbers_become_bytes(dtype: str) -> None:
    """Alone, four at a time or as they come."""
    x = np.float32([-1e30, -300, -127.5, -2.5, -0.5, 0.5, 1.5, 126.5, 127.5, 254.5, 255.5, 3e9, np.inf, -np.inf, 0.25])
    agree(lambda x: in_a_byte(x, nf.asarray(1.0), 0.0, dtype), x)
    agree(lambda x: nf.astype(nf.clip(x, 0.0, 100.5), dtype), x)


@pytest.mark.parametrize("more", [128.0, 3.0])
def test_numbers_become_bytes_with_an_offset(more: float) -> None:
    """What is added after rounding does not turn halves to the other neighbour."""
    x = np.float32([-200, -127.5, -3.5, -2.5, -0.5, 0.5, 1.5, 2.5, 3.5, 126.5, 127.5, 300, np.inf, -np.inf, 0.25, 7])
    agree(lambda x: nf.astype(nf.round(nf.clip(x, -3.0, 100.0)) + more, "uint8"), x)
    agree(lambda x: nf.astype(nf.round(nf.clip(x, -100.0, 20.0)) + more, "int8"), x)


@pytest.mark.parametrize("channels", [3, 6])
def test_channels_that_are_no_multiple_of_four(channels: int) -> None:
    arrays = octets("int8", 1, 22, 22, channels), octets("int8", 3, 3, channels, 16)
    agree(convolved, *arrays)
    assert [t.kind for t in tilings_of(graph_of(convolved, arrays))] == ["dot"]


def test_bytes_between_layers_stay_bytes() -> None:
    """What is widened for the next product is stored before that."""
    a, b = octets("int8", 24, 64), octets("int8", 64, 64)

    def make(a: Tensor, b: Tensor, bias: Tensor, scale: Tensor) -> Tensor:
        first = bytes_scaled(a, b, bias, scale)
        return bytes_scaled(first, b, bias, scale) + first

    graph = graph_of(make, (a, b, biases(64), scales(64)))
    assert [t.kind for t in tilings_of(graph)] == ["dot", "dot"]
    agree(make, a, b, biases(64), scales(64))


@pytest.mark.parametrize("padding", [0, 1])
def test_depthwise_of_what_is_mirrored_or_has_more_channels(padding: int) -> None:
    """Neither is the claim's: columns that lie backwards, and channels that are in the image at some places only."""
    x, w = octets("int8", 1, 9, 12, 16), octets("int8", 3, 3, 1, 32)

    def mirrored(x: Tensor, w: Tensor) -> Tensor:
        wide = nf.astype(nf.flip(x, axis=2), "int32"), nf.astype(w[..., :16], "int32")
        return nn.conv2d(*wide, padding=padding, groups=16)

    def widened(x: Tensor, w: Tensor) -> Tensor:
        more = nf.pad(x, ((0, 0), (0, 0), (0, 0), (4, 12)))
        return nn.conv2d(nf.astype(more, "int32"), nf.astype(w, "int32"), padding=padding, groups=32)

    agree(mirrored, x, w)
    agree(widened, x, w)


@pytest.mark.parametrize("part", [slice(None, 3), slice(1, None)])
def test_windows_of_three_rows_beside_something_else(part: slice) -> None:
    """A window that is cut out of a larger one: what lies beside its rows in memory counts nothing."""

    def make(x: Tensor, w: Tensor) -> Tensor:
        windows = apply("windows", nf.permute_dims(x, (2, 0, 1)), size=(3, 3), stride=(1, 1), dilation=(1, 1))
        return nf.einsum("chwuv,vcu->hwc", nf.astype(windows, "int32"), nf.astype(w[:, :, part], "int32"))

    agree(make, octets("int8", 10, 12, 16), octets("int8", 3, 16, 4))


@pytest.mark.parametrize(
    ("low", "high", "dtype"), [(0.0, 255.0, "uint8"), (0.0, 127.0, "int8"), (-127.0, 127.0, "int8")]
)
def test_one_row_becomes_bytes(low: float, high: float, dtype: str) -> None:
    """A product of one row with weights that stay, in several streams: bytes are bounded there, too."""
    x, w = 40 * normal(1, 128), normal(128, 512)
    want = np.clip(x @ w, low, high)
    with nf.use("wasm"):
        weights = nf.asarray(w)
        product = nf.jit(lambda x: nf.astype(nf.round(nf.clip(x @ weights, low, high)), dtype))
        got = product(nf.asarray(x)).numpy()
    assert got.dtype == dtype
    np.testing.assert_allclose(got, want, atol=0.501)


@pytest.mark.parametrize(
    ("left", "right", "spec"),
    [
        ((30, 64), (64, 300), "ab,bc->ac"),
        ((27, 132), (257, 132), "ab,cb->ac"),
        ((2, 25, 36), (2, 36, 256), "nab,nbc->nac"),
        ((25, 3, 8), (8, 3, 256), "axy,yxc->ac"),
    ],
)
def test_int8_by_weights_is_multiplied_without_a_sign(left: Any, right: Any, spec: str) -> None:
    """128 more in each byte, 128 times the sums of weights less: exact, the extremes too, and what wraps in 32 bits."""
    a, b = octets("int8", *left), octets("int8", *right)
    offset = np.full(spec_shape(spec, left, right), 2**31 - 5, "int32")

    def make(a: Tensor, b: Tensor, offset: Tensor) -> Tensor:
        return nf.einsum(spec, nf.astype(a, "int32"), nf.astype(b, "int32")) + offset

    want = np.einsum(spec, a.astype("int32"), b.astype("int32")) + offset
    need("wasm")
    with nf.use("wasm"):
        fixed = nf.asarray(b)
        step = nf.jit(lambda a, offset: make(a, fixed, offset))
        for _ in range(3):
            np.testing.assert_array_equal(step(nf.asarray(a), nf.asarray(offset)).numpy(), want)
    (found,) = tilings_of(graph_of(make, (a, b, offset)), frozenset([1]))
    assert (found.kind, found.a.dtype.name) == ("dot", "uint8")


def spec_shape(spec: str, left: Any, right: Any) -> tuple[int, ...]:
    """The shape of a product."""
    factors, _, out = spec.partition("->")
    sizes = dict(zip(factors.replace(",", ""), (*left, *right), strict=True))
    return tuple(sizes[c] for c in out)
