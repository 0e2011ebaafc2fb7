"""What the bodies of mathematical functions are made of: constants, polynomials, range reductions, in K.

Each takes float32 or float64 and chooses its constants to match. A reduction brings the argument into a short interval,
where a polynomial is as good as the type.

Compensated steps (x - n c1 - n c2) multiply numbers of so few bits that the product is exact, with and without fused
multiply-add. A compiler that re-associates them costs accuracy, never a NaN.

source  Cody & Waite 1980, "Software Manual for the Elementary Functions": range reductions. Muller 2016, "Elementary
        Functions", chapters 11 and 12: evaluation, error-free splitting. Polynomials: Chebyshev fits of our own.
"""

import math
from collections.abc import Callable
from typing import Any

from .. import scalar as k
from ..scalar import K

__all__ = [
    "ERF_LARGE", "ERF_OVER", "ERF_SMALL", "ERF_UNDER", "EXP", "LN2", "PI", "asin_parts", "atan_ratio", "circle",
    "clamp", "exp_below", "exp_lifted", "exp_of", "exp_parts", "exp_rest", "exp_rest_of_difference", "log1p_of",
    "log_edges", "log_rest", "never_positive", "number", "or_tiny", "pick", "poly", "power_of", "quarter_expm1",
    "scale", "sign_bit", "signed", "split", "top", "with_sign",
]  # fmt: skip

LIFT = (25.0, 65.0)  # odd, as the bias is: see wasm_rounding.py
LN2 = (0.693359375, -2.1219444e-4), (0.6931471803691238, 1.9082149292705877e-10)
PI = (3.1415927, -8.742278e-8), (3.141592653589793, 1.2246467991473532e-16)
HALF_PI = (
    (1.5703125, 0.0004825592041015625, 1.2665987014770508e-06, 9.920936e-10),
    (1.5707963267341256, 6.077100506303966e-11, 2.0222662487111665e-21, 8.4784276603689e-32),
)  # of so few bits each that a multiple below 2^16 (2^20) is exact
LOG2_E = (1.4423828125, 3.1222838896e-4), (1.4426950216293335, 1.9259629911266175e-08)
LOG2_NEAR = (
    ((0.8125, -0.2994384765625, -0.000121805296), (1.25, 0.3218994140625, 2.86808249e-05)),
    ((0.8125, -0.2995602786540985, -3.204809328861e-09), (1.25, 0.32192809134721756, 3.5401447880558664e-09)),
)  # numbers, and their logarithms to base 2 as sums

