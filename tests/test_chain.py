"""Planes of scores that are never stored: attention in one kernel, its gradients in a few; and when that is done."""

from typing import Any

import numpy as np
import pytest

import nearfield as nf
from nearfield.compiler import build as building
from nearfield.compiler import planes
from nearfield.compiler.build import Target, build
from nearfield.compiler.wgsl_chain import spell_chain
from nearfield.functional.attention import scaled_dot_product_attention as attention
from nearfield.program.program import Program
from nearfield.trace import trace

Array = Any
SLOW = pytest.mark.slow  # kernels of a thousand lines, for a driver that runs on the processor

# batch and heads, queries, keys, features of queries and of values
SIZES = [
    ((1, 2), 40, 40, 32, 32),
    ((2, 1), 70, 33, 32, 16),
    ((2, 2), 64, 130, 64, 64),
    ((3,), 33, 129, 20, 5),
    ((1, 1), 96, 97, 7, 128),
    ((2,), 7, 33, 4, 3),
    ((2,), 1, 7, 4, 8),
]


def normal(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng([seed, *shape]).normal(size=shape).astype("float32")


@pytest.fixture
def never_stored(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Planes are made again however small they are; the number of kernels that do so."""
    made: list[int] = []

    def counted(kernel: Any) -> Any:
        made.append(spell_chain(kernel) is not None)
        return spell_chain(kernel)

    monkeypatch.setattr(planes, "BUSY", 1)
    monkeypatch.setattr(building, "planes_of", lambda graph, _: planes.planes_of(graph, 0))
    monkeypatch.setattr(building, "spell_chain", counted)
    with nf.use("webgpu"):
        nf.forget_programs()
        yield made
        nf.forget_programs()


def meaning(q: Array, k: Array, v: Array, g: Array, mask: Array | None, *, causal: bool) -> tuple[Array, ...]:
    """The result, and the gradients of Σ g · result, in double precision."""
    q, k, v, g = (x.astype("float64") for x in (q, k, v, g))
    scale, (t, s) = q.shape[-1] ** -0.5, (q.shape[-2], k.shape[-2])
    scores, seen = q @ np.swapaxes(k, -1, -2) * scale, np.ones((t, s), bool)
    if mask is not None and mask.dtype == bool:
        seen = seen & mask
    elif mask is not None:
        scores = scores + mask
    if causal:
        seen = seen & (np.arange(s) <= np.arange(t)[:, None] + (s - t))
    scores = np.where(seen, scores, -1e30)
    e = np.exp(scores - scores.max(-1, keepdims=True))
    p = e / e.sum(-1, keepdims=True)
    dp = g @ np.swapaxes(v, -1, -2)
    ds = np.where(seen, p * (dp - (p * dp).sum(-1, keepdims=True)), 0) * scale
    return p @ v, ds @ k, np.swapaxes(ds, -1, -2) @ q, np.swapaxes(p, -1, -2) @ g


def made(size: Any, kind: int) -> tuple[Array, ...]:
    """Queries, keys, values, what the result is multiplied with, and a mask.

    No mask; reals to add; or bools that hide all keys from the first query.
    """
    lead, t, s, d, e = size
    hidden = np.random.default_rng(s).random((t, s)) > 0.3
    hidden[0] = False
    mask = [None, normal(*(1 for _ in lead), 1, s), hidden][kind]
    return normal(*lead, t, d), normal(*lead, s, d, seed=1), normal(*lead, s, e, seed=2), normal(*lead, t, e), mask


def is_plane(size: Any) -> bool:
    """Whether there are as many scores as elements of any factor."""
    _, t, s, d, _ = size
    return t * s >= max(t * d, s * d)


@pytest.mark.parametrize(
    ("number", "size"),
    [(n, size) if n in (1, 5) else pytest.param(n, size, marks=SLOW) for n, size in enumerate(SIZES)],
    ids=str,
)
@pytest.mark.device("webgpu")
def test_attention(number: int, size: Any, never_stored: list[int]) -> None:
    """Lengths that fill no tile; each kind of mask."""
    q, k, v, g, mask = made(size, number % 3)
    want, *_ = meaning(q, k, v, g, mask, causal=number % 2 == 1)
    given = None if mask is None else nf.asarray(mask)
    got = attention(*(nf.asarray(x) for x in (q, k, v)), mask=given, causal=number % 2 == 1)
    np.testing.assert_allclose(got.numpy(), want, atol=3e-6)
    assert never_stored == [1] * is_plane(size)


@pytest.mark.parametrize(("number", "size"), [(n, SIZES[n]) for n in (1, 2)], ids=str)
@SLOW
@pytest.mark.device("webgpu")
def test_gradients(number: int, size: Any, never_stored: list[int]) -> None:
    """Of queries, keys and values, each made of scores that are made again."""
    q, k, v, g, mask = made(size, number % 3)
    _, *wanted = meaning(q, k, v, g, mask, causal=number % 2 == 1)
    given = None if mask is None else nf.asarray(mask)

    @nf.jit
    def gradients(*inputs: nf.Tensor) -> tuple[nf.Tensor, ...]:
        def loss(*args: nf.Tensor) -> nf.Tensor:
            return nf.sum(attention(*args, mask=given, causal=number % 2 == 1) * nf.asarray(g))

        return nf.grad(loss, argnums=(0, 1, 2))(*inputs)

    for got, want in zip(gradients(*(nf.asarray(x) for x in (q, k, v))), wanted, strict=True):
        np.testing.assert_allclose(got.numpy(), want, atol=1e-5)
    assert never_stored == [1] * 6


@SLOW
@pytest.mark.device("webgpu")
def test_stored_in_16_bits(never_stored: list[int]) -> None:
    """The factors are widened, the scores are not rounded, the result is."""
    q, k, v = normal(2, 70, 32), normal(2, 70, 32, seed=1), normal(2, 70, 32, seed=2)
    halves = [x.astype("float16") for x in (q, k, v)]
    want, *_ = meaning(*halves, v, None, causal=True)
    got = attention(*(nf.asarray(x) for x in halves), causal=True)
    assert got.dtype is nf.float16
    np.testing.assert_allclose(got.numpy(), want, atol=2e-3)
    assert never_stored == [1]


@SLOW
@pytest.mark.device("webgpu")
def test_what_is_no_number_stays_in_its_rows(never_stored: list[int]) -> None:
    """NaN in a query spoils its row, in a value its column; -∞ everywhere gives NaN, as the softmax of it does."""
    q, k, v = normal(70, 32), normal(90, 32, seed=1), normal(90, 32, seed=2)
    q[3, 5] = v[40, 7] = np.nan
    mask = np.zeros((70, 90), "float32")
    mask[9], mask[11, 5:] = -np.inf, -np.inf
    got = attention(*(nf.asarray(x) for x in (q, k, v)), mask=nf.asarray(mask)).numpy()
    bad = np.zeros((70, 32), bool)
    bad[3], bad[9], bad[:, 7] = True, True, True
    np.testing.assert_array_equal(np.isnan(got), bad)
    want, *_ = meaning(q[11:12], k[:5], v[:5], v[:1], None, causal=False)
    np.testing.assert_allclose(got[11:12, :7], want[:, :7], atol=3e-6)
    assert never_stored == [1]


def program(function: Any, *shapes: tuple[int, ...], largest: int = 1 << 27, dtype: str = "float32") -> Program:
    """What a graphics card would run."""
    with nf.use("reference"):
        inputs = [nf.zeros(shape, dtype=dtype) for shape in shapes]
        made = function(*inputs)
        outputs = made if isinstance(made, (tuple, list)) else [made]
        graph, _ = trace([t.node for t in outputs], [t.node for t in inputs])
        return build(graph, Target("webgpu", bindings=16, largest=largest)).program


def test_long_texts_take_no_memory_for_scores() -> None:
    """The result alone is stored, however long the text; in training, what belongs to a row."""
    shape = (12, 4096, 64)
    made = program(attention, shape, shape, shape)
    assert (len(made.steps), made.arena) == (1, 0)
    step = nf.grad(lambda q, k, v: nf.sum(attention(q, k, v, causal=True) ** 2), argnums=(0, 1, 2))
    assert max(b.room for b in program(step, shape, shape, shape).buffers) == 12 * 4096 * 64 * 4
    stored = program(step, shape, shape, shape, largest=1 << 30)
    assert max(b.room for b in stored.buffers) == 12 * 4096 * 4096 * 4


def test_scores_that_are_needed_are_stored() -> None:
    """Few rows; a softmax that is also a result; one that is not a softmax of all its scores."""
    shape = (2, 512, 64)

    def with_weights(q: nf.Tensor, k: nf.Tensor, v: nf.Tensor) -> tuple[nf.Tensor, nf.Tensor]:
        weights = nf.nn.softmax(q @ nf.matrix_transpose(k))
        return weights @ v, weights

    def other_shift(q: nf.Tensor, k: nf.Tensor, v: nf.Tensor) -> nf.Tensor:
        scores = q @ nf.matrix_transpose(k)
        e = nf.exp(scores - nf.max(scores * 0.5, axis=-1, keepdims=True))
        return (e / nf.sum(e, axis=-1, keepdims=True)) @ v

    assert max(b.room for b in program(attention, shape, shape, shape).buffers) == 2 * 512 * 512 * 4
    many = (100, 512, 64)
    for function in (with_weights, other_shift):
        assert max(b.room for b in program(function, many, many, many).buffers) == 100 * 512 * 512 * 4


def test_scores_are_stored_where_a_kernel_cannot_make_them() -> None:
    """One number of two bytes for each row cannot be stored alone: all goes the usual way."""
    shape = (100, 64, 16)
    step = nf.grad(lambda q, k, v: nf.sum(attention(q, k, v) ** 2), argnums=(0, 1, 2))
    made = program(step, shape, shape, shape, largest=1, dtype="float16")
    assert max(b.room for b in made.buffers) >= 100 * 64 * 64 * 2
    made = program(step, shape, shape, shape, largest=1)
    assert max(b.room for b in made.buffers) < 100 * 64 * 64 * 4
