"""Index expressions: whatever is simplified away, the number stays the same, and lies within the bounds."""

import itertools
import math
import random
from typing import Any

import pytest

from nearfield import scalar as k
from nearfield.index import flatten, unflatten
from nearfield.scalar import K


def number(x: K, values: dict[K, int]) -> Any:
    """The value of an index expression, given its variables'."""
    if x.op == "var":
        return values[x]
    if x.op == "const":
        return x.value
    args = [number(a, values) for a in x.args]
    if x.op == "linear":
        constant, *factors = x.value
        return constant + sum(c * a for c, a in zip(factors, args, strict=True))
    rules = {
        "mul": lambda a, b: a * b, "div": lambda a, b: a // b, "rem": lambda a, b: a % b, "min": min, "max": max,
        "lt": lambda a, b: a < b, "eq": lambda a, b: a == b, "not": lambda a: not a,
    }  # fmt: skip
    return rules[x.op](*args)


def grown(rng: random.Random, pool: list[tuple[K, Any]]) -> tuple[K, Any]:
    """A larger expression, and how Python computes it from the variables' values."""
    (x, f), (y, g) = rng.choice(pool), rng.choice(pool)
    n = rng.choice([1, 2, 3, 4, 6, 7, 12])
    return rng.choice([
        (x + y, lambda v: f(v) + g(v)),
        (x - y, lambda v: f(v) - g(v)),
        (x * n, lambda v: f(v) * n),
        (x * n + y, lambda v: f(v) * n + g(v)),
        (x + n, lambda v: f(v) + n),
        (x // n, lambda v: f(v) // n),
        (x % n, lambda v: f(v) % n),
        (x // n * n + x % n, f),
    ])  # fmt: skip


@pytest.mark.parametrize("seed", range(150))
def test_simplified_expressions_give_the_same_number(seed: int) -> None:
    """For all values of the variables; the divisors share factors with the coefficients."""
    rng = random.Random(seed)
    variables = [k.var(f"i{n}", rng.choice([1, 2, 3, 5, 8])) for n in range(3)]
    extents = [v.value[1] for v in variables]
    pool: list[tuple[K, Any]] = [(v, lambda values, v=v: values[v]) for v in variables if v.op == "var"]
    for _ in range(12):
        pool.append(grown(rng, pool[-8:]))
    x, y = pool[-1][0], pool[-2][0]
    for point in itertools.product(*map(range, extents)):
        values = dict(zip(variables, point, strict=True))
        for expression, compute in pool:
            want = compute(values)
            assert number(expression, values) == want, f"{expression} at {point}"
            assert expression.low <= want <= expression.high, f"{expression} at {point}"
        f, g = pool[-1][1](values), pool[-2][1](values)
        assert number(k.less(x, y), values) == (f < g)
        assert number(k.equal(x, y), values) == (f == g)


SHAPES = [((6, 4), (8, 3)), ((2, 3, 4), (6, 4)), ((5,), (5, 1)), ((12,), (2, 3, 2)), ((7, 9), (63,)), ((1, 6), (3, 2))]


@pytest.mark.parametrize(("shape", "other"), SHAPES)
def test_positions_and_indices_belong_together(shape: tuple[int, ...], other: tuple[int, ...]) -> None:
    """Row-major positions; going through another shape and back is the index again."""
    index = [k.var(f"i{n}", size) if size > 1 else k.const(0, "index") for n, size in enumerate(shape)]
    there = unflatten(flatten(index, shape), other)
    back = unflatten(flatten(there, other), shape)
    for position, point in enumerate(itertools.product(*map(range, shape))):
        values = {v: p for v, p in zip(index, point, strict=True) if v.op == "var"}
        assert number(flatten(index, shape), values) == position
        assert flatten_numbers([number(i, values) for i in there], other) == position
        assert [number(i, values) for i in back] == list(point)


@pytest.mark.parametrize("seed", range(60))
def test_other_arguments_give_what_is_built_of_them(seed: int) -> None:
    """Numbers, variables and sums in the place of variables: the very expression that is built with them."""
    rng = random.Random(seed)
    variables = [k.var(f"i{n}", 7) for n in range(4)]
    fresh = [k.var(f"j{n}", 5) for n in range(3)]
    for _ in range(10):
        others = [rng.choice([v, k.const(rng.randrange(7), "index"), rng.choice(fresh), fresh[0] * 2 + fresh[1] + 1])
                  for v in variables]  # fmt: skip
        factors, constant = [rng.choice([-12, -5, -1, 1, 3, 4, 20]) for _ in variables], rng.randrange(-3, 4)
        before, after = (sum((x * c for x, c in zip(xs, factors, strict=True)), k.const(constant, "index"))
                         for xs in (variables, others))  # fmt: skip
        table = {v: x for v, x in zip(variables, others, strict=True) if v is not x}
        assert k.substitute(before, table) is after


def test_quotients_and_remainders_of_quotients_recombine() -> None:
    """What three axes are made of, and put together again, is the number itself."""
    i = k.var("i", 12544)
    assert i // 896 * 896 + i // 64 % 14 * 64 + i % 64 is i


def flatten_numbers(point: list[int], shape: tuple[int, ...]) -> int:
    """The row-major position of a point."""
    position = 0
    for p, n in zip(point, shape, strict=True):
        assert 0 <= p < n
        position = position * n + p
    return position


@pytest.mark.parametrize("shape", [(4, 6), (14, 14, 64), (2, 3, 5, 7)], ids=str)
def test_an_index_that_is_cut_and_joined_is_itself(shape: tuple[int, ...]) -> None:
    """Remainders of quotients too: arrays in order are read without counting axes."""
    i = k.var("i", math.prod(shape))
    assert flatten(unflatten(i, shape), shape) is i
    assert flatten(unflatten(i, shape), shape) + 3 is i + 3
