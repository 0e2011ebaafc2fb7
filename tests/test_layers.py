"""Layers, activations and losses against their formulas, written in NumPy loop by loop."""

from collections.abc import Callable, Iterator
from math import erf
from typing import Any

import numpy as np
import pytest

import nearfield as nf
from learning import DEVICES, array, check_gradient, on, tensors
from nearfield import nn
from nearfield.functional.conv import conv
from nearfield.random import Generator


@pytest.fixture(params=DEVICES, autouse=True)
def device(request: pytest.FixtureRequest) -> Iterator[str]:
    with on(request.param):
        yield request.param


def close(got: nf.Tensor, want: np.ndarray, rtol: float = 1e-5, atol: float = 1e-6) -> None:
    assert got.shape == np.shape(want)
    np.testing.assert_allclose(got.numpy(), want, rtol=rtol, atol=atol)


def naive_conv(x: np.ndarray, w: np.ndarray, stride: int, pads: Any, dilation: int, groups: int) -> np.ndarray:
    """One number after the other."""
    x = np.pad(x, ((0, 0), *pads, (0, 0)))
    kh, kw, cg, co = w.shape
    ho, wo = ((n - (m - 1) * dilation - 1) // stride + 1 for n, m in zip(x.shape[1:3], (kh, kw), strict=True))
    y = np.zeros((x.shape[0], ho, wo, co))
    for n, i, j, o in np.ndindex(*y.shape):
        first = o // (co // groups) * cg
        for a, b, c in np.ndindex(kh, kw, cg):
            y[n, i, j, o] += x[n, i * stride + a * dilation, j * stride + b * dilation, first + c] * w[a, b, c, o]
    return y


@pytest.mark.parametrize(
    ("stride", "padding", "pads", "dilation", "groups"),
    [
        (1, "valid", ((0, 0), (0, 0)), 1, 1),
        (2, 1, ((1, 1), (1, 1)), 1, 1),
        (1, "same", ((1, 1), (1, 1)), 1, 2),
        (2, "same", ((1, 1), (0, 1)), 1, 1),
        (1, ((2, 0), 1), ((2, 0), (1, 1)), 2, 1),
        (1, "valid", ((0, 0), (0, 0)), 1, 4),
    ],
)
def test_conv2d(stride: int, padding: Any, pads: Any, dilation: int, groups: int) -> None:
    x, w = array(2, 5, 6, 4), array(3, 3, 4 // groups, 4)
    got = nn.conv2d(*tensors([x, w]), stride=stride, padding=padding, dilation=dilation, groups=groups)
    close(got, naive_conv(x, w, stride, pads, dilation, groups), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("stride", "padding", "output_padding", "size"),
    [(1, 0, 0, 3), (2, 0, 0, 3), (2, 1, 1, 3), (3, "same", 0, 2), (2, "same", 0, 3)],
)
def test_conv_transpose2d(stride: int, padding: Any, output_padding: int, size: int) -> None:
    x, w = array(1, 3, 4, 2), array(size, size, 2, 3)
    full = np.zeros((1, (3 - 1) * stride + size + stride, (4 - 1) * stride + size + stride, 3))
    for i, j in np.ndindex(3, 4):
        full[:, i * stride : i * stride + size, j * stride : j * stride + size] += np.einsum(
            "nc,abco->nabo", x[:, i, j], w
        )
    low = max(size - stride, 0) // 2 if padding == "same" else padding
    high, wide = (
        (n * stride if padding == "same" else (n - 1) * stride + size - 2 * padding + output_padding) for n in (3, 4)
    )
    got = nn.conv_transpose2d(*tensors([x, w]), stride=stride, padding=padding, output_padding=output_padding)
    close(got, full[:, low : low + high, low : low + wide], rtol=1e-4, atol=1e-5)


def test_conv_of_three_axes_of_space() -> None:
    x, w = array(1, 3, 4, 5, 2), array(2, 2, 2, 2, 3)
    want = np.zeros((1, 2, 3, 4, 3))
    for a, b, c in np.ndindex(2, 2, 2):
        want += x[:, a : a + 2, b : b + 3, c : c + 4] @ w[a, b, c]
    close(conv(*tensors([x, w])), want, rtol=1e-4, atol=1e-5)


def test_pooling() -> None:
    x = array(2, 4, 6, 3)
    blocks = x.reshape(2, 2, 2, 3, 2, 3).transpose(0, 1, 3, 5, 2, 4).reshape(2, 2, 3, 3, 4)
    t = nf.asarray(x)
    close(nn.max_pool(t, 2), blocks.max(-1))
    close(nn.avg_pool(t, 2), blocks.mean(-1))
    close(nn.global_avg_pool(t), x.mean((1, 2)))
    close(nn.global_max_pool(t, keepdims=True), x.max((1, 2), keepdims=True))
    edge = nn.avg_pool(nf.ones((1, 3, 3, 1)), 2, stride=2, padding="same").numpy()
    np.testing.assert_allclose(edge, 1.0)
    counted = nn.avg_pool(nf.ones((1, 3, 3, 1)), 2, stride=2, padding="same", count_padding=True).numpy()
    np.testing.assert_allclose(counted[0, :, :, 0], [[1, 0.5], [0.5, 0.25]])
    lowest = nn.max_pool(nf.full((1, 3, 3, 1), -5.0), 2, stride=2, padding="same").numpy()
    np.testing.assert_allclose(lowest, -5.0)


def test_normalisation() -> None:
    x, w, b = array(2, 3, 4, 6), array(6, seed=1), array(6, seed=2)
    t, tw, tb = tensors([x, w, b])

    def standard(a: np.ndarray, axes: Any, eps: float = 1e-5) -> np.ndarray:
        return (a - a.mean(axes, keepdims=True)) / np.sqrt(a.var(axes, keepdims=True) + eps)

    close(nn.layer_norm(t, tw, tb), standard(x, -1) * w + b, atol=1e-5)
    close(nn.rms_norm(t, tw), x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-6) * w, atol=1e-5)
    grouped = standard(x.reshape(2, 3, 4, 2, 3), (1, 2, 4)).reshape(x.shape)
    close(nn.group_norm(t, 2, tw, tb), grouped * w + b, atol=1e-5)
    close(nn.instance_norm(t), standard(x, (1, 2)), atol=1e-5)
    close(nn.batch_norm(t, tb, nf.abs(tw), tw), (x - b) / np.sqrt(np.abs(w) + 1e-5) * w, rtol=1e-4, atol=1e-5)
    squares = np.pad(x * x, ((0, 0),) * 3 + ((1, 1),))
    near = squares[..., :-2] + squares[..., 1:-1] + squares[..., 2:]
    close(nn.local_response_norm(t, 3, alpha=0.3), x / (1 + 0.1 * near) ** 0.75, rtol=1e-4)


def test_batch_norm_learns_statistics() -> None:
    x = array(4, 3, 2) * 3 + 1
    layer = nn.BatchNorm(2, momentum=0.25)
    close(layer(nf.asarray(x)), (x - x.mean((0, 1))) / np.sqrt(x.var((0, 1)) + 1e-5), atol=1e-5)
    close(layer.running_mean, 0.25 * x.mean((0, 1)))
    close(layer.running_variance, 0.75 + 0.25 * x.var((0, 1), ddof=1))
    y = layer.eval()(nf.asarray(x))
    close(y, (x - 0.25 * x.mean((0, 1))) / np.sqrt(0.75 + 0.25 * x.var((0, 1), ddof=1) + 1e-5), atol=1e-5)


def test_float16_is_normalised_in_float32() -> None:
    x = (array(4, 64) * 1000).astype("float16")
    y = nn.layer_norm(nf.asarray(x)).numpy()
    assert y.dtype == np.float16
    wide = x.astype("float32")
    np.testing.assert_allclose(
        y, (wide - wide.mean(-1, keepdims=True)) / wide.std(-1, keepdims=True), rtol=2e-3, atol=2e-3
    )


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


@pytest.mark.parametrize("kind", ["plain", "causal", "bools", "reals"])
def test_attention(kind: str) -> None:
    q, k, v = array(2, 3, 4), array(2, 5, 4, seed=1), array(2, 5, 6, seed=2)
    scores = q @ k.transpose(0, 2, 1) / 2
    mask = None
    if kind == "causal":
        scores = np.where(np.arange(5) <= np.arange(3)[:, None] + 2, scores, -1e30)
    if kind == "bools":
        mask = array(3, 5) > -0.5
        scores = np.where(mask, scores, -1e30)
    if kind == "reals":
        mask = array(2, 1, 5)
        scores = scores + mask
    got = nn.scaled_dot_product_attention(
        *tensors([q, k, v]), causal=kind == "causal", mask=None if mask is None else nf.asarray(mask)
    )
    close(got, softmax(scores) @ v, atol=1e-5)


def test_attention_without_any_key_is_an_average() -> None:
    v = array(1, 4, 2)
    y = nn.scaled_dot_product_attention(
        nf.ones((1, 2, 3)), nf.ones((1, 4, 3)), nf.asarray(v), mask=nf.zeros((2, 4), dtype="bool")
    )
    close(y, np.broadcast_to(v.mean(1, keepdims=True), (1, 2, 2)))


def test_heads_are_independent() -> None:
    layer = nn.MultiHeadAttention(6, 2, generator=Generator(1))
    x = array(2, 4, 6)
    parts = {n: x @ getattr(layer, n).weight.numpy() for n in ("query", "key", "value")}
    heads = []
    for h in (slice(0, 3), slice(3, 6)):
        q, k, v = (parts[n][..., h] for n in ("query", "key", "value"))
        heads.append(softmax(q @ k.transpose(0, 2, 1) / 3**0.5) @ v)
    close(layer(nf.asarray(x)), np.concatenate(heads, -1) @ layer.output.weight.numpy(), rtol=1e-4, atol=1e-5)


def test_rope_keeps_lengths_and_depends_on_distance() -> None:
    q, k = tensors([array(1, 6, 8), array(1, 6, 8, seed=1)])
    near, far = (nn.rope(nf.broadcast_to(t[:, :1], (1, 6, 8))).numpy()[0] for t in (q, k))
    np.testing.assert_allclose(np.linalg.norm(near, axis=-1), np.linalg.norm(near[0]), rtol=1e-5)
    scores = near @ far.T
    np.testing.assert_allclose(np.diag(scores, 2), scores[0, 2], rtol=1e-4)
    close(nn.rope(q[:, 2:], start=2), nn.rope(q).numpy()[:, 2:])


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def test_gru() -> None:
    layer = nn.GRU(3, 4, generator=Generator(1))
    layer.update({"bias_x": array(12), "bias_h": array(12, seed=1)})
    x, h = array(2, 5, 3), np.zeros((2, 4), "float32")
    u, bx, bh = layer.weight_h.numpy(), layer.bias_x.numpy(), layer.bias_h.numpy()
    steps = []
    for t in range(5):
        a, b = np.split(x[:, t] @ layer.weight_x.numpy() + bx, 3, 1), np.split(h @ u + bh, 3, 1)
        r, z = sigmoid(a[0] + b[0]), sigmoid(a[1] + b[1])
        h = (1 - z) * np.tanh(a[2] + r * b[2]) + z * h
        steps.append(h)
    y, last = layer(nf.asarray(x))
    close(y, np.stack(steps, 1), rtol=1e-4)
    close(last, h, rtol=1e-4)
    close(layer(nf.asarray(x[:, 3:]), nf.asarray(steps[2]))[1], h, rtol=1e-4)


def test_lstm() -> None:
    layer = nn.LSTM(3, 4, generator=Generator(1))
    np.testing.assert_array_equal(layer.bias.numpy(), [0] * 4 + [1] * 4 + [0] * 8)
    x, h, c = array(2, 5, 3), np.zeros((2, 4)), np.zeros((2, 4))
    steps = []
    for t in range(5):
        i, f, g, o = np.split(x[:, t] @ layer.weight_x.numpy() + h @ layer.weight_h.numpy() + layer.bias.numpy(), 4, 1)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        steps.append(h)
    y, (last, cell) = layer(nf.asarray(x))
    close(y, np.stack(steps, 1), rtol=1e-4)
    close(last, h, rtol=1e-4)
    close(cell, c, rtol=1e-4)


def test_embedding_and_its_scores() -> None:
    layer = nn.Embedding(7, 3, generator=Generator(1))
    ids, w = array(2, 4, dtype="int32"), layer.weight.numpy()
    close(layer(nf.asarray(ids)), w[ids])
    close(layer.scores(nf.asarray(array(2, 3))), array(2, 3) @ w.T)


def relu(x: np.ndarray) -> np.ndarray:
    return np.maximum(x, 0)


def log1pexp(x: np.ndarray) -> np.ndarray:
    return np.logaddexp(x, 0)


ACTIVATIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "relu": relu,
    "relu6": lambda x: np.clip(x, 0, 6),
    "leaky_relu": lambda x: np.where(x > 0, x, 0.01 * x),
    "elu": lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0))),
    "celu": lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0))),
    "selu": lambda x: 1.05070098 * np.where(x > 0, x, 1.67326324 * np.expm1(np.minimum(x, 0))),
    "gelu": lambda x: x * (1 + np.vectorize(erf)(x / 2**0.5)) / 2,
    "silu": lambda x: x * sigmoid(x),
    "softplus": log1pexp,
    "log_sigmoid": lambda x: -log1pexp(-x),
    "mish": lambda x: x * np.tanh(log1pexp(x)),
    "softsign": lambda x: x / (1 + np.abs(x)),
    "hard_sigmoid": lambda x: np.clip(x / 6 + 0.5, 0, 1),
    "hard_swish": lambda x: x * np.clip(x + 3, 0, 6) / 6,
    "hard_tanh": lambda x: np.clip(x, -1, 1),
    "glu": lambda x: x[..., :4] * sigmoid(x[..., 4:]),
    "softmax": softmax,
    "log_softmax": lambda x: np.log(softmax(x)),
    "logsumexp": lambda x: np.log(np.exp(x).sum()),
}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activation(name: str, device: str) -> None:
    x = array(3, 8) * 4
    close(getattr(nn, name)(nf.asarray(x)), ACTIVATIONS[name](x.astype("float64")), rtol=2e-5, atol=2e-6)
    if device == "reference":
        wide = nf.asarray(x.astype("float64"))
        f = lambda v: nf.sum(getattr(nn, name)(v) * 1.5 + getattr(nn, name)(v * 0.5) ** 2)  # noqa: E731
        check_gradient(f, wide, nf.grad(f)(wide), rtol=1e-5)


