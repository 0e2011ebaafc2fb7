"""jit: a function traced once per signature, then replayed by one call into the device, its state updated in place."""

import sys
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import update_wrapper
from typing import TYPE_CHECKING, Any

from .errors import TraceError
from .functional.conversion import asarray
from .grad import tape
from .graph.graph import Graph
from .graph.interpret import interpret
from .random import default_generator
from .runtime import compiled, current_device, evaluate, place
from .tensor import Node, Tensor, leaf
from .trace import trace
from .tree import flatten_tree, unflatten_tree

if TYPE_CHECKING:
    from .compiler.build import Built
    from .device import Device, Session

__all__ = ["Jit", "jit", "surroundings", "tracing"]

MOST_SIGNATURES = 64


class _Tracing:
    depth = 0


@contextmanager
def tracing() -> Iterator[None]:
    """While it lasts, compiled functions run as they are written."""
    _Tracing.depth += 1
    try:
        yield
    finally:
        _Tracing.depth -= 1


class _Recording:
    """What one signature compiled to.

    captured   Tensors of the function's surroundings that it read: their values are inputs
    changed    numbers of the state tensors that the function replaces
    draws      whether nf.random's default generator is the last of the owners, found while tracing
    """

    draws = False

    def __init__(
        self, graph: Graph, captured: list[Node], structure: Any, fixed: list[Any], changed: list[int], names: list[Any]
    ) -> None:
        self.graph, self.captured, self.structure = graph, captured, structure
        self.fixed, self.changed, self.names = fixed, changed, names
        self.ready: dict[Any, tuple[Built, Session]] = {}


def jit(function: Callable[..., Any] | None = None, *, state: Any = None) -> Any:
    """The function, compiled: later calls with arguments of the same shapes run one Program, and no Python of its own.

    Tensors and arrays among the arguments (also in lists, tuples and dicts) are inputs; other arguments are constants,
    and a new value of one traces again. Modules, optimisers and generators that the function uses are its state: their
    tensors are inputs, and what it assigns to them is assigned after each call, in place on the device.

    state    stateful objects that the function reaches otherwise than by arguments, closure and globals that it names
    errors   TraceError if the function asks for a value (`if x > 0`, `x.item()`) that depends on its inputs
    """
    if function is None:
        return lambda f: jit(f, state=state)
    return Jit(function, state)


