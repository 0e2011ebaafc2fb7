"""Layers with quantised weights, and `quantize`, which puts them into a model in the place of others.

The weights are frozen: a loss has gradients for what comes before and after them (and for what is added beside them,
such as the two thin factors of a low-rank adaptation), not for the weights.
"""

from collections.abc import Callable
from typing import Any, ClassVar, TypeVar

from ..argument import instance
from ..errors import ArgumentError, DTypeError
from ..functional.quantize import check_setting, dequantize, quantized_matmul
from ..functional.quantize import quantize as quantized
from ..shape import check
from ..tensor import Tensor, apply, call
from .embedding import Embedding
from .linear import Linear
from .module import Module

__all__ = ["QuantizedEmbedding", "QuantizedLinear", "quantize"]

M = TypeVar("M", bound=Module)


class QuantizedLinear(Module):
    """y = x @ dequantize(weight, scale)ᵀ + bias

    weight       int8 [n_out, n_in · bits / 8]  numbers of 8 bits, or of 4, two in a byte (nf.quantize)
    scale        float16 [n_out, n_in / group_size]
    bias         [n_out]  None without
    activations  "int8": inputs are rounded to 8 bits as well, which is faster for few rows; no gradient passes then

    Made of a Linear that keeps its own weights, or by `nn.quantize` in its place.
    """

    buffers: ClassVar[tuple[str, ...]] = ("weight", "scale")

    def __init__(self, linear: Linear, *, bits: int = 4, group_size: int = 32, activations: str | None = None) -> None:
        instance("QuantizedLinear", Linear, "an nn.Linear", linear=linear)
        _check_activations("QuantizedLinear", activations)
        self.weight, self.scale = quantized(call("matrix_transpose", linear.weight), bits=bits, group_size=group_size)
        self.bias, self.bits, self.activations = linear.bias, bits, activations

    def __call__(self, x: Tensor) -> Tensor:
        """x[..., n_in] -> [..., n_out]"""
        n_in = self.weight.shape[1] * 8 // self.bits
        check("x: ... n_in, weight: n_in n_out", "QuantizedLinear", x=x.shape, weight=(n_in, self.weight.shape[0]))
        y = quantized_matmul(x, self.weight, self.scale, bits=self.bits, activations=self.activations)
        return y if self.bias is None else y + self.bias


class QuantizedEmbedding(Module):
    """y = dequantize(weight, scale)[ids]

    weight  int8 [n, d · bits / 8]
    scale   float16 [n, d / group_size]
    """

    buffers: ClassVar[tuple[str, ...]] = ("weight", "scale")

    def __init__(
        self, embedding: Embedding, *, bits: int = 4, group_size: int = 32, activations: str | None = None
    ) -> None:
        instance("QuantizedEmbedding", Embedding, "an nn.Embedding", embedding=embedding)
        _check_activations("QuantizedEmbedding", activations)
        self.weight, self.scale = quantized(embedding.weight, bits=bits, group_size=group_size)
        self.bits, self.activations = bits, activations

    def __call__(self, ids: Tensor) -> Tensor:
        """ids[...] of integers from 0 to n - 1 -> [..., d]; numbers outside are moved to the nearest end"""
        if ids.dtype.kind not in "iu":
            raise DTypeError(
                f"QuantizedEmbedding: ids have dtype {ids.dtype.name}; accepted are integers. Convert with "
                "nf.astype(ids, 'int32')."
            )
        rows = call("astype", ids, "int32")
        weight, scale = (apply("take", table, rows, axis=0) for table in (self.weight, self.scale))
        return dequantize(weight, scale, bits=self.bits)

    def scores(self, x: Tensor) -> Tensor:
        """x[..., d] -> [..., n], products with all rows: the output layer of a language model that shares the table."""
        d = self.weight.shape[1] * 8 // self.bits
        check("x: ... d, weight: n d", "QuantizedEmbedding.scores", x=x.shape, weight=(self.weight.shape[0], d))
        return quantized_matmul(x, self.weight, self.scale, bits=self.bits, activations=self.activations)