def test_activations_hold_at_the_edges() -> None:
    x = nf.asarray([-1e4, -100.0, 0.0, 100.0, 1e4])
    for name in ("softplus", "mish", "silu", "gelu", "elu", "log_sigmoid", "hard_swish"):
        assert np.isfinite(getattr(nn, name)(x).numpy()).all(), name
        assert np.isfinite(nf.grad(lambda v, name=name: nf.sum(getattr(nn, name)(v)))(x).numpy()).all(), name
    np.testing.assert_allclose(nf.grad(lambda v: nf.sum(nn.softplus(v)))(nf.zeros((1,))).numpy(), [0.5])
    close(nn.softmax(x), np.array([0, 0, 0, 0, 1.0]))
    close(nn.log_softmax(x)[:2], np.array([-2e4, -10100]))
    assert nn.logsumexp(nf.asarray([float("-inf")] * 2)).item() == float("-inf")
    assert nn.logsumexp(nf.asarray([float("inf"), 0.0])).item() == float("inf")
    close(nn.gelu(x, approximate="tanh"), relu(x.numpy()), atol=1e-3)
    close(nn.prelu(nf.asarray([-2.0, 2.0]), nf.asarray(0.25)), np.array([-0.5, 2.0]))


def test_what_saturates_reaches_its_bound(device: str) -> None:
    """Times a large number, the last bit would be large, too: gelu(-1e30) is 0."""
    n = np.concatenate([np.linspace(4, 12, 41), [30.0, 1e4, 1e30, np.inf]]).astype(
        "float32"
    )  # all that fill vectors, and one
    np.testing.assert_array_equal(nf.erf(nf.asarray(n)).numpy(), np.ones_like(n))
    np.testing.assert_array_equal(nf.erf(nf.asarray(-n)).numpy(), -np.ones_like(n))
    np.testing.assert_array_equal(nf.tanh(nf.asarray(-n * 3)).numpy(), -np.ones_like(n))
    far = nf.asarray(-n[10:-1])
    for name in ("gelu", "silu", "mish"):
        assert np.abs(getattr(nn, name)(far * 20).numpy()).max() < 1e-30, name
    np.testing.assert_array_equal(nn.gelu(-far * 20).numpy(), -far.numpy() * 20)


