"""Evaluation: trace what is pending, find or build its Program, run it, and give the nodes their values.

This file plugs itself into tensor.py, which therefore need not know compiler and devices.
"""

import json
import os
import sys
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable
from importlib.util import find_spec
from types import TracebackType
from typing import TYPE_CHECKING, Any

from .device import Device, Session, Stats, open_async, open_device
from .device.open import available, names
from .dtype import DTYPES, DType
from .errors import DeviceError, DTypeError
from .grad import tape
from .graph.graph import Graph
from .graph.interpret import interpret
from .state import tell
from .tensor import PENDING, Node, Tensor, leaf, method, set_evaluator
from .trace import ordered, trace

if TYPE_CHECKING:
    from .compiler.choice import Choices
    from .compiler.target import Built, Target

__all__ = [
    "compiled",
    "current_device",
    "devices",
    "evaluate",
    "forget_programs",
    "init",
    "memory_stats",
    "synchronize",
    "target_of",
    "to_device",
    "use",
]

HOST = (bytes, bytearray, memoryview)
MOST_PROGRAMS = 256


class Reference:
    """The device that is NumPy: values stay in this process, and Graphs are interpreted line by line."""

    name = "reference"
    description = "NumPy, line by line"
    dtypes = frozenset(DTYPES)
    is_hardware = False


class _State:
    def __init__(self) -> None:
        self.device: Any = None
        self.is_chosen = False  # by the user, who knows better than a measurement
        self.choices: dict[Any, Choices] = {}
        self.programs: OrderedDict[Any, tuple[Built, Session]] = OrderedDict()


_state = _State()
_reference = Reference()


class use:  # noqa: N801 - reads as a verb: nf.use("wasm"), with nf.use("wasm"):
    """Choose the device that evaluates from now on, or within a `with` block.

    errors   DeviceError if it is missing, with the reason
    """

    def __init__(self, device: str) -> None:
        self._before = _state.device, _state.is_chosen
        _state.device, _state.is_chosen = _open(device), True

    def __enter__(self) -> Any:
        return _state.device

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        _state.device, _state.is_chosen = self._before

    def __repr__(self) -> str:
        return f"use({_state.device.name!r})"


def _open(name: str) -> Any:
    if name == "reference":
        return _reference
    if name not in names():
        raise DeviceError(f"use: there is no device {name!r}; accepted are {', '.join(names())}, reference.")
    return open_device(name)


def devices() -> dict[str, str]:
    """The devices that are here, best first, each with its description."""
    found = {f.name: f.description for f in available() if not f.reason}
    return found | ({"reference": _reference.description} if find_spec("numpy") else {})


def current_device() -> Any:
    """The device that evaluates: chosen with `use` or NEARFIELD_DEVICE, else hardware WebGPU, else wasm."""
    if _state.device is None:
        _state.device = _open(os.environ.get("NEARFIELD_DEVICE") or _best())
    elif getattr(_state.device, "is_lost", False):
        _state.device = _open(_state.device.name)
        _renew_generator()
    return _state.device


def _renew_generator() -> None:
    """Let random numbers go on after a loss, if the default generator's state was lost with the device."""
    from . import random

    state = random.default_generator().state.node
    if any(getattr(getattr(node.value, "device", None), "is_lost", False) for node in ordered([state])):
        random.renew()


def _best() -> str:
    try:
        if open_device("webgpu").is_hardware:
            return "webgpu"
    except DeviceError:
        pass
    return "wasm"


async def init(device: str | None = None) -> str:
    """Open the best device (or the named one) and use it; in a page without stack switching this opens WebGPU.

    returns  the device's name
    """
    _state.is_chosen = device is not None
    if device is not None and device != "reference":
        _state.device = await open_async(device)
    elif device is None:
        try:
            found = await open_async("webgpu")
            _state.device = found if found.is_hardware else await open_async("wasm")
        except DeviceError:
            _state.device = await open_async("wasm")
    else:
        _state.device = _reference
    return str(_state.device.name)


def is_chosen() -> bool:
    """Whether the user has said which device is to be used."""
    return _state.is_chosen or bool(os.environ.get("NEARFIELD_DEVICE"))


