"""Tensor: an immutable array that is an expression until somebody asks for its values.

A Tensor is a handle on a Node. A Node is either an operation on other Nodes or a value (bytes, or memory of a device).
The Nodes that a live handle names and that have no value yet are *pending*; asking for any value evaluates all of them.
"""

import sys
from collections.abc import Callable, Iterator
from itertools import count
from math import inf
from typing import TYPE_CHECKING, Any

from .dtype import DTYPES, DType
from .errors import DTypeError, ShapeError
from .op import REGISTRY, Op

__all__ = [
    "FUNCTIONS", "PENDING", "Node", "Tensor", "apply", "call", "count_reference", "leaf", "made", "method", "number",
    "operations", "set_evaluator",
]  # fmt: skip


# Called when something comes to refer to Nodes: an operation, a list of what is read.
count_reference = count(1).__next__


class Node:
    """One operation, or one value.

    op      the record; None for a value or a traced input
    value   None while pending; bytes in this process, or a device's Memory
    depth   the longest way down to a value, in operations; infinite above a traced input
    """

    __slots__ = ("__weakref__", "args", "attrs", "depth", "dtype", "handles", "op", "shape", "value")
    depth: float

    def __init__(
        self,
        op: Op | None,
        args: "tuple[Node, ...]",
        attrs: dict[str, Any],
        shape: tuple[int, ...],
        dtype: DType,
        value: Any = None,
    ) -> None:
        self.op, self.args, self.attrs, self.shape, self.dtype, self.value = op, args, attrs, shape, dtype, value
        self.handles = 0
        depth: float = 0
        if args:
            for a in args:
                if a.depth >= depth:
                    depth = a.depth + 1
            count_reference()
        elif op is None and value is None:
            depth = inf
        self.depth = depth

    @property
    def size(self) -> int:
        """The number of elements."""
        n = 1
        for s in self.shape:
            n *= s
        return n


class _References:
    last = epoch = 0


def operations() -> int:
    """A number that is another one if an operation was made since it was last asked for.

    As long as it stays, no further Node has come to refer to another: to count who holds a Node is not needed. It never
    is a number that it was before, whatever threads do.
    """
    now = count_reference()
    if now != _References.last + 1:
        _References.epoch = now
    _References.last = now
    return _References.epoch


DEEPEST = 1000  # so many operations on one another are evaluated without being asked for
PENDING: dict[int, Node] = {}  # by id: nodes with a handle and without a value
FUNCTIONS: dict[str, Callable[..., Any]] = {}  # what operators and methods call, by name; filled by ops and functional


class _Evaluator:
    """What the runtime plugs in: the code base's one upward arrow (see runtime.py)."""

    read: Callable[[Node], Any]
    read_async: Callable[[Node], Any]
    check_dtype: Callable[[str, DType], None]
    deepened: Callable[[Node], None]


evaluator = _Evaluator()


def set_evaluator(
    read: Callable[[Node], Any],
    read_async: Callable[[Node], Any],
    check_dtype: Callable[[str, DType], None],
    deepened: Callable[[Node], None],
) -> None:
    """Tell Tensors how to get their values, so that this file need not know compiler and devices."""
    evaluator.read, evaluator.read_async = read, read_async
    evaluator.check_dtype, evaluator.deepened = check_dtype, deepened


def method(function: Callable[..., Any]) -> Callable[..., Any]:
    """Register a function under its name for the operators and methods of Tensor."""
    FUNCTIONS[function.__name__] = function
    return function


def call(name: str, *args: Any, **attrs: Any) -> Any:
    """The function of that name, applied."""
    return FUNCTIONS[name](*args, **attrs)


