"""Replay: a recorded function run again for other inputs, and its new state put where the old one was."""

from collections.abc import Callable
from itertools import count
from sys import getrefcount
from typing import TYPE_CHECKING, Any

from .device import Device, Uninterrupted
from .device.device import next_serial
from .graph.graph import Graph
from .graph.interpret import interpret
from .holding import Holding, Share, holding_of
from .runtime import as_array, compiled, current_device, evaluate, place, place_all
from .steady import Steady
from .tensor import Node, Tensor, leaf, operations
from .tree import unflatten_tree

if TYPE_CHECKING:
    from .compiler.target import Built
    from .device import Session

__all__ = ["Recording", "Replay"]

Source = tuple[str, int]  # "input" or "fresh", and which


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
            with Uninterrupted():
                self._deliver(values[self.count :], owners)
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
            with Uninterrupted():  # some state is written over, and what is not has to follow
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

    def __init__(self, recording: Recording, holdings: list[Holding], device: Device) -> None:
        first = recording.first
        self.recording, self.device, self.holdings = recording, device, holdings
        stop = len(recording.graph.inputs) - len(recording.captured)
        lines = recording.graph.lines[first:stop]  # the state's placeholders
        self.shapes, self.dtypes = [line.shape for line in lines], [line.dtype for line in lines]
        self.captured = [place(n, device) for n in recording.captured]
        self.parts = list(zip(holdings, _shares(recording.changed, holdings), strict=True))
        self.written = [(holding, share) for holding, share in self.parts if share is not None]
        givable = frozenset([first + n for n in recording.changed])
        built, self.session, self.steady = recording.program(givable, device)
        sources = _sources(built)
        self.results = sources[: recording.count]
        where = [(h, n) for h in holdings for n in range(len(h.tensors))]
        self.moved = {  # state whose new value is not in the memory of the old one
            first + n: (*where[n], source)
            for n, source in zip(recording.changed, sources[recording.count :], strict=True)
            if source != ("input", first + n)
        }
        self.others = (*range(first), *self.moved)
        self.numbers: list[int] = []
        self.versions: list[int] = []
        self.token = 0

    @classmethod
    def of(cls, recording: Recording, owners: list[Any]) -> "Replay | None":
        """The prepared call; None where there is none."""
        device = current_device()
        if not recording.in_place or min(recording.changed, default=0) < 0 or device.name == "reference":
            return None
        holdings = [holding_of(owner) for owner in owners]
        found = [h for h in holdings if h is not None and h.stands(device)]
        return cls(recording, found, device) if len(found) == len(holdings) else None

    def run(self, inputs: list[Tensor]) -> list[Any] | None:
        """The memories of the results, the state changed; None if this call is not a usual one, nothing changed."""
        device = self.device
        if device is not current_device():
            return None
        evaluate_all(inputs)
        memories = [place(t.node, device) for t in inputs]
        made = operations()
        for holding, share in self.parts:
            if not holding.stands(device) or not holding.only_ours(share, made):
                return None
        if [h.number for h in self.holdings] != self.numbers and not self._fit():
            return None
        for holding in self.holdings:
            memories += holding.memories
        memories += self.captured
        if self.steady.session is not None:
            more = self._made_once(memories)
            if more is None:
                return None  # Recording.run finds this, too
            memories += more
        for holding, share in self.written:
            holding.wrote(share)
        fresh = self._moving(memories) if self.moved else self._repeated(memories)
        if self.steady.session is not None:
            self.versions = [h.version for h in self.holdings]
        return [memories[n] if kind == "input" else fresh[n] for kind, n in self.results]

    def _repeated(self, memories: list[Any]) -> list[Any]:
        return self.session.repeat("main", memories, self.others, self.token)

    def _moving(self, memories: list[Any]) -> list[Any]:
        """As `_repeated`; state that is not written over follows what is, whatever interrupts."""
        with Uninterrupted():
            fresh = self._repeated(memories)
            for holding, n, (kind, at) in self.moved.values():
                holding.move(n, memories[at] if kind == "input" else fresh[at])
            self.numbers = [h.number for h in self.holdings]
        return fresh

    def _fit(self) -> bool:
        """Whether the state, which is other than in the last call, has the shapes and dtypes that were traced."""
        nodes = [node for holding in self.holdings for node in holding.nodes]
        if [n.shape for n in nodes] != self.shapes or [n.dtype for n in nodes] != self.dtypes:
            return False
        self.numbers, self.token = [h.number for h in self.holdings], next_serial()
        return True

    def _made_once(self, memories: list[Any]) -> list[Any] | None:
        """What is made of state that stays."""
        versions = [h.version for h in self.holdings]
        if versions == self.versions:
            self.steady.calls += 1
            return self.steady.made.memories
        self.token = next_serial()
        more = self.steady.inputs(memories)
        self.versions = versions  # not before: there may be no memory to make it in
        return more


def _shares(changed: list[int], holdings: list[Holding]) -> list[Share | None]:
    """The positions in each Holding of what is replaced, of numbers that go through all of them."""
    shares: list[Share | None] = []
    start = 0
    for holding in holdings:
        stop = start + len(holding.tensors)
        mine = [n - start for n in changed if start <= n < stop]
        shares.append(Share(mine) if mine else None)
        start = stop
    return shares


def _sources(built: "Built") -> list[Source]:
    """Where each result is after a call: in the memory of an input, or of an output that takes over none."""
    entry, buffers = built.program.entries[0], built.program.buffers
    places = {buffer: place for place, buffer in enumerate(entry.inputs)}
    aliases = [buffers[number].alias for number in entry.outputs]
    fresh = count()
    outputs: list[Source] = [("input", places[a]) if a >= 0 else ("fresh", next(fresh)) for a in aliases]
    return [("input", n) if kind == "input" else outputs[n] for kind, n in built.results]


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
