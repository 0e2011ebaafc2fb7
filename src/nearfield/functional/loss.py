"""Losses: how far a prediction is from its target, one number per example; take `nf.mean`, or give `reduction`."""

from typing import Any

from ..errors import ShapeError
from ..ops.arithmetic import maximum, minimum, sqrt, where
from ..ops.mathematics import exp, log
from ..shape import axis_of
from ..tensor import Tensor, apply, call
from .activation import log_softmax, softplus
from .statistics import mean
from .statistics import sum as total

__all__ = [
    "binary_cross_entropy", "cosine_distance", "cross_entropy", "focal", "hinge", "huber", "kl_divergence", "mae",
    "mse", "nll", "triplet",
]  # fmt: skip


def _reduced(who: str, loss: Tensor, reduction: str) -> Tensor:
    if reduction == "none":
        return loss
    if reduction not in ("mean", "sum"):
        raise ValueError(f"{who}: reduction is {reduction!r}; accepted are 'none', 'mean' and 'sum'.")
    return mean(loss) if reduction == "mean" else total(loss)


def _same_shape(who: str, prediction: Tensor, target: Any) -> Tensor:
    target = call("asarray", target)
    if prediction.shape != target.shape:
        raise ShapeError(
            f"{who}: prediction has shape {prediction.shape} but target {target.shape}; they must be equal. Reshape "
            "one of them."
        )
    return target


def _per_example(values: Tensor) -> Tensor:
    """The average over all axes but the first."""
    return mean(values, axis=tuple(range(1, values.ndim))) if values.ndim > 1 else values


def _picked(who: str, scores: Tensor, target: Tensor, axis: int) -> Tensor:
    """scores at the integer targets, which lack the axis of classes."""
    lead = (*scores.shape[:axis], *scores.shape[axis + 1 :])
    if target.shape != lead:
        raise ShapeError(
            f"{who}: labels have shape {target.shape} beside scores of shape {scores.shape}; accepted are {lead}, "
            f"the scores' shape without axis {axis}, or probabilities of the scores' shape."
        )
    places = call("astype", call("reshape", target, (*lead[:axis], 1, *lead[axis:])), "int32")
    return call("reshape", apply("take_along", scores, places, axis=axis), lead)


def cross_entropy(
    logits: Tensor, target: Any, *, axis: int = -1, label_smoothing: float = 0.0, class_weights: Any = None,
    ignore_index: int | None = None,
    reduction: str = "none",
) -> Tensor:  # fmt: skip
    """-Σ target log softmax(logits), per example.

    logits           [..., c]    before softmax
    target           [...] of integers, or [..., c] of probabilities
    label_smoothing  this share of each target goes to all classes alike
    class_weights    [c]    each class counts so much
    ignore_index     examples of this label count 0; the mean leaves them out
    reduction        "none", "mean" or "sum"
    returns          [...] for "none"
    errors           ShapeError if the shapes do not fit
    """
    who, axis, target = "cross_entropy", axis_of("cross_entropy", axis, logits.ndim), call("asarray", target)
    scores = log_softmax(logits, axis=axis)
    classes = logits.shape[axis]
    spread = (
        call("reshape", call("asarray", class_weights), (-1, *(1,) * (logits.ndim - 1 - axis)))
        if class_weights is not None
        else None
    )
    if target.dtype.kind == "f":
        goal = _same_shape(who, logits, target)
        goal = goal * (1 - label_smoothing) + label_smoothing / classes if label_smoothing else goal
        return _reduced(who, -total(scores * goal * (1 if spread is None else spread), axis=axis), reduction)
    weighed = scores if spread is None else scores * spread
    loss = -_picked(who, weighed, target, axis)
    if label_smoothing:
        loss = loss * (1 - label_smoothing) - mean(weighed, axis=axis) * label_smoothing
    if ignore_index is None:
        return _reduced(who, loss, reduction)
    counted = target != ignore_index
    loss = where(counted, loss, 0)
    if reduction == "mean":
        return total(loss) / maximum(total(call("astype", counted, loss.dtype)), 1)
    return _reduced(who, loss, reduction)


def nll(log_probabilities: Tensor, target: Any, *, axis: int = -1, reduction: str = "none") -> Tensor:
    """-log probability of the target, per example.

    log_probabilities  [..., c]
    target             [...] of integers
    """
    axis = axis_of("nll", axis, log_probabilities.ndim)
    return _reduced("nll", -_picked("nll", log_probabilities, call("asarray", target), axis), reduction)