KINDS: dict[type[Module], Callable[..., Module]] = {Linear: QuantizedLinear, Embedding: QuantizedEmbedding}


def quantize(model: M, *names: str, bits: int = 4, group_size: int = 32, activations: str | None = None) -> M:
    """The model, its Linear and Embedding layers replaced by quantised ones that give nearly the same.

    names        of the layers to replace, or of modules that hold them; all unless given
    bits         4 or 8
    group_size   32, 64 or 128 inputs that share a scale, see nf.quantize: 4 bits in groups of 32 take 4.5 bits each
    activations  None, or "int8": see QuantizedLinear
    errors       ArgumentError if there is no such layer, or one whose inputs are no multiple of group_size

    nn.quantize(model, bits=4)
    """
    instance("quantize", Module, "a Module, as in nn.quantize(model)", model=model)
    check_setting("quantize", bits, group_size)
    _check_activations("quantize", activations)
    chosen = _chosen(model, names, group_size)
    made: dict[int, Module] = {}

    def exchanged(part: Module) -> Module:
        if id(part) not in made:
            options = {"bits": bits, "group_size": group_size, "activations": activations}
            new = made[id(part)] = KINDS[type(part)](part, **options)
            new._frozen, new.training = part._frozen, part.training
        return made[id(part)]

    result: M = _exchange(model, {id(part) for part in chosen}, exchanged, set())
    return result


def _check_activations(who: str, activations: Any) -> None:
    if activations not in (None, "int8"):
        raise ArgumentError(f"{who}: activations is {activations!r}; accepted are None and 'int8'.")


def _chosen(model: Module, names: tuple[str, ...], group_size: int) -> list[Module]:
    """The layers of the names."""
    layers = {name: part for name, part in model.modules().items() if type(part) in KINDS}
    for name in names:
        instance("quantize", str, "a name of a layer, as in nn.quantize(model, 'body', bits=4)", name=name)
        if not any(_is_under(found, name) for found in layers):
            raise ArgumentError(f"quantize: {name!r} names no Linear or Embedding; accepted are {_listed(layers)}.")
    found = {n: part for n, part in layers.items() if not names or any(_is_under(n, name) for name in names)}
    if not found:
        raise ArgumentError(
            f"quantize: {type(model).__name__} has no Linear or Embedding; accepted is a model with one."
        )
    for name, part in found.items():
        weight: Tensor = vars(part)["weight"]
        n = weight.shape[0 if type(part) is Linear else 1]
        if n % group_size:
            raise ArgumentError(
                f"quantize: {name or type(part).__name__!r} has rows of {n} numbers; accepted are multiples of "
                f"group_size, {group_size}. Name the layers that are to be quantised, as in nn.quantize(model, 'body')."
            )
    return list(found.values())


def _is_under(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(prefix + ".")


def _listed(layers: dict[str, Module]) -> str:
    return ", ".join(map(repr, layers)) or "none: the model has no such layer"


def _exchange(value: Any, chosen: set[int], exchanged: Callable[[Module], Module], seen: set[int]) -> Any:
    """The value, with what was chosen exchanged in it: modules, lists and dicts change, tuples are made anew."""
    if isinstance(value, Module):
        if id(value) in chosen:
            return exchanged(value)
        if id(value) in seen:  # a module may know the one that holds it
            return value
        seen.add(id(value))
        for name, part in list(vars(value).items()):
            new = _exchange(part, chosen, exchanged, seen) if name[0] != "_" else part
            if new is not part:
                setattr(value, name, new)
    elif isinstance(value, (list, dict)):
        for key, part in list(value.items() if isinstance(value, dict) else enumerate(value)):
            value[key] = _exchange(part, chosen, exchanged, seen)
    elif isinstance(value, tuple):
        parts = [_exchange(part, chosen, exchanged, seen) for part in value]
        if any(new is not old for new, old in zip(parts, value, strict=True)):
            return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
    return value