class Jit:
    """What `jit` returns: call it like the function; `recordings` are the signatures seen."""

    def __init__(self, function: Callable[..., Any], state: Any = None) -> None:
        update_wrapper(self, function)
        self.function = function
        self.extra = [] if state is None else flatten_tree(state)[0]
        self.recordings: OrderedDict[Any, _Recording] = OrderedDict()
        self.found: list[Any] | None = None

    def __repr__(self) -> str:
        return f"jit({getattr(self.function, '__name__', self.function)}, {len(self.recordings)} signatures)"

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        return self if instance is None else jit(self.function.__get__(instance, owner))

    def __call__(self, *args: Any, **options: Any) -> Any:
        if tape.depth or _Tracing.depth:
            return self.function(*args, **options)
        leaves, structure = flatten_tree((args, options))
        leaves = [asarray(x) if hasattr(x, "__array_interface__") and not isinstance(x, Tensor) else x for x in leaves]
        owners = self._owners(leaves)
        state = [t for owner in owners for t in owner.state_tensors().values()]
        key = self._signature(leaves, structure, owners, state)
        recording = self.recordings.get(key)
        if recording is None:
            recording = self._record(leaves, structure, owners)
            self.recordings[key] = recording
            if len(self.recordings) > MOST_SIGNATURES:
                self.recordings.popitem(last=False)
        if recording.draws:
            owners = [*owners, default_generator()]
            state = [*state, *default_generator().state_tensors().values()]
        inputs = [x for x in leaves if isinstance(x, Tensor)]
        del leaves, args, options
        return _replay(recording, inputs, state, owners)

    def _owners(self, leaves: list[Any]) -> list[Any]:
        """Stateful objects among the arguments, the closure and the globals that the function names."""
        if self.found is None:
            self.found = surroundings(self.function) + [x for x in self.extra if _is_stateful(x)]
        owners = [x for x in leaves if _is_stateful(x)] + self.found
        return list({id(x): x for x in owners}.values())

    def _signature(self, leaves: list[Any], structure: Any, owners: list[Any], state: list[Tensor]) -> Any:
        parts: list[Any] = []
        for x in leaves:
            if isinstance(x, Tensor):
                parts.append((x.node.shape, x.node.dtype.name))
            else:
                parts.append((type(x), id(x)) if _is_stateful(x) else (type(x), _hashable(x)))
        held = tuple([(t.node.shape, t.node.dtype.name) for t in state])
        modes = tuple([(id(o), o.state_key() if hasattr(o, "state_key") else None) for o in owners])
        return structure, tuple(parts), held, modes, current_device().name

    def _record(self, leaves: list[Any], structure: Any, owners: list[Any]) -> _Recording:
        hidden = all(owner is not default_generator() for owner in owners)
        owners = [*owners, default_generator()] if hidden else owners
        before = [owner.state_tensors() for owner in owners]
        stand_ins = [_placeholder(x) if isinstance(x, Tensor) else x for x in leaves]
        held = [{name: _placeholder(t) for name, t in tensors.items()} for tensors in before]
        args, options = unflatten_tree(structure, stand_ins)
        try:
            for owner, tensors in zip(owners, held, strict=True):
                owner.set_state_tensors(tensors)
            with tracing():
                result = self.function(*args, **options)
            after = [owner.state_tensors() for owner in owners]
        finally:
            for owner, tensors in zip(owners, before, strict=True):
                owner.set_state_tensors(tensors)
        draws = hidden and any(after[-1][name].node is not t.node for name, t in held[-1].items())
        if hidden and not draws:
            held, after = held[:-1], after[:-1]
        recording = _recorded(result, [x for x in stand_ins if isinstance(x, Tensor)], held, after)
        recording.draws = draws
        return recording


def _recorded(
    result: Any, inputs: list[Tensor], held: list[dict[str, Tensor]], after: list[dict[str, Tensor]]
) -> _Recording:
    outputs, structure = flatten_tree(result)
    fixed = [None if isinstance(x, Tensor) else x for x in outputs]
    roots = [x.node for x in outputs if isinstance(x, Tensor)]
    changed, names, position = [], [], 0
    for which, (old, new) in enumerate(zip(held, after, strict=True)):
        for name, t in old.items():
            if name in new and new[name].node is not t.node:
                changed.append(position)
                names.append((which, name))
                roots.append(new[name].node)
            position += 1
        for name in new.keys() - old.keys():  # state that the function made: slots of an optimiser
            changed.append(-1)
            names.append((which, name))
            roots.append(new[name].node)
    placeholders = [t.node for t in inputs] + [t.node for tensors in held for t in tensors.values()]
    graph, feeds = trace(roots, placeholders)
    return _Recording(graph, feeds[len(placeholders) :], structure, fixed, changed, names)


def _replay(recording: _Recording, inputs: list[Tensor], state: list[Tensor], owners: list[Any]) -> Any:
    _evaluate_all(inputs)
    _evaluate_all(state)
    device = current_device()
    nodes = [t.node for t in inputs] + [t.node for t in state] + recording.captured
    if device.name == "reference":
        values = _interpreted(recording, nodes)
    else:
        if not recording.ready:
            _separate(state, device)
        memories = [place(n, device) for n in nodes]
        givable = _free_state(recording, state, len(inputs))
        ready = recording.ready.get((device, givable))
        if ready is None:
            ready = recording.ready[device, givable] = compiled(recording.graph, givable, device)
        built, session = ready
        made = session.run("main", memories)
        values = [memories[n] if kind == "input" else made[n] for kind, n in built.results]
    return _deliver(recording, values, owners)


def _evaluate_all(tensors: list[Tensor]) -> None:
    for t in tensors:  # a name of its own: in the caller it would count as somebody who holds the last tensor
        if t.node.value is None:
            evaluate(t.node)


