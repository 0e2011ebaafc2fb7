"""Limits for gradients, which keep one odd batch from undoing many good ones."""

from collections.abc import Mapping

from ..argument import instance, real
from ..ops.arithmetic import maximum, minimum, sqrt
from ..tensor import Tensor, call

__all__ = ["clip_by_norm", "clip_by_value", "global_norm"]


def global_norm(grads: Mapping[str, Tensor]) -> Tensor:
    """The Euclidean length of all gradients as one vector, a float32 scalar."""
    instance("global_norm", Mapping, "a dict of gradients by name", grads=grads)
    if not grads:
        return call("full", (), 0.0, dtype="float32")
    squares = [call("sum", wide * wide) for wide in (call("astype", g, "float32") for g in grads.values())]
    return sqrt(sum(squares[1:], squares[0]))


def clip_by_norm(grads: Mapping[str, Tensor], limit: float) -> dict[str, Tensor]:
    """The gradients, shortened together so that `global_norm` is at most the limit.

    source  Pascanu et al. 2013, arXiv:1211.5063, algorithm 1
    """
    real("clip_by_norm", 0, limit=limit)
    if not grads:
        return {}
    factor = limit / maximum(global_norm(grads), limit)
    return {name: g * call("astype", factor, g.dtype) for name, g in grads.items()}


def clip_by_value(grads: Mapping[str, Tensor], limit: float) -> dict[str, Tensor]:
    """The gradients, with each element moved into -limit … limit."""
    real("clip_by_value", 0, limit=limit)
    instance("clip_by_value", Mapping, "a dict of gradients by name", grads=grads)
    return {name: minimum(maximum(g, -limit), limit) for name, g in grads.items()}
