"""Integer index expressions in a normal form: constant + Σ coefficient × term, with known bounds.

Movement ops are index maps; composed, they give sums, quotients and remainders that mostly cancel. Quotients round down
and remainders are not negative (divisors are positive constants).
"""

from collections.abc import Sequence
from functools import lru_cache
from math import gcd

from . import scalar as k
from .scalar import K

__all__ = ["flatten", "reindex", "unflatten"]

REMEMBERED = 16384  # sums, products … of each kind: unrolled loops and equal layers ask for the same ones again
Linear = tuple[int, dict[K, int]]


def linear(x: K) -> Linear:
    """The constant and the coefficient of each term."""
    if x.op == "const":
        return int(x.value), {}
    if x.op == "linear":
        constant, *coefficients = x.value
        return constant, dict(zip(x.args, coefficients, strict=True))
    return 0, {x: 1}


def from_linear(constant: int, terms: dict[K, int]) -> K:
    """The node for constant + Σ coefficient × term."""
    if 0 in terms.values():
        terms = {t: c for t, c in terms.items() if c}
    for t in terms:
        if t.op == "rem":
            terms = _recombine(terms)
            break
    if len(terms) > 1:
        terms = dict(sorted(terms.items(), key=_rank))
    return _node(constant, tuple(terms), tuple(terms.values()))


def _node(constant: int, terms: tuple[K, ...], coefficients: tuple[int, ...]) -> K:
    """The node for constant + Σ coefficient × term, with terms in normal form and order."""
    if not terms:
        return k.const(constant, "index")
    if constant == 0 and coefficients == (1,):
        return terms[0]
    low = high = constant
    # the compiler's innermost loop: plain is quicker than sums of generators
    for t, c in zip(terms, coefficients, strict=True):
        if c > 0:
            low += c * t.low
            high += c * t.high
        else:
            low += c * t.high
            high += c * t.low
    return k.make("linear", "index", terms, (constant, *coefficients), low, high)


def _rank(item: tuple[K, int]) -> tuple[int, str]:
    return -abs(item[1]), _text(item[0])


_text = lru_cache(maxsize=8192)(k.text)


def _recombine(terms: dict[K, int]) -> dict[K, int]:
    """x % n + n (x / n) is x."""
    for term, c in list(terms.items()):
        if term.op != "rem":
            continue
        x, n = term.args[0], int(term.args[1].value)
        quotient = div(x, term.args[1])  # in normal form: of a quotient, the quotient of what that is of
        if terms.get(quotient) == c * n:
            rest = {t: v for t, v in terms.items() if t is not term and t is not quotient}
            _, inner = linear(x)
            constant = linear(x)[0]
            if constant == 0:
                for t, v in inner.items():
                    rest[t] = rest.get(t, 0) + c * v
                return _recombine({t: v for t, v in rest.items() if v})
    return terms


def combined(x: K, args: Sequence[K]) -> K:
    """The sum x of other arguments."""
    constant, *coefficients = x.value
    terms: dict[K, int] = {}
    is_settled = True  # numbers aside, each argument is as it was: what is left keeps its order
    for a, c, before in zip(args, coefficients, x.args, strict=True):
        if a.op == "const":
            constant += c * a.value
        elif a is before:
            terms[a] = terms.get(a, 0) + c
        else:
            is_settled = False
            more, inner = linear(a)
            constant += c * more
            for t, n in inner.items():
                terms[t] = terms.get(t, 0) + c * n
    return _node(constant, tuple(terms), tuple(terms.values())) if is_settled else from_linear(constant, terms)


@lru_cache(maxsize=REMEMBERED)
def add(a: K, b: K) -> K:
    """a + b."""
    if a.op == "const":
        a, b = b, a
    if b.op == "const":
        return _moved(a, int(b.value))
    ca, ta = linear(a)
    cb, tb = linear(b)
    total = dict(ta)
    for t, c in tb.items():
        total[t] = total.get(t, 0) + c
    return from_linear(ca + cb, total)


