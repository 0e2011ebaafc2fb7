"""What is known of a whole row makes its elements cheaper: quotients by sums of powers of e, and NaN found by a sum."""

from collections.abc import Iterable, Sequence
from math import inf, isnan, nan

from .. import scalar as k
from ..ops.approximation import exp_below, exp_lifted, exp_rest, exp_rest_of_difference, never_positive
from ..scalar import K, const_value, walk

__all__ = ["blind_maxima", "lifted_quotients"]

STRICT = {"add", "sub", "mul", "div", "min", "max", "neg", "abs", "sqrt", "floor", "ceil", "trunc", "nearest"}


def lifted_quotients(values: Sequence[K], relaxed: bool) -> list[K]:
    """The expressions, with e^(x - m) / Σ e^(x - m) as the quotient of both without their last factor, a power of two.

    That factor is there so that powers of e below 2^-126 are rounded but once; in the quotient it cancels out. What
    was 0 no longer is: a row of nothing but -∞, whose quotients are 0/0, is found by its maximum m. In other rows the
    sum is at least 1 (for the maximum itself), and the quotient of what was 0 still rounds to 0.

    relaxed  multiplications and additions are fused
    """
    rest = exp_rest_of_difference if relaxed else exp_rest
    table: dict[K, K] = {}
    nodes = walk(list(values))
    powers = {exp_below(n): n for n in nodes if n.type == "float32" and never_positive(n)}
    for node in nodes:
        if node.op != "mul" or node.type != "float32":
            continue
        for power, inverse in (node.args, node.args[::-1]):
            total = inverse.args[1] if inverse.op == "div" and inverse.args[0] is k.const(1.0, "float32") else node
            if power in powers and _sums(total, power) and total.args[0] in powers:
                below = k.reduce("sum", total.value[1], exp_lifted(powers[total.args[0]], rest))
                share = k.select(k.equal(_largest(powers[power]), -inf), nan, 1.0 / below)
                table[node] = exp_lifted(powers[power], rest) * share
    changed = [k.substitute(v, table) for v in values]
    return changed if _reductions(changed) <= _reductions(values) else list(values)


def _sums(total: K, term: K) -> bool:
    """Whether an expression is the sum of a term over all values of one of its variables."""
    if total.op != "reduce" or total.value[0] != "sum" or len(total.value[1]) != 1:
        return False
    (r,) = total.value[1]
    return any(k.substitute(term, {v: r}) is total.args[0] for v in term.free if v.value[1] == r.value[1])


def _largest(x: K) -> K:
    """The maximum that `never_positive` found in a difference."""
    m = x.args[1]
    return m if m.op == "reduce" else m.args[2]


def _reductions(values: Iterable[K]) -> int:
    return sum(n.op == "reduce" for n in walk(list(values)))


def blind_maxima(values: Sequence[K]) -> frozenset[K]:
    """Maxima over rows that may as well leave out NaN, whose elements are then in no result.

    If an element x of the row is NaN, and a term of a sum over the row is NaN wherever x is, so is the sum, whatever
    the maximum; and if each value stored is NaN wherever such a sum is, the maximum is in none that is a number. If no
    element is NaN, leaving out NaN changes nothing. So softmax: its terms are e^(x - m), its values shares of the sum.
    """
    nodes = walk(list(values))
    sums = [n for n in nodes if n.op == "reduce" and n.value[0] == "sum" and len(n.value[1]) == 1]
    found = []
    for node in nodes:
        if node.op != "reduce" or node.value[0] != "max" or len(node.value[1]) != 1 or node.type != "float32":
            continue
        (r,) = node.value[1]
        tell = {
            total
            for total in sums
            if total.value[1][0].value[1] == r.value[1]
            and _passes_nan(total.args[0], {k.substitute(node.args[0], {r: total.value[1][0]})})
        }
        if tell and all(_passes_nan(v, tell) for v in values):
            found.append(node)
    return frozenset(found)


def _passes_nan(value: K, sources: set[K]) -> bool:
    """Whether an expression is surely NaN where (one of) the sources is."""
    done: dict[K, bool] = {}
    for node in walk([value]):
        if node in sources or (node.op == "const" and node.type == "float32" and isnan(const_value(node))):
            done[node] = True
        elif node.op == "select":
            done[node] = done[node.args[1]] and done[node.args[2]]
        else:
            done[node] = node.type == "float32" and node.op in STRICT and any(done[a] for a in node.args)
    return done[value]