LOGITS, LABELS, P = array(6, 5), array(6, dtype="int32"), softmax(array(6, 5, seed=3))
LOGP = np.log(softmax(LOGITS))
TARGET = array(6, 5, seed=4)
BITS = (TARGET > 0).astype("float32")
ROWS = np.arange(6)
D = LOGITS - TARGET
LOSSES: dict[str, tuple[Callable[[nf.Tensor], nf.Tensor], np.ndarray]] = {
    "cross_entropy of labels": (lambda x: nn.losses.cross_entropy(x, LABELS), -LOGP[ROWS, LABELS]),
    "cross_entropy of probabilities": (lambda x: nn.losses.cross_entropy(x, P), -(P * LOGP).sum(1)),
    "cross_entropy, smoothed": (
        lambda x: nn.losses.cross_entropy(x, LABELS, label_smoothing=0.1),
        -0.9 * LOGP[ROWS, LABELS] - 0.1 * LOGP.mean(1),
    ),
    "cross_entropy of probabilities, smoothed": (
        lambda x: nn.losses.cross_entropy(x, P, label_smoothing=0.1),
        -((0.9 * P + 0.02) * LOGP).sum(1),
    ),
    "cross_entropy, classes weighed": (
        lambda x: nn.losses.cross_entropy(x, LABELS, class_weights=[1.0, 2.0, 3.0, 4.0, 5.0]),
        -LOGP[ROWS, LABELS] * (LABELS + 1),
    ),
    "cross_entropy, label left out": (
        lambda x: nn.losses.cross_entropy(x, LABELS, ignore_index=2),
        np.where(LABELS == 2, 0, -LOGP[ROWS, LABELS]),
    ),
    "cross_entropy, mean of those left": (
        lambda x: nn.losses.cross_entropy(x, LABELS, ignore_index=2, reduction="mean"),
        -LOGP[ROWS, LABELS][LABELS != 2].mean(),
    ),
    "cross_entropy along axis 0": (
        lambda x: nn.losses.cross_entropy(nf.matrix_transpose(x), LABELS, axis=0),
        -LOGP[ROWS, LABELS],
    ),
    "nll": (lambda x: nn.losses.nll(nn.log_softmax(x), LABELS), -LOGP[ROWS, LABELS]),
    "binary_cross_entropy": (
        lambda x: nn.losses.binary_cross_entropy(x, BITS),
        -(BITS * np.log(sigmoid(LOGITS)) + (1 - BITS) * np.log(1 - sigmoid(LOGITS))).mean(1),
    ),
    "focal": (
        lambda x: nn.losses.focal(x, BITS),
        np.where(
            BITS > 0,
            -0.25 * (1 - sigmoid(LOGITS)) ** 2 * np.log(sigmoid(LOGITS)),
            -0.75 * sigmoid(LOGITS) ** 2 * np.log(1 - sigmoid(LOGITS)),
        ).mean(1),
    ),
    "mse": (lambda x: nn.losses.mse(x, TARGET), (D**2).mean(1)),
    "mse, summed": (lambda x: nn.losses.mse(x, TARGET, reduction="sum"), (D**2).mean(1).sum()),
    "mae": (lambda x: nn.losses.mae(x, TARGET), np.abs(D).mean(1)),
    "huber": (
        lambda x: nn.losses.huber(x, TARGET, delta=0.7),
        np.where(np.abs(D) < 0.7, D**2 / 2, 0.7 * (np.abs(D) - 0.35)).mean(1),
    ),
    "kl_divergence": (lambda x: nn.losses.kl_divergence(nn.log_softmax(x), P), (P * (np.log(P) - LOGP)).sum(1)),
    "cosine_distance": (
        lambda x: nn.losses.cosine_distance(x, TARGET),
        1 - (LOGITS * TARGET).sum(1) / np.linalg.norm(LOGITS, axis=1) / np.linalg.norm(TARGET, axis=1),
    ),
    "hinge": (lambda x: nn.losses.hinge(x, 2 * BITS - 1), relu(1 - LOGITS * (2 * BITS - 1)).mean(1)),
    "triplet": (
        lambda x: nn.losses.triplet(x, nf.asarray(TARGET.astype(x.dtype.name)), nf.asarray(P.astype(x.dtype.name))),
        relu(np.linalg.norm(D, axis=1) - np.linalg.norm(LOGITS - P, axis=1) + 1),
    ),
}


