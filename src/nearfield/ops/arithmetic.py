"""Elementwise arithmetic, comparison, logic and conversion: rows that are a few instructions each."""

from typing import Any

from .. import scalar as k
from ..dtype import DType
from ..op import np
from ..scalar import K
from ..tensor import call
from .approximation import top
from .define import elementwise, narrow, record

__all__ = [
    "abs", "add", "bitwise_and", "bitwise_invert", "bitwise_left_shift", "bitwise_or", "bitwise_right_shift",
    "bitwise_xor", "ceil", "divide", "equal", "floor", "floor_divide", "greater", "greater_equal", "isfinite", "isinf",
    "isnan", "less", "less_equal", "logical_and", "logical_not", "logical_or", "logical_xor", "maximum", "minimum",
    "multiply", "negative", "not_equal", "remainder", "round", "sign", "signbit", "sqrt", "square", "subtract", "trunc",
    "where",
]  # fmt: skip


def _zero(x: K) -> K:
    return k.const(0, x.type)


@elementwise(ref=lambda x, y: np.add(x, y), grad=lambda g, x, y, z: (g, g))
def add(x: K, y: K) -> K:
    """x + y"""
    return x + y


@elementwise(ref=lambda x, y: np.subtract(x, y), grad=lambda g, x, y, z: (g, -g))
def subtract(x: K, y: K) -> K:
    """x - y"""
    return x - y


@elementwise(ref=lambda x, y: np.multiply(x, y), grad=lambda g, x, y, z: (g * y, g * x))
def multiply(x: K, y: K) -> K:
    """x y"""
    return x * y


@elementwise(ref=lambda x, y: np.divide(x, y), result="float", kinds="f", grad=lambda g, x, y, z: (g / y, -g * z / y))
def divide(x: K, y: K) -> K:
    """x / y; integers are converted to float32 first."""
    return x / y


def _floor_divide_ref(x: Any, y: Any) -> Any:
    if x.dtype.kind == "f":
        q = x / y
        lost = (q == 0) & (x != 0) & np.isfinite(y) & (np.signbit(x) != np.signbit(y))  # a quotient that underflowed
        return np.where(np.rint(q) * y == x, np.rint(q), np.where(lost, -1, np.floor(q)))
    return np.where(y == 0, 0, np.floor_divide(x, np.where(y == 0, 1, y)))


def _real_floor(x: K, y: K) -> K:
    """The floor of x / y; also where division is not exact (multiples of y), or flushes a small quotient to 0."""
    quotient = x / y
    n, q = k.nearest(quotient), k.floor(quotient)
    rest, zero = x - n * y, _zero(x)
    below = (k.less(rest, zero) & k.less(zero, y)) | (k.less(zero, rest) & k.less(y, zero))
    lost = k.equal(q, zero) & below
    return k.select(k.equal(n * y, x), n, k.select(lost & k.equal(n, zero), q - 1.0, q))


@elementwise(
    ref=_floor_divide_ref, grad=lambda g, x, y, z: (call("zeros_like", g), call("zeros_like", g))
)  # fmt: skip
def floor_divide(x: K, y: K) -> K:
    """x / y rounded down, exact where x is a multiple of y as far as x's digits tell; by the integer 0 it gives 0."""
    if x.type.startswith("float"):
        return _real_floor(x, y)
    q = x / y
    if x.type.startswith("u"):
        return q
    down = k.not_equal(q * y, x) & k.less(x ^ y, 0)
    return k.select(k.equal(y, 0), _zero(x), q - k.cast(down, x.type))


def _remainder_ref(x: Any, y: Any) -> Any:
    if x.dtype.kind == "f":
        return np.remainder(x, y)
    return np.where(y == 0, 0, np.remainder(x, np.where(y == 0, 1, y)))


def _real_rest(x: K, y: K) -> K:
    """x - y n with n = x / y without its fraction; exact while n has no more than 12 bits (float64: 26)."""
    a, b = k.absolute(x), k.absolute(y)
    n, high = k.trunc(a / b), top(b)
    r = (a - n * high) - n * (b - high)
    r = k.select(k.less_equal(b, r), r - b, k.select(k.less(r, 0), r + b, r))  # n may be 1 off
    r = k.select(k.less(a, b), a, r)
    return k.select(k.less(x, 0), -r, r)


