"""Sequential and Residual: layers one after the other, and around them."""

from collections.abc import Callable, Iterator
from typing import Any

from ..argument import callables
from ..errors import ArgumentError
from .module import Module

__all__ = ["Residual", "Sequential"]

Layer = Callable[..., Any]


class Sequential(Module):
    """y = last(… second(first(x)))

    layers  modules, or plain functions such as nn.relu
    """

    def __init__(self, *layers: Layer) -> None:
        wrong: list[Any] = [layer for layer in list[Any](layers) if not callable(layer)]
        if wrong:
            raise ArgumentError(
                f"Sequential: {wrong[0]!r} cannot be called; accepted are modules and functions, as Sequential(a, b)."
            )
        self.layers = list(layers)

    def __call__(self, x: Any) -> Any:
        """What the last layer returns for x."""
        for layer in self.layers:
            x = layer(x)
        return x

    def __getitem__(self, key: Any) -> Any:
        """One layer; of a slice, a Sequential that shares the layers."""
        return Sequential(*self.layers[key]) if isinstance(key, slice) else self.layers[key]

    def __len__(self) -> int:
        return len(self.layers)

    def __iter__(self) -> Iterator[Layer]:
        return iter(self.layers)


class Residual(Module):
    """y = x + layers(x), or shortcut(x) + layers(x) where the sizes differ

    source  He et al. 2015, arXiv:1512.03385
    """

    def __init__(self, *layers: Layer, shortcut: Layer | None = None) -> None:
        if shortcut is not None:
            callables("Residual", "a module or a function, such as nn.Linear", shortcut=shortcut)
        self.body, self.shortcut = Sequential(*layers), shortcut

    def __call__(self, x: Any) -> Any:
        """x plus what the layers return for it."""
        return (x if self.shortcut is None else self.shortcut(x)) + self.body(x)
