"""RMSprop: gradients divided by their usual size."""

from ..argument import real
from ..ops.arithmetic import sqrt
from ..tensor import Tensor
from .optimizer import Optimizer, Rate

__all__ = ["RMSprop"]


class RMSprop(Optimizer):
    """v ← decay · v + (1 - decay) g²;  p ← p - rate · g / (√v + eps)

    source  Tieleman & Hinton 2012, "Neural networks for machine learning", lecture 6.5
    """

    slot_names = ("square",)

    def __init__(self, learning_rate: Rate = 1e-3, *, decay: float = 0.9, eps: float = 1e-8) -> None:
        real("RMSprop", 0, 1, below=True, decay=decay)
        real("RMSprop", 0, eps=eps)
        self.decay, self.eps = decay, eps
        super().__init__(learning_rate)

    def change(self, p: Tensor, g: Tensor, rate: Tensor, *slots: Tensor) -> tuple[Tensor, ...]:
        """The new parameter, and the running mean of its squared gradient."""
        v = slots[0] * self.decay + g * g * (1 - self.decay)
        return p - g * rate / (sqrt(v) + self.eps), v