EXP = (
    (0.5, 0.16666576, 0.041666552, 0.008363233, 0.001392625),
    (
        0.5, 0.1666666666666667, 0.04166666666666667, 0.008333333333326084, 0.0013888888888883711,
        0.0001984126987500228, 2.480158732567746e-05, 2.755725517000089e-06, 2.755727347871858e-07,
        2.5105312729622103e-08, 2.09147553258932e-09,
    ),
)  # fmt: skip
LOG = (
    (0.6666667, 0.40000123, 0.28550813, 0.23330697),
    (
        0.6666666666666666, 0.4000000000000088, 0.2857142857080285, 0.22222222391887064, 0.18181795621632782,
        0.15386240708969665, 0.13268746195596595, 0.13086907887965027,
    ),
)  # fmt: skip
SIN = (
    (-0.16666664, 0.008332725, -0.00019582831),
    (
        -0.16666666666666666, 0.0083333333333307, -0.00019841269836385435, 2.7557315910939e-06,
        -2.5051092308431318e-08, 1.5915309183057952e-10,
    ),
)  # fmt: skip
COS = (
    (0.041666664, -0.0013888279, 2.4542871e-05),
    (
        0.041666666666666664, -0.0013888888888887241, 2.480158729853226e-05, -2.7557317151858866e-07,
        2.0876121534608454e-09, -1.1380868171449914e-11,
    ),
)  # fmt: skip
ASIN = (
    (0.16666673, 0.07498853, 0.045001894, 0.026550664, 0.03809396),
    (
        0.16666666666666666, 0.07500000000000119, 0.04464285714255019, 0.030381944475693704, 0.022372157435623815,
        0.017352816768546473, 0.013963775787848137, 0.011566511821890942, 0.00962140274734483, 0.009322101501082774,
        0.0030350071727267623, 0.019579201619744684, -0.019277545928584557, 0.02963502626354855,
    ),
)  # fmt: skip
ATAN = (
    (-0.3333333, 0.1999954, -0.14263912, 0.10743263, -0.064503774),
    (
        -0.3333333333333333, 0.19999999999999804, -0.14285714285659457, 0.11111111105119366, -0.09090908751706075,
        0.07692296323157785, -0.06666423954373413, 0.058789182929757273, -0.05230375457576669, 0.04551233844829568,
        -0.03456132296826231, 0.01627552168389342,
    ),
)  # fmt: skip
ERF_SMALL = (  # float64, below 1; above, ERF_LARGE
    0.1283791670955126, -0.37612638903183754, 0.1128379167095512, -0.02686617064512984, 0.0052239776254232985,
    -0.000854832702193483, 0.00012055332902888736, -1.4925647567519332e-05, 1.6462045441468418e-06,
    -1.6364642158167616e-07, 1.4792401209404813e-08, -1.216456005728345e-09, 8.709045129053106e-11,
    -4.230945824295338e-12,
)  # fmt: skip
ERF_LARGE = (
    1.2965841302986556e-07, 0.2820897599291754, 0.28218525546082207, 0.24583414322512834, 0.1838751661873122,
    0.042165810841716535, 0.16640235642296913, -0.5883804984529776, 1.2007988921739574, -2.216111295830811,
    2.868911487616877, -2.3603463108671057, 1.171209502392138, -0.29910874031127394, 0.013174502501744024,
    0.007301134995856917,
)  # fmt: skip
# float32, fitted up to 3.9: x over / under.
ERF_OVER = (1.12837915, 0.189668201, 0.0526682506, 0.0037383972, 0.00028506191, 2.06644595e-06)
ERF_UNDER = (1.0, 0.501421849, 0.113819513, 0.0149143862, 0.00115738557, 3.82697185e-05)


def pick(x: K, choices: tuple[Any, Any]) -> Any:
    """The first for float32, the second for float64."""
    return choices[x.type == "float64"]


def poly(x: K, coefficients: tuple[Any, Any]) -> K:
    return k.horner(x, *pick(x, coefficients))


def number(value: float, x: K) -> K:
    return k.const(value, x.type)


def scale(p: K, n: K) -> K:
    """p 2^n in two steps, so that only the last one rounds or overflows."""
    half = k.whole(n * 0.5)
    return p * k.power2(half) * k.power2(n - half)


def or_tiny(x: K, y: K) -> K:
    """y, but x itself where x is so small (or zero, of either sign) that y rounds to it."""
    return k.select(k.less(k.absolute(x), number(pick(x, (2.0**-26, 2.0**-55)), x)), x, y)


def with_sign(y: K, x: K) -> K:
    """y, not below 0, with the sign of x."""
    word, bit = pick(x, (("int32", -(1 << 31)), ("int64", -(1 << 63))))
    return k.bits(k.bits(y, word) | (k.bits(x, word) & bit), x.type)


def signed(y: K, x: K) -> K:
    """The odd function that is y where x is positive."""
    return or_tiny(x, with_sign(y, x))


def clamp(x: K, low: tuple[float, float], high: tuple[float, float]) -> K:
    return k.maximum(k.minimum(x, pick(x, high)), pick(x, low))


def sign_bit(x: K) -> K:
    return k.less(k.bits(x, pick(x, ("int32", "int64"))), 0)


def exp_rest(x: K) -> tuple[K, K]:
    """n and r with x = n ln 2 + r."""
    high, low = pick(x, LN2)
    n = k.whole(x * 1.4426950408889634)
    return n, x - n * high - n * low


def exp_parts(x: K) -> tuple[K, K]:
    """n and e^r - 1, with x = n ln 2 + r."""
    n, r = exp_rest(x)
    return n, r * r * poly(r, EXP) + r