def _separate(state: list[Tensor], device: "Device") -> None:
    """Give each state tensor memory of its own: equal initial values share one until the first step."""
    seen: set[int] = set()
    for t in state:
        memory = place(t.node, device)
        if id(memory) in seen and t.node.handles == 1:
            copy = device.alloc(t.nbytes)
            device.write(copy, device.read(memory, t.nbytes))
            t.node.value = copy
        seen.add(id(memory))


def _interpreted(recording: _Recording, nodes: list[Node]) -> list[Any]:
    import numpy

    arrays = [numpy.frombuffer(n.value, n.dtype.name, n.size).reshape(n.shape) for n in nodes]
    return [y.tobytes() for y in interpret(recording.graph, arrays)]


def _free_state(recording: _Recording, state: list[Tensor], first: int) -> frozenset[int]:
    """The state inputs that the function replaces and that nobody else holds: they are updated in place."""
    free = []
    for n in recording.changed:
        if n < 0:
            continue
        node = state[n].node
        # of the memory: the node, `memories`, getrefcount's argument; of the tensor: its owner, `state`, the argument;
        # of the node: the tensor, `nodes`, `node`, the argument. One more is a pending expression of the old value
        counts = sys.getrefcount(node.value), sys.getrefcount(state[n]), sys.getrefcount(state[n].node)
        if node.handles == 1 and all(count <= most for count, most in zip(counts, (3, 3, 4), strict=True)):
            free.append(first + n)
    return frozenset(free)


def _deliver(recording: _Recording, values: list[Any], owners: list[Any]) -> Any:
    lines = recording.graph.lines
    about = [lines[n] for n in recording.graph.outputs]
    tensors = [leaf(v, a.shape, a.dtype) for v, a in zip(values, about, strict=True)]
    count = len(tensors) - len(recording.changed)
    fresh: list[dict[str, Tensor]] = [{} for _ in owners]
    for (which, name), t in zip(recording.names, tensors[count:], strict=True):
        fresh[which][name] = t
    for owner, found in zip(owners, fresh, strict=True):
        if found:
            owner.set_state_tensors(found)
    made = iter(tensors[:count])
    results = [next(made) if x is None else x for x in recording.fixed]
    return unflatten_tree(recording.structure, results)


def _placeholder(t: Tensor) -> Tensor:
    return Tensor(Node(None, (), {}, t.node.shape, t.node.dtype))


def _is_stateful(x: Any) -> bool:
    return hasattr(x, "state_tensors") and not isinstance(x, type)


def _hashable(x: Any) -> Any:
    try:
        hash(x)
    except TypeError:
        raise TraceError(
            f"jit: an argument of type {type(x).__name__} is neither a tensor nor hashable; accepted are tensors, "
            f"arrays, numbers, strings and lists, tuples and dicts of them. Pass its tensors instead."
        ) from None
    return x


def surroundings(function: Any) -> list[Any]:
    """Stateful objects in the closure, in the globals it names, and the object it is a method of."""
    function = getattr(function, "__wrapped__", function)
    found: list[Any] = [getattr(function, "__self__", None)]
    plain = getattr(function, "__func__", function)
    for cell in getattr(plain, "__closure__", None) or ():
        try:
            found.append(cell.cell_contents)
        except ValueError:  # a cell that is not filled yet
            continue
    code = getattr(plain, "__code__", None)
    if code is not None:
        found += [plain.__globals__[name] for name in code.co_names if name in plain.__globals__]
    for x in list(found):
        if callable(x) and hasattr(x, "__closure__") and x is not plain and not isinstance(x, type):
            found += [c.cell_contents for c in x.__closure__ or () if _filled(c)]
            inner = getattr(x, "__code__", None)
            found += [x.__globals__[n] for n in inner.co_names if n in x.__globals__] if inner is not None else []
    leaves: list[Any] = []
    for x in found:
        leaves += flatten_tree(x)[0] if isinstance(x, (list, tuple, dict)) and len(x) < 10_000 else [x]
    return list({id(x): x for x in leaves if _is_stateful(x)}.values())


def _filled(cell: Any) -> bool:
    try:
        cell.cell_contents  # noqa: B018
    except ValueError:
        return False
    return True
