"""Every gradient agrees with finite differences of what the operation means; the gradient's own gradient, too."""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import nearfield as nf
from cases import Case, cases_of, domain, seeded
from nearfield.dtype import DTYPES
from nearfield.grad import value_and_grad
from nearfield.op import REGISTRY, Op
from nearfield.tensor import apply

OPS = [pytest.param(op, id=op.name) for op in REGISTRY.values() if op.grad is not None]
STOPPED = {"stop_gradient"}  # whose gradient is nothing, whatever its derivative
STEP = 1e-6
RTOL, ATOL = 2e-6, 2e-7
MOST = 150  # elements of a case that is differentiated


@pytest.fixture(autouse=True)
def _in_double_precision() -> Iterator[None]:
    with nf.use("reference"):
        yield


def smooth(op: Op, rng: np.random.Generator, shape: tuple[int, ...]) -> Any:
    """Values away from whole and half numbers, from 0 and from each other: where functions have kinks and jumps."""
    size = int(np.prod(shape))
    interval = domain(op)
    if interval and interval[0] > -1.5:
        return rng.uniform(*interval, size).reshape(shape)
    values = rng.integers(-2, 2, size) + rng.choice([0.3, 0.7], size) + rng.uniform(-0.15, 0.15, size)
    return values.reshape(shape)


def differentiable(op: Op) -> list[Case]:
    """The row's cases in float64, of moderate size, on smooth values."""
    if op.family == "elementwise" and op.name != "cast":
        rng = seeded(op.name, "gradient")
        mixed = op.notes["mixed"]
        arrays = [rng.integers(0, 2, 23).astype(bool) for _ in range(mixed)]
        arrays += [smooth(op, rng, (23,)) for _ in range(op.n_in - mixed)]
        return [Case(op, "smooth", tuple(arrays), {})]
    found: dict[str, Case] = {}
    for case in cases_of(op):
        size = sum(x.size for x in case.arrays)
        if case.arrays and case.arrays[0].dtype.name == "float32" and size <= MOST and case.infer()[1].kind == "f":
            rng = seeded(op.name, case.label, size)
            arrays = [smooth(op, rng, x.shape) if x.dtype.kind == "f" else x for x in case.arrays]
            attrs = {**case.attrs, "dtype": DTYPES["float64"]} if "dtype" in case.attrs else case.attrs
            found[repr((attrs, [x.shape for x in arrays]))] = Case(op, case.label, tuple(arrays), attrs)
    return list(found.values())


def places(case: Case) -> list[int]:
    """The inputs that have a derivative."""
    return [n for n, x in enumerate(case.arrays) if x.dtype.kind == "f"]


def replaced(case: Case, values: list[Any]) -> list[Any]:
    arrays = list(case.arrays)
    for n, x in zip(places(case), values, strict=True):
        arrays[n] = x
    return arrays


def gradient(case: Case, weight: Any) -> Callable[[list[Any]], list[Any]]:
    """From Tensors to the gradients of Σ weight · op(…), Tensors too."""

    def loss(variables: list[Any]) -> Any:
        arrays = replaced(case, variables)
        y = apply(case.op, *(x if isinstance(x, nf.Tensor) else nf.asarray(x) for x in arrays), **case.attrs)
        return nf.sum(y * nf.asarray(weight))

    return lambda variables: value_and_grad(loss)(variables)[1]


def slope(f: Callable[[list[Any]], Any], at: list[Any], n: int, place: Any) -> Any:
    """The central difference of f along elements `place` of argument n."""
    up, down = [x.copy() for x in at], [x.copy() for x in at]
    up[n][place] += STEP
    down[n][place] -= STEP
    with np.errstate(all="ignore"):
        above, below = f(up), f(down)
        return np.where(above == below, 0.0, above - below) / (2 * STEP)  # ∞ - ∞ is no change


def differences(case: Case, f: Callable[[list[Any]], Any], at: list[Any]) -> list[Any]:
    """d Σ f / d each element: of elementwise functions all at once, of others one by one."""
    results = []
    for n, x in enumerate(at):
        if case.op.family == "elementwise":
            results.append(slope(f, at, n, ...))
            continue
        found = np.zeros_like(x)
        for place in np.ndindex(x.shape):
            found[place] = np.sum(slope(f, at, n, place))
        results.append(found)
    return results


