"""Elementwise mathematics: exponentials, logarithms, circular and hyperbolic functions, powers, erf.

Each body brings its argument into a short interval, evaluates a polynomial there, and undoes the reduction. Signs of
zero, infinities, NaN and subnormal results come out as IEEE 754 and the array API standard want them. A body receives
float32 or float64. `tol` is what float32 may be off, relatively, on any device: a GPU's division is less exact than
IEEE 754's. With exact division, errors are about 1 to 3 units in the last place (erf: 6).
"""

import math
from typing import Any

from .. import scalar as k
from ..op import np
from ..scalar import K
from ..tensor import call
from .approximation import (
    ERF_LARGE,
    ERF_OVER,
    ERF_SMALL,
    ERF_UNDER,
    EXP,
    LN2,
    PI,
    asin_parts,
    atan_ratio,
    circle,
    clamp,
    exp_below,
    exp_of,
    exp_parts,
    log1p_of,
    log_edges,
    log_rest,
    number,
    or_tiny,
    pick,
    poly,
    power_of,
    quarter_expm1,
    scale,
    sign_bit,
    signed,
    split,
    with_sign,
)
from .define import elementwise

__all__ = [
    "acos", "acosh", "asin", "asinh", "atan", "atan2", "atanh", "cos", "cosh", "erf", "exp", "exp2", "expm1", "hypot",
    "log", "log1p", "log2", "log10", "logaddexp", "pow", "reciprocal", "rsqrt", "sigmoid", "sin", "sinh", "tan", "tanh",
]  # fmt: skip

FAR = {"limit": 1e5, "reason": "farther out the reduction of the argument loses digits"}


def _real(name: str) -> Any:
    """NumPy's function in double precision; the family rounds the result to the dtype."""
    return lambda *xs: getattr(np, name)(*(x.astype("float64") for x in xs))


# --- exponentials ---------------------------------------------------------------------------------------------------


@elementwise(ref=_real("exp"), kinds="f", result="float", grad=lambda g, x, y: (g * y,), tol=3e-7)
def exp(x: K) -> K:
    """e^x"""
    return exp_of(x)


@elementwise(ref=_real("exp2"), kinds="f", result="float", grad=lambda g, x, y: (g * y * math.log(2),), tol=3e-7)
def exp2(x: K) -> K:
    """2^x; exact for whole x."""
    x = clamp(x, (-151.0, -1076.0), (129.0, 1025.0))
    n = k.whole(x)
    r = (x - n) * math.log(2)
    return scale(r * r * poly(r, EXP) + r + 1.0, n)


@elementwise(ref=_real("expm1"), kinds="f", result="float", grad=lambda g, x, y: (g * (y + 1),), tol=4e-7)
def expm1(x: K) -> K:
    """e^x - 1, accurate near 0."""
    return or_tiny(x, quarter_expm1(x) * 4.0)


def _sigmoid_ref(x: Any) -> Any:
    x = x.astype("float64")
    return np.exp(np.minimum(x, 0)) / (1 + np.exp(-np.abs(x)))


@elementwise(ref=_sigmoid_ref, kinds="f", result="float", grad=lambda g, x, y: (g * y * (1 - y),), tol=5e-7)
def sigmoid(x: K) -> K:
    """1 / (1 + e^-x), without overflow on either side."""
    z = exp_below(-k.absolute(x))
    return k.select(k.less(x, 0), z, number(1, x)) / (z + 1.0)


# --- logarithms -----------------------------------------------------------------------------------------------------


@elementwise(
    ref=_real("log"), kinds="f", result="float", grad=lambda g, x, y: (g / x,), samples=("positive",), tol=3e-7
)
def log(x: K) -> K:
    """The natural logarithm; -∞ at 0, NaN below."""
    high, low = pick(x, LN2)
    e, m = split(x)
    f = m - 1.0
    return log_edges(x, e * high + (f - (log_rest(f) - e * low)))


@elementwise(
    ref=_real("log2"), kinds="f", result="float", grad=lambda g, x, y: (g / (x * math.log(2)),),
    samples=("positive",), tol=4e-7,
)  # fmt: skip
def log2(x: K) -> K:
    """The logarithm to base 2; exact for powers of 2."""
    e, m = split(x)
    f = m - 1.0
    return log_edges(x, e + (f - log_rest(f)) * 1.4426950408889634)


