"""Products with many numbers of 4 bits, on a graphics card: reals as whole numbers of three digits."""

from collections.abc import Iterator

import numpy as np
import pytest

import nearfield as nf
from nearfield.compiler import digits
from nearfield.compiler.build import build
from nearfield.compiler.target import Target
from nearfield.graph.graph import Graph
from nearfield.tensor import Node, Tensor
from nearfield.trace import trace


@pytest.fixture
def _worth_it(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """However few numbers there are."""
    monkeypatch.setattr(digits, "WORTH", 1)
    nf.forget_programs()
    yield
    nf.forget_programs()


def real(numbers: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """What quantised weights mean, in float64."""
    quads = numbers.reshape(len(numbers), -1, 4)
    wide = np.stack([quads << 4 >> 4, quads >> 4], axis=2).reshape(*scale.shape, -1)
    return (wide * scale.astype("float64")[:, :, None]).reshape(len(numbers), -1)


def weights(columns: int, terms: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(columns)
    numbers = rng.integers(-128, 128, (columns, terms // 2), dtype="int8")
    return numbers, rng.uniform(0.01, 0.02, (columns, terms // size)).astype("float16")


@pytest.mark.usefixtures("_worth_it")
@pytest.mark.parametrize(
    ("rows", "columns", "terms", "size"),
    [(1, 64, 256, 32), (2, 67, 352, 32), (1, 301, 4096, 128), (3, 128, 1088, 64), (8, 64, 1024, 32), (1, 20, 96, 32)],
)
def test_as_exact_as_float32(rows: int, columns: int, terms: int, size: int, device: str) -> None:
    """Sizes that fill no team and no round; magnitudes that differ from group to group; a group of zeros.

    Without the lowest digit the error is 2e-5.
    """
    numbers, scale = weights(columns, terms, size)
    rng = np.random.default_rng(1)
    groups = rng.uniform(-1, 1, (rows, terms // size, size))
    groups *= 10.0 ** rng.integers(-2, 2, (rows, terms // size, 1))
    groups[:, 1] = 0
    x = groups.reshape(rows, terms).astype("float32")
    got = nf.quantized_matmul(x, numbers, scale, bits=4).numpy()
    want = x.astype("float64") @ real(numbers, scale).T
    assert np.linalg.norm(got - want) < 3e-6 * np.linalg.norm(want)


@pytest.mark.usefixtures("_worth_it")
@pytest.mark.parametrize("by", [1e-30, 1.0, 1e30])
def test_the_extreme_digits_of_a_group(by: float, device: str) -> None:
    """The largest number of a group, of either sign, and what is one step from it: no digit goes around."""
    numbers, scale = weights(64, 256, 32)
    groups = np.tile(np.array([1, -1, 1 - 2**-23, 2**-24]), (8, 8))
    x = (groups * np.array([1, 3, 1.5, 0.3, 7, 1.1, 5, 11])[:, None] * by).ravel().astype("float32")
    got = nf.quantized_matmul(x, numbers, scale, bits=4).numpy()
    want = real(numbers, scale) @ x.astype("float64")
    np.testing.assert_allclose(got, want, atol=4e-7 * abs(want).max())


@pytest.mark.usefixtures("_worth_it")
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_no_number_comes_of_what_is_none(bad: float, device: str) -> None:
    numbers, scale = weights(64, 256, 32)
    x = np.ones(256, "float32")
    x[40] = bad
    got = nf.quantized_matmul(x, numbers | 0x11, scale, bits=4).numpy()
    assert not np.isfinite(got).any()


@pytest.mark.usefixtures("_worth_it")
def test_float16_in_one_row(device: str) -> None:
    """The shape and type of the reals are the result's."""
    numbers, scale = weights(64, 256, 32)
    x = np.random.default_rng(0).uniform(-1, 1, (1, 1, 256)).astype("float16")
    got = nf.quantized_matmul(x, numbers, scale, bits=4)
    assert (got.shape, got.dtype.name) == ((1, 1, 64), "float16")
    np.testing.assert_allclose(got.numpy()[0, 0], real(numbers, scale) @ x[0, 0].astype("float64"), atol=2e-3)


def matrices(count: int, *, bits: int = 4, shape: tuple[int, ...] = (4096,)) -> Graph:
    """One x times so many matrices of 4096 columns."""

    def given(shape: tuple[int, ...], dtype: str) -> Tensor:
        return Tensor(Node(None, (), {}, shape, nf.asarray(0, dtype=dtype).dtype))

    x = given(shape, "float32")
    terms = shape[-1]
    pairs = [(given((4096, terms * bits // 8), "int8"), given((4096, terms // 32), "float16")) for _ in range(count)]
    results = [nf.quantized_matmul(x, w, scale, bits=bits) for w, scale in pairs]
    graph, _ = trace([y.node for y in results], [t.node for t in (x, *(t for pair in pairs for t in pair))])
    return graph


def test_digits_are_found_once_and_only_where_they_are_worth_it() -> None:
    """Two small kernels, and each product is one; the sums of groups are nowhere stored."""
    program = build(matrices(6), Target("webgpu", frozenset({"read-only-storage"}))).program
    names = [program.kernels[step.kernel] for step in program.steps]
    assert ["dot4I8Packed" in kernel.code for kernel in names] == [False, False, *[True] * 6]
    assert names[2].code.count("dot4I8Packed") == 3 * 8 * 2 * 4  # digits, words of a group, columns, groups of a thread
    assert not [b for b in program.buffers if b.dtype == "int32"]


def test_long_sums_of_several_rows_are_a_loop() -> None:
    """Their text would take seconds to compile."""
    program = build(matrices(2, shape=(8, 16384)), Target("webgpu", frozenset({"read-only-storage"}))).program
    code = program.kernels[-1].code
    assert code.count("dot4I8Packed") == 3 * 8 * 8 * 2 * 4  # digits, words, rows, columns, groups of a turn
    assert code.count("for (") == 1


@pytest.mark.parametrize("graph", [matrices(5), matrices(9, bits=8), matrices(9, shape=(9, 4096))], ids="ABC")
def test_other_products_are_left_alone(graph: Graph) -> None:
    """Too few numbers; bytes, which widen quickly; many rows."""
    assert digits.in_digits(graph) is graph


def test_a_page_gets_no_instruction_that_it_may_lack() -> None:
    """It would refuse the whole model."""
    program = build(matrices(6), Target("webgpu")).program
    assert not any("dot4I8Packed" in kernel.code for kernel in program.kernels)