@elementwise(
    ref=_remainder_ref, grad=lambda g, x, y, z: (g, -g * call("floor_divide", x, y)),
    samples=("cancels", {"quotient": 4000, "reason": "a quotient of many digits leaves no digits to the remainder"}),
)  # fmt: skip
def remainder(x: K, y: K) -> K:
    """x - y floor(x / y), with the sign of y; by the integer 0 it gives 0."""
    if x.type.startswith("u"):
        return x % y
    zero = _zero(x)
    r = _real_rest(x, y) if x.type.startswith("float") else x % y
    wrong = k.not_equal(r, zero) & (k.less(r, zero) ^ k.less(y, zero))
    if x.type.startswith("float"):
        signed = k.select(k.equal(r, zero), _copysign(zero, y), k.select(wrong, r + y, r))
        return k.select(k.isnan(r) | k.equal(y, zero), k.const(float("nan"), x.type), signed)
    return k.select(k.equal(y, zero), zero, k.select(wrong, r + y, r))


def _word(x: K) -> tuple[K, int]:
    """The bits of a real number as an integer, and how many there are."""
    return (k.bits(x, "int64"), 64) if x.type == "float64" else (k.bits(x, "int32"), 32)


def _sign_mask(x: K) -> K:
    word, width = _word(x)
    return word & k.const(-(1 << (width - 1)), word.type)


def _copysign(x: K, y: K) -> K:
    word, width = _word(x)
    return k.bits((word & k.const((1 << (width - 1)) - 1, word.type)) | _sign_mask(y), x.type)


EITHER_ZERO = {"zeros": "any", "reason": "of 0 and -0 neither is larger"}


def _tied(g: Any, x: Any, y: Any, z: Any, first: str) -> Any:
    mine = call(first, x, y)
    return call("where", mine, g, 0), call("where", mine, 0, g)


@elementwise(
    ref=lambda x, y: np.maximum(x, y), grad=lambda g, x, y, z: _tied(g, x, y, z, "greater"), samples=(EITHER_ZERO,)
)  # fmt: skip
def maximum(x: K, y: K) -> K:
    """The larger of x and y; NaN if either is. Where they tie, the gradient goes to y."""
    return k.maximum(x, y)


@elementwise(
    ref=lambda x, y: np.minimum(x, y), grad=lambda g, x, y, z: _tied(g, x, y, z, "less"), samples=(EITHER_ZERO,)
)  # fmt: skip
def minimum(x: K, y: K) -> K:
    """The smaller of x and y; NaN if either is. Where they tie, the gradient goes to y."""
    return k.minimum(x, y)


@elementwise(ref=lambda x: np.negative(x), grad=lambda g, x, y: (-g,))
def negative(x: K) -> K:
    """-x; unsigned integers wrap."""
    return _zero(x) - x if x.type.startswith("u") else k.negative(x)


@elementwise(ref=lambda x: np.abs(x), grad=lambda g, x, y: (g * call("sign", x),))
def abs(x: K) -> K:
    """|x|; the most negative integer stays."""
    return x if x.type.startswith("u") else k.absolute(x)


def _sign_ref(x: Any) -> Any:
    return np.sign(x)


@elementwise(ref=_sign_ref, grad=lambda g, x, y: (call("zeros_like", g),))
def sign(x: K) -> K:
    """-1, 0 or 1; NaN stays."""
    zero, one = _zero(x), k.const(1, x.type)
    positive = k.select(k.less(zero, x), one, zero)
    if x.type.startswith("u"):
        return positive
    y = k.select(k.less(x, zero), k.const(-1, x.type), positive)
    return k.select(k.isnan(x), x, y) if x.type.startswith("float") else y


@elementwise(ref=lambda x: np.square(x), grad=lambda g, x, y: (g * x * 2,))
def square(x: K) -> K:
    """x²"""
    return x * x


@elementwise(
    ref=lambda x: np.sqrt(x), kinds="f", result="float", grad=lambda g, x, y: (g * 0.5 / y,), samples=("positive",)
)
def sqrt(x: K) -> K:
    """√x; NaN below 0."""
    return k.sqrt(x)