def memory_stats() -> Stats:
    """What the current device holds for tensors and Programs: bytes, peak, buffers, and freed bytes kept for reuse."""
    tell()  # who keeps state from call to call, also of layers that are in no list any more
    device = current_device()
    return Stats(0, 0, 0, 0) if device is _reference else device.stats()


def target_of(device: Device) -> "Target":
    """What the compiler should know of a device."""
    from .compiler.target import Target

    most = device.limits.get("maxStorageBuffersPerShaderStage", 32)
    bindings = min(most, 32) if device.name == "webgpu" else 32
    largest = device.limits.get("maxStorageBufferBindingSize", 1 << 27)
    return Target(
        device.name, device.features, bindings, largest, device.code_generator, choices(device), device.expect
    )


def choices(device: Device) -> "Choices":
    """What was measured on devices like this one: which of several ways a kernel is made."""
    found = _state.choices.get(device)
    if found is None:
        from .compiler.choice import Choices

        found = _state.choices[device] = Choices(read_note(f"choices {device.name} {device.description}") or {})
    return found


def set_choices(device: Device, chosen: dict[str, str]) -> None:
    """Use these from now on, and in later processes."""
    from .compiler.choice import Choices

    _state.choices[device] = Choices(chosen)
    write_note(f"choices {device.name} {device.description}", chosen)
    for key in [key for key in _state.programs if key[2] is device]:
        del _state.programs[key]


def read_note(key: str) -> Any:
    """What `write_note` has kept on disk; None if there is nothing."""
    from .program.cache import cache  # when first needed, as below: files and hashes take a tenth of the import

    found = cache().get("note", key)
    try:
        return None if found is None else json.loads(found)
    except ValueError:
        return None


def write_note(key: str, value: Any) -> None:
    """Keep something small that was measured, for later processes too."""
    from .program.cache import cache

    cache().put("note", key, json.dumps(value).encode())


def compiled(
    graph: Graph,
    givable: frozenset[int],
    device: Device,
    steady: frozenset[int] = frozenset(),
    meanwhile: Callable[[], None] | None = None,
) -> "tuple[Built, Session]":
    """The Graph's Program, loaded; built at most once for each structure and device.

    steady     positions of inputs that seldom change: what is made of them alone is apart, in Built.once
    meanwhile  is called, if the Program is new, when the device has all its kernels and may still be compiling them
    """
    key = (graph, givable, device, steady)
    found = _state.programs.get(key)
    if found is None:
        # when first needed: importing it takes a third of the package's time
        from .compiler.cached import cached_build

        built = cached_build(graph, target_of(device), givable, steady=steady)
        if meanwhile is not None:
            meanwhile()
        found = built, device.load(built.program)
        _state.programs[key] = found
        if len(_state.programs) > MOST_PROGRAMS:
            _state.programs.popitem(last=False)
    else:
        _state.programs.move_to_end(key)
    return found


def forget_programs() -> None:
    """Drop every compiled Program and its memory; what is needed again is compiled again."""
    _state.programs.clear()


def _stripped(node: Node) -> Node:
    """The node whose memory this one can share: movement that changes no position is left out."""
    while node.value is None and node.op is not None and node.op.name in ("reshape", "identity", "stop_gradient"):
        node = node.args[0]
    return node


def _reaches_placeholder(order: Iterable[Node]) -> set[int]:
    """The ids of nodes that need the value of a traced input."""
    tainted: set[int] = set()
    for node in order:
        if node.value is None and (node.op is None or any(id(a) in tainted for a in node.args)):
            tainted.add(id(node))
    return tainted


def evaluate(root: Node) -> None:
    """Give `root`, and everything else that is pending and can be reached, a value.

    errors   DeviceError if the device cannot compute `root`; another expression that it cannot compute stays pending
    """
    if root.value is not None:
        return
    wanted = [root, *(n for n in PENDING.values() if n is not root)]
    # the list has no name: it would count as somebody who holds the nodes
    tainted = _reaches_placeholder(ordered(wanted))
    if id(root) not in tainted:
        wanted = [n for n in wanted if id(n) not in tainted]
    try:
        values = _values(wanted)
    except DeviceError:
        if len(wanted) == 1:
            raise
        wanted = [root]
        values = _values(wanted)
    for node, value in zip(wanted, values, strict=True):
        _settle(node, value)