@elementwise(
    ref=_real("log10"), kinds="f", result="float", grad=lambda g, x, y: (g / (x * math.log(10)),),
    samples=("positive",), tol=4e-7,
)  # fmt: skip
def log10(x: K) -> K:
    """The logarithm to base 10."""
    high, low = pick(x, ((0.301025390625, 4.605039e-06), (0.3010299955494702, 1.1451100898021838e-10)))
    e, m = split(x)
    f = m - 1.0
    return log_edges(x, e * high + ((f - log_rest(f)) * 0.4342944819032518 + e * low))


@elementwise(
    ref=_real("log1p"), kinds="f", result="float", grad=lambda g, x, y: (g / (1 + x),), samples=((-0.9, 9.0),), tol=4e-7
)
def log1p(x: K) -> K:
    """log(1 + x), accurate near 0; -∞ at -1, NaN below."""
    return log1p_of(x)


def _logaddexp_grad(g: Any, x: Any, y: Any, z: Any) -> Any:
    return g * call("sigmoid", x - y), g * call("sigmoid", y - x)


@elementwise(
    ref=_real("logaddexp"), kinds="f", result="float", grad=_logaddexp_grad, samples=("cancels",), tol=4e-7
)  # fmt: skip
def logaddexp(x: K, y: K) -> K:
    """log(e^x + e^y), without overflow. Where it is near 0 its error is relative to x and y."""
    top = k.maximum(x, y)
    apart = k.select(k.equal(x, y), number(0, x), -k.absolute(x - y))
    return top + log1p_of(exp_below(apart))


# --- circular functions ---------------------------------------------------------------------------------------------


def _turned(q: K, s: K, c: K) -> K:
    """The sine q quarter turns on."""
    y = k.select(k.equal(q & 1, 0), s, c)
    return k.select(k.equal(q & 2, 0), y, -y)


@elementwise(
    ref=_real("sin"),
    kinds="f",
    result="float",
    grad=lambda g, x, y: (g * call("cos", x),),
    samples=((-99.0, 99.0), FAR),
    tol=3e-7,
)
def sin(x: K) -> K:
    """The sine. Beyond ±1e5 (float64: ±1e6) it loses digits, and stays between -1 and 1."""
    return or_tiny(x, _turned(*circle(x)))


@elementwise(
    ref=_real("cos"),
    kinds="f",
    result="float",
    grad=lambda g, x, y: (-g * call("sin", x),),
    samples=((-99.0, 99.0), FAR),
    tol=3e-7,
)
def cos(x: K) -> K:
    """The cosine. Beyond ±1e5 (float64: ±1e6) it loses digits, and stays between -1 and 1."""
    q, s, c = circle(x)
    return _turned(q + 1, s, c)


@elementwise(
    ref=_real("tan"),
    kinds="f",
    result="float",
    grad=lambda g, x, y: (g * (y * y + 1),),
    samples=((-1.4, 1.4), FAR),
    tol=6e-7,
)
def tan(x: K) -> K:
    """The tangent. Beyond ±1e5 (float64: ±1e6) it loses digits."""
    q, s, c = circle(x)
    even = k.equal(q & 1, 0)
    return or_tiny(x, k.select(even, s, -c) / k.select(even, c, s))


@elementwise(
    ref=_real("arcsin"), kinds="f", result="float", grad=lambda g, x, y: (g * call("rsqrt", (1 - x) * (1 + x)),),
    samples=((-0.9, 0.9),), tol=5e-7,
)  # fmt: skip
def asin(x: K) -> K:
    """The angle between -π/2 and π/2 whose sine is x; NaN outside -1 … 1."""
    high, low = pick(x, PI)
    large, s, rest, wrong = asin_parts(x)
    far = (number(high / 2, x) - s * 2.0) - (rest * 2.0 - low / 2)
    return signed(k.select(large, far, s + rest) + wrong, x)


