"""jit: a function traced once per signature, then replayed by one call into the device, its state updated in place."""

from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import update_wrapper
from math import prod
from types import MethodType
from typing import Any
from weakref import ref

from .argument import callables
from .device import Uninterrupted
from .errors import TraceError
from .functional.conversion import asarray
from .grad import tape
from .random import default_generator
from .replay import Recording, Replay
from .runtime import current_device
from .state import changes, keep_only, tell
from .surroundings import Surroundings, is_stateful
from .tensor import Node, Tensor, leaf
from .trace import trace
from .tree import flatten_tree, unflatten_tree

__all__ = ["Jit", "jit", "tracing"]

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


def jit(function: Callable[..., Any] | None = None, *, state: Any = None) -> Any:
    """The function, compiled: later calls with arguments of the same shapes run one Program, and no Python of its own.

    Tensors and arrays among the arguments (also in lists, tuples and dicts) are inputs; other arguments are constants,
    and a new value of one traces again. Modules, optimisers and generators that the function uses are its state: their
    tensors are inputs, and what it assigns to them is assigned after each call, in place on the device.

    state    stateful objects that the function reaches otherwise than by what surroundings.py follows: its arguments,
             closure, globals that it names, the object that it is a method of, and functions and objects found there
    errors   TraceError if the function asks for a value (`if x > 0`, `x.item()`) that depends on its inputs
    """
    if function is None:
        return lambda f: jit(f, state=state)
    callables("jit", "a function or a Module", function=function)
    return Jit(function, state)


class Jit:
    """What `jit` returns: call it like the function; `recordings` are the signatures seen."""

    def __init__(self, function: Callable[..., Any], state: Any = None) -> None:
        update_wrapper(self, function, updated=())
        self.function = function
        self.extra = [] if state is None else flatten_tree(state)[0]
        self.recordings: OrderedDict[Any, Recording] = OrderedDict()
        self.replays: OrderedDict[Any, Replay] = OrderedDict()
        self.around: Surroundings | None = None
        self.methods: dict[int, Jit] = {}  # of objects that have no state of their own, each compiled for one
        self.is_method = False  # of such an object, which comes first among the arguments
        self.settled = -1

    def __repr__(self) -> str:
        return f"jit({getattr(self.function, '__name__', self.function)}, {len(self.recordings)} signatures)"

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        if instance is None:
            return self
        return MethodType(self if is_stateful(instance) else self._method_of(instance), instance)

    def _method_of(self, instance: Any) -> "Jit":
        """The function for one object alone, as long as that lives."""
        found = self.methods.get(id(instance))
        if found is None:
            held = self._held(instance)
            found = Jit(lambda *args, **options: self.function(held(), *args, **options), self.extra)
            update_wrapper(found, self.function, updated=())
            found.is_method = True
            if isinstance(held, ref):
                self.methods[id(instance)] = found
        return found

    def _held(self, instance: Any) -> Callable[[], Any]:
        """What gives the object, and does not keep it alive if that can be done."""
        number = id(instance)

        def forget(_: Any) -> None:
            self.methods.pop(number, None)

        try:
            return ref(instance, forget)
        except TypeError:
            return lambda: instance

    def __call__(self, *args: Any, **options: Any) -> Any:
        settings: tuple[Any, ...] = ()
        if self.is_method:
            settings, args = _settings(args[0]), args[1:]
        self._look()
        if tape.depth or _Tracing.depth:
            return self.function(*args, **options)
        leaves, structure = flatten_tree((args, options))
        inputs, form = self._form(leaves, structure)
        form += settings
        replay = self.replays.get(form)
        if replay is not None:
            values = replay.run(inputs)
            if values is not None:
                return replay.recording.result(values)
        del args, options
        return self._call(leaves, structure, inputs, form)

    def _form(self, leaves: list[Any], structure: Any) -> tuple[list[Tensor], tuple[Any, ...]]:
        """The Tensors among the arguments, and all else about these, as a value with a hash."""
        inputs: list[Tensor] = []
        parts: list[Any] = [structure]
        for x in leaves:
            if _is_array(x):
                t = x if type(x) is Tensor else asarray(x)
                node = t.node
                inputs.append(t)
                parts.append((node.shape, node.dtype))
            else:
                parts.append((type(x), id(x)) if is_stateful(x) else (type(x), _hashable(x)))
        return inputs, tuple(parts)

    def _call(self, leaves: list[Any], structure: Any, inputs: list[Tensor], form: tuple[Any, ...]) -> Any:
        """A call that is traced, or for which state has to be found anew."""
        tell()  # who keeps state from call to call: here counts who else holds it
        steady = changes() == self.settled
        recording, owners, state = self._found(leaves, structure, inputs, form)
        leaves.clear()
        result = recording.run(inputs, state, owners)
        replay = Replay.of(recording, owners) if steady else None
        if replay is not None:
            _remember(self.replays, form, replay)
        self.settled = changes()
        return result

    def _found(
        self, leaves: list[Any], structure: Any, inputs: list[Tensor], form: tuple[Any, ...]
    ) -> tuple[Recording, list[Any], list[Tensor]]:
        """The recording for a call, the owners of its state, and this."""
        owners = self._owners(leaves)
        state = [t for owner in owners for t in owner.state_tensors().values()]
        key = form, *_mode(owners, state)
        recording = self.recordings.get(key)
        if recording is None:
            recording = self._record(leaves, structure, inputs, owners)
            if _begun(recording, owners):  # traced as in all later calls, so that there is one Program for all
                return self._found(leaves, structure, inputs, form)
            _remember(self.recordings, key, recording)
        if recording.draws:
            owners = [*owners, default_generator()]
            state = [*state, *default_generator().state_tensors().values()]
        return recording, owners, state

    def recorded(self, *args: Any, **options: Any) -> tuple[Recording, list[Node]]:
        """The recording for these arguments, made if need be, and the nodes whose values are its inputs now."""
        self._look()
        leaves, structure = flatten_tree((args, options))
        inputs, form = self._form(leaves, structure)
        owners = self._owners(leaves)
        before = [owner.state_tensors().keys() for owner in owners]
        recording, _, state = self._found(leaves, structure, inputs, form)
        # what the trace has made is no state yet: the next call traces again
        if any(o.state_tensors().keys() != names for o, names in zip(owners, before, strict=True)):
            for key in [key for key, found in self.recordings.items() if found is recording]:
                del self.recordings[key]
            for owner, names in zip(owners, before, strict=True):
                keep_only(owner, names)
        return recording, [t.node for t in (*inputs, *state)] + recording.captured

    def forget(self) -> None:
        """Find or build the Programs anew at the next calls."""
        self.replays.clear()
        for recording in self.recordings.values():
            recording.ready.clear()

    def _look(self) -> None:
        """Forget which state was found if it is now another's, and what was traced: ids may be others', too."""
        if self.around is not None and not self.around.is_current():
            self.around = None
            self.replays.clear()
            self.recordings.clear()

    def _owners(self, leaves: list[Any]) -> list[Any]:
        """Stateful objects among the arguments and in the function's surroundings."""
        if self.around is None:
            self.around = Surroundings(self.function)
        owners = {id(x): x for x in (*leaves, *self.around.owners, *self.extra) if is_stateful(x)}
        wholes = [x for x in owners.values() if hasattr(x, "modules")]
        if len(wholes) > 1:  # a part of another has its state there
            for x in wholes:
                for part in x.modules().values():
                    if part is not x:
                        owners.pop(id(part), None)
        return list(owners.values())

    def _record(self, leaves: list[Any], structure: Any, inputs: list[Tensor], owners: list[Any]) -> Recording:
        hidden = all(owner is not default_generator() for owner in owners)
        owners = [*owners, default_generator()] if hidden else owners
        before = [owner.state_tensors() for owner in owners]
        given = iter([_placeholder(t) for t in inputs])
        stand_ins = [next(given) if _is_array(x) else x for x in leaves]
        held = [{name: _placeholder(t) for name, t in tensors.items()} for tensors in before]
        args, options = unflatten_tree(structure, stand_ins)
        try:
            for owner, tensors in zip(owners, held, strict=True):
                owner.set_state_tensors(tensors)
            with tracing():
                result = self.function(*args, **options)
            after = [owner.state_tensors() for owner in owners]
        except BaseException:
            with Uninterrupted():
                for owner, tensors in zip(owners, before, strict=True):
                    keep_only(owner, tensors)
            raise
        finally:
            with Uninterrupted():
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
) -> Recording:
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
        for name in [name for name in new if name not in old]:  # state that the function made: slots of an optimiser
            changed.append(-1)
            names.append((which, name))
            roots.append(new[name].node)
    placeholders = [t.node for t in inputs] + [t.node for tensors in held for t in tensors.values()]
    graph, feeds = trace(roots, placeholders)
    return Recording(graph, len(inputs), feeds[len(placeholders) :], structure, fixed, changed, names)