def _rounding(name: str, doc: str, reference: str = "") -> Any:
    def body(x: K) -> K:
        return getattr(k, "nearest" if name == "round" else name)(x) if x.type.startswith("float") else x

    body.__doc__ = doc
    numpy_name = reference or name
    ref = lambda x: getattr(np, numpy_name)(x) if x.dtype.kind == "f" else x  # noqa: E731
    return elementwise(ref=ref, grad=lambda g, x, y: (call("zeros_like", g),), name=name)(body)


floor = _rounding("floor", "The largest whole number not above x.")
ceil = _rounding("ceil", "The smallest whole number not below x.")
trunc = _rounding("trunc", "x without its fraction.")
round = _rounding("round", "The nearest whole number; halves go to the even one.", "rint")


def _comparison(name: str, make: Any, doc: str, kinds: str = "iuf") -> Any:
    def body(x: K, y: K) -> K:
        return make(x, y)

    body.__doc__ = doc
    return elementwise(ref=lambda x, y: getattr(np, name)(x, y), result="bool", kinds=kinds, name=name)(body)


def _same(x: K, y: K) -> K:
    return k.logical_not(x ^ y) if x.type == "bool" else k.equal(x, y)


less = _comparison("less", lambda x, y: k.less(x, y), "Whether x < y; false with NaN.")
less_equal = _comparison("less_equal", lambda x, y: k.less_equal(x, y), "Whether x ≤ y; false with NaN.")
greater = _comparison("greater", lambda x, y: k.less(y, x), "Whether x > y; false with NaN.")
greater_equal = _comparison("greater_equal", lambda x, y: k.less_equal(y, x), "Whether x ≥ y; false with NaN.")
equal = _comparison("equal", _same, "Whether x = y; false with NaN.", "biuf")
not_equal = _comparison(
    "not_equal", lambda x, y: x ^ y if x.type == "bool" else k.not_equal(x, y), "Whether x ≠ y; true with NaN.", "biuf"
)
logical_and = _comparison("logical_and", lambda x, y: x & y, "Whether both are true.", "b")
logical_or = _comparison("logical_or", lambda x, y: x | y, "Whether either is true.", "b")
logical_xor = _comparison("logical_xor", lambda x, y: x ^ y, "Whether exactly one is true.", "b")


@elementwise(ref=lambda x: np.logical_not(x), kinds="b", result="bool")
def logical_not(x: K) -> K:
    """Whether x is false."""
    return k.logical_not(x)


@elementwise(ref=lambda x: np.isnan(x), kinds="f", result="bool")
def isnan(x: K) -> K:
    """Whether x is not a number."""
    return k.isnan(x)


def _magnitude(x: K) -> K:
    word, width = _word(x)
    return word & k.const((1 << (width - 1)) - 1, word.type)


def _infinity(word: K) -> K:
    return k.const(0x7FF0000000000000 if word.type == "int64" else 0x7F800000, word.type)


@elementwise(ref=lambda x: np.isinf(x), kinds="f", result="bool")
def isinf(x: K) -> K:
    """Whether x is ∞ or -∞."""
    m = _magnitude(x)
    return k.equal(m, _infinity(m))


@elementwise(ref=lambda x: np.isfinite(x), kinds="f", result="bool")
def isfinite(x: K) -> K:
    """Whether x is neither infinite nor NaN."""
    m = _magnitude(x)
    return k.less(m, _infinity(m))


@elementwise(ref=lambda x: np.signbit(x), kinds="f", result="bool")
def signbit(x: K) -> K:
    """Whether the sign bit is set: true for -0.0."""
    word = _word(x)[0]
    return k.less(word, _zero(word))


@elementwise(
    ref=lambda x, y: np.copysign(x, y), kinds="f", grad=lambda g, x, y, z: (g * call("sign", x) * call("sign", z), None)
)
def copysign(x: K, y: K) -> K:
    """The magnitude of x with the sign of y."""
    return _copysign(x, y)


def _bitwise(name: str, make: Any, doc: str) -> Any:
    def body(x: K, y: K) -> K:
        return make(x, y)

    body.__doc__ = doc
    return elementwise(ref=lambda x, y: getattr(np, name)(x, y), kinds="biu", name=name)(body)