def exp_rest_of_difference(x: K) -> tuple[K, K]:
    """n and r with x = n ln 2 + r, where x is a rounded difference: wrong by 2^-25 x, this adds 2^-28 x.

    It takes a fused multiplication and addition; without one it adds as much as the difference is wrong.
    """
    n = k.whole(x * 1.4426950408889634)
    return n, x - n * math.log(2)


def exp_near(r: K) -> K:
    """e^r for |r| ≤ ln 2 / 2"""
    return k.horner(r, 1.0, 1.0, *pick(r, EXP))


def never_positive(x: K) -> bool:
    """Whether x is seen to be a - m, with m the largest of the a's, or 0 if that is -∞: not above 0, or NaN."""
    if x.op != "sub":
        return False
    a, m = x.args
    if m.op == "select" and m.args[0] is k.equal(m.args[2], -math.inf) and m.args[1] is number(0, x):
        m = m.args[2]
    if m.op != "reduce" or m.value[0] != "max" or len(m.value[1]) > 1:
        return False
    (r,) = m.value[1]
    return any(k.substitute(m.args[0], {r: v}) is a for v in a.free if v.value[1] == r.value[1])


def exp_of(x: K) -> K:
    if never_positive(x):
        return exp_below(x)
    n, r = exp_rest(clamp(x, (-104.0, -746.0), (89.0, 710.0)))
    return scale(exp_near(r), n)


def exp_below(x: K) -> K:
    """e^x for x that is not above 0: only the last product can round to a subnormal number."""
    return exp_lifted(x) * 2.0 ** -pick(x, LIFT)


def exp_lifted(x: K, rest: Callable[[K], tuple[K, K]] = exp_rest) -> K:
    """e^x times 2^LIFT, for x that is not above 0: never 0, and never subnormal."""
    n, r = rest(k.maximum(x, pick(x, (-104.0, -746.0))))
    return exp_near(r) * k.power2(n + pick(x, LIFT))


def quarter_expm1(x: K) -> K:
    """(e^x - 1) / 4: the quarter keeps it finite where sinh is."""
    n, e = exp_parts(clamp(x, (-20.0, -40.0), (89.5, 710.6)))
    s = k.power2(n - 2.0)
    return s * e + (s - 0.25)


def split(x: K) -> tuple[K, K]:
    """e and m with x = 2^e m and √½ ≤ m < √2, for positive finite x; e is whole and of x's type."""
    word, middle, shift, least, lift = pick(
        x, (("int32", 0x3F3504F3, 23, 2.0**-126, 25), ("int64", 0x3FE6A09E667F3BCD, 52, 2.0**-1022, 54))
    )
    small = k.less(x, number(least, x))
    i = k.bits(k.select(small, x * 2.0**lift, x), word) - middle
    e = k.cast(i >> shift, x.type) - k.select(small, number(lift, x), number(0, x))
    return e, k.bits((i & ((1 << shift) - 1)) + middle, x.type)


def log_rest(f: K) -> K:
    """f - log(1 + f), for √½ ≤ 1 + f < √2."""
    half = f * f * 0.5
    s = f / (f + 2.0)
    z = s * s
    return half - s * (half + z * poly(z, LOG))


def log_edges(x: K, y: K) -> K:
    """y inside the domain; -∞ at 0, ∞ at ∞, NaN below 0 and for NaN."""
    infinity, zero = number(math.inf, x), number(0, x)
    inside = k.less(zero, x)
    outside = k.select(k.equal(x, zero), -infinity, number(math.nan, x))
    return k.select(inside, k.select(k.less(x, infinity), y, infinity), outside)


def log1p_of(x: K) -> K:
    """log(1 + x): what 1 + x loses to rounding is put back."""
    high, low = pick(x, LN2)
    u = x + 1.0
    e, m = split(u)
    near = k.less(x, number(0.41421354, x)) & k.less(number(-0.29289323, x), x)
    zero = number(0, x)
    lost = k.select(k.less(x, 1), x - (u - 1.0), number(1, x) - (u - x)) / u
    f = k.select(near, x, m - 1.0)
    e, lost = k.select(near, zero, e), k.select(near, zero, lost)
    return or_tiny(x, log_edges(u, e * high + (f - (log_rest(f) - (e * low + lost)))))


