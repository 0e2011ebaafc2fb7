"""The families: what all operations of one shape share, so that a row states only its arithmetic.

A decorator turns a function in K (how one element is made) into an Op record, registers it, and returns the function
that users call on Tensors. Shape and dtype rules, broadcasting, promotion and errors come from the family.
"""

from collections.abc import Callable
from functools import update_wrapper
from typing import Any

from .. import scalar as k
from ..dtype import DTYPES, DType, promote
from ..errors import DTypeError
from ..op import REGISTRY, Op, Source
from ..scalar import K
from ..shape import broadcast
from ..tensor import FUNCTIONS, Node, Tensor, call, dtype_of_number, made, number

__all__ = ["KINDS", "elementwise", "narrow", "nodes_of", "record", "require"]

KINDS = {"b": "bool", "i": "signed integer", "u": "unsigned integer", "f": "real"}
BOOL, FLOAT = DTYPES["bool"], DTYPES["float32"]


def narrow(value: K, dtype: DType) -> K:
    """What a small integer keeps of a 32-bit result: int8 and uint8 wrap. float16 is rounded when it is stored."""
    if dtype.name == "int8":
        return (value << 24) >> 24
    return value & 255 if dtype.name == "uint8" else value


def require(who: str, dtype: DType, kinds: str) -> None:
    """DTypeError unless the dtype is of one of the kinds."""
    if dtype.kind not in kinds:
        accepted = ", ".join(t.name for t in DTYPES.values() if t.kind in kinds)
        raise DTypeError(f"{who}: dtype {dtype.name} is not accepted; accepted are {accepted}. Convert with nf.astype.")


def record(
    name: str,
    family: str,
    n_in: int,
    infer: Any,
    element: Any,
    ref: Any,
    grad: Any,
    doc: str,
    samples: Any = (),
    tol: float = 1e-6,
    **notes: Any,
) -> Op:
    """Make an Op and register it under its name."""
    if name in REGISTRY:
        raise ValueError(f"op {name!r} is defined twice")
    op = Op(name, family, n_in, infer, element, ref, grad, doc, tuple(samples), tol, notes)
    REGISTRY[name] = op
    return op


def nodes_of(who: str, args: tuple[Any, ...], mixed: int = 0) -> tuple[Node, ...]:
    """The arguments with one dtype and shape: numbers take the others' dtype, types promote, shapes broadcast.

    mixed    this many leading arguments keep their own dtype (the condition of `where`)
    """
    found = [a if isinstance(a, (Tensor, bool, int, float)) else call("asarray", a) for a in args]
    common = _common_dtype(found[mixed:] if mixed else found)
    nodes = [_of_dtype(t, common if i >= mixed else BOOL) for i, t in enumerate(found)]
    shapes = [node.shape for node in nodes]
    shape = broadcast(who, *shapes)
    return tuple([node if node.shape == shape else _spread(node, shape) for node in nodes])


def _common_dtype(values: list[Any]) -> DType:
    """What Tensors promote to, and then numbers beside them."""
    common: DType | None = None
    numbers = []
    for value in values:
        if isinstance(value, Tensor):
            dtype = value.node.dtype
            common = dtype if common is None or common is dtype else promote(common, dtype)
        else:
            numbers.append(value)
    for value in numbers:
        common = dtype_of_number(value, common)
    assert common is not None
    return common


def _agreeing(args: tuple[Any, ...]) -> tuple[Node, ...] | None:
    """The arguments, if all are Tensors of one dtype and one shape, as most are."""
    first = args[0]
    if type(first) is not Tensor:
        return None
    node = first.node
    if len(args) == 1:
        return (node,)
    for other in args:
        if type(other) is not Tensor or other.node.dtype is not node.dtype or other.node.shape != node.shape:
            return None
    return tuple([t.node for t in args])


def _spread(node: Node, shape: tuple[int, ...]) -> Node:
    """`broadcast_to` a shape that is known to fit."""
    missing = len(shape) - len(node.shape)
    if missing:
        padded = (1,) * missing + node.shape
        node = Node(REGISTRY["reshape"], (node,), {"shape": padded}, padded, node.dtype)
    if node.shape != shape:
        node = Node(REGISTRY["expand"], (node,), {"shape": shape}, shape, node.dtype)
    return node


def _of_dtype(value: Any, dtype: DType) -> Node:
    if not isinstance(value, Tensor):
        return number(value, dtype)
    node: Node = value.node
    return node if node.dtype is dtype else call("astype", value, dtype).node


def _element(body: Callable[..., K]) -> Callable[..., K]:
    def element(index: list[K], sources: list[Source], shape: Any, dtype: DType, attrs: Any) -> K:
        return narrow(body(*[s.at(index) for s in sources]), dtype)

    return element


def _widened(ref: Callable[..., Any]) -> Callable[..., Any]:
    """float16 is computed in float32 and rounded once, like everywhere in Nearfield."""

    def meaning(*arrays: Any, dtype: DType, **attrs: Any) -> Any:
        import numpy

        wide = [a.astype("float32") if a.dtype == numpy.float16 else a for a in arrays]
        with numpy.errstate(all="ignore"):
            return numpy.asarray(ref(*wide)).astype(dtype.name)

    return meaning


def elementwise(
    *, ref: Callable[..., Any], grad: Callable[..., Any] | None = None, kinds: str = "iuf", result: str = "same",
    mixed: int = 0, samples: Any = (), tol: float = 1e-6, name: str = "",
) -> Callable[[Callable[..., K]], Callable[..., Tensor]]:  # fmt: skip
    """Element by element, with broadcasting and promotion.

    kinds    accepted dtype kinds ("b" bool, "i" and "u" integers, "f" real)
    result   "same" dtype as the (promoted) inputs, "bool", or "float": integers are converted to float32 first
    mixed    this many leading arguments are conditions (bool)
    grad     (g, *inputs, y) -> gradients
    """

    def decorate(body: Callable[..., K]) -> Callable[..., Tensor]:
        title = name or body.__name__.rstrip("_")
        n_in = body.__code__.co_argcount

        def infer(shapes: Any, dtypes: list[DType], attrs: Any) -> tuple[Any, DType]:
            require(title, dtypes[-1], kinds)
            return shapes[0], BOOL if result == "bool" else dtypes[-1]

        op = record(
            title,
            "elementwise",
            n_in,
            infer,
            _element(body),
            _widened(ref),
            grad,
            body.__doc__ or "",
            samples,
            tol,
            kinds=kinds,
            body=body,
            mixed=mixed,
        )

        accepted = kinds.replace("i", "").replace("u", "") if result == "float" else kinds
        same = result != "bool"

        def function(*args: Any) -> Tensor:
            if len(args) != n_in:
                raise TypeError(f"{title}: takes {n_in} arguments, received {len(args)}.")
            nodes = (None if mixed else _agreeing(args)) or nodes_of(title, args, mixed)
            dtype = nodes[-1].dtype
            if dtype.kind not in accepted:
                if result != "float" or dtype.kind not in "iu":
                    require(title, dtype, kinds)
                converted = [call("astype", Tensor(node), FLOAT).node for node in nodes[mixed:]]
                nodes, dtype = (*nodes[:mixed], *converted), FLOAT
            return made(op, nodes, {}, nodes[0].shape, dtype if same else BOOL)

        update_wrapper(function, body)
        function.__name__ = title
        function.op = op  # type: ignore[attr-defined]
        FUNCTIONS[title] = function
        return function

    return decorate


def constant(value: float, like: K) -> K:
    """A number of the same K type as another expression."""
    return k.const(value, like.type)