class Tensor:
    """An immutable n-dimensional array; made by `nf.asarray`, `nf.zeros` and their like, or by operations on others."""

    __slots__ = ("__weakref__", "node")
    __array_priority__ = 1000

    def __init__(self, node: Node) -> None:
        self.node = node
        node.handles += 1
        if node.value is None:
            PENDING[id(node)] = node

    def __del__(self, forget: Callable[..., Any] = PENDING.pop) -> None:
        node = self.node
        node.handles -= 1
        if node.handles == 0:
            forget(id(node), None)  # bound early: when Python exits, the names of modules go before the last tensors

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes, outermost first."""
        return self.node.shape

    @property
    def dtype(self) -> DType:
        """The element type."""
        return self.node.dtype

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return len(self.node.shape)

    @property
    def size(self) -> int:
        """The number of elements."""
        return self.node.size

    @property
    def nbytes(self) -> int:
        """Bytes of the values in memory."""
        return self.node.size * self.node.dtype.itemsize

    @property
    def T(self) -> "Tensor":
        """The matrix with rows and columns exchanged."""
        return call("matrix_transpose", self)

    @property
    def mT(self) -> "Tensor":
        """The last two axes exchanged."""
        return call("matrix_transpose", self)

    @property
    def device(self) -> str:
        """Where the values are: a device's name, "host" for values not used yet, "pending" if not computed."""
        value = self.node.value
        if value is None:
            return "pending"
        return "host" if isinstance(value, (bytes, bytearray, memoryview)) else str(value.device.name)

    def _bytes(self) -> memoryview:
        return memoryview(evaluator.read(self.node)).cast("B")

    def numpy(self) -> Any:
        """The values as a NumPy array (a copy, or read-only)."""
        return self._as_array(self._bytes())

    def _as_array(self, data: Any) -> Any:
        import numpy

        return numpy.frombuffer(data, dtype=self.dtype.name, count=self.size).reshape(self.shape)

    async def data(self) -> Any:
        """The values once they are there: a NumPy array, or without NumPy nested lists. Works in every browser."""
        data = memoryview(await evaluator.read_async(self.node)).cast("B")
        try:
            return self._as_array(data)
        except ImportError:
            return self._as_lists(data)

    def tolist(self) -> Any:
        """The values as nested lists of Python numbers; of a scalar, the number."""
        return self._as_lists(self._bytes())

    def _as_lists(self, data: memoryview) -> Any:
        import struct

        values: list[Any] = list(struct.unpack_from(f"<{self.size}{self.dtype.code}", data))
        for n in reversed(self.shape[1:]):
            values = (
                [values[i : i + n] for i in range(0, len(values), n)]
                if n
                else [[] for _ in range(_count(self.shape, n))]
            )
        if self.size == 0:
            return _empty(self.shape)
        return values if self.shape else values[0]

    def item(self) -> Any:
        """The one value as a Python number.

        errors   ShapeError if there is not exactly one
        """
        if self.size != 1:
            raise ShapeError(
                f"item: the array has shape {self.shape}, {self.size} elements; accepted is one. Index it first."
            )
        return call("reshape", self, ()).tolist() if self.shape else self.tolist()

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        array = self.numpy()
        return array.astype(dtype) if dtype is not None else (array.copy() if copy else array)

    def __dlpack__(self, **options: Any) -> Any:
        return self.numpy().copy().__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return (1, 0)

    def __array_namespace__(self, *, api_version: str | None = None) -> Any:
        return sys.modules[__package__]

    def __repr__(self) -> str:
        return str(call("to_text", self))

    def __format__(self, spec: str) -> str:
        return format(self.item(), spec) if spec else str(self)

    def __len__(self) -> int:
        if not self.shape:
            raise ShapeError("len: a scalar has no length; accepted are arrays of rank 1 and more.")
        return self.shape[0]

    def __iter__(self) -> Iterator["Tensor"]:
        return (self[i] for i in range(len(self)))

    def __bool__(self) -> bool:
        if self.size != 1:
            raise ShapeError(
                f"bool: the array has shape {self.shape}, {self.size} elements; accepted is one. Use nf.any or nf.all."
            )
        return bool(self.item())

    def __int__(self) -> int:
        return int(self.item())

    def __index__(self) -> int:
        if self.dtype.kind not in "iu":
            raise DTypeError(f"index: a tensor of dtype {self.dtype.name} cannot index; accepted are integers.")
        return int(self.item())

    def __float__(self) -> float:
        return float(self.item())

    def __hash__(self) -> int:
        return id(self)

    def __copy__(self) -> "Tensor":
        return self  # it never changes

    def __deepcopy__(self, memo: Any) -> "Tensor":
        return self

    def __getitem__(self, key: Any) -> "Tensor":
        return call("getitem", self, key)

    def __setitem__(self, key: Any, value: Any) -> None:
        raise TypeError("Tensor: tensors do not change; make a new one with nf.where(mask, new, x) or nf.scatter.")

    if TYPE_CHECKING:  # what _plug() adds below, for type checkers and editors

        def __add__(self, other: Any) -> "Tensor": ...
        def __radd__(self, other: Any) -> "Tensor": ...
        def __sub__(self, other: Any) -> "Tensor": ...
        def __rsub__(self, other: Any) -> "Tensor": ...
        def __mul__(self, other: Any) -> "Tensor": ...
        def __rmul__(self, other: Any) -> "Tensor": ...
        def __truediv__(self, other: Any) -> "Tensor": ...
        def __rtruediv__(self, other: Any) -> "Tensor": ...
        def __floordiv__(self, other: Any) -> "Tensor": ...
        def __rfloordiv__(self, other: Any) -> "Tensor": ...
        def __mod__(self, other: Any) -> "Tensor": ...
        def __rmod__(self, other: Any) -> "Tensor": ...
        def __pow__(self, other: Any) -> "Tensor": ...
        def __rpow__(self, other: Any) -> "Tensor": ...
        def __matmul__(self, other: Any) -> "Tensor": ...
        def __rmatmul__(self, other: Any) -> "Tensor": ...
        def __and__(self, other: Any) -> "Tensor": ...
        def __rand__(self, other: Any) -> "Tensor": ...
        def __or__(self, other: Any) -> "Tensor": ...
        def __ror__(self, other: Any) -> "Tensor": ...
        def __xor__(self, other: Any) -> "Tensor": ...
        def __rxor__(self, other: Any) -> "Tensor": ...
        def __lshift__(self, other: Any) -> "Tensor": ...
        def __rlshift__(self, other: Any) -> "Tensor": ...
        def __rshift__(self, other: Any) -> "Tensor": ...
        def __rrshift__(self, other: Any) -> "Tensor": ...
        def __lt__(self, other: Any) -> "Tensor": ...
        def __le__(self, other: Any) -> "Tensor": ...
        def __gt__(self, other: Any) -> "Tensor": ...
        def __ge__(self, other: Any) -> "Tensor": ...
        def __eq__(self, other: object) -> "Tensor": ...  # type: ignore[override]
        def __ne__(self, other: object) -> "Tensor": ...  # type: ignore[override]
        def __neg__(self) -> "Tensor": ...
        def __pos__(self) -> "Tensor": ...
        def __abs__(self) -> "Tensor": ...
        def __invert__(self) -> "Tensor": ...
        def reshape(self, *args: Any, **options: Any) -> "Tensor": ...
        def astype(self, *args: Any, **options: Any) -> "Tensor": ...
        def sum(self, *args: Any, **options: Any) -> "Tensor": ...
        def mean(self, *args: Any, **options: Any) -> "Tensor": ...
        def max(self, *args: Any, **options: Any) -> "Tensor": ...
        def min(self, *args: Any, **options: Any) -> "Tensor": ...
        def prod(self, *args: Any, **options: Any) -> "Tensor": ...
        def all(self, *args: Any, **options: Any) -> "Tensor": ...
        def any(self, *args: Any, **options: Any) -> "Tensor": ...
        def argmax(self, *args: Any, **options: Any) -> "Tensor": ...
        def argmin(self, *args: Any, **options: Any) -> "Tensor": ...
        def std(self, *args: Any, **options: Any) -> "Tensor": ...
        def var(self, *args: Any, **options: Any) -> "Tensor": ...
        def squeeze(self, *args: Any, **options: Any) -> "Tensor": ...
        def permute_dims(self, *args: Any, **options: Any) -> "Tensor": ...
        def flatten(self, *args: Any, **options: Any) -> "Tensor": ...

    def to_device(self, device: str, /, *, stream: Any = None) -> "Tensor":
        """The same values in that device's memory."""
        return call("to_device", self, device)


