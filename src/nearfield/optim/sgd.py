"""SGD: follow the gradient, with momentum."""

from ..argument import real
from ..errors import ArgumentError
from ..tensor import Tensor
from .optimizer import Optimizer, Rate

__all__ = ["SGD"]


class SGD(Optimizer):
    """g ← g + weight_decay · p;  m ← momentum · m + g;  p ← p - rate · m, or with Nesterov p - rate (g + momentum · m)

    source  Sutskever et al. 2013, "On the importance of initialization and momentum in deep learning"
    """

    def __init__(
        self, learning_rate: Rate, *, momentum: float = 0.0, nesterov: bool = False, weight_decay: float = 0.0
    ) -> None:
        real("SGD", 0, 1, below=True, momentum=momentum)
        real("SGD", 0, weight_decay=weight_decay)
        if nesterov and not momentum:
            raise ArgumentError("SGD: nesterov=True with momentum=0; accepted is a momentum above 0, such as 0.9.")
        self.momentum, self.nesterov, self.weight_decay = momentum, nesterov, weight_decay
        self.slot_names = ("momentum",) if momentum else ()
        super().__init__(learning_rate)

    def change(self, p: Tensor, g: Tensor, rate: Tensor, *slots: Tensor) -> tuple[Tensor, ...]:
        """The new parameter, and its momentum."""
        g = g + p * self.weight_decay if self.weight_decay else g
        if not slots:
            return (p - g * rate,)
        m = slots[0] * self.momentum + g
        return p - (g + m * self.momentum if self.nesterov else m) * rate, m
