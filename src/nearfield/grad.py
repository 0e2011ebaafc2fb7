"""Reverse-mode differentiation: Tensors in, Tensors out, so that it can be applied again.

source  Griewank & Walther 2008, "Evaluating Derivatives", reverse accumulation
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from .argument import callables
from .errors import GradError
from .op import Op
from .tensor import Node, Tensor, call
from .tree import flatten_tree, unflatten_tree

__all__ = ["grad", "gradients", "stop_gradient", "tape", "value_and_grad", "vjp"]


class _Tape:
    """While differentiation traces a function, evaluated nodes keep their arguments."""

    depth = 0

    def __enter__(self) -> None:
        _Tape.depth += 1

    def __exit__(self, *exc: object) -> None:
        _Tape.depth -= 1


tape = _Tape()


def _between(roots: list[Node], wanted: set[int]) -> list[Node]:
    """The nodes on a path from a wanted node to a root, in order."""
    order: list[Node] = []
    reaches: dict[int, bool] = {}
    stack: list[tuple[Node, bool]] = [(r, False) for r in roots]
    while stack:
        node, ready = stack.pop()
        if ready:
            if any(reaches.get(id(a), False) for a in node.args) or id(node) in wanted:
                reaches[id(node)] = True
                order.append(node)
            continue
        if id(node) in reaches:
            continue
        reaches[id(node)] = id(node) in wanted
        stack.append((node, True))
        if id(node) not in wanted and node.op is not None and node.op.name != "stop_gradient":
            stack.extend((a, False) for a in node.args if id(a) not in reaches)
    return order


class _Step(NamedTuple):
    """How a node was made; the node itself forgets it when it gets its value."""

    node: Node
    op: Op
    args: tuple[Node, ...]


def _steps(outputs: list[Tensor], inputs: list[Tensor]) -> list[_Step]:
    """What happened between the inputs and the outputs, in order."""
    wanted = {id(t.node) for t in inputs}
    nodes = _between([t.node for t in outputs], wanted)
    return [_Step(n, n.op, n.args) for n in nodes if n.op is not None and id(n) not in wanted]


def gradients(outputs: list[Tensor], cotangents: list[Tensor], inputs: list[Tensor]) -> list[Tensor]:
    """Σ cotangent · d output / d input, for each input; zeros where nothing depends on it."""
    return _backward(_steps(outputs, inputs), outputs, cotangents, inputs, "grad")


def _backward(
    steps: list[_Step], outputs: list[Tensor], cotangents: list[Tensor], inputs: list[Tensor], who: str
) -> list[Tensor]:
    sums: dict[int, Tensor] = {}
    for out, cotangent in zip(outputs, cotangents, strict=True):
        _accumulate(sums, out.node, cotangent)
    for step in reversed(steps):
        g = sums.get(id(step.node))
        if g is None:
            continue
        for arg, part in zip(step.args, _parts(step, g, who), strict=True):
            if part is not None and arg.dtype.kind == "f":
                _accumulate(sums, arg, part)
    return [sums[id(t.node)] if id(t.node) in sums else call("zeros_like", t) for t in inputs]


def _parts(step: _Step, g: Tensor, who: str) -> tuple[Tensor | None, ...]:
    node, op, args = step
    if op.grad is None:
        if node.dtype.kind != "f" or not any(a.dtype.kind == "f" for a in args):
            return (None,) * len(args)
        raise GradError(
            f"{who}: {op.name} has no gradient; wrap its input in nf.stop_gradient to treat it as a constant."
        )
    result = op.grad(g, *[Tensor(a) for a in args], Tensor(node), **node.attrs)
    return tuple(result)


def _accumulate(sums: dict[int, Tensor], node: Node, g: Tensor) -> None:
    if g.dtype is not node.dtype:
        g = call("astype", g, node.dtype)
    held = sums.get(id(node))
    sums[id(node)] = g if held is None else held + g


def _independent(leaves: list[Any]) -> list[Any]:
    """The same values as variables of their own, so that an array given twice is two variables."""
    return [call("alias", t) if isinstance(t, Tensor) else t for t in leaves]


def _variables(who: str, leaves: list[Any]) -> list[Tensor]:
    found = [t for t in leaves if isinstance(t, Tensor) and t.dtype.kind == "f"]
    if not found:
        raise GradError(
            f"{who}: the arguments to differentiate hold no real tensor; accepted are tensors of a float dtype."
        )
    return found


def value_and_grad(
    function: Callable[..., Any], argnums: int | tuple[int, ...] = 0, has_aux: bool = False
) -> Callable[..., Any]:
    """The function that returns (function's value, gradients of its value for the arguments `argnums`).

    The value is a scalar; with `has_aux` the function returns (scalar, anything) and so does the result. Gradients have
    the structure of the arguments: tensors, lists, tuples, dicts of them.

    errors   GradError if the value is not a real scalar
    """
    callables("grad", "a function of tensors", function=function)
    which = (argnums,) if isinstance(argnums, int) else tuple(argnums)

    def differentiated(*args: Any, **options: Any) -> Any:
        if not all(-len(args) <= i < len(args) for i in which):
            raise GradError(
                f"grad: argnums is {argnums}; accepted are 0 … {len(args) - 1}, the arguments given by position."
            )
        leaves, structure = flatten_tree([args[i] for i in which])
        leaves = _independent(leaves)
        variables = _variables("grad", leaves)
        chosen = unflatten_tree(structure, leaves)
        full = list(args)
        for i, value in zip(which, chosen, strict=True):
            full[i] = value
        with tape:
            result = function(*full, **options)
            value = result[0] if has_aux else result
            _check_scalar(value)
            found = iter(gradients([value], [call("ones_like", value)], variables))
        parts = [next(found) if isinstance(t, Tensor) and t.dtype.kind == "f" else None for t in leaves]
        gradient = unflatten_tree(structure, parts)
        return result, gradient[0] if isinstance(argnums, int) else tuple(gradient)

    return differentiated


def _check_scalar(value: Any) -> None:
    if not isinstance(value, Tensor) or value.shape != () or value.dtype.kind != "f":
        got = f"shape {value.shape}, dtype {value.dtype.name}" if isinstance(value, Tensor) else type(value).__name__
        raise GradError(
            f"grad: the function's value is not a real scalar: received {got}; reduce it, for example with nf.mean."
        )


def grad(function: Callable[..., Any], argnums: int | tuple[int, ...] = 0) -> Callable[..., Any]:
    """The function that returns the gradient of a scalar function; apply it again for higher derivatives.

    errors   GradError if the value is not a real scalar
    """
    both = value_and_grad(function, argnums)
    return lambda *args, **options: both(*args, **options)[1]


def vjp(function: Callable[..., Any], *args: Tensor) -> tuple[Any, Callable[..., tuple[Tensor, ...]]]:
    """The value, and the function from cotangents (shaped like the value) to one gradient per argument."""
    callables("vjp", "a function of tensors", function=function)
    variables = _independent(list(args))
    with tape:
        value = function(*variables)
        outputs, _ = flatten_tree(value)
        steps = _steps(outputs, variables)

    def pull(*cotangents: Tensor) -> tuple[Tensor, ...]:
        given, _ = flatten_tree(cotangents if len(cotangents) > 1 else cotangents[0])
        shapes, wanted = [t.shape for t in given], [t.shape for t in outputs]
        if shapes != wanted:
            raise GradError(f"vjp: cotangents have shapes {shapes}; accepted are those of the value, {wanted}.")
        with tape:
            return tuple(_backward(steps, outputs, given, variables, "vjp"))

    return value, pull


def stop_gradient(x: Tensor) -> Tensor:
    """x, treated as a constant by differentiation."""
    return call("stopped", x)