def _begun(recording: Recording, owners: list[Any]) -> bool:
    """Give owners the state that the trace has made, where that begins at 0; False if there is none, or other."""
    made = [
        (owners[which], name, shape, dtype)
        for n, (which, name), (shape, dtype) in zip(
            recording.changed, recording.names, recording.forms[recording.count :], strict=True
        )
        if n < 0
    ]
    if not made or not all(hasattr(o, "begins_at_zero") and o.begins_at_zero(name) for o, name, *_ in made):
        return False
    for owner, name, shape, dtype in made:
        zeros = bytes(prod(shape) * dtype.itemsize)
        owner.set_state_tensors({name: leaf(zeros, shape, dtype)})
    return True


def _mode(owners: list[Any], state: list[Tensor]) -> tuple[Any, ...]:
    """What the function depends on besides its arguments."""
    held = tuple([(t.node.shape, t.node.dtype.name) for t in state])
    modes = tuple([(id(o), o.state_key() if hasattr(o, "state_key") else None) for o in owners])
    return held, modes, current_device().name


def _remember(table: OrderedDict[Any, Any], key: Any, value: Any) -> None:
    table[key] = value
    if len(table) > MOST_SIGNATURES:
        table.popitem(last=False)


def _settings(x: Any) -> tuple[Any, ...]:
    """The object's numbers and words."""
    return tuple([row for row in getattr(x, "__dict__", {}).items() if type(row[1]) in (int, float, str, bool)])


def _is_array(x: Any) -> bool:
    return type(x) is Tensor or hasattr(x, "__array_interface__")


def _placeholder(t: Tensor) -> Tensor:
    return Tensor(Node(None, (), {}, t.node.shape, t.node.dtype))


def _hashable(x: Any) -> Any:
    try:
        hash(x)
    except TypeError:
        raise TraceError(
            f"jit: an argument of type {type(x).__name__} is neither a tensor nor hashable; accepted are tensors, "
            f"arrays, numbers, strings and lists, tuples and dicts of them. Pass its tensors instead."
        ) from None
    return x
