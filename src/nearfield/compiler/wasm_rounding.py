"""Rounding of small float32 numbers by addition, and powers of two from the digits of that sum.

1.5 · 2^23 is so large that its last digit counts ones: a sum with it is rounded to a whole number, which stands in its
last digits. Moved to the place of the exponent, they are a power of two; the bias is added with the large number. It
must be even, or halves would go to the odd neighbour, and to another one than in the rounding that the power is for.
"""

from collections.abc import Sequence

from .. import scalar as k
from ..scalar import K, const_value, walk

__all__ = ["round_by_addition"]

LARGE = 1.5 * 2.0**23
BIAS, DIGITS = 127, 23


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
