"""Models in 8 bits throughout: weights and activations are bytes, with scales that example inputs have told.

The model is traced; the chains in its Graph (chain.py) become products of bytes. A result that another chain reads is
brought into a byte at once, and stays one in memory. Everything else is computed in reals as before. All of it is
composed of other operations, and rounded so that every device gives the same bytes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf, isfinite
from os import PathLike
from typing import Any, ClassVar, NamedTuple

from ..argument import instance
from ..errors import ArgumentError
from ..functional.conversion import asarray, astype
from ..functional.creation import full
from ..functional.elementwise import clip
from ..functional.manipulation import reshape
from ..functional.statistics import max as largest
from ..functional.statistics import min as smallest
from ..functional.statistics import sum as total
from ..graph.graph import Graph
from ..jit import tracing
from ..ops.arithmetic import abs as magnitude
from ..ops.arithmetic import maximum, minimum
from ..ops.arithmetic import round as rounded
from ..tensor import Node, Tensor, apply
from ..trace import trace
from ..tree import flatten_tree, unflatten_tree
from .chain import BOUNDS, MOVES, Chain, chains_of
from .module import Module

__all__ = ["QuantizedModel", "quantize_static"]

MOST, UNSIGNED = 127.0, 255.0  # of a byte's magnitude, and of one without a sign
LARGE = 2.0**22  # of what is added to a sum, in units of it: still exact as a real
SMALLEST = 2.0**-100  # unit of a channel of zeros


@dataclass(frozen=True, slots=True)
class _Traced:
    """A model's Graph.

    given      how many inputs of the call it has, which come first
    names      of the model's own Tensors, the next inputs
    constants  the rest of the inputs
    structure  of the result
    """

    graph: Graph
    given: int
    names: list[str]
    constants: list[Tensor]
    structure: Any

    @property
    def weights(self) -> dict[int, str]:
        """Names of the model's own Tensors, by line."""
        return dict(zip(self.graph.inputs[self.given :], self.names, strict=False))

    def chains(self) -> list[Chain]:
        """What can be computed in 8 bits."""
        return chains_of(self.graph, self.weights, self.given)


class _Code(NamedTuple):
    """How a line is in bytes: from `low` to `high`, each step `scale`; `zero` is what 0 is stored as."""

    scale: float
    low: float
    high: float
    dtype: str
    zero: float = 0.0

    def of(self, whole: Tensor) -> Tensor:
        """Whole numbers in that range, as bytes."""
        return astype(whole + self.zero if self.zero else whole, self.dtype)

    def real(self, code: Tensor) -> Tensor:
        """What bytes stand for."""
        whole = astype(code, "float32")
        return (whole - self.zero if self.zero else whole) * self.scale


class _Product(Module):
    """A chain's numbers.

    weight  int8, as the layer's own
    bias    int32 [channels], in units of the sum
    scale   float32 [channels]: what a unit of the sum is, in units of the result
    """

    buffers: ClassVar[tuple[str, ...]] = ("weight", "bias", "scale")

    def __init__(self, weight: Tensor, bias: Tensor, scale: Tensor) -> None:
        self.weight, self.bias, self.scale = weight, bias, scale


