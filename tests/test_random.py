"""Random numbers: their distributions, and that a seed fixes them."""

import math

import numpy as np
import pytest

import nearfield as nf
from array_cases import on_devices, same
from nearfield import random

pytestmark = on_devices
N = 20000
BITS_OF_SEED_0 = [0x6B200159 ^ 0x99BA4EFE, 2421212190, 2561917855, 3181129559]  # the first: Random123's known answer


def generator(seed: int = 7) -> random.Generator:
    return random.Generator(seed)


def uniform_in_buckets(x: np.ndarray, buckets: int = 20) -> float:
    """χ² of counts in equal buckets of [0, 1); its mean is buckets - 1, its deviation √(2 buckets)."""
    counts, _ = np.histogram(x, buckets, (0, 1))
    return float(np.sum((counts - x.size / buckets) ** 2) / (x.size / buckets))


def test_a_seed_fixes_the_numbers(device: str) -> None:
    """These numbers are part of the interface: they stay the same in all versions and on all devices."""
    assert generator(0).bits(4).tolist() == BITS_OF_SEED_0
    same(generator(3).uniform((5,)), generator(3).uniform((5,)).numpy())
    assert generator(3).bits(8).tolist() != generator(4).bits(8).tolist()


def test_draws_differ_and_count(device: str) -> None:
    g = generator()
    first, second = g.bits(100), g.bits(100)
    assert not set(first.tolist()) & set(second.tolist())
    assert g.state.tolist() == [7, 2]


def test_state_can_be_kept(device: str) -> None:
    g = generator()
    g.uniform(3)
    kept = g.state_tensors()
    want = g.normal(4).numpy()
    g.set_state_tensors(kept)
    same(g.normal(4), want)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_uniform(dtype: str, device: str) -> None:
    x = generator().uniform((N,), dtype=dtype)
    assert x.dtype.name == dtype
    values = x.numpy().astype("float64")
    assert values.min() >= 0
    assert values.max() < 1
    assert uniform_in_buckets(values, 16) < 15 + 4 * math.sqrt(32)
    assert abs(np.corrcoef(values[:-1], values[1:])[0, 1]) < 4 / math.sqrt(N)


def test_uniform_between(device: str) -> None:
    x = generator().uniform((N,), -2, 3).numpy()
    assert -2 <= x.min() < -1.99
    assert 2.99 < x.max() <= 3
    assert abs(x.mean() - 0.5) < 0.05


def test_normal(device: str) -> None:
    x = generator().normal((N,), 3, 2).numpy().astype("float64")
    z = (x - 3) / 2
    assert abs(z.mean()) < 4 / math.sqrt(N)
    assert abs(z.var() - 1) < 4 * math.sqrt(2 / N)
    assert abs((z**3).mean()) < 4 * math.sqrt(15 / N)
    assert abs((z**4).mean() - 3) < 4 * math.sqrt(96 / N)
    below = [0.5 * (1 + math.erf(v / math.sqrt(2))) for v in z]
    assert uniform_in_buckets(np.array(below)) < 19 + 4 * math.sqrt(40)


@pytest.mark.parametrize(("low", "high"), [(0, 6), (-3, 4), (0, 1), (0, 100000)])
def test_integers(low: int, high: int, device: str) -> None:
    x = generator().integers((N,), low, high)
    assert x.dtype is nf.int32
    values = x.numpy()
    assert low <= values.min()
    assert values.max() < high
    if high - low < 10:
        counts = np.bincount(values - low, minlength=high - low)
        assert np.sum((counts - N / counts.size) ** 2) / (N / counts.size) < counts.size + 6 * math.sqrt(
            2 * counts.size
        )
    same(generator().integers((5,), 6), generator().randint((5,), 0, 6).numpy())


def test_bernoulli(device: str) -> None:
    x = generator().bernoulli((N,), 0.3)
    assert x.dtype is nf.bool
    assert abs(x.numpy().mean() - 0.3) < 4 * math.sqrt(0.21 / N)
    chances = nf.asarray([0.0, 1.0])
    assert generator().bernoulli((100, 2), chances, dtype="int32").numpy().sum(0).tolist() == [0, 100]


def test_permutation(device: str) -> None:
    orders = {tuple(random.Generator(s).permutation(4).tolist()) for s in range(200)}
    assert len(orders) == 24
    x = nf.asarray([[1, 2], [3, 4], [5, 6]])
    assert sorted(generator().permutation(x).tolist()) == x.tolist()


def test_choice(device: str) -> None:
    g = generator()
    p = [0.1, 0.0, 0.6, 0.3]
    counts = np.bincount(g.choice(4, (N,), p=p).numpy(), minlength=4) / N
    np.testing.assert_allclose(counts, p, atol=4 * math.sqrt(0.25 / N))
    assert sorted(g.choice(5, (5,), replace=False).tolist()) == [0, 1, 2, 3, 4]
    assert set(g.choice(4, (3,), replace=False, p=p).tolist()) == {0, 2, 3}
    assert g.choice([[1, 2], [3, 4]], (6,)).shape == (6, 2)
    assert g.choice(3).shape == ()


def test_categorical(device: str) -> None:
    logits = np.log(np.float32([0.2, 0.5, 0.3]))
    drawn = generator().categorical(nf.broadcast_to(nf.asarray(logits), (N, 3))).numpy()
    np.testing.assert_allclose(np.bincount(drawn) / N, [0.2, 0.5, 0.3], atol=4 * math.sqrt(0.25 / N))
    with np.errstate(divide="ignore"):
        certain = generator().categorical(np.log(np.float32([[0, 1, 0], [1, 0, 0]])))
    assert certain.tolist() == [1, 0]


def test_default_generator(device: str) -> None:
    random.seed(5)
    first = random.uniform((3,)).numpy()
    same(random.Generator(5).uniform((3,)), first)
    random.seed(5)
    same(random.uniform((3,)), first)
    mine = random.Generator(1)
    functions = [random.normal, random.bits, random.bernoulli]
    for function in functions:
        assert function((2,), generator=mine).shape == (2,)
    assert random.integers((2,), 3, generator=mine).shape == (2,)
    assert random.permutation(3, generator=mine).shape == (3,)
    assert random.choice(3, (2,), generator=mine).shape == (2,)
    assert random.categorical([0.0, 1.0], generator=mine).shape == ()
    assert mine.state.tolist() == [1, 7]
    assert random.default_generator().state.tolist() == [5, 1]
    random.seed(0)


def test_inside_jit_the_state_goes_on(device: str) -> None:
    @nf.jit
    def draw(state: nf.Tensor) -> tuple[nf.Tensor, nf.Tensor]:
        g = random.Generator()
        g.set_state_tensors({"state": state})
        return g.uniform((3,)), g.state

    g = generator()
    want = [g.uniform((3,)).numpy() for _ in range(3)]
    state = generator().state
    for expected in want:
        got, state = draw(state)
        same(got, expected)