def _values(nodes: list[Node]) -> list[Any]:
    sources = [_stripped(n) for n in nodes]
    device = current_device()
    return _interpreted(sources) if device is _reference else _run(sources, device)


def _settle(node: Node, value: Any) -> None:
    node.value, node.depth = value, 0
    PENDING.pop(id(node), None)
    if not tape.depth:
        node.args, node.op = (), None


def _interpreted(roots: list[Node]) -> list[Any]:
    graph, feeds = trace(roots)
    return [value.tobytes() for value in interpret(graph, [as_array(n) for n in feeds])]


def as_array(node: Node) -> Any:
    """The node's value as a NumPy array, from wherever it is."""
    import numpy

    return numpy.frombuffer(_bytes(node), node.dtype.name, node.size).reshape(node.shape)


def _bytes(node: Node) -> Any:
    value = node.value
    return value if isinstance(value, HOST) else value.device.read(value, node.size * node.dtype.itemsize)


def _run(roots: list[Node], device: Device) -> list[Any]:
    """Trace, build or find, run."""
    graph, feeds = trace(roots)
    place_all(feeds, device)
    givable = _givable(roots, feeds)
    built, session = compiled(graph, givable, device)
    inputs = [n.value for n in feeds]
    outputs = session.run("main", inputs)
    return [inputs[n] if kind == "input" else outputs[n] for kind, n in built.results]


def place_all(nodes: list[Node], device: Device) -> None:
    """Move the nodes' values into the device's memory."""
    for node in nodes:  # a name of its own: in the caller it would count as somebody who holds the last node
        place(node, device)


def place(node: Node, device: Device) -> Any:
    """The node's value in the device's memory; it is moved there if it is elsewhere."""
    value = node.value
    if isinstance(value, HOST) or value.device is not device:
        if not isinstance(value, HOST):
            tell()  # whoever keeps the memory of a state's value
        _check_dtype("to_device", node.dtype)
        data = _bytes(node)
        memory = device.alloc(len(data))
        device.write(memory, data)
        node.value = value = memory
    return value


def _givable(roots: list[Node], feeds: list[Node]) -> frozenset[int]:
    """The inputs that nobody but this evaluation refers to: their memory may be written over."""
    if tape.depth:
        return frozenset()
    order = ordered(roots)
    slots = Counter(id(a) for n in order if n.value is None for a in n.args)
    found = []
    for at in range(len(feeds)):
        node = feeds[at]
        # referrers: the argument slots, `feeds`, `order`, the name `node`, getrefcount's argument (which is not a name:
        # Python 3.14 only lends these)
        if node.handles == 0 and sys.getrefcount(feeds[at]) <= slots[id(node)] + 4 and sys.getrefcount(node.value) <= 2:
            found.append(at)
    return frozenset(found)


def _read(node: Node) -> Any:
    if node.value is None:
        evaluate(node)
    return _bytes(node)


async def _read_async(node: Node) -> Any:
    if node.value is None:
        evaluate(node)
    value = node.value
    return value if isinstance(value, HOST) else await value.device.read_async(value, node.size * node.dtype.itemsize)


def _check_dtype(who: str, dtype: DType) -> None:
    device = current_device()
    if dtype.name not in device.dtypes:
        raise DTypeError(
            f"{who}: device {device.name} has no {dtype.name}; use float32 or int32, or another device: nf.use('wasm')."
        )


@method
def to_device(x: Tensor, device: str) -> Tensor:
    """The same values in that device's memory."""
    if x.device == device:
        return x
    found = _open(device)
    if found is _reference:
        return leaf(bytes(_read(x.node)), x.shape, x.dtype)
    copy = leaf(bytes(_read(x.node)), x.shape, x.dtype)
    place(copy.node, found)
    return copy


def synchronize() -> None:
    """Evaluate everything pending and wait until the device has done it."""
    pending = list(PENDING.values())
    tainted = _reaches_placeholder(ordered(pending))  # left over from a trace that failed
    for node in pending:
        if id(node) not in tainted:
            evaluate(node)


def _deepened(node: Node) -> None:
    """A loop that never reads has piled up operations: a Program of bounded size now is better than one without end."""
    if not tape.depth:  # what is differentiated stays one expression
        evaluate(node)


set_evaluator(_read, _read_async, _check_dtype, _deepened)