class QuantizedModel(Module):
    """What `quantize_static` makes of a model: called like it, for inputs of any size that the model takes.

    products  int8 weights, biases and scales, by the name of the weight
    others    the model's other Tensors that are still used, by name
    """

    buffers: ClassVar[tuple[str, ...]] = ("others",)

    def __init__(self, model: Module, inputs: Sequence[Tensor]) -> None:
        self.training = False
        values = model.state_tensors()
        traced = _traced(model, inputs)
        chains = traced.chains()
        if not chains:
            raise ArgumentError(
                f"quantize_static: {type(model).__name__} multiplies its inputs with no weight of a Conv1d, Conv2d or "
                "Linear that is called once; accepted is a model that does."
            )
        reals = _Reals(traced, [*inputs, *(values[name] for name in traced.names)])
        self._codes = _codes_of(traced.graph, chains, reals)
        keys, coded = _keys(chains), _coded(chains)
        self.products = {
            c.name: _product_of(
                c, reals, self._codes[keys[c.source]], self._codes[c.name].scale if c.end in coded else 1.0
            )
            for c in chains
        }
        used = _used(traced.graph, chains)
        self.others = {name: values[name] for line, name in traced.weights.items() if line in used}
        self._model = model.copy()
        self._model.set_state_tensors({name: _stand_in(t) for name, t in values.items()})

    def __call__(self, *inputs: Tensor) -> Any:
        """What the model returns, nearly."""
        given = [_given(x) for x in inputs]
        traced = _traced(self._model, given)
        feeds = [*given, *(self.others.get(name) for name in traced.names)]
        found = _Bytes(traced, feeds, self.products, self._codes)
        return unflatten_tree(traced.structure, [found.real(i) for i in traced.graph.outputs])

    def _check_load(self, path: str | PathLike[str]) -> None:
        """ArgumentError: the scales of activations are not among the Tensors that a file has."""
        raise ArgumentError(
            f"QuantizedModel.load: {path} has the Tensors, and not the scales between layers; accepted is a model of "
            "reals. Load it into that, and call nn.quantize_static with the same inputs; or keep what nf.export writes."
        )


def quantize_static(model: Module, *inputs: Any) -> QuantizedModel:
    """A copy of the model that computes with bytes: weights, and what passes between convolutions and Linear layers.

    inputs   example inputs, one for each argument of the model's call, of as many examples as there are: the largest
             magnitude of each activation is 127, or 255 where none is negative. What is larger later is limited to that
    returns  a Module for use, not for training, and without the model's own reals
    errors   ArgumentError if there is nothing to quantise, or an activation is infinite or NaN

    Weights have a scale for each channel, activations one for each tensor; zero is zero. Biases, batch normalisation,
    relu, relu6 and the addition of another layer's result are computed with the sums; other operations in reals. A
    layer that is called more than once is left as it is.

    small = nn.quantize_static(model, images[:100])
    """
    instance("quantize_static", Module, "a Module, as in nn.quantize_static(model, images)", model=model)
    if not inputs:
        raise ArgumentError("quantize_static: there are no inputs; accepted are examples, as the model takes them.")
    modes = {name: part.training for name, part in model.modules().items()}
    try:
        return QuantizedModel(model.eval(), [_given(x) for x in inputs])
    finally:
        for name, part in model.modules().items():
            part.training = modes[name]


def _given(x: Any) -> Tensor:
    """An input; float64, as NumPy makes it, becomes float32."""
    x = asarray(x)
    return astype(x, "float32") if x.dtype.name == "float64" else x


def _stand_in(t: Tensor) -> Tensor:
    return Tensor(Node(None, (), {}, t.shape, t.dtype))


def _traced(model: Module, inputs: Sequence[Tensor]) -> _Traced:
    """The Graph of a call."""
    before = model.state_tensors()
    given, held = [_stand_in(x) for x in inputs], {name: _stand_in(t) for name, t in before.items()}
    try:
        model.set_state_tensors(held)
        with tracing():
            leaves, structure = flatten_tree(model(*given))  # type: ignore[operator]
    finally:
        model.set_state_tensors(before)
    for leaf in leaves:
        instance("quantize_static", Tensor, "a model that returns Tensors, in lists, tuples and dicts", result=leaf)
    placeholders = [t.node for t in (*given, *held.values())]
    graph, feeds = trace([t.node for t in leaves], placeholders)
    constants = [Tensor(node) for node in feeds[len(placeholders) :]]
    return _Traced(graph, len(given), list(held), constants, structure)


class _Reals:
    """The lines of a Graph as Tensors; without those that need an input that is None."""

    def __init__(self, traced: _Traced, feeds: Sequence[Tensor | None]) -> None:
        self.lines = traced.graph.lines
        self.found: dict[int, Tensor | None] = dict(zip(traced.graph.inputs, (*feeds, *traced.constants), strict=True))
        for i, line in enumerate(self.lines):
            if line.op != "input":
                self.found[i] = self.made(i)

    def made(self, i: int) -> Tensor | None:
        line, args = self.lines[i], []
        for a in line.args:
            arg = self.found[a]
            if arg is None:
                return None
            args.append(arg)
        return apply(line.op, *args, **dict(line.attrs))

    def real(self, i: int) -> Tensor:
        """Line i, which is there."""
        found = self.found[i]
        assert found is not None
        return found