def _moved(a: K, distance: int) -> K:
    """a + a number: its terms and their order stay."""
    if a.op == "linear":
        constant, *coefficients = a.value
        return _node(constant + distance, a.args, tuple(coefficients))
    if a.op == "const":
        return k.const(int(a.value) + distance, "index")
    return _node(distance, (a,), (1,))


@lru_cache(maxsize=REMEMBERED)
def mul(a: K, b: K) -> K:
    """a b; one of them is a constant, or the product is kept as it is."""
    if a.op == "const":
        a, b = b, a
    if b.op != "const":
        corners = [x * y for x in (a.low, a.high) for y in (b.low, b.high)]
        return k.make("mul", "index", (a, b), None, min(corners), max(corners))
    n = int(b.value)
    if a.op == "linear" and n:
        constant, *coefficients = a.value
        return _node(constant * n, a.args, tuple([c * n for c in coefficients]))
    if a.op == "const" or not n:
        return k.const(int(a.value) * n if n else 0, "index")
    return _node(0, (a,), (n,))


def sub(a: K, b: K) -> K:
    """a - b."""
    return add(a, mul(b, k.const(-1, "index")))


def _split(a: K, n: int) -> tuple[int, dict[K, int], int, dict[K, int]]:
    """a = n q + r: constant and terms of q, constant and terms of r."""
    constant, terms = linear(a)
    whole = {t: c // n for t, c in terms.items() if c % n == 0}
    rest = {t: c for t, c in terms.items() if c % n}
    return constant // n, whole, constant % n, rest


def _divisor(b: K) -> int:
    if b.op != "const" or int(b.value) <= 0:
        raise TypeError(f"index: the divisor must be a positive constant, not {b}")
    return int(b.value)


def _coarse(x: K, n: int) -> tuple[int, K, K] | None:
    """(g, c, f) with x = g c + f, g > 1 a divisor of n and 0 ≤ f < g: then f plays no part in x / n."""
    constant, terms = linear(x)
    for g in sorted({gcd(n, c) for c in terms.values()} - {1}, reverse=True):
        fine = from_linear(constant % g, {t: c for t, c in terms.items() if c % g})
        if fine.low >= 0 and fine.high < g:
            return g, from_linear(constant // g, {t: c // g for t, c in terms.items() if c % g == 0}), fine
    return None


@lru_cache(maxsize=REMEMBERED)
def div(a: K, b: K) -> K:
    """a / b rounded down, b a positive constant."""
    n = _divisor(b)
    if n == 1:
        return a
    qc, qt, rc, rt = _split(a, n)
    rest = from_linear(rc, rt)
    if rest.low < 0:  # make the dividend non-negative, so that truncating division rounds down
        shift = -(rest.low // n)
        qc, rc = qc - shift, rc + shift * n
        rest = from_linear(rc, rt)
    quotient = from_linear(qc, qt)
    if rest.high < n:
        return quotient
    common = gcd(n, *rt.values())
    if common > 1:
        rest, n = from_linear(rc // common, {t: c // common for t, c in rt.items()}), n // common
        if rest.high < n:
            return quotient
    parts = _coarse(rest, n)
    if parts is not None:
        g, coarse, _ = parts
        return add(quotient, div(coarse, k.const(n // g, "index")))
    if rest.op == "div":
        rest, n = rest.args[0], n * int(rest.args[1].value)
    if rest.op == "rem" and int(rest.args[1].value) % n == 0:
        m = int(rest.args[1].value)
        inner = rem(div(rest.args[0], k.const(n, "index")), k.const(m // n, "index"))
        return add(quotient, inner)
    node = k.make("div", "index", (rest, k.const(n, "index")), None, rest.low // n, rest.high // n)
    return add(quotient, node)


@lru_cache(maxsize=REMEMBERED)
def rem(a: K, b: K) -> K:
    """What a / b leaves, 0 … b - 1, b a positive constant."""
    n = _divisor(b)
    if n == 1:
        return k.const(0, "index")
    _, _, rc, rt = _split(a, n)
    rest = from_linear(rc, rt)
    if rest.low < 0:
        rest = add(rest, k.const(-(rest.low // n) * n, "index"))
    if rest.high < n:
        return rest
    common = gcd(n, *rt.values())
    if common > 1:
        constant, terms = linear(rest)
        inner = from_linear(constant // common, {t: c // common for t, c in terms.items()})
        small = rem(inner, k.const(n // common, "index"))
        return add(mul(small, k.const(common, "index")), k.const(constant % common, "index"))
    parts = _coarse(rest, n)
    if parts is not None:
        g, coarse, fine = parts
        return add(mul(rem(coarse, k.const(n // g, "index")), k.const(g, "index")), fine)
    if rest.op == "rem" and int(rest.args[1].value) % n == 0:
        rest = rest.args[0]
    return k.make("rem", "index", (rest, k.const(n, "index")), None, 0, n - 1)


def minimum(a: K, b: K) -> K:
    """The smaller."""
    if a.high <= b.low:
        return a
    if b.high <= a.low:
        return b
    return k.make("min", "index", (a, b), None, min(a.low, b.low), min(a.high, b.high))


def maximum(a: K, b: K) -> K:
    """The larger."""
    if a.low >= b.high:
        return a
    if b.low >= a.high:
        return b
    return k.make("max", "index", (a, b), None, max(a.low, b.low), max(a.high, b.high))


def less(a: K, b: K) -> K:
    """a < b."""
    d = sub(a, b)
    if d.high < 0:
        return k.const(True, "bool")
    return k.const(False, "bool") if d.low >= 0 else k.make("lt", "bool", (a, b))


def less_equal(a: K, b: K) -> K:
    """a <= b."""
    return less(a, add(b, k.const(1, "index")))


def equal(a: K, b: K) -> K:
    """a == b."""
    d = sub(a, b)
    if d.low == d.high == 0:
        return k.const(True, "bool")
    return k.const(False, "bool") if d.low > 0 or d.high < 0 else k.make("eq", "bool", (a, b))


def not_equal(a: K, b: K) -> K:
    """a != b."""
    return k.logical_not(equal(a, b))


k.INDEX_RULES.update(
    {"add": add, "sub": sub, "mul": mul, "div": div, "rem": rem, "min": minimum, "max": maximum,
     "lt": less, "le": less_equal, "eq": equal, "ne": not_equal, "linear": combined}
)  # fmt: skip


def flatten(indices: "list[K] | tuple[K, ...]", shape: tuple[int, ...]) -> K:
    """The position in row-major memory of the element at `indices` of an array of this shape."""
    total = k.const(0, "index")
    stride = 1
    for i, n in zip(reversed(indices), reversed(shape), strict=True):
        if n != 1:
            total = total + i * stride
        stride *= n
    return total


def unflatten(position: K, shape: tuple[int, ...]) -> list[K]:
    """The indices of the element at a row-major position."""
    indices: list[K] = []
    for n in reversed(shape):
        indices.append(position % n if n > 1 else k.const(0, "index"))
        position = position // max(n, 1)
    return indices[::-1]


def reindex(index: list[K], shape: tuple[int, ...], other: tuple[int, ...]) -> list[K]:
    """The index, in an array of the other shape, of the element at `index` of one of this shape, in row-major order.

    Axes that both shapes have are passed on as they are, also an index out of range; only those between are renumbered.
    """
    if 0 in shape:  # there is no element; an index that depends on the axes asks for none
        return unflatten(flatten(index, shape), other)
    found: list[K] = []
    i = j = 0
    while j < len(other):
        if other[j] == 1:
            found.append(k.const(0, "index"))
            j += 1
            continue
        before, after = i, j
        size, wanted = 1, other[j]
        j += 1
        while size != wanted:
            if size < wanted:
                size *= shape[i]
                i += 1
            else:
                wanted *= other[j]
                j += 1
        mine = [(x, n) for x, n in zip(index[before:i], shape[before:i], strict=True) if n != 1]
        if len(mine) == 1 == j - after:
            found.append(mine[0][0])
        else:
            found += unflatten(flatten(index[before:i], shape[before:i]), other[after:j])
    return found