def close(case: Case, got: list[Any], want: list[Any]) -> None:
    for n, (g, w) in enumerate(zip(got, want, strict=True)):
        limit = ATOL + RTOL * np.max(np.abs(w), initial=1.0)
        wrong = ~(np.abs(g - w) <= limit)
        inputs = [x[wrong][0] if x.shape == wrong.shape and wrong.any() else x.shape for x in case.arrays]
        assert not wrong.any(), f"{case}, input {n}: at {inputs} {g[wrong][:3]} instead of {w[wrong][:3]}"


def arrays_of(tensors: list[Any]) -> list[Any]:
    return [t.numpy() for t in tensors]


@pytest.mark.parametrize("op", OPS)
def test_gradient_agrees_with_finite_differences(op: Op) -> None:
    """What a row says of its change is how its NumPy statement changes."""
    chosen = differentiable(op)
    assert chosen, f"{op.name} has a gradient and no case to try it on"
    for case in chosen:
        at = [case.arrays[n] for n in places(case)]
        weight = seeded(op.name).uniform(0.5, 1.5, case.infer()[0])
        got = arrays_of(gradient(case, weight)([nf.asarray(x) for x in at]))

        def weighted(values: list[Any], case: Case = case, weight: Any = weight) -> Any:
            return weight * case.meaning(replaced(case, values))

        want = differences(case, weighted, at)
        close(case, got, [0 * w for w in want] if op.name in STOPPED else want)


@pytest.mark.parametrize("op", OPS)
def test_second_derivative_agrees_with_finite_differences(op: Op) -> None:
    """Gradients are Tensor code that can be differentiated again, along a random direction."""
    for case in differentiable(op)[:3]:
        rng = seeded(op.name, "second")
        at = [case.arrays[n] for n in places(case)]
        first = gradient(case, rng.uniform(0.5, 1.5, case.infer()[0]))
        weights = [rng.uniform(0.5, 1.5, x.shape) for x in at]
        direction = [rng.uniform(-1, 1, x.shape) for x in at]

        def along(variables: list[Any], first: Any = first, weights: Any = weights) -> Any:
            parts = [nf.sum(g * nf.asarray(w)) for g, w in zip(first(variables), weights, strict=True)]
            return functools.reduce(lambda a, b: a + b, parts)

        def moved(sign: float, at: Any = at, direction: Any = direction) -> list[Any]:
            return [nf.asarray(x + sign * STEP * d) for x, d in zip(at, direction, strict=True)]

        got = arrays_of(value_and_grad(along)([nf.asarray(x) for x in at])[1])
        total = np.sum([np.sum(g * d) for g, d in zip(got, direction, strict=True)])
        want = (along(moved(1)).item() - along(moved(-1)).item()) / (2 * STEP)
        scale = np.sum([np.sum(np.abs(g * d)) for g, d in zip(got, direction, strict=True)])
        assert abs(total - want) <= 1e-6 + 1e-5 * scale, f"{case}: {total} instead of {want}"


TIES = [
    ("maximum", ([1.0, -0.0], [1.0, 0.0]), {}, ([0, 0], [1, 1])),
    ("minimum", ([1.0, -0.0], [1.0, 0.0]), {}, ([0, 0], [1, 1])),
    ("max", ([[2.0, 2.0, 1.0]],), {"axes": (1,)}, ([[1, 1, 0]],)),
    ("min", ([[2.0, 2.0, 2.0]],), {"axes": (1,)}, ([[1, 1, 1]],)),
    ("prod", ([[2.0, 0.0, 3.0]],), {"axes": (1,)}, ([[0, 6, 0]],)),
    ("prod", ([[0.0, 0.0, 3.0]],), {"axes": (1,)}, ([[0, 0, 0]],)),
    ("abs", ([0.0],), {}, ([0],)),
    ("hypot", ([0.0], [0.0]), {}, ([0], [0])),
    ("pow", ([0.0, 0.0, 2.0, -2.0], [2.0, 0.0, 0.0, 2.0]), {}, ([0, 0, 0, -4], [0, 0, np.log(2), 0])),
]


@pytest.mark.parametrize(("name", "values", "attrs", "want"), TIES, ids=lambda x: x if isinstance(x, str) else "")
def test_gradient_at_ties_is_as_documented(name: str, values: Any, attrs: Any, want: Any) -> None:
    """Where there is no derivative, the docstring says which of the values is taken."""
    arrays = tuple(np.array(v, "float64") for v in values)
    case = Case(REGISTRY[name], "ties", arrays, attrs)
    got = arrays_of(gradient(case, np.ones(case.infer()[0]))([nf.asarray(x) for x in arrays]))
    close(case, got, [np.array(w, "float64") for w in want])