class _Bytes(_Reals):
    """The lines of a Graph with chains in 8 bits."""

    def __init__(
        self,
        traced: _Traced,
        feeds: Sequence[Tensor | None],
        products: Mapping[str, _Product],
        codes: Mapping[str, _Code],
    ) -> None:
        self.chains = traced.chains()
        self.ends = {chain.end: chain for chain in self.chains}
        self.inside = {chain.start for chain in self.chains} - set(self.ends)
        self.coded, self.keys = _coded(self.chains), _keys(self.chains)
        self.products, self.known = products, codes
        self.codes: dict[int, Tensor] = {}
        super().__init__(traced, feeds)

    def made(self, i: int) -> Tensor | None:
        if i not in self.ends:
            return None if i in self.inside else super().made(i)
        chain = self.ends[i]
        product = self.products[chain.name]
        sums = reshape(self.sums(chain, product), self.lines[i].shape)
        result = astype(sums + product.bias, "float32") * product.scale
        if i not in self.coded:
            return self.finished(chain, result)
        self.codes[i] = self.code_of(chain, result)
        return self.how(i).real(self.codes[i])

    def how(self, i: int) -> _Code:
        return self.known[self.keys[i]]

    def sums(self, chain: Chain, product: _Product) -> Tensor:
        """The products of bytes, added up."""
        line = self.lines[chain.start]
        factors = (
            self.moved(line.args[0], chain.source, self.code(chain.source)),
            self.moved(line.args[1], chain.weight, product.weight),
        )
        return apply(line.op, *(astype(x, "int32") for x in factors), **dict(line.attrs))

    def moved(self, i: int, source: int, code: Tensor) -> Tensor:
        """The bytes of line i, which is the source moved."""
        if i == source:
            return code
        line = self.lines[i]
        assert line.op in MOVES
        return apply(line.op, self.moved(line.args[0], source, code), **dict(line.attrs))

    def code(self, i: int) -> Tensor:
        """Line i in bytes."""
        if i not in self.codes:
            how = self.how(i)
            self.codes[i] = how.of(rounded(clip(self.real(i) * (1 / how.scale), how.low, how.high)))
        return self.codes[i]

    def code_of(self, chain: Chain, result: Tensor) -> Tensor:
        """A chain's result in bytes, from what it is in units of that before bounds and additions."""
        how, residual = self.how(chain.end), chain.residual >= 0
        low, high = (-inf, inf) if residual else (how.low, how.high)
        zero = 0.0
        for step in chain.steps:
            if step.op == "residual":
                bounded = result if (low, high) == (-inf, inf) else clip(result, low, high)
                result = rounded(bounded) + astype(self.code(step.line), "float32")
                low, high = how.low, how.high
                zero = how.zero  # which the other byte has brought along
            elif step.op == "maximum":
                low = max(low, float(round(step.number / how.scale)))
            elif step.op == "minimum":
                high = min(high, float(round(step.number / how.scale)))
        bounded = clip(result, low + zero, high + zero)
        return astype(bounded, how.dtype) if residual else how.of(rounded(bounded))

    def finished(self, chain: Chain, result: Tensor) -> Tensor:
        """A chain's result in reals."""
        for step in chain.steps:
            if step.op == "residual":
                result = result + self.real(step.line)
            elif step.op in BOUNDS:
                result = (maximum if step.op == "maximum" else minimum)(result, step.number)
        return result


def _coded(chains: Sequence[Chain]) -> set[int]:
    """The lines that are bytes in memory: what chains read, and what they add."""
    return {c.source for c in chains} | {c.residual for c in chains if c.residual >= 0}


def _keys(chains: Sequence[Chain]) -> dict[int, str]:
    """What the scale of each such line is kept under, whatever the lines' numbers: a chain's, or its first reader's."""
    found = {chain.end: chain.name for chain in chains}
    for chain in chains:
        found.setdefault(chain.source, f"{chain.name} reads")
    return found