def _count(shape: tuple[int, ...], n: int) -> int:
    return 0 if n == 0 else 1


def _empty(shape: tuple[int, ...]) -> list[Any]:
    if shape[0] == 0:
        return []
    return [_empty(shape[1:]) for _ in range(shape[0])]


def _binary_operator(name: str) -> tuple[Callable[..., Any], Callable[..., Any]]:
    def forward(self: Tensor, other: Any) -> Any:
        function = FUNCTIONS[name]
        return function(self, other) if type(other) is Tensor or _accepts(other) else NotImplemented

    def reflected(self: Tensor, other: Any) -> Any:
        function = FUNCTIONS[name]
        return function(other, self) if _accepts(other) else NotImplemented

    return forward, reflected


def _accepts(other: Any) -> bool:
    kinds = (Tensor, int, float, list, tuple)
    return isinstance(other, kinds) or hasattr(other, "__array__") or hasattr(other, "dtype")


OPERATORS = {
    "add": "add", "sub": "subtract", "mul": "multiply", "truediv": "divide", "floordiv": "floor_divide",
    "mod": "remainder", "pow": "pow", "matmul": "matmul", "and": "bitwise_and", "or": "bitwise_or",
    "xor": "bitwise_xor", "lshift": "bitwise_left_shift", "rshift": "bitwise_right_shift",
}  # fmt: skip
COMPARISONS = {
    "lt": "less",
    "le": "less_equal",
    "gt": "greater",
    "ge": "greater_equal",
    "eq": "equal",
    "ne": "not_equal",
}
UNARY = {"neg": "negative", "pos": "positive", "abs": "abs", "invert": "bitwise_invert"}
METHODS = (
    "reshape", "astype", "sum", "mean", "max", "min", "prod", "all", "any", "argmax", "argmin", "std", "var", "squeeze",
    "permute_dims", "flatten",
)  # fmt: skip


