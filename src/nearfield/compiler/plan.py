"""Where values live: offsets in one arena by lifetime, and updates in place where the old value is dead."""

from bisect import insort
from dataclasses import dataclass, field
from functools import lru_cache
from math import prod

from ..dtype import DType
from ..graph.graph import Graph
from ..scalar import K, make, walk
from .kernel import Kernel, Store
from .lower import Lowered

__all__ = ["Plan", "plan", "room"]

ALIGN = 256  # WebGPU's minStorageBufferOffsetAlignment


@dataclass(slots=True)
class Plan:
    """The steps, writing in place where they may.

    once     how many of them, at the start, are run once: those of `prepare`
    lasting  lines that these make and the others read
    owner    line -> the line whose memory it takes over (an input, for an output that replaces it)
    offsets  bytes into the arena of each line that is neither input nor output nor lasting
    arena    bytes of the arena
    """

    steps: list[Lowered]
    once: int = 0
    lasting: set[int] = field(default_factory=set)
    owner: dict[int, int] = field(default_factory=dict)
    offsets: dict[int, int] = field(default_factory=dict)
    arena: int = 0


def room(shape: tuple[int, ...], dtype: DType) -> int:
    """Bytes reserved for a value, as in docs/spec/program.md."""
    return max(16, -(-prod(shape) * dtype.itemsize // 16) * 16)


class _Planner:
    def __init__(
        self, graph: Graph, once: list[Lowered], always: list[Lowered], givable: set[int], passing: set[int]
    ) -> None:
        self.graph, self.passing = graph, passing
        steps = once + always
        self.plan = Plan(steps, len(once), _made(once) & {line for step in always for line in step.lines})
        self.givable = set(givable)
        self.inputs = set(graph.inputs)
        self.outputs = set(graph.outputs)
        self.last = {line: at for at, step in enumerate(steps) for line in step.lines}

    def room(self, line: int) -> int:
        return room(self.graph.lines[line].shape, self.graph.lines[line].dtype)

    def root(self, line: int) -> int:
        """The line whose memory holds this one."""
        while line in self.plan.owner:
            line = self.plan.owner[line]
        return line

    def run(self) -> Plan:
        for at in range(len(self.plan.steps)):
            self.take_over(at)
        self.place()
        return self.plan

    def take_over(self, at: int) -> None:
        """Give each line that this step makes the memory of one that it is the last to read, if it reads just there."""
        step = self.plan.steps[at]
        merged: dict[int, int] = {}  # new argument -> old one
        for store in step.kernel.stores:
            new = store.argument
            for old, candidate in enumerate(step.lines):
                if (
                    old not in merged.values()
                    and self.last[candidate] == at
                    and self.fits(step, step.lines[new], candidate)
                ):
                    self.givable.discard(candidate)
                    self.plan.owner[step.lines[new]] = candidate
                    merged[new] = old
                    break
        if merged:
            self.plan.steps[at] = _merge(step, merged)

    def fits(self, step: Lowered, line: int, candidate: int) -> bool:
        made = {step.lines[s.argument] for s in step.kernel.stores}
        if candidate in made or self.room(line) != self.room(candidate):
            return False
        if candidate in self.plan.lasting or line in self.plan.lasting:
            return False
        if candidate in self.outputs or self.root(candidate) in self.outputs:
            return False
        from_input = self.root(candidate) in self.inputs
        if from_input != (line in self.outputs) or (from_input and candidate not in self.givable):
            return False
        return _pointwise(step.kernel, step.lines.index(candidate), step.lines.index(line))

    def place(self) -> None:
        """First fit, in order of first use, among blocks that live at the same time; passing lines share the start."""
        first: dict[int, int] = {}
        last: dict[int, int] = {}
        for at, step in enumerate(self.plan.steps):
            for line in step.lines:
                root = self.root(line)
                first.setdefault(root, at)
                last[root] = at
        placed: list[tuple[int, int, int]] = []  # offset, end, line
        for line, start in sorted(first.items(), key=lambda item: item[0] not in self.passing):
            if line in self.inputs or line in self.outputs or line in self.plan.lasting:
                continue
            size = -(-self.room(line) // ALIGN) * ALIGN
            offset = 0
            for begin, end, other in placed:
                if last[other] < start or first[other] > last[line]:
                    continue
                if offset + size <= begin:
                    break
                offset = max(offset, end)
            insort(placed, (offset, offset + size, line))
            self.plan.offsets[line] = offset
            self.plan.arena = max(self.plan.arena, offset + size)


def _made(steps: list[Lowered]) -> set[int]:
    return {step.lines[store.argument] for step in steps for store in step.kernel.stores}


def _pointwise(kernel: Kernel, old: int, new: int) -> bool:
    """Whether every load of `old` is of the very element that `new` gets at that point, and nothing else is."""
    store = next(s for s in kernel.stores if s.argument == new)
    if kernel.arguments[old] is not kernel.arguments[new] or store.index.free != frozenset(kernel.axes):
        return False
    return _loaded(kernel).get(old) == {(store.index,)}


@lru_cache(maxsize=1024)
def _loaded(kernel: Kernel) -> dict[int, set[tuple[K, ...]]]:
    """From where in each argument the kernel loads: the index, and the mask if there is one."""
    found: dict[int, set[tuple[K, ...]]] = {}
    for node in walk([s.value for s in kernel.stores]):
        if node.op == "load":
            found.setdefault(node.value, set()).add(node.args)
    return found


def _merge(lowered: Lowered, merged: dict[int, int]) -> Lowered:
    """The kernel with arguments replaced by others, new ones by old ones; the step names the new lines there."""
    made = {old: lowered.lines[new] for new, old in merged.items()}
    lines = tuple([made.get(n, line) for n, line in enumerate(lowered.lines) if n not in merged])
    return Lowered(_in_place(lowered.kernel, tuple(merged.items())), lines)


@lru_cache(maxsize=1024)
def _in_place(kernel: Kernel, merged: tuple[tuple[int, int], ...]) -> Kernel:
    left = [n for n in range(len(kernel.arguments)) if n not in dict(merged)]
    number = {n: at for at, n in enumerate(left)}
    number |= {new: number[old] for new, old in merged}
    renamed = iter(_renumbered([x for s in kernel.stores for x in (s.index, s.value)], number))
    stores = tuple([Store(number[s.argument], next(renamed), next(renamed)) for s in kernel.stores])
    return Kernel(kernel.name, kernel.axes, stores, tuple([kernel.arguments[n] for n in left]))


def _renumbered(roots: list[K], number: dict[int, int]) -> list[K]:
    """The expressions, loading from arguments of other numbers."""
    same: dict[K, K] = {}
    for node in walk(roots):
        args = tuple([same[a] for a in node.args])
        value = number[node.value] if node.op == "load" else node.value
        same[node] = make(node.op, node.type, args, value, node.low, node.high) if args else node
    return [same[root] for root in roots]


def _delayed(steps: list[Lowered], passing: set[int]) -> list[Lowered]:
    """The steps, those that make a line in `passing` right before the first that reads it: there is one at a time."""
    late = {line: step for step in steps for line in _made([step]) & passing}
    found = []
    for step in steps:
        if not _made([step]) <= passing:
            found += [late.pop(line) for line in step.lines if line in late]
            found.append(step)
    return found


def plan(graph: Graph, once: list[Lowered], always: list[Lowered], givable: set[int], passing: set[int]) -> Plan:
    """Lifetimes, in-place updates and arena offsets.

    once     steps that run before the first call only
    always   the steps of a call
    givable  inputs whose memory an output may take over
    passing  lines made of lasting ones that should take up memory only while they are read
    """
    return _Planner(graph, once, _delayed(always, passing), givable, passing).run()
