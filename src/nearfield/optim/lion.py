"""Lion: steps of exactly the same length in every direction, with one slot."""

from ..argument import real
from ..ops.arithmetic import sign
from ..tensor import Tensor
from .optimizer import Optimizer, Rate

__all__ = ["Lion"]


class Lion(Optimizer):
    """p ← p - rate (sign(β₁ m + (1 - β₁) g) + weight_decay · p);  m ← β₂ m + (1 - β₂) g

    source  Chen et al. 2023, arXiv:2302.06675, algorithm 2; rates are 3 to 10 times smaller than Adam's
    """

    slot_names = ("mean",)

    def __init__(
        self, learning_rate: Rate = 1e-4, *, beta1: float = 0.9, beta2: float = 0.99, weight_decay: float = 0.0
    ) -> None:
        real("Lion", 0, 1, below=True, beta1=beta1, beta2=beta2)
        real("Lion", 0, weight_decay=weight_decay)
        self.beta1, self.beta2, self.weight_decay = beta1, beta2, weight_decay
        super().__init__(learning_rate)

    def change(self, p: Tensor, g: Tensor, rate: Tensor, *slots: Tensor) -> tuple[Tensor, ...]:
        """The new parameter, and the running mean of its gradient."""
        direction = sign(slots[0] * self.beta1 + g * (1 - self.beta1))
        direction = direction + p * self.weight_decay if self.weight_decay else direction
        return p - direction * rate, slots[0] * self.beta2 + g * (1 - self.beta2)