@elementwise(
    ref=_real("arccos"), kinds="f", result="float", grad=lambda g, x, y: (-g * call("rsqrt", (1 - x) * (1 + x)),),
    samples=((-0.9, 0.9),), tol=5e-7,
)  # fmt: skip
def acos(x: K) -> K:
    """The angle between 0 and π whose cosine is x; NaN outside -1 … 1."""
    high, low = pick(x, PI)
    large, s, rest, wrong = asin_parts(x)
    negative = k.less(x, 0)
    sum_ = (s + rest) * 2.0
    far = k.select(negative, number(high, x) - (sum_ - low), sum_)
    turn = k.select(negative, -s, s)
    near = number(high / 2, x) - (turn - (number(low / 2, x) - k.select(negative, -rest, rest)))
    return k.select(large, far, near) + wrong


@elementwise(ref=_real("arctan"), kinds="f", result="float", grad=lambda g, x, y: (g / (x * x + 1),), tol=5e-7)
def atan(x: K) -> K:
    """The angle between -π/2 and π/2 whose tangent is x."""
    high, low = pick(x, PI)
    a = k.absolute(x)
    r = atan_ratio(k.minimum(a, 1), k.maximum(a, 1))
    return signed(k.select(k.less(number(1, x), a), number(high / 2, x) - (r - low / 2), r), x)


def _atan2_grad(g: Any, x: Any, y: Any, z: Any) -> Any:
    square = x * x + y * y
    return g * y / square, -g * x / square


@elementwise(ref=_real("arctan2"), kinds="f", result="float", grad=_atan2_grad, tol=6e-7)
def atan2(x: K, y: K) -> K:
    """The angle between -π and π of the point with ordinate x and abscissa y, from the positive abscissa."""
    high, low = pick(x, PI)
    a, b = k.absolute(x), k.absolute(y)
    small, large = k.minimum(a, b), k.maximum(a, b)
    down = k.select(k.less(number(2.0**100, x), large), number(2.0**-26, x), number(1, x))
    one, zero = number(1, x), number(0, x)
    same = k.equal(small, large)  # 0 / 0 is 0 and ∞ / ∞ is 1 here
    n = k.select(same, k.select(k.equal(large, zero), zero, one), small * down)
    r = atan_ratio(n, k.select(same, one, large * down))
    r = k.select(k.less(b, a), number(high / 2, x) - (r - low / 2), r)
    r = k.select(sign_bit(y), number(high, x) - (r - low), r)
    return k.select(sign_bit(x), -r, r)


# --- hyperbolic functions -------------------------------------------------------------------------------------------


@elementwise(ref=_real("sinh"), kinds="f", result="float", grad=lambda g, x, y: (g * call("cosh", x),), tol=5e-7)
def sinh(x: K) -> K:
    """(e^x - e^-x) / 2"""
    q = quarter_expm1(k.absolute(x))
    return signed(q * 2.0 + q / (q * 2.0 + 0.5), x)


@elementwise(ref=_real("cosh"), kinds="f", result="float", grad=lambda g, x, y: (g * call("sinh", x),), tol=5e-7)
def cosh(x: K) -> K:
    """(e^x + e^-x) / 2"""
    n, e = exp_parts(k.minimum(k.absolute(x), pick(x, (89.5, 710.6))))
    half = scale(e + 1.0, n - 1.0)
    return half + number(0.25, x) / half


@elementwise(ref=_real("tanh"), kinds="f", result="float", grad=lambda g, x, y: (g * (1 - y * y),), tol=5e-7)
def tanh(x: K) -> K:
    """sinh x / cosh x = m / (m + 2) with m = e^2x - 1, which is exact for the smallest x"""
    n, e = exp_parts(k.minimum(k.absolute(x), pick(x, (10.0, 20.0))) * 2.0)
    s = k.power2(n)
    m = s * e + (s - 1.0)
    return with_sign(m / (m + 2.0), x)


