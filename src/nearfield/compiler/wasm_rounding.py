"""Rounding of small float32 numbers by addition, and powers of two from the digits of that sum.

1.5 · 2^23 is so large that its last digit counts ones: a sum with it is rounded to a whole number, which stands in its
last digits. Moved to the place of the exponent, they are a power of two; the bias is added with the large number. It
must be even, or halves would go to the odd neighbour, and to another one than in the rounding that the power is for.

What is rounded to be stored in a byte needs less: the sum's last byte is the whole number's.
"""

from collections.abc import Sequence
from math import inf

from .. import scalar as k
from ..scalar import K, const_value, walk

__all__ = ["begun", "last_byte", "round_by_addition", "saturated"]

LARGE = 1.5 * 2.0**23
MOST = 2.0**21  # the largest number that a sum with it surely rounds to a whole one
BIAS, DIGITS = 127, 23
ROUNDING = ("nearest", "whole")


def round_by_addition(roots: Sequence[K]) -> list[K]:
    """The expressions with `whole`, and `power2` of what it gives, as additions."""
    nodes = walk(list(roots))
    offsets = {_rounded(n): _offset(n) for n in nodes if n.op == "power2" and _offset(n) % 2 == 0}
    sums: dict[K, K] = {}
    done: dict[K, K] = {}
    for node in nodes:
        args = tuple(done[a] for a in node.args)
        if node.op == "whole" and node.type == "float32":
            number = LARGE + offsets.get(node, 0)
            sums[node] = args[0] + number
            done[node] = sums[node] - number
        elif node.op == "power2" and offsets.get(_rounded(node)) == _offset(node):
            done[node] = k.bits(k.bits(sums[_rounded(node)], "int32") << DIGITS, "float32")
        else:
            done[node] = k.rebuild(node, args)
    return [done[r] for r in roots]


def last_byte(value: K) -> K:
    """What has the value's last 8 bits, all that a byte in memory keeps, and takes less work.

    They are not brought into a byte's range first. A real number with constant bounds that is rounded becomes an
    integer by addition; of a NaN that somebody has made with other digits than is usual, these are left.
    """
    whole = _unwrapped(value)
    if whole.op != "cast" or whole.args[0].type != "float32":
        return whole
    real = whole.args[0]
    low, high = _bounds(real)
    if low < -MOST or high > MOST or not _is_whole(real):
        return whole
    if real.op == "add" and real.args[0].op in ROUNDING and real.args[1].op == "const":
        more = const_value(real.args[1])
        if more % 2 == 0:  # or halves would go to the odd neighbour
            return k.bits(real.args[0].args[0] + (LARGE + more), whole.type)
    return k.bits((real.args[0] if real.op in ROUNDING else real) + LARGE, whole.type)


def begun(value: K, total: K, along: frozenset[K]) -> tuple[K | None, K]:
    """What is added to a sum of integers and depends on these variables alone, and the value without that."""
    users = [n for n in walk([value]) if total in n.args]
    if len(users) != 1 or users[0].op != "add" or users[0].type not in ("int32", "uint32"):
        return None, value
    first, second = users[0].args
    other = second if first is total else first
    if other is total or not other.free <= along or any(n.op == "reduce" for n in walk([other])):
        return None, value
    return other, k.substitute(value, {users[0]: total})


def saturated(value: K, high: int) -> tuple[K, K] | None:
    """An integer that is the value once it is brought between 0 and `high`, if the value is rounded and so bounded.

    The digits of a sum with a large number grow with what was added, however large that is. Returned too is the bound
    of 0, which must take the place of a NaN.
    """
    whole = _unwrapped(value)
    if whole.op != "cast" or whole.args[0].op not in ROUNDING or whole.args[0].type != "float32":
        return None
    real, bounds = whole.args[0].args[0], {}
    while real.op in ("min", "max") and real.op not in bounds and real.args[1].op == "const":
        bounds[real.op] = const_value(real.args[1])
        real = real.args[0]
    if bounds != {"min": high, "max": 0}:
        return None
    lifted = k.maximum(real, k.const(0, "float32"))
    return k.bits(lifted + LARGE, "int32") - k.bits(k.const(LARGE, "float32"), "int32"), lifted


def _unwrapped(value: K) -> K:
    """The value before it was brought into the range of int8 or uint8, if it was."""
    if value.op == "and" and value.args[1] is k.const(255, value.type):
        return value.args[0]
    low, by = (value.args[0], value.args[1]) if value.op == "shr" else (value, None)
    return low.args[0] if low.op == "shl" and low.args[1] is by and by is k.const(24, value.type) else value


def _bounds(x: K) -> tuple[float, float]:
    """Whole numbers between which a real number is, unless it is NaN."""
    if x.op in ROUNDING:
        return _bounds(x.args[0])
    if x.op == "add" and x.args[1].op == "const":
        low, high = _bounds(x.args[0])
        return low + const_value(x.args[1]), high + const_value(x.args[1])
    if x.op not in ("min", "max"):
        return (const_value(x), const_value(x)) if _is_whole(x) and x.op == "const" else (-inf, inf)
    (low, high), (other_low, other_high) = map(_bounds, x.args)
    pick = min if x.op == "min" else max
    return pick(low, other_low), pick(high, other_high)


def _is_whole(x: K) -> bool:
    """Whether a real number surely is a whole one (or not finite)."""
    if x.op == "const":
        return float(const_value(x)).is_integer()
    if x.op in ("add", "sub", "min", "max"):
        return all(map(_is_whole, x.args))
    return x.op in ROUNDING or (x.op == "cast" and x.args[0].type in ("int32", "uint32", "bool"))


def _rounded(power: K) -> K:
    """What was rounded to make an exponent."""
    exponent = power.args[0]
    return exponent.args[0] if exponent.op in ("add", "sub") else exponent


def _offset(power: K) -> int:
    """How much the exponent's digits are more than what was rounded; -1 if it was not, or by how much is not known."""
    exponent, shift = power.args[0], 0.0
    if exponent.op in ("add", "sub") and exponent.args[1].op == "const":
        shift = const_value(exponent.args[1]) * (1 if exponent.op == "add" else -1)
    elif exponent.op != "whole":
        return -1
    rounded = _rounded(power)
    known = rounded.op == "whole" and rounded.type == "float32" and shift == int(shift)
    return BIAS + int(shift) if known else -1
