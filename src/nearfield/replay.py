"""Replay: a recorded function run again for other inputs, and its new state put where the old one was."""

from collections.abc import Callable
from operator import itemgetter
from sys import getrefcount
from typing import TYPE_CHECKING, Any

from .device import Device
from .graph.graph import Graph
from .graph.interpret import interpret
from .runtime import as_array, compiled, current_device, evaluate, place, place_all
from .state import Places, places_of
from .steady import Steady
from .tensor import Node, Tensor, leaf
from .tree import unflatten_tree

if TYPE_CHECKING:
    from .compiler.target import Built
    from .device import Session

__all__ = ["Recording", "Replay"]


class Recording:
    """What one signature compiled to.

    first      number of the inputs that are arguments; the state follows
    captured   Tensors of the function's surroundings that it read: their values are the last inputs
    structure  of the function's result, `fixed` its leaves, None for each that is a Tensor
    changed    numbers of the state Tensors that the function replaces; -1 for one that it made
    names      of these, each with the number of its owner
    draws      whether nf.random's default generator is the last of the owners, found while tracing
    """

    draws = False

    def __init__(
        self,
        graph: Graph,
        first: int,
        captured: list[Node],
        structure: Any,
        fixed: list[Any],
        changed: list[int],
        names: list[Any],
    ) -> None:
        self.graph, self.first, self.captured, self.structure = graph, first, captured, structure
        self.fixed, self.changed, self.names = fixed, changed, names
        self.ready: dict[Any, tuple[Built, Session, Steady]] = {}
        self.prepares = True  # may something be made once of the inputs that it does not replace?
        lines = [graph.lines[n] for n in graph.outputs]
        self.forms = [(line.shape, line.dtype) for line in lines]
        self.count = len(lines) - len(changed)  # results; new state follows
        self.in_place = False  # was all new state written over the old one in the last call?

    def result(self, values: list[Any]) -> Any:
        """What the function returns, of the device's memories."""
        made = [leaf(value, *form) for value, form in zip(values, self.forms, strict=False)]
        if self.structure == "leaf":
            return made[0] if made else self.fixed[0]
        tensors = iter(made)
        return unflatten_tree(self.structure, [next(tensors) if x is None else x for x in self.fixed])

    def run(self, inputs: list[Tensor], state: list[Tensor], owners: list[Any]) -> Any:
        """The result for these inputs and this state of the owners, which get their new state."""
        evaluate_all(inputs)
        evaluate_all(state)
        device = current_device()
        nodes = [t.node for t in inputs] + [t.node for t in state] + self.captured
        if device.name == "reference":
            values = self._interpreted(nodes)
        else:
            if not self.changed:  # nothing is written over: what is compiled does not depend on who holds the inputs
                self.program(frozenset(), device, lambda: place_all(nodes, device))
            elif not self.ready:
                _separate(state, device)
            memories = [place(n, device) for n in nodes]
            givable = self._free(state)
            self.in_place = len(givable) == len(self.changed)
            built, session, steady = self.program(givable, device)
            more = steady.inputs(memories)
            if more is None:
                built, session, more = *self.unprepared(givable, device), []
            made = session.run("main", memories + more)
            values = [memories[n] if kind == "input" else made[n] for kind, n in built.results]
        self._deliver(values[self.count :], owners)
        return self.result(values[: self.count])

    def program(
        self, givable: frozenset[int], device: Device, meanwhile: Callable[[], None] | None = None
    ) -> "tuple[Built, Session, Steady]":
        """The Program that may write over these inputs, and its further inputs; `meanwhile` as in `compiled`."""
        found = self.ready.get((device, givable))
        if found is None:
            built, session = compiled(self.graph, givable, device, self.steady(), meanwhile)
            found = self.ready[device, givable] = built, session, Steady(built, device)
        return found

    def unprepared(self, givable: frozenset[int], device: Device) -> "tuple[Built, Session]":
        """The Program that takes all inputs for new, from now on."""
        self.prepares = False
        self.ready.clear()
        return self.program(givable, device)[:2]

    def steady(self) -> frozenset[int]:
        """Positions of the inputs that stay: captured values, and state that the function does not replace.

        Single numbers are left out: learning rates and counters change, and nothing large is made of them alone.
        """
        if not self.prepares:
            return frozenset()
        lines = [self.graph.lines[n] for n in self.graph.inputs]
        replaced = {self.first + n for n in self.changed if n >= 0}
        return frozenset([n for n in range(self.first, len(lines)) if lines[n].shape and n not in replaced])

    def _interpreted(self, nodes: list[Node]) -> list[Any]:
        arrays = [as_array(n) for n in nodes]
        return [y.tobytes() for y in interpret(self.graph, arrays)]

    def _free(self, state: list[Tensor]) -> frozenset[int]:
        """The state inputs that the function replaces and that nobody else holds: they are updated in place."""
        free = []
        for n in self.changed:
            if n < 0:
                continue
            node = state[n].node
            # of the memory: the node, `memories`, getrefcount's argument; of the tensor: its owner, `state`, the
            # argument; of the node: the tensor, `nodes`, `node`, the argument. One more is a pending expression
            counts = getrefcount(node.value), getrefcount(state[n]), getrefcount(state[n].node)
            if node.handles == 1 and all(count <= most for count, most in zip(counts, (3, 3, 4), strict=True)):
                free.append(self.first + n)
        return frozenset(free)

    def _deliver(self, values: list[Any], owners: list[Any]) -> None:
        fresh: list[dict[str, Tensor]] = [{} for _ in owners]
        for (which, name), value, form in zip(self.names, values, self.forms[self.count :], strict=True):
            fresh[which][name] = leaf(value, *form)
        for owner, found in zip(owners, fresh, strict=True):
            if found:
                owner.set_state_tensors(found)