def _plug() -> None:
    for name, function in OPERATORS.items():
        forward, reflected = _binary_operator(function)
        setattr(Tensor, f"__{name}__", forward)
        setattr(Tensor, f"__r{name}__", reflected)
    for name, function in COMPARISONS.items():
        setattr(Tensor, f"__{name}__", _binary_operator(function)[0])
    for name, function in UNARY.items():
        setattr(Tensor, f"__{name}__", lambda self, function=function: FUNCTIONS[function](self))
    for name in METHODS:
        bound = lambda self, *args, name=name, **options: FUNCTIONS[name](self, *args, **options)  # noqa: E731
        bound.__name__, bound.__doc__ = name, f"`nf.{name}` of this tensor."
        setattr(Tensor, name, bound)


_plug()


def leaf(value: Any, shape: tuple[int, ...], dtype: DType) -> Tensor:
    """A Tensor of known values: bytes, or a device's Memory."""
    return Tensor(Node(None, (), {}, shape, dtype, value))


def apply(op: Op | str, *inputs: Tensor, **attrs: Any) -> Tensor:
    """The Tensor that the operation makes of its inputs; shapes and dtypes are checked now, values come later."""
    record = REGISTRY[op] if isinstance(op, str) else op
    if len(inputs) == 1:
        node = inputs[0].node
        shape, dtype = record.infer([node.shape], [node.dtype], attrs)
        return made(record, (node,), attrs, shape, dtype)
    nodes = tuple([t.node for t in inputs])
    shape, dtype = record.infer([n.shape for n in nodes], [n.dtype for n in nodes], attrs)
    return made(record, nodes, attrs, shape, dtype)


def made(op: Op, nodes: tuple[Node, ...], attrs: dict[str, Any], shape: tuple[int, ...], dtype: DType) -> Tensor:
    """As `apply`, for arguments that have been checked."""
    if dtype.itemsize == 8:
        evaluator.check_dtype(op.name, dtype)
    node = Node(op, nodes, attrs, shape, dtype)
    result = Tensor(node)
    if nodes and node.depth % DEEPEST == 0:
        evaluator.deepened(node)
    return result


def number(value: Any, dtype: DType) -> Node:
    """A constant of rank 0 that becomes part of the compiled Program."""
    op, attrs = REGISTRY["const"], {"value": value, "dtype": dtype}
    op.infer((), (), attrs)  # makes bytes of the value
    return Node(op, (), attrs, (), dtype)


def scalar(value: Any, dtype: DType) -> Tensor:
    """A Tensor of a constant."""
    return apply("const", value=value, dtype=dtype)


def dtype_of_number(value: Any, other: DType | None) -> DType:
    """The dtype a Python number takes beside a tensor of dtype `other`: the tensor's, if its kind can hold it."""
    if isinstance(value, bool):
        return other or DTYPES["bool"]
    if isinstance(value, int):
        return other if other is not None and other.kind != "b" else DTYPES["int32"]
    return other if other is not None and other.kind == "f" else DTYPES["float32"]