def _used(graph: Graph, chains: Sequence[Chain]) -> set[int]:
    """The lines that are still computed, or read."""
    ends = {chain.end: chain for chain in chains}
    used, stack = set[int](), list(graph.outputs)
    while stack:
        i = stack.pop()
        if i in used:
            continue
        used.add(i)
        chain = ends.get(i)
        if chain is None:
            stack.extend(graph.lines[i].args)
        else:
            stack.extend([chain.source, *([chain.residual] if chain.residual >= 0 else [])])
    return used


def _codes_of(graph: Graph, chains: Sequence[Chain], reals: _Reals) -> dict[str, _Code]:
    """How each line that is bytes is so; lines that are added are as their sum is."""
    keys, coded = _keys(chains), _coded(chains)
    ends = {i: (smallest(reals.real(i)), largest(reals.real(i))) for i in keys}
    needed = {c.weight for c in chains} | {s.line for c in chains for s in c.steps if s.op != "residual"}
    reals.found = {i: t for i, t in reals.found.items() if i in needed}  # others would be stored, for all examples
    found = {i: (float(low.item()), float(high.item())) for i, (low, high) in ends.items()}
    if not all(isfinite(x) for pair in found.values() for x in pair):
        raise ArgumentError(
            "quantize_static: with these inputs an activation is infinite or NaN; accepted are examples whose "
            "activations are finite."
        )
    shared = {i: i for i in keys}
    for chain in chains:
        if chain.residual >= 0 and chain.end in coded:
            shared[chain.end] = shared[chain.residual]
    padded = {shared[c.source] for c in chains if _is_padded(graph, c)}
    groups: dict[int, tuple[float, float]] = {}
    for i, first in shared.items():
        low, high = groups.get(first, (0.0, 0.0))
        groups[first] = min(low, found[i][0]), max(high, found[i][1])
    return {key: _code_between(*groups[shared[i]], shared[i] in padded) for i, key in keys.items()}


def _is_padded(graph: Graph, chain: Chain) -> bool:
    """Whether a product reads zeros around its source, which must then be stored as 0."""
    line = graph.lines[chain.start]
    return line.op == "conv" and any(max(pair) for pair in dict(line.attrs)["pad"])


def _code_between(low: float, high: float, padded: bool) -> _Code:
    """Bytes without a sign, which are multiplied faster; with one only if 0 must be stored as 0."""
    if low >= 0:
        return _Code((high or 1.0) / UNSIGNED, 0.0, UNSIGNED, "uint8")
    scale = max(-low, high) / MOST
    return _Code(scale, -MOST, MOST, "int8") if padded else _Code(scale, -MOST, MOST, "uint8", MOST + 1)


def _product_of(chain: Chain, reals: _Reals, reads: _Code, gives: float) -> _Product:
    """A chain's weight in bytes, its factors multiplied in, and its summands as one bias.

    reads  how its source is in bytes
    gives  what 1 stands for in what is made of it
    """
    factor: Any = 1.0
    summand: Any = full((chain.channels,), 0.0)
    for step in chain.steps:
        if step.op in BOUNDS or step.op == "residual":
            continue
        value = reshape(reals.real(step.line), (-1,))
        if step.op in ("add", "subtract"):
            summand = summand + (value if step.op == "add" else -value)
        else:
            value = value if step.op == "multiply" else 1 / value
            factor, summand = factor * value, summand * value
    weight = reals.real(chain.weight) * factor
    others = tuple(range(weight.ndim - 1))
    unit = largest(magnitude(weight), axis=others) / MOST
    unit = maximum(maximum(unit, magnitude(summand) / (reads.scale * LARGE)), SMALLEST)
    whole = astype(rounded(clip(weight / unit, -MOST, MOST)), "int8")
    bias = astype(rounded(summand / (unit * reads.scale)), "int32")
    bias = bias - total(astype(whole, "int32"), axis=others) * int(reads.zero)
    return _Product(whole, bias, unit * (reads.scale / gives))