def binary_cross_entropy(
    logits: Tensor, target: Any, *, positive_weight: float = 1.0, reduction: str = "none"
) -> Tensor:
    """-target log σ(logits) - (1 - target) log(1 - σ(logits)), averaged per example.

    logits           [n, ...]    before sigmoid
    target           [n, ...]    0 to 1
    positive_weight  the first term counts so much
    returns          [n] for "none"
    """
    who = "binary_cross_entropy"
    target = call("astype", _same_shape(who, logits, target), logits.dtype)
    loss = target * softplus(-logits) * positive_weight + (1 - target) * softplus(logits)
    return _reduced(who, _per_example(loss), reduction)


def focal(logits: Tensor, target: Any, *, gamma: float = 2.0, alpha: float = 0.25, reduction: str = "none") -> Tensor:
    """Binary cross-entropy times alpha (1 - p)^gamma, p the probability of the truth: easy examples count less.

    source  Lin et al. 2017, arXiv:1708.02002, equation 5
    """
    target = call("astype", _same_shape("focal", logits, target), logits.dtype)
    signed = logits * (target * 2 - 1)
    loss = softplus(-signed) * exp(-gamma * softplus(signed)) * (target * alpha + (1 - target) * (1 - alpha))
    return _reduced("focal", _per_example(loss), reduction)


def mse(prediction: Tensor, target: Any, *, reduction: str = "none") -> Tensor:
    """(prediction - target)², averaged per example: [n, ...] -> [n]."""
    d = prediction - _same_shape("mse", prediction, target)
    return _reduced("mse", _per_example(d * d), reduction)


def mae(prediction: Tensor, target: Any, *, reduction: str = "none") -> Tensor:
    """|prediction - target|, averaged per example: [n, ...] -> [n]."""
    return _reduced("mae", _per_example(abs(prediction - _same_shape("mae", prediction, target))), reduction)


def huber(prediction: Tensor, target: Any, *, delta: float = 1.0, reduction: str = "none") -> Tensor:
    """d² / 2 for differences d up to delta, and delta (|d| - delta / 2) beyond, averaged per example.

    source  Huber 1964, "Robust estimation of a location parameter"
    """
    d = abs(prediction - _same_shape("huber", prediction, target))
    near = minimum(d, delta)
    return _reduced("huber", _per_example(near * (d - near * 0.5)), reduction)


def kl_divergence(log_prediction: Tensor, target: Any, *, axis: int = -1, reduction: str = "none") -> Tensor:
    """Σ target (log target - log prediction) along an axis, with 0 log 0 = 0.

    log_prediction  [..., c]    logarithms of probabilities
    target          [..., c]    probabilities
    """
    target = _same_shape("kl_divergence", log_prediction, target)
    there = target > 0
    terms = where(there, target * (log(where(there, target, 1)) - log_prediction), 0)
    return _reduced("kl_divergence", total(terms, axis=axis), reduction)


def cosine_distance(a: Tensor, b: Any, *, axis: int = -1, eps: float = 1e-8, reduction: str = "none") -> Tensor:
    """1 - a · b / (|a| |b|) along an axis."""
    b = _same_shape("cosine_distance", a, b)
    lengths = maximum(total(a * a, axis=axis) * total(b * b, axis=axis), eps * eps)
    return _reduced("cosine_distance", 1 - total(a * b, axis=axis) / sqrt(lengths), reduction)


def hinge(scores: Tensor, target: Any, *, margin: float = 1.0, reduction: str = "none") -> Tensor:
    """max(0, margin - target · scores), averaged per example; targets are -1 and 1."""
    target = _same_shape("hinge", scores, target)
    return _reduced("hinge", _per_example(maximum(margin - scores * target, 0)), reduction)


def triplet(
    anchor: Tensor, positive: Tensor, negative: Tensor, *, margin: float = 1.0, reduction: str = "none"
) -> Tensor:
    """max(0, |anchor - positive| - |anchor - negative| + margin), with Euclidean lengths along the last axis.

    source  Schroff et al. 2015, arXiv:1503.03832
    """
    near, far = (sqrt(total((anchor - other) * (anchor - other), axis=-1) + 1e-12) for other in (positive, negative))
    return _reduced("triplet", maximum(near - far + margin, 0), reduction)