def circle(x: K) -> tuple[K, K, K]:
    """The number of the quarter turn, int32, and sine and cosine of what is left, at most π/4 either way.

    Beyond 1e5 (float64: 1e6) what is left loses digits; it stays within bounds, so that results do, for every finite x.
    """
    j = k.nearest(x * 0.6366197723675814)
    c1, c2, c3, c4 = pick(x, HALF_PI)
    whole, part = x - j * c1 - j * c2, j * c3
    r = whole - part
    r = r - (j * c4 - ((whole - r) - part))
    r = clamp(r, (-0.8, -0.8), (0.8, 0.8))
    z = r * r
    return k.cast(j, "int32"), r * z * poly(z, SIN) + r, number(1, x) - (z * 0.5 - z * z * poly(z, COS))


def asin_parts(x: K) -> tuple[K, K, K, K]:
    """Whether |x| > ½; the argument a ≤ ½ to use instead; asin(a) - a; NaN where |x| > 1, else 0."""
    a = k.absolute(x)
    large = k.less(number(0.5, x), a)
    z = k.select(large, (number(1, x) - a) * 0.5, a * a)
    s = k.select(large, k.sqrt(z), a)
    wrong = k.select(k.less(number(1, x), a), number(math.nan, x), number(0, x))
    return large, s, s * z * poly(z, ASIN), wrong


def atan_ratio(n: K, d: K) -> K:
    """The angle whose tangent is n / d, for 0 ≤ n ≤ d, 0 < d."""
    high, low = pick(n, PI)
    middle = k.less(d * 0.41421356, n)
    t = k.select(middle, n - d, n) / k.select(middle, n + d, d)
    z = t * t
    zero = number(0, n)
    rest = t * z * poly(z, ATAN) + k.select(middle, number(low / 4, n), zero)
    return k.select(middle, number(high / 4, n), zero) + (t + rest)


def top(x: K) -> K:
    """x with the upper half of its digits, so that products of two such numbers are exact."""
    word, mask = pick(x, (("int32", -(1 << 12)), ("int64", -(1 << 27))))
    return k.bits(k.bits(x, word) & mask, x.type)


def log2_pair(a: K) -> tuple[K, K]:
    """The logarithm to base 2 as a sum of two numbers, the first of half length; for positive finite a.

    a = 2^e m, and c a number near m; log(m / c) = 2 s + s³ R(s²) with s = (m - c) / (m + c), itself a sum of two
    """
    e, m = split(a)
    below, above = k.less(m, number(0.9, a)), k.less(number(1.12, a), m)
    low, high = pick(a, LOG2_NEAR)
    c, c_high, c_low = (
        k.select(below, number(x, a), k.select(above, number(y, a), number(middle, a)))
        for x, y, middle in zip(low, high, (1.0, 0.0, 0.0), strict=True)
    )
    f, d = m - c, m + c
    s, dh = f / d, top(d)
    sh = top(s)
    sl = ((f - sh * dh) - sh * (m - (dh - c))) / d
    z = s * s
    rest = sl * 2.0 + s * z * poly(z, LOG)
    h, l = pick(a, LOG2_E)
    main = sh * 2.0 * h
    rest = (sh * 2.0 * l + rest * 1.4426950408889634) + c_low
    whole = top(e + (c_high + (main + rest)))
    return whole, (main - ((whole - e) - c_high)) + rest


def power_of(a: K, y: K) -> K:
    """a^y for positive finite a and y that is not NaN."""
    high, low = log2_pair(a)
    y = clamp(y, (-(2.0**32), -(2.0**64)), (2.0**32, 2.0**64))  # beyond, only 1^y is not 0 or ∞
    yh = top(y)
    main, rest = yh * high, (y - yh) * high + y * low
    t = clamp(main + rest, (-160.0, -1100.0), (140.0, 1040.0))
    n = k.nearest(t)
    r = ((main - n) + rest) * math.log(2)
    r = k.select(k.less(k.absolute(r), 1), r, number(0, a))  # where t was clamped
    return scale(r * r * poly(r, EXP) + r + 1.0, n)