bitwise_and = _bitwise("bitwise_and", lambda x, y: x & y, "The bits set in both.")
bitwise_or = _bitwise("bitwise_or", lambda x, y: x | y, "The bits set in either.")
bitwise_xor = _bitwise("bitwise_xor", lambda x, y: x ^ y, "The bits set in exactly one.")


@elementwise(ref=lambda x: np.invert(x), kinds="biu")
def bitwise_invert(x: K) -> K:
    """All bits turned over; of a bool, its opposite."""
    return k.logical_not(x) if x.type == "bool" else k.invert(x)


def _shift_ref(name: str) -> Any:
    def meaning(x: Any, y: Any) -> Any:
        wide, by = x.astype("int64"), y.astype("int64")
        out = (by < 0) | (by > 31 if x.dtype.itemsize < 8 else by > 63)
        full = np.where(wide < 0, -1, 0) if name == "right" else np.zeros_like(wide)
        by = np.where(out, 0, by)
        return np.where(out, full, wide << by if name == "left" else wide >> by)

    return meaning


def _outside(x: K, y: K) -> K:
    return k.less(k.const(63 if x.type == "int64" else 31, y.type), y) | k.less(y, _zero(y))


@elementwise(ref=_shift_ref("left"), kinds="iu")
def bitwise_left_shift(x: K, y: K) -> K:
    """x 2^y; bits that leave are lost, and shifting by all bits or more gives 0."""
    return k.select(_outside(x, y), _zero(x), x << y)


@elementwise(ref=_shift_ref("right"), kinds="iu")
def bitwise_right_shift(x: K, y: K) -> K:
    """x / 2^y rounded down; shifting by all bits or more gives 0, or -1 for negative x."""
    sign = _zero(x) if x.type.startswith("u") else x >> (63 if x.type == "int64" else 31)
    return k.select(_outside(x, y), sign, x >> y)


@elementwise(
    ref=lambda c, x, y: np.where(c, x, y), kinds="biuf", mixed=1,
    grad=lambda g, c, x, y, z: (None, call("where", c, g, 0), call("where", c, 0, g)),
)  # fmt: skip
def where(condition: K, x: K, y: K) -> K:
    """x where the condition is true, else y."""
    return k.select(condition, x, y)


def _cast_element(index: Any, sources: Any, shape: Any, dtype: DType, attrs: Any) -> K:
    value = narrow(k.cast(sources[0].at(index), dtype.compute), dtype)
    return k.half(value) if dtype.name == "float16" and sources[0].dtype.itemsize > 2 else value


def _cast_ref(x: Any, *, dtype: DType) -> Any:
    """Reals saturate at 32 (64) bits and then wrap into small integers; NaN gives 0."""
    if x.dtype.kind != "f" or dtype.kind not in "iu":
        with np.errstate(all="ignore"):
            return x.astype(dtype.name)
    wide = {"u": "uint32", "i": "int64" if dtype.itemsize == 8 else "int32"}[dtype.kind]
    low, high = int(np.iinfo(wide).min), int(np.iinfo(wide).max)
    real = np.trunc(np.nan_to_num(x.astype("float64"), nan=0.0, posinf=1e30, neginf=-1e30))
    whole = [min(max(int(v), low), high) for v in real.reshape(-1).tolist()]
    return np.asarray(whole, wide).reshape(x.shape).astype(dtype.name)


record(
    "cast", "elementwise", 1, lambda shapes, dtypes, a: (shapes[0], a["dtype"]), _cast_element, _cast_ref,
    lambda g, x, y, dtype: (call("astype", g, x.dtype),), "The values as another dtype.", tol=0.0,
)  # fmt: skip


def _identity(name: str, grad: Any, doc: str) -> None:
    record(
        name, "movement", 1, lambda shapes, dtypes, a: (shapes[0], dtypes[0]),
        lambda index, sources, shape, dtype, attrs: sources[0].at(index), lambda x, dtype: x, grad, doc, tol=0.0,
    )  # fmt: skip


_identity("identity", lambda g, x, y: (g,), "x itself, as a variable of its own.")
_identity("stop_gradient", lambda g, x, y: (None,), "x, treated as a constant by differentiation.")
