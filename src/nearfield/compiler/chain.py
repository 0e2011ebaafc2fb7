"""What a Kernel contracts twice: products of rows with rows, worked on one by one, and folded or multiplied again.

Attention is made of such kernels, forward and backward: the plane of scores, [queries, keys], is never stored.
"""

from dataclasses import dataclass
from math import prod

from .. import scalar as k
from ..ops.approximation import exp_below, exp_of
from ..scalar import K, substitute, walk
from .kernel import Kernel, Store

__all__ = ["Chain", "Inner", "Online", "chain_of"]

VALUE = "chain value"  # stands for something of a kernel in an expression: k.make("var", …) with this and a name


def named(name: str, type: str) -> K:
    """A stand-in for a value that the target keeps under a name."""
    return k.make("var", type, value=(VALUE, name))


@dataclass(frozen=True, slots=True)
class Inner:
    """total = Σ over `summed` of a · b: one score for each row (of a) and each step of the outer fold (of b)."""

    total: K
    a: K
    b: K
    summed: tuple[K, ...]

    @property
    def length(self) -> int:
        """Of the sum."""
        return prod(v.value[1] for v in self.summed)


@dataclass(frozen=True, slots=True)
class Online:
    """The fold is of e^(score - shift) · other, over the sum of e^(score - shift); the largest score makes the shift.

    As the fold goes on, the largest score so far will do, if what was summed is scaled when it changes.

    score    of a row at a step, made from the stand-in `inner`
    shift    made from the stand-in `top`
    result   made from the stand-ins `sum` and `all`: the fold, and the sum of exponentials
    """

    score: K
    shift: K
    result: K
    inner: K
    top: K
    sum: K
    all: K


@dataclass(frozen=True, slots=True)
class Chain:
    """store = epilogue(fold over `step` of weight · other) at every point of batch × rows × columns.

    total    the `reduce` expression inside store.value, to be replaced by the fold
    kind     of the fold
    weight   of a row at a step, with the totals of `inner` in it
    other    of a column at a step; None where the weights alone are folded, and there are no columns
    """

    store: Store
    total: K
    kind: str
    weight: K
    other: K | None
    step: K
    inner: tuple[Inner, ...]
    batch: tuple[K, ...]
    rows: tuple[K, ...]
    columns: tuple[K, ...]
    online: Online | None

    @property
    def sizes(self) -> tuple[int, int, int, int]:
        """Batch, rows, columns (0 without any) and steps."""
        batch, rows, columns = (prod(v.value[1] for v in axes) for axes in (self.batch, self.rows, self.columns))
        return batch, rows, columns if self.columns else 0, self.step.value[1]


def _folds(roots: list[K]) -> list[K]:
    return [n for n in walk(roots) if n.op == "reduce"]


def _outermost(root: K) -> list[K]:
    """The folds that are inside no other."""
    folds = _folds([root])
    inside = {n for f in folds for n in _folds(list(f.args))}
    return [f for f in folds if f not in inside]


def _inner(fold: K, step: K) -> Inner | None:
    """A fold as a product of something of the row and something of the step."""
    if fold.value[0] != "sum" or fold.args[0].op != "mul" or _folds(list(fold.args)):
        return None
    a, b = fold.args[0].args
    if step in a.free:
        a, b = b, a
    return Inner(fold, a, b, fold.value[1]) if step in b.free and step not in a.free else None


def chain_of(kernel: Kernel) -> Chain | None:
    """The kernel as a fold of what is made from sums of products, or None."""
    if len(kernel.stores) != 1:
        return None
    (store,) = kernel.stores
    outer = _outermost(store.value)
    if len(outer) != 1 or len(outer[0].value[1]) != 1:
        return None
    (total,) = outer
    kind, (step,) = total.value
    weight, other = total.args[0], None
    if kind == "sum" and weight.op == "mul":
        plain = [a for a in weight.args if not _folds([a])]
        if len(plain) == 1 and plain[0].free - weight.args[weight.args[0] is plain[0]].free:
            (other,) = plain
            weight = weight.args[weight.args[0] is plain[0]]
    if not _folds([weight]):
        return None
    axes = [v for v in kernel.axes if v in weight.free]
    shared = other.free if other is not None else _common(weight, step)
    batch, rows = tuple(v for v in axes if v in shared), tuple(v for v in axes if v not in shared)
    columns = tuple(v for v in kernel.axes if v not in weight.free)
    if not rows or (other is None) != (not columns) or (other is not None and not other.free >= {*columns, step}):
        return None
    online = _online(weight, step) if other is not None else None
    inner = _inner_sums(weight, step, online)
    if inner is None or any(not set(rows).isdisjoint(i.b.free) for i in inner):
        return None
    return Chain(store, total, kind, weight, other, step, inner, batch, rows, columns, online)


def _common(weight: K, step: K) -> frozenset[K]:
    """What both factors of the sums of products depend on."""
    found = [_inner(f, step) for f in _folds([weight])]
    return frozenset().union(*(i.a.free & i.b.free for i in found if i is not None))


def _inner_sums(weight: K, step: K, online: Online | None) -> tuple[Inner, ...] | None:
    """The sums of products in a weight; None if there are other folds in it that nobody else makes."""
    folds = [f for f in _folds([weight]) if step in f.free] if online else _folds([weight])
    found = [_inner(f, step) for f in folds]
    return None if any(i is None for i in found) else tuple(i for i in found if i is not None)


def _online(weight: K, step: K) -> Online | None:
    """What a softmax over the steps is made of, if the weight is one."""
    if weight.op != "mul":
        return None
    power, rest = sorted(weight.args, key=lambda x: step not in x.free)
    sums, tops = _outermost(rest), [f for f in _folds([power]) if f.value[0] == "max"]
    scores = [f for f in _folds([power]) if step in f.free]
    if step in rest.free or len(sums) != 1 or len(tops) != 1 or len(scores) != 1 or sums[0].value[0] != "sum":
        return None
    inner, top = named("inner", power.type), named("top", power.type)
    every, part = named("every", power.type), named("part", power.type)
    made = substitute(power, {scores[0]: inner, tops[0]: top})
    score = _score_of(tops[0], scores[0], inner, step)
    if score is None or _same_steps(sums[0], tops[0], scores[0], inner, top, step) is not made:
        return None
    shift = k.select(k.equal(top, -float("inf")), 0.0, top)
    if made not in (exp_of(score - shift), exp_below(score - shift)):
        return None
    return Online(score, shift, part * substitute(rest, {sums[0]: every}), inner, top, part, every)


def _score_of(top: K, score: K, inner: K, step: K) -> K | None:
    """What the largest is sought of, at this step and with a stand-in for the sum of products."""
    return _at_step(top, score, inner, step, {})


def _same_steps(total: K, top: K, score: K, inner: K, largest: K, step: K) -> K | None:
    return _at_step(total, score, inner, step, {top: largest})


def _at_step(fold: K, score: K, inner: K, step: K, known: dict[K, K]) -> K | None:
    """The body of another fold over as many steps, if its sum of products is the same as `score`."""
    variables = fold.value[1]
    if len(variables) != 1 or variables[0].value[1] != step.value[1]:
        return None
    own = [f for f in _folds(list(fold.args)) if variables[0] in f.free and f not in known]
    if len(own) != 1 or len(own[0].value[1]) != len(score.value[1]):
        return None
    table = {variables[0]: step, **dict(zip(own[0].value[1], score.value[1], strict=True))}
    if substitute(own[0].args[0], table) is not score.args[0]:
        return None
    return substitute(fold.args[0], {own[0]: inner, **known, variables[0]: step})