@elementwise(ref=_real("arcsinh"), kinds="f", result="float", grad=lambda g, x, y: (g / call("hypot", x, 1),), tol=6e-7)
def asinh(x: K) -> K:
    """The number whose hyperbolic sine is x."""
    a = k.absolute(x)
    large = k.less(number(pick(x, (2.0**30, 2.0**60)), x), a)
    square = a * a
    w = k.select(large, a, a + square / (k.sqrt(square + 1.0) + 1.0))
    return signed(log1p_of(w) + k.select(large, number(math.log(2), x), number(0, x)), x)


@elementwise(
    ref=_real("arccosh"), kinds="f", result="float", grad=lambda g, x, y: (g * call("rsqrt", (x - 1) * (x + 1)),),
    samples=((1.1, 9.0),), tol=6e-7,
)  # fmt: skip
def acosh(x: K) -> K:
    """The number not below 0 whose hyperbolic cosine is x; NaN below 1."""
    large = k.less(number(pick(x, (2.0**30, 2.0**60)), x), x)
    t, zero = x - 1.0, number(0, x)
    y = log1p_of(t + k.select(large, zero, k.sqrt(t * (t + 2.0)))) + k.select(large, number(math.log(2), x), zero)
    return k.select(k.less(x, 1), number(math.nan, x), y)


@elementwise(
    ref=_real("arctanh"), kinds="f", result="float", grad=lambda g, x, y: (g / ((1 - x) * (1 + x)),),
    samples=((-0.9, 0.9),), tol=6e-7,
)  # fmt: skip
def atanh(x: K) -> K:
    """The number whose hyperbolic tangent is x; ±∞ at ±1, NaN beyond."""
    a = k.absolute(x)
    return signed(log1p_of(a * 2.0 / (number(1, x) - a)) * 0.5, x)


# --- powers, roots, erf ---------------------------------------------------------------------------------------------


def _real_pow(x: K, y: K) -> K:
    """The special cases of IEEE 754 around `power_of`."""
    zero, one, infinity, nan = (number(v, x) for v in (0, 1, math.inf, math.nan))
    a = k.absolute(x)
    is_zero, is_infinite = k.equal(a, zero), k.equal(a, infinity)
    z = power_of(k.select(is_zero | is_infinite, one, a), y)
    grows = k.logical_not(k.less(zero, y) ^ is_infinite)
    z = k.select(is_zero | is_infinite, k.select(grows, infinity, zero), z)
    whole, half = k.equal(k.floor(y), y), y * 0.5
    odd = whole & k.not_equal(k.floor(half), half)
    z = k.select(sign_bit(x) & odd, -z, z)
    z = k.select(k.less(x, 0) & k.less(a, infinity) & k.logical_not(whole), nan, z)
    z = k.select(k.isnan(x) | k.isnan(y), nan, z)
    return k.select(k.equal(y, zero) | k.equal(x, one), one, z)


def _whole_pow(x: K, y: K) -> K:
    """By squaring, modulo the word."""
    one = number(1, x)
    y0, base = y, x
    result = one
    for _ in range({"int32": 31, "uint32": 32, "int64": 63}[x.type]):
        result = k.select(k.equal(y & 1, 0), result, result * base)
        base, y = base * base, y >> 1
    if x.type == "uint32":
        return result
    sign = k.select(k.equal(y0 & 1, 0), one, number(-1, x))
    below = k.select(k.equal(x, one), one, k.select(k.equal(x, -1), sign, number(0, x)))
    return k.select(k.less(y0, 0), below, result)


def _constant_pow(x: K, y: K) -> K | None:
    """Short forms for the commonest exponents, when the exponent is part of the program."""
    value = k.const_value(y)
    if value in (2, 3, 4):
        square = x * x
        return square * (x if value == 3 else square) if value > 2 else square
    if value == 0.5 and x.type.startswith("float"):
        infinity, zero = number(math.inf, x), number(0, x)
        return k.select(k.equal(x, -infinity), infinity, k.select(k.equal(x, zero), zero, k.sqrt(x)))
    if value == -1 and x.type.startswith("float"):
        return number(1, x) / x
    return x if value == 1 else None


def _pow_ref(x: Any, y: Any) -> Any:
    if x.dtype.kind == "f":
        return np.power(x.astype("float64"), y.astype("float64"))
    positive = np.power(x, np.maximum(y, 0))
    below = np.where(x == 1, 1, np.where(x == -1, 1 - 2 * (y & 1), 0)) if x.dtype.kind == "i" else 0
    return np.where(y < 0, below, positive)