@pytest.mark.parametrize("name", LOSSES)
def test_loss(name: str, device: str) -> None:
    function, want = LOSSES[name]
    close(function(nf.asarray(LOGITS)), want, rtol=2e-5, atol=2e-6)
    if device == "reference":
        x = nf.asarray(LOGITS.astype("float64"))
        check_gradient(lambda v: nf.sum(function(v)), x, nf.grad(lambda v: nf.sum(function(v)))(x), rtol=1e-5)


def test_losses_hold_at_the_edges() -> None:
    x = nf.asarray([[1e4, -1e4], [-1e4, 1e4]])
    close(nn.losses.cross_entropy(x, [0, 0]), np.array([0, 2e4]))
    close(nn.losses.binary_cross_entropy(x, [[1.0, 0.0], [1.0, 0.0]]), np.array([0, 1e4]))
    close(nn.losses.kl_divergence(nn.log_softmax(nf.zeros((1, 2))), [[1.0, 0.0]]), np.array([np.log(2)]))


def test_wrong_losses_say_what_is_wrong() -> None:
    with pytest.raises(
        ValueError,
        match=r"cross_entropy: labels have shape \(4,\) beside scores of shape \(3, 2\); accepted are \(3,\)",
    ):
        nn.losses.cross_entropy(nf.zeros((3, 2)), [0, 1, 1, 0])
    with pytest.raises(ValueError, match=r"mse: prediction has shape \(3, 1\) but target \(3,\); they must be equal"):
        nn.losses.mse(nf.zeros((3, 1)), nf.zeros((3,)))
    with pytest.raises(ValueError, match="reduction is 'avg'; accepted are 'none', 'mean' and 'sum'"):
        nn.losses.mse(nf.zeros((3,)), nf.zeros((3,)), reduction="avg")


@pytest.mark.parametrize(
    "name", ["lecun_uniform", "lecun_normal", "glorot_uniform", "glorot_normal", "he_uniform", "he_normal"]
)
def test_initial_values_have_their_variance(name: str) -> None:
    w = getattr(nn.init, name)((3, 3, 40, 80), generator=Generator(2)).numpy()
    n_in, n_out = 360, 720
    want = {"lecun_uniform": 1 / 3 / n_in, "lecun_normal": 1 / n_in, "glorot": 2 / (n_in + n_out), "he": 2 / n_in}
    variance = want.get(name, want.get(name.split("_", maxsplit=1)[0]))
    assert abs(w.mean()) < 0.02 * variance**0.5 + 1e-3
    np.testing.assert_allclose(w.var(), variance, rtol=0.03)


def test_orthogonal() -> None:
    for shape in ((6, 4), (4, 6), (2, 3, 4)):
        w = nn.init.orthogonal(shape, 2.0, generator=Generator(2)).numpy().reshape(-1, shape[-1])
        small = w.T @ w if w.shape[0] >= w.shape[1] else w @ w.T
        np.testing.assert_allclose(small, 4 * np.eye(len(small)), atol=1e-3)
