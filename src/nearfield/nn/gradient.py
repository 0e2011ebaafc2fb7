"""Gradients with respect to the parameters of a module."""

from collections.abc import Callable
from typing import Any

from ..argument import callables, instance
from ..errors import GradError
from ..grad import value_and_grad as differentiate
from ..tensor import Tensor
from .module import Module

__all__ = ["value_and_grad"]


def value_and_grad(
    module: Module, function: Callable[..., Any], *, has_aux: bool = False
) -> Callable[..., tuple[Any, dict[str, Tensor]]]:
    """The function that returns (function's value, gradients by parameter name) for the arguments it is called with.

    module    its trainable parameters are the variables, wherever the function uses them
    function  returns a real scalar, or with `has_aux` (real scalar, anything)
    errors    GradError if the value is no real scalar, or no parameter is trainable

    step = nn.value_and_grad(model, lambda model, x, y: nf.mean(nn.losses.cross_entropy(model(x), y)))
    loss, grads = step(model, x, y)
    """

    instance("value_and_grad", Module, "a Module, as in nn.value_and_grad(model, loss)", module=module)
    callables("value_and_grad", "a function that returns a real scalar", function=function)

    def differentiated(*args: Any) -> tuple[Any, dict[str, Tensor]]:
        before = module.parameters()
        if not before:
            raise GradError(
                f"value_and_grad: {type(module).__name__} has no trainable parameter; call unfreeze() on what is to "
                "be trained."
            )

        def inside(variables: dict[str, Tensor]) -> Any:
            module.set_state_tensors(variables)
            return function(*args)

        try:
            return differentiate(inside, has_aux=has_aux)(before)
        finally:
            module.set_state_tensors(before)

    return differentiated