def _pow_grad(g: Any, x: Any, y: Any, z: Any) -> Any:
    """y x^(y-1) and x^y log x, both 0 where they are 0 times ∞."""
    flat, positive = y == 0, x > 0
    first = call("where", flat, 0, y * call("pow", x, call("where", flat, 1, y) - 1))
    second = call("where", positive, z * call("log", call("where", positive, x, 1)), 0)
    return g * first, g * second


@elementwise(ref=_pow_ref, grad=_pow_grad, samples=("positive",), tol=6e-7)
def pow(x: K, y: K) -> K:
    """x^y, with the special cases of IEEE 754.

    Integers wrap; to a negative power 1 and -1 give ±1, and all others, 0 too, give 0.
    """
    short = _constant_pow(x, y) if y.op == "const" else None
    if short is not None:
        return short
    return _real_pow(x, y) if x.type.startswith("float") else _whole_pow(x, y)


@elementwise(
    ref=_real("reciprocal"),
    kinds="f",
    result="float",
    grad=lambda g, x, y: (-g * y * y,),
    samples=("positive",),
    tol=3e-7,
)
def reciprocal(x: K) -> K:
    """1 / x"""
    return number(1, x) / x


@elementwise(
    ref=lambda x: 1 / np.sqrt(x.astype("float64")), kinds="f", result="float", grad=lambda g, x, y: (g * y / x * -0.5,),
    samples=("positive",), tol=5e-7,
)  # fmt: skip
def rsqrt(x: K) -> K:
    """1 / √x; ∞ at 0, NaN below."""
    return number(1, x) / k.sqrt(x)


def _hypot_grad(g: Any, x: Any, y: Any, z: Any) -> Any:
    safe = call("where", z == 0, 1, z)
    return g * x / safe, g * y / safe


@elementwise(ref=_real("hypot"), kinds="f", result="float", grad=_hypot_grad, tol=4e-7)
def hypot(x: K, y: K) -> K:
    """√(x² + y²), without overflow on the way. Its gradient at (0, 0) is 0."""
    a, b = k.absolute(x), k.absolute(y)
    top, one = k.maximum(a, b), number(1, x)
    far, down, up = pick(x, ((62, 66, 86), (500, 600, 700)))
    large, small = k.less(number(2.0**far, x), top), k.less(top, number(2.0**-far, x))
    there = k.select(large, number(2.0**-down, x), k.select(small, number(2.0**up, x), one))
    back = k.select(large, number(2.0**down, x), k.select(small, number(2.0**-up, x), one))
    a, b = a * there, b * there
    infinity = number(math.inf, x)
    endless = k.equal(a, infinity) | k.equal(b, infinity)
    return k.select(endless, infinity, k.sqrt(a * a + b * b) * back)


def _erf_ref(x: Any) -> Any:
    return np.vectorize(math.erf, otypes=["float64"])(x.astype("float64"))


@elementwise(
    ref=_erf_ref, kinds="f", result="float", tol=7e-7,
    grad=lambda g, x, y: (g * call("exp", -x * x) * (2 / math.sqrt(math.pi)),),
)  # fmt: skip
def erf(x: K) -> K:
    """The error function: 2/√π times the integral of exp(-t²) from 0 to x."""
    if x.type == "float32":
        near = clamp(x, (-4.1, -4.1), (4.1, 4.1))  # where the ratio is 13 units beyond 1, however it is rounded
        z = near * near
        return clamp(near * k.horner(z, *ERF_OVER) / k.horner(z, *ERF_UNDER), (-1.0, -1.0), (1.0, 1.0))
    a = k.minimum(k.absolute(x), 6.0)
    n, e = exp_parts(-a * a)
    far = number(1, x) - k.horner(number(2, x) / (a + 2.0), *ERF_LARGE) * ((e + 1.0) * k.power2(n))
    near = x + x * k.horner(x * x, *ERF_SMALL)
    return k.select(k.less(a, 1), near, with_sign(far, x))