class Replay:
    """A Recording prepared for the usual call: nobody but the owners holds their state, and it is where it was.

    Then Tensors and their nodes stay, and only get new values: nobody can tell.
    """

    def __init__(self, recording: Recording, places: Places, device: Device) -> None:
        first = recording.first
        self.recording, self.places, self.device = recording, places, device
        count = len(recording.graph.inputs) - len(recording.captured)
        lines = recording.graph.lines[first:count]  # the state's placeholders
        self.shapes, self.dtypes = [line.shape for line in lines], [line.dtype for line in lines]
        self.captured = [place(n, device) for n in recording.captured]
        self.changed = _picker(recording.changed)
        givable = frozenset([first + n for n in recording.changed])
        built, self.session, self.steady = recording.program(givable, device)
        self.results = built.results[: recording.count]
        entry, buffers = built.program.entries[0], built.program.buffers
        self.moved = [  # state whose new value is not in the memory of the old one
            (n, kind, at)
            for n, (kind, at) in zip(recording.changed, built.results[recording.count :], strict=True)
            if kind == "input" or buffers[entry.outputs[at]].alias != entry.inputs[first + n]
        ]

    @classmethod
    def of(cls, recording: Recording, owners: list[Any]) -> "Replay | None":
        """The prepared call; None where there is none."""
        device = current_device()
        places = places_of(owners) if recording.in_place and min(recording.changed, default=0) >= 0 else None
        return None if places is None or device.name == "reference" else cls(recording, places, device)

    def run(self, inputs: list[Tensor]) -> list[Any] | None:
        """The memories of the results, the state changed; None if this call is not a usual one, nothing changed."""
        device = self.device
        if device is not current_device():
            return None
        evaluate_all(inputs)
        memories = [place(t.node, device) for t in inputs]
        state = self.places.fetch()
        if state is None:
            return None
        nodes = [t.node for t in state]
        values = [n.value for n in nodes]
        if [n.shape for n in nodes] != self.shapes or [n.dtype for n in nodes] != self.dtypes:
            return None
        if not _on(device, values) or not self._only_ours(state, nodes, values):
            return None
        memories += values
        memories += self.captured
        more = self.steady.inputs(memories)
        if more is None:
            return None  # Recording.run finds this, too
        memories += more
        made = self.session.run("main", memories)
        for n, kind, at in self.moved:
            nodes[n].value = memories[at] if kind == "input" else made[at]
        return [memories[n] if kind == "input" else made[n] for kind, n in self.results]

    def _only_ours(self, state: list[Tensor], nodes: list[Node], values: list[Any]) -> bool:
        """Whether nobody else holds what is to be written over."""
        if self.changed is None:
            return True
        if [t.__weakref__ for t in state].count(None) < len(state):  # type: ignore[attr-defined]
            return False  # somebody would see a Tensor live on that should be gone
        for things in (state, nodes, values):
            # what refers to a Tensor, a node, a memory: what it belongs to, the list, `map`; and what was picked
            if max(map(getrefcount, things)) > 3 and max(map(getrefcount, self.changed(things))) > 4:
                return False
        return True


def _picker(numbers: list[int]) -> Callable[[list[Any]], tuple[Any, ...]] | None:
    """What takes the things of these numbers out of a list."""
    if len(numbers) < 2:
        return (lambda things: (things[numbers[0]],)) if numbers else None
    return itemgetter(*numbers)


def _on(device: Device, values: list[Any]) -> bool:
    try:
        return [memory.device for memory in values].count(device) == len(values)
    except AttributeError:  # values of this process, or none yet
        return False


def evaluate_all(tensors: list[Tensor]) -> None:
    """Give each its value."""
    for t in tensors:  # a name of its own: in the caller it would count as somebody who holds the last tensor
        if t.node.value is None:
            evaluate(t.node)


def _separate(state: list[Tensor], device: Device) -> None:
    """Give each state tensor memory of its own: equal initial values share one until the first step."""
    seen: set[int] = set()
    for t in state:
        memory = place(t.node, device)
        if id(memory) in seen and t.node.handles == 1:
            copy = device.alloc(t.nbytes)
            device.write(copy, device.read(memory, t.nbytes))
            t.node.value = copy
        seen.add(id(memory))
