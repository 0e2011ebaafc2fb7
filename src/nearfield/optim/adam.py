"""Adam and AdamW: steps of about the same length in every direction."""

from math import log

from ..argument import real
from ..ops.arithmetic import sqrt
from ..ops.mathematics import expm1
from ..tensor import Tensor, call
from .optimizer import Optimizer, Rate

__all__ = ["Adam", "AdamW"]


def _step(optimizer: "Adam | AdamW", g: Tensor, m: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """m̂ / (√v̂ + eps), with the means corrected for their start at 0; and the means.

    As in section 2 of the paper: the corrections are numbers that all elements share, so each takes one division.
    """
    m = m * optimizer.beta1 + g * (1 - optimizer.beta1)
    v = v * optimizer.beta2 + g * g * (1 - optimizer.beta2)
    t = call("astype", optimizer.step, g.dtype)
    # 1 - βᵗ, exact where βᵗ is near 1
    first = -expm1(t * log(optimizer.beta1)) if optimizer.beta1 else 1.0
    spread = sqrt(-expm1(t * log(optimizer.beta2))) if optimizer.beta2 else 1.0
    return m * (spread / first) / (sqrt(v) + spread * optimizer.eps), m, v


class Adam(Optimizer):
    """m ← β₁ m + (1 - β₁) g;  v ← β₂ v + (1 - β₂) g²;  p ← p - rate · m̂ / (√v̂ + eps)

    with m̂ = m / (1 - β₁ᵗ) and v̂ = v / (1 - β₂ᵗ)

    source  Kingma & Ba 2015, arXiv:1412.6980, algorithm 1
    """

    slot_names = ("mean", "square")

    def __init__(
        self, learning_rate: Rate = 1e-3, *, beta1: float = 0.9, beta2: float = 0.999, eps: float = 1e-8
    ) -> None:
        real("Adam", 0, 1, below=True, beta1=beta1, beta2=beta2)
        real("Adam", 0, eps=eps)
        self.beta1, self.beta2, self.eps = beta1, beta2, eps
        super().__init__(learning_rate)

    def change(self, p: Tensor, g: Tensor, rate: Tensor, *slots: Tensor) -> tuple[Tensor, ...]:
        """The new parameter, and the running means of its gradient and of the gradient's square."""
        step, m, v = _step(self, g, slots[0], slots[1])
        return p - step * rate, m, v


class AdamW(Optimizer):
    """Adam, and p ← p - rate · weight_decay · p: the decay does not pass through the means

    source  Loshchilov & Hutter 2019, arXiv:1711.05101, algorithm 2
    """

    slot_names = ("mean", "square")

    def __init__(
        self,
        learning_rate: Rate = 1e-3,
        *,
        beta1: float = 0.9,
        beta2: float = 0.999,
        eps: float = 1e-8,
        weight_decay: float = 0.01,
    ) -> None:
        real("AdamW", 0, 1, below=True, beta1=beta1, beta2=beta2)
        real("AdamW", 0, eps=eps, weight_decay=weight_decay)
        self.beta1, self.beta2, self.eps, self.weight_decay = beta1, beta2, eps, weight_decay
        super().__init__(learning_rate)

    def change(self, p: Tensor, g: Tensor, rate: Tensor, *slots: Tensor) -> tuple[Tensor, ...]:
        """The new parameter, and the running means of its gradient and of the gradient's square."""
        step, m, v = _step(self, g, slots[0], slots[1])
        return p - (step + p * self.weight_decay) * rate, m, v
